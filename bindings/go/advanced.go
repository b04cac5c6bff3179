// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

package mptcp

import (
	"math"
	"net/netip"
	"syscall"
	"time"

	"libmptcpapi/mptcp/internal/capi"
)

// Profile is what a connection is for: which subflows it has and which of them
// are for backup.
type Profile int

const (
	// ProfileAggregate uses all paths at once. The default.
	ProfileAggregate Profile = capi.ProfileAggregate
	// ProfileInteractive uses the path with the lowest delay; the others
	// are for backup.
	ProfileInteractive Profile = capi.ProfileInteractive
	// ProfileHandover uses one path and has one warm spare.
	ProfileHandover Profile = capi.ProfileHandover
	// ProfileOverflow uses one path, and a second while that is full.
	ProfileOverflow Profile = capi.ProfileOverflow
)

// Traffic is what a connection will carry; 0: not known.
type Traffic struct {
	BytesToSend, BytesToReceive uint64
	Rate                        uint64        // bytes a second
	Duration                    time.Duration // counted in milliseconds, rounded up
}

// PathMode is when further subflows are made.
type PathMode int

const (
	PathsEager    PathMode = capi.PathsEager    // as soon as possible, the default
	PathsOnDemand PathMode = capi.PathsOnDemand // after some data or time
	PathsManual   PathMode = capi.PathsManual   // by OpenSubflow only
)

// PathPolicy says when further subflows are made. With PathsOnDemand: when the
// connection has carried AfterBytes in both directions together or has lasted
// for After, whichever comes first; 0: not by this; both 0: 1 MiB.
type PathPolicy struct {
	Mode       PathMode
	After      time.Duration // counted in milliseconds, rounded up
	AfterBytes uint64
}

// Redundancy is what is sent on more than one path.
type Redundancy int

const (
	RedundancyNone  Redundancy = capi.RedundancyNone  // nothing, the default
	RedundancySpare Redundancy = capi.RedundancySpare // what finds idle capacity
	RedundancyFull  Redundancy = capi.RedundancyFull  // everything
)

// MaxSubflows is how many subflows a connection may have, the first included.
func MaxSubflows(c syscall.Conn) (int, error) { return number("maxsubflows", c, capi.OptMaxSubflows) }

// SetMaxSubflows sets it: 1 to 255, or 0 for the default. Raised, subflows are
// made that the list asks for; lowered, the least useful are closed, never the
// last.
//
// Like the other Set functions it works before the connection (see Raw), on it,
// and on a listener for what that accepts from then on. EPERM: nobody may act
// for this process. EOPNOTSUPP: plain TCP, a connection that the in-kernel path
// manager has, or a broker that is too old. ENOTCONN: the connection has ended.
// EINVAL: no such value. EACCES, EDQUOT: the broker's policy. EIO: the broker
// went away. What is in force already can always be set.
func SetMaxSubflows(c syscall.Conn, n int) error {
	return setNumber("maxsubflows", c, capi.OptMaxSubflows, n)
}

// ProfileOf is what a connection is for.
func ProfileOf(c syscall.Conn) (Profile, error) {
	n, err := number("profile", c, capi.OptProfile)
	return Profile(n), err
}

// SetProfile says what a connection is for. Errors as SetMaxSubflows.
func SetProfile(c syscall.Conn, p Profile) error {
	return setNumber("profile", c, capi.OptProfile, int(p))
}

// RedundancyOf is what a connection sends on more than one path.
func RedundancyOf(c syscall.Conn) (Redundancy, error) {
	n, err := number("redundancy", c, capi.OptRedundancy)
	return Redundancy(n), err
}

// SetRedundancy says what is to be sent on more than one path. It takes a packet
// scheduler that Linux itself doesn't have: EOPNOTSUPP where there is none, as
// CapRedundancy tells. Else as SetMaxSubflows.
func SetRedundancy(c syscall.Conn, r Redundancy) error {
	return setNumber("redundancy", c, capi.OptRedundancy, int(r))
}

// FateSharing is whether a connection ends with its first subflow.
func FateSharing(c syscall.Conn) (bool, error) {
	n, err := number("fatesharing", c, capi.OptFateSharing)
	return n != 0, err
}

// SetFateSharing says whether a connection ends with its first subflow; the
// default is the administrator's. ENOENT: that one is gone already. Else as
// SetMaxSubflows.
func SetFateSharing(c syscall.Conn, on bool) error {
	n := 0
	if on {
		n = 1
	}
	return setNumber("fatesharing", c, capi.OptFateSharing, n)
}

// TrafficOf is what was said of a connection's traffic.
func TrafficOf(c syscall.Conn) (Traffic, error) {
	var t capi.Traffic
	err := control("traffic", c, func(fd int) (f *capi.Failure) {
		t, f = capi.GetTraffic(fd)
		return f
	})
	if err != nil {
		return Traffic{}, err
	}
	return Traffic{t.BytesToSend, t.BytesToReceive, t.Rate, ms(t.Duration)}, nil
}

// SetTraffic says what a connection will carry. One of less than 1 MiB gets no
// further subflows, unless it carries that much after all. Errors as
// SetMaxSubflows.
func SetTraffic(c syscall.Conn, t Traffic) error {
	duration, err := exactMilliseconds("traffic", t.Duration)
	if err != nil {
		return err
	}
	return control("traffic", c, func(fd int) *capi.Failure {
		return capi.SetTraffic(fd, capi.Traffic{
			BytesToSend:    t.BytesToSend,
			BytesToReceive: t.BytesToReceive,
			Rate:           t.Rate,
			Duration:       duration,
		})
	})
}

// PathPolicyOf is when further subflows are made.
func PathPolicyOf(c syscall.Conn) (PathPolicy, error) {
	var p capi.PathPolicy
	err := control("pathpolicy", c, func(fd int) (f *capi.Failure) {
		p, f = capi.GetPathPolicy(fd)
		return f
	})
	if err != nil {
		return PathPolicy{}, err
	}
	return PathPolicy{PathMode(p.Mode), ms(p.After), p.AfterBytes}, nil
}

// SetPathPolicy says when further subflows are made. Errors as SetMaxSubflows.
func SetPathPolicy(c syscall.Conn, p PathPolicy) error {
	after, err := exactMilliseconds("pathpolicy", p.After)
	if err != nil {
		return err
	}
	return control("pathpolicy", c, func(fd int) *capi.Failure {
		return capi.SetPathPolicy(fd, capi.PathPolicy{
			Mode:       uint32(p.Mode),
			After:      after,
			AfterBytes: p.AfterBytes,
		})
	})
}

// OpenSubflow opens a subflow of a connection, once. The zero local is any
// address of the list, the zero remote is where the first subflow leads; port 0
// is any port, and the first subflow's. backup: for backup only.
//
// nil means accepted: it is made as soon as the connection is fully established,
// and what became of it is an event, EventSubflowUp or EventRequestFailed.
//
// ENOTCONN: not connected. EADDRNOTAVAIL: local is not on the list, or not of
// this host. EAFNOSUPPORT: unlike families. ENOSPC: there are as many as there
// may be. EINVAL: a wildcard, a link-local address without zone. Else as
// SetMaxSubflows.
func OpenSubflow(c syscall.Conn, local, remote netip.AddrPort, backup bool) error {
	here, err := packOne("opensubflow", local)
	if err != nil {
		return err
	}
	there, err := packOne("opensubflow", remote)
	if err != nil {
		return err
	}
	flags := 0
	if backup {
		flags = capi.OpenBackup
	}
	return control("opensubflow", c, func(fd int) *capi.Failure {
		return capi.OpenSubflow(fd, here, there, flags)
	})
}

// CloseSubflow closes a subflow, the last one too; it isn't opened again by
// itself. It is known by its addresses and ports, and by its ID where that isn't
// 0. This works where the in-kernel path manager has the connection, too.
//
// ENOENT: no such subflow, or no more. ENOTCONN: not connected. EPERM: nobody
// may act for this process.
func CloseSubflow(c syscall.Conn, s Subflow) error {
	return onSubflow("closesubflow", c, s, capi.CloseSubflow)
}

// SetBackup makes a subflow one for backup, or not: both ends then use it only
// when no other works. Errors as CloseSubflow; EOPNOTSUPP: the in-kernel path
// manager has the connection.
func SetBackup(c syscall.Conn, s Subflow, on bool) error {
	return onSubflow("setbackup", c, s, func(fd int, local, remote []byte, id uint32) *capi.Failure {
		return capi.SetBackup(fd, local, remote, id, on)
	})
}

func onSubflow(op string, c syscall.Conn, s Subflow, f func(fd int, local, remote []byte, id uint32) *capi.Failure) error {
	local, err := pack(op, []netip.AddrPort{s.Local})
	if err != nil {
		return err
	}
	remote, err := pack(op, []netip.AddrPort{s.Remote})
	if err != nil {
		return err
	}
	return control(op, c, func(fd int) *capi.Failure { return f(fd, local, remote, s.ID) })
}

// packOne packs an address, the zero one as nothing.
func packOne(op string, a netip.AddrPort) ([]byte, error) {
	if a == (netip.AddrPort{}) {
		return nil, nil
	}
	return pack(op, []netip.AddrPort{a})
}

func number(op string, c syscall.Conn, option int) (n int, err error) {
	err = control(op, c, func(fd int) (f *capi.Failure) {
		n, f = capi.GetInt(fd, option)
		return f
	})
	return n, err
}

func setNumber(op string, c syscall.Conn, option, n int) error {
	if n < math.MinInt32 || n > math.MaxInt32 {
		return &Error{op, syscall.EINVAL, "the value is out of range"}
	}
	return control(op, c, func(fd int) *capi.Failure { return capi.SetInt(fd, option, n) })
}

// exactMilliseconds is a time as the C library counts it.
func exactMilliseconds(op string, d time.Duration) (uint32, error) {
	n := (d + time.Millisecond - 1) / time.Millisecond
	if d < 0 || n > math.MaxUint32 {
		return 0, &Error{op, syscall.EINVAL, "the time is out of range"}
	}
	return uint32(n), nil
}
