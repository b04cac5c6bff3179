// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

package mptcp

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"libmptcpapi/mptcp/internal/capi"
)

// A Dialer makes MPTCP connections in the manner of net.Dialer, whose fields
// of the same name it has; the zero value is one without options. A peer or a
// path that has no MPTCP gives a plain TCP connection, unless NoFallback is
// set. It is safe to call its methods concurrently.
//
// Each address that the name of the host has is a host of its own, tried in
// turn as net.Dialer does: with Happy Eyeballs between the families, with the
// timeout spread over them. DialByName also races MPTCP by TCP.
type Dialer struct {
	// Timeout and Deadline bound the whole of a dial; so does the context.
	Timeout  time.Duration
	Deadline time.Time

	// LocalAddrs are the addresses that the connection may use, and no
	// others, from the first packet on: see Add. The first subflow starts
	// from the one that routes to the peer; the others get subflows once
	// data went to and fro. A connection to an IPv4 address uses the IPv4
	// addresses only, one to an IPv6 address both. Empty: the system
	// chooses.
	//
	// Needs the broker or CAP_NET_ADMIN: EPERM else. On a host without any
	// MPTCP the connection is plain TCP from one of these addresses.
	LocalAddrs []netip.AddrPort

	// NoFallback fails with EOPNOTSUPP rather than return plain TCP. A
	// connection can fall back later still: Enabled tells.
	NoFallback bool

	// TCPDelay is the head start that MPTCP has in DialByName over TCP, 150 ms
	// unless set.
	TCPDelay time.Duration

	// FallbackDelay, KeepAlive and Resolver are as in net.Dialer.
	FallbackDelay time.Duration
	KeepAlive     time.Duration
	Resolver      *net.Resolver

	// Control, if not nil, is called as in net.Dialer: with the socket that
	// will connect, which is an MPTCP socket already and has its list.
	// It may bind it, set options, and call this package's functions on
	// Raw(c), such as Add with flags.
	Control func(network, address string, c syscall.RawConn) error
}

// Dial is DialContext without a context.
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext connects to an address on the network "tcp", "tcp4" or "tcp6".
// The connection is a *net.TCPConn. Errors are those of net.Dialer, plus an
// *Error within the *net.OpError where MPTCP is the matter.
//
// EADDRNOTAVAIL: LocalAddrs has an address that isn't this host's, or none of
// the peer's family. EADDRINUSE: a port in it is taken. EPERM, EACCES, EDQUOT,
// EIO: see Add. EOPNOTSUPP: plain TCP under NoFallback.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, &net.OpError{Op: "dial", Net: network, Err: net.UnknownNetworkError(network)}
	}
	inner := net.Dialer{
		Timeout:       d.Timeout,
		Deadline:      d.Deadline,
		FallbackDelay: d.FallbackDelay,
		KeepAlive:     d.KeepAlive,
		Resolver:      d.Resolver,
		Control:       d.control,
	}
	conn, err := inner.DialContext(ctx, d.narrow(network, address), address)
	if err != nil {
		return nil, err
	}
	if d.NoFallback {
		if err := isMPTCP(conn.(*net.TCPConn)); err != nil {
			conn.Close()
			return nil, &net.OpError{Op: "dial", Net: network, Source: conn.LocalAddr(), Addr: conn.RemoteAddr(), Err: err}
		}
	}
	return conn, nil
}

func isMPTCP(c *net.TCPConn) error {
	on, err := Enabled(c)
	if err == nil && !on {
		err = &Error{"connect", syscall.EOPNOTSUPP, "the peer or the path has no MPTCP: the connection would be plain TCP"}
	}
	return err
}

// narrow leaves out those addresses of a name that no address on the list can
// reach, so that the error is about the others. An address written as such is
// left to fail for what it is.
func (d *Dialer) narrow(network, address string) string {
	if network != "tcp" || len(d.LocalAddrs) == 0 {
		return network
	}
	if _, err := netip.ParseAddrPort(address); err == nil {
		return network
	}
	switch v4, v6 := families(d.LocalAddrs); {
	case !v6:
		return "tcp4"
	case !v4:
		return "tcp6"
	}
	return network
}

// control is net.Dialer's hook between socket(2) and connect(2). Here the
// socket isn't registered with the poller, so it may be replaced.
//
// It also starts the connection, by mptcp_connectx: that one binds to the right
// address, whatever the routes are. The socket is non-blocking, so connect(2),
// which net.Dialer calls next, finds a connection under way, or made, or
// refused, and net.Dialer goes on to wait for it as for any other, with its
// context and its deadline.
func (d *Dialer) control(network, address string, c syscall.RawConn) error {
	peer, err := netip.ParseAddrPort(address)
	if err != nil {
		return &Error{"connect", syscall.EINVAL, err.Error()}
	}
	on, err := enable(c, d.NoFallback)
	if err != nil {
		return err
	}
	if len(d.LocalAddrs) > 0 {
		list := d.LocalAddrs
		if network == "tcp4" {
			list = only4(list)
		}
		if len(list) == 0 {
			return &Error{"add", syscall.EADDRNOTAVAIL, "the list has no IPv4 address, and " + address + " is one"}
		}
		if on {
			err = Add(Raw(c), list, 0)
		} else {
			err = bindOne(c, list, peer)
		}
		if err != nil {
			return err
		}
	}
	if d.Control != nil {
		if err := d.Control(network, address, c); err != nil {
			return err
		}
	}
	if !on {
		return nil
	}
	to, err := pack("connect", []netip.AddrPort{peer})
	if err != nil {
		return err
	}
	return raw("connect", c, func(fd int) *capi.Failure {
		_, f := capi.Connectx(fd, to, 1)
		if f != nil && (f.Errno == syscall.EINPROGRESS || f.Errno == syscall.EINTR) {
			return nil
		}
		return f
	})
}

// bindOne binds a plain TCP socket to the address on the list that routes to
// the peer: without MPTCP there is one only.
func bindOne(c syscall.RawConn, list []netip.AddrPort, peer netip.AddrPort) error {
	for _, a := range list {
		if a.Addr().Unmap().Is4() != peer.Addr().Unmap().Is4() || !routes(a, peer) {
			continue
		}
		sa, err := sockaddr("bind", a)
		if err != nil {
			return err
		}
		var bound error
		err = c.Control(func(fd uintptr) {
			const ipBindAddressNoPort = 24
			if a.Port() == 0 {
				// The port comes with the connection, as it would unbound.
				_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
			}
			bound = syscall.Bind(int(fd), sa)
		})
		if err != nil {
			return err
		}
		return os.NewSyscallError("bind", bound)
	}
	return &Error{"bind", syscall.EADDRNOTAVAIL, "no address on the list routes to " + peer.String()}
}

// routes reports whether a packet to peer can leave from local. Connecting a
// UDP socket asks the routing table and sends nothing.
func routes(local, peer netip.AddrPort) bool {
	from, err := sockaddr("bind", netip.AddrPortFrom(local.Addr(), 0))
	if err != nil {
		return false
	}
	to, err := sockaddr("bind", peer)
	if err != nil {
		return false
	}
	family := syscall.AF_INET
	if !local.Addr().Unmap().Is4() {
		family = syscall.AF_INET6
	}
	fd, err := syscall.Socket(family, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	return syscall.Bind(fd, from) == nil && syscall.Connect(fd, to) == nil
}

// sockaddr is an address as package syscall takes it.
func sockaddr(op string, a netip.AddrPort) (syscall.Sockaddr, error) {
	ip := a.Addr().Unmap()
	if ip.Is4() {
		return &syscall.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}, nil
	}
	scope, ok := scopeID(ip.Zone())
	if !ip.IsValid() || !ok {
		return nil, &Error{op, syscall.EINVAL, "not an address: " + a.String()}
	}
	return &syscall.SockaddrInet6{Port: int(a.Port()), ZoneId: scope, Addr: ip.As16()}, nil
}
