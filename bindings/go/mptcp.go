// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

// Package mptcp is the application interface of RFC 6897 to Multipath TCP on
// Linux: which addresses a connection may use, which subflows it has.
//
// A [Dialer] and a [ListenConfig] make connections in the manner of package
// net. What they return are a *net.TCPConn and a *net.TCPListener as any other:
// the runtime's poller, deadlines, io.Copy and everything built on them work.
// The functions take such a connection, or whatever else is a [syscall.Conn],
// and look at it or steer it:
//
//	d := mptcp.Dialer{LocalAddrs: []netip.AddrPort{wifi, cellular}}
//	conn, err := d.DialContext(ctx, "tcp", "example.org:443")
//	...
//	subflows, err := mptcp.Subflows(conn.(*net.TCPConn))
//
// [Enabled], [Subflows], [Stats], [ConnID] and [Capabilities] need no privilege.
// [Add], [Remove] and lists of addresses need somebody who may act: the broker
// (mptcpapid), or CAP_NET_ADMIN in this process. Without either they fail with
// EPERM, and [Capabilities] says in words what is missing.
//
// Where the process acts itself (the direct backend), further subflows are
// made, and a list is enforced, in the course of later calls of this package on
// any connection: call Subflows now and then, or wait for events (Subscribe), which
// does it at once. With the broker nothing is needed.
//
// No function waits for the network, as Go's sockets are non-blocking; a round
// trip to the broker may take a second at most. All may be called from any
// goroutine, on the same connection too.
package mptcp

import (
	"net/netip"
	"syscall"

	"libmptcpapi/mptcp/internal/capi"
)

// Error is a failed call. It unwraps to its errno, so that
//
//	errors.Is(err, syscall.EPERM)
//
// works; errors of Dialer and ListenConfig carry it within a *net.OpError.
type Error struct {
	Op    string        // "enable", "add", ...
	Errno syscall.Errno // what
	Words string        // why, in a sentence; may be empty
}

func (e *Error) Error() string {
	s := "mptcp " + e.Op + ": " + e.Errno.Error()
	if e.Words != "" {
		s += ": " + e.Words
	}
	return s
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// Timeout reports whether the errno is one of a timeout, as net.Error has it.
func (e *Error) Timeout() bool { return e.Errno.Timeout() }

// Temporary is what syscall.Errno says of the errno.
func (e *Error) Temporary() bool { return e.Errno.Temporary() }

// wrap gives a failure the name of its operation. No failure is a nil error.
func wrap(op string, f *capi.Failure) error {
	if f == nil {
		return nil
	}
	return &Error{op, f.Errno, f.Words}
}

// raw runs f on the descriptor behind c, which stays open meanwhile.
func raw(op string, c syscall.RawConn, f func(fd int) *capi.Failure) error {
	var fail *capi.Failure
	if err := c.Control(func(fd uintptr) { fail = f(int(fd)) }); err != nil {
		return err // closed: a *net.OpError with net.ErrClosed
	}
	return wrap(op, fail)
}

func control(op string, c syscall.Conn, f func(fd int) *capi.Failure) error {
	if c == nil {
		return &Error{op, syscall.EINVAL, "no connection was given"}
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw(op, rc, f)
}

// Raw makes a syscall.Conn of what net.Dialer and net.ListenConfig, and those
// of this package, hand to a Control function, so that the functions here can
// be called on a socket before it connects or listens.
func Raw(c syscall.RawConn) syscall.Conn { return rawConn{c} }

type rawConn struct{ c syscall.RawConn }

func (r rawConn) SyscallConn() (syscall.RawConn, error) { return r.c, nil }

// Control is a Control function for net.Dialer and net.ListenConfig, for code
// that takes one of these: it makes each TCP socket an MPTCP socket where the
// kernel has MPTCP, and leaves it plain TCP where not.
func Control(network, address string, c syscall.RawConn) error {
	switch network {
	case "tcp", "tcp4", "tcp6":
		_, err := enable(c, false)
		return err
	}
	return nil
}

// enable makes the socket an MPTCP socket and tells whether it is one now.
// Where there is no MPTCP it stays as it is, unless it must be one.
func enable(c syscall.RawConn, must bool) (bool, error) {
	err := raw("enable", c, func(fd int) *capi.Failure { return capi.SetEnable(fd, true) })
	if e, ok := err.(*Error); ok && e.Errno == syscall.EOPNOTSUPP && !must {
		return false, nil
	}
	return err == nil, err
}

// Enable chooses between MPTCP (on) and plain TCP for a socket that is not yet
// connected nor listening: call it from a Control function, on Raw(c), which is
// before the runtime's poller learns of the socket. A Dialer and a ListenConfig
// of this package do it by themselves. Options and the bound address are kept.
//
// A socket bound to an address is restricted to it from then on, where
// somebody may do so. EISCONN: too late. EOPNOTSUPP: no MPTCP here; the socket
// stays usable TCP.
func Enable(c syscall.Conn, on bool) error {
	return control("enable", c, func(fd int) *capi.Failure { return capi.SetEnable(fd, on) })
}

// Enabled reports, on a connection, whether it is MPTCP now: false after it
// fell back to plain TCP, which can happen later than Dial too, so ask when you
// want to know. Before a connection it is what was asked for.
func Enabled(c syscall.Conn) (on bool, err error) {
	err = control("enabled", c, func(fd int) (f *capi.Failure) {
		on, f = capi.Enable(fd)
		return f
	})
	return on, err
}

// AddFlags say how Add's addresses are to be used.
type AddFlags uint32

const (
	// AddBackup makes subflows from these addresses carry data only when
	// no other subflow can.
	AddBackup AddFlags = capi.BindxBackup
	// AddNoAdvertise uses the addresses, but never tells the peer.
	AddNoAdvertise AddFlags = capi.BindxNoAdvertise
	// AddNoSubflow tells the peer, but opens no subflow from here.
	AddNoSubflow AddFlags = capi.BindxNoSubflow
)

// Add puts local addresses on the connection's list. Before it connects or
// listens (see Raw) the list means these addresses and no others; on a live
// connection: use and announce these too. On a listener the list holds for the
// connections accepted from then on.
//
// Port 0 is any port; a port given is used. IPv6 link-local addresses need
// their zone, by name or index. At most 64 addresses. All or nothing: where one
// can't be added, none is. Adding an address again is no error, and changes its
// flags.
//
// EADDRNOTAVAIL: not an address of this host. EADDRINUSE: the port is taken.
// EAFNOSUPPORT: IPv6 on an IPv4 socket. EPERM: nobody may act for this process.
// EACCES, EDQUOT: the broker's policy. EOPNOTSUPP: plain TCP, or a connection
// that the in-kernel path manager has. ENOSPC: over 64 in all, or the
// protocol's limit. EINVAL: an empty list, a wildcard, a link-local address
// without zone, flags that contradict each other. EIO: the broker went away in
// the middle; calling again is safe.
func Add(c syscall.Conn, addrs []netip.AddrPort, flags AddFlags) error {
	b, err := pack("add", addrs)
	if err != nil {
		return err
	}
	return control("add", c, func(fd int) *capi.Failure {
		return capi.Bindx(fd, b, len(addrs), capi.BindxAddAddr|int(flags))
	})
}

// Remove takes addresses off the list, or, without a list, excludes them until
// they are added again. On a live connection the peer is told and their
// subflows are closed. Port 0 names every port of an address.
//
// Removing the last address before the socket connects lifts the restriction;
// on a connection it leaves it without subflows. EADDRNOTAVAIL: neither on the
// list nor in use. Else as Add.
func Remove(c syscall.Conn, addrs []netip.AddrPort) error {
	b, err := pack("remove", addrs)
	if err != nil {
		return err
	}
	return control("remove", c, func(fd int) *capi.Failure {
		return capi.Bindx(fd, b, len(addrs), capi.BindxRemAddr)
	})
}

// SubflowFlags are the properties of a subflow.
type SubflowFlags uint32

const (
	SubflowInitial    SubflowFlags = capi.SubflowInitial    // the connection's first
	SubflowFallback   SubflowFlags = capi.SubflowFallback   // plain TCP: this is all there is
	SubflowPrioKnown  SubflowFlags = capi.SubflowPrioKnown  // the next two were looked up
	SubflowBackup     SubflowFlags = capi.SubflowBackup     // backup, as we asked
	SubflowPeerBackup SubflowFlags = capi.SubflowPeerBackup // backup, as the peer asked
)

// Subflow is one of the TCP connections that a connection consists of.
type Subflow struct {
	Local, Remote netip.AddrPort // of one family
	ID            uint32         // the kernel's, never reused in a connection; 0: not known
	Flags         SubflowFlags
}

// Subflows lists the established subflows, oldest first: one consistent
// snapshot, empty when none is up just now. A plain TCP connection shows its
// one pair of addresses with SubflowFallback.
//
// ENOTCONN: not connected. EOPNOTSUPP: Linux before 5.16 without inet_diag.
func Subflows(c syscall.Conn) ([]Subflow, error) {
	var list []capi.Subflow
	err := control("subflows", c, func(fd int) (f *capi.Failure) {
		list, f = capi.Subflows(fd)
		return f
	})
	if err != nil {
		return nil, err
	}
	subflows := make([]Subflow, len(list))
	for i := range list {
		subflows[i] = newSubflow(&list[i])
	}
	return subflows, nil
}

func newSubflow(s *capi.Subflow) Subflow {
	local, _ := unpack(s.Local[:])
	remote, _ := unpack(s.Remote[:])
	return Subflow{Local: local, Remote: remote, ID: s.ID, Flags: SubflowFlags(s.Flags)}
}

// ConnID is a number for the connection, unique among this host's live MPTCP
// connections and never 0.
//
// ENOTCONN: not connected. EOPNOTSUPP: plain TCP.
func ConnID(c syscall.Conn) (id uint32, err error) {
	err = control("connid", c, func(fd int) (f *capi.Failure) {
		id, f = capi.ConnID(fd)
		return f
	})
	return id, err
}

// LocalAddrs is the list of local addresses, empty when all of it was removed.
// Without a list it is the address bound before a connection, and on one the
// distinct local addresses of its subflows.
func LocalAddrs(c syscall.Conn) ([]netip.AddrPort, error) {
	var b []byte
	err := control("laddrs", c, func(fd int) (f *capi.Failure) {
		b, f = capi.LocalAddrs(fd)
		return f
	})
	return unpackAll(b), err
}

// PeerAddrs are the distinct remote addresses of the subflows, then those that
// the peer announced, as far as they are known.
//
// ENOTCONN: not connected.
func PeerAddrs(c syscall.Conn) ([]netip.AddrPort, error) {
	var b []byte
	err := control("paddrs", c, func(fd int) (f *capi.Failure) {
		b, f = capi.PeerAddrs(fd)
		return f
	})
	return unpackAll(b), err
}

// Version is that of the library loaded, as "0.1.0".
func Version() string { return capi.Version() }
