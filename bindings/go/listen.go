// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

package mptcp

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// A ListenConfig makes MPTCP listeners in the manner of net.ListenConfig, whose
// fields of the same name it has. Clients without MPTCP get plain TCP: Enabled
// on the connection accepted tells.
type ListenConfig struct {
	// LocalAddrs are the addresses that the connections accepted may use,
	// beside the one that is listened on: see Add. Each is announced to
	// the peer, and listened on where needed. Empty: the system chooses.
	//
	// Needs the broker or CAP_NET_ADMIN (EPERM else), and a network
	// namespace whose accepted connections can be controlled: EOPNOTSUPP
	// where the in-kernel path manager has them.
	LocalAddrs []netip.AddrPort

	// NoFallback fails with EOPNOTSUPP where the kernel has no MPTCP,
	// rather than listen with plain TCP.
	NoFallback bool

	// KeepAlive is as in net.ListenConfig.
	KeepAlive time.Duration

	// Control, if not nil, is called as in net.ListenConfig: with the
	// socket that will listen, which is an MPTCP socket already.
	Control func(network, address string, c syscall.RawConn) error
}

// Listen listens on a local address of the network "tcp", "tcp4" or "tcp6".
// Errors are those of net.ListenConfig, plus an *Error within the *net.OpError
// where MPTCP is the matter: see LocalAddrs, NoFallback and Add.
func (lc *ListenConfig) Listen(ctx context.Context, network, address string) (*net.TCPListener, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, &net.OpError{Op: "listen", Net: network, Err: net.UnknownNetworkError(network)}
	}
	inner := net.ListenConfig{KeepAlive: lc.KeepAlive, Control: lc.control}
	ln, err := inner.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l := ln.(*net.TCPListener)
	if len(lc.LocalAddrs) > 0 {
		// Once more, now that the library can see that it is a listener:
		// so that what can't be done for one is an error here.
		if err := Add(l, lc.LocalAddrs, 0); err != nil {
			l.Close()
			return nil, &net.OpError{Op: "listen", Net: network, Addr: l.Addr(), Err: err}
		}
	}
	return l, nil
}

// control is net.ListenConfig's hook between socket(2) and bind(2).
func (lc *ListenConfig) control(network, address string, c syscall.RawConn) error {
	if _, err := enable(c, lc.NoFallback); err != nil {
		return err
	}
	if len(lc.LocalAddrs) > 0 {
		// Before the first connection can come.
		if err := Add(Raw(c), lc.LocalAddrs, 0); err != nil {
			return err
		}
	}
	if lc.Control != nil {
		return lc.Control(network, address, c)
	}
	return nil
}
