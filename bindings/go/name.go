// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

package mptcp

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"libmptcpapi/mptcp/internal/capi"
)

// DialByName connects to a host by its name ("host:port"), by MPTCP or TCP,
// on the network "tcp", "tcp4" or "tcp6". Where DialContext tries each address
// by MPTCP alone, and leaves it to the kernel to fall back to TCP, this one
// races MPTCP by TCP, after the head start TCPDelay: where something on the way
// swallows MPTCP's packets it costs that, and not three seconds, after which
// the kernel does without MPTCP for the whole host.
//
// The C library does it, with the system's resolver, after Happy Eyeballs
// version 2 (RFC 8305), FallbackDelay from one address to the next (250 ms
// unless set). Timeout, Deadline and the context bound the whole. Of a call that
// they end a thread is left, which ends the attempts in its turn, and closes what
// it got: at the deadline, or for want of one when the system gives up. KeepAlive,
// LocalAddrs and NoFallback are as in DialContext. Control and Resolver have no
// use here: EINVAL if they are set.
//
// Errors are *net.OpError with an *Error in it whose words name each attempt.
// ENOENT: no such name, or no address of the family. EAGAIN, EIO: the resolver
// fails, for now or for good. EINVAL: no such service. EADDRNOTAVAIL: LocalAddrs
// has an address that isn't this host's, or none that reaches the peer. EPERM,
// EACCES, EDQUOT, EIO: see Add. EOPNOTSUPP: plain TCP under NoFallback. Else the
// error of the best address.
func (d *Dialer) DialByName(ctx context.Context, network, address string) (net.Conn, error) {
	failed := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	how := capi.ByName{}
	switch network {
	case "tcp":
	case "tcp4":
		how.Family = syscall.AF_INET
	case "tcp6":
		how.Family = syscall.AF_INET6
	default:
		return failed(net.UnknownNetworkError(network))
	}
	if d.Control != nil || d.Resolver != nil {
		return failed(&Error{"connect", syscall.EINVAL, "DialByName has no use for Control and Resolver"})
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return failed(err)
	}
	if host == "" {
		host = "localhost" // as net.Dialer has it
	}
	if how.Local, err = pack("connect", d.LocalAddrs); err != nil {
		return failed(err)
	}
	how.LocalCount = len(d.LocalAddrs)
	how.NoFallback = d.NoFallback
	how.AttemptDelay = milliseconds(d.FallbackDelay)
	how.TCPDelay = milliseconds(d.TCPDelay)

	deadline := d.Deadline
	if d.Timeout != 0 {
		if t := time.Now().Add(d.Timeout); deadline.IsZero() || t.Before(deadline) {
			deadline = t
		}
	}
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}

	// The goroutine has the descriptor until it is taken over by one that is
	// still waiting.
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go func() {
		fd, err := byName(ctx, host, port, how)
		select {
		case done <- result{fd, err}:
		case <-ctx.Done():
			if err == nil {
				syscall.Close(fd)
			}
		}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return failed(r.err)
		}
		conn, err := d.conn(r.fd)
		if err != nil {
			return failed(err)
		}
		return conn, nil
	case <-ctx.Done():
		return failed(cause(ctx.Err()))
	}
}

// byName calls the C function until no signal interrupts it: the runtime sends
// them to its threads.
func byName(ctx context.Context, host, port string, how capi.ByName) (int, error) {
	for {
		if err := ctx.Err(); err != nil {
			return -1, cause(err)
		}
		if deadline, ok := ctx.Deadline(); ok {
			if how.Timeout = milliseconds(time.Until(deadline)); how.Timeout == 0 {
				return -1, cause(context.DeadlineExceeded)
			}
		}
		fd, f := capi.ConnectByName(host, port, &how)
		switch {
		case f == nil:
			return fd, nil
		case f.Errno == syscall.EINTR:
		default:
			return -1, wrap("connect", f)
		}
	}
}

// conn makes a connection of package net of a descriptor.
func (d *Dialer) conn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "mptcp")
	defer f.Close() // of which the connection has a duplicate
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	conn := c.(*net.TCPConn)
	if d.KeepAlive >= 0 {
		period := d.KeepAlive
		if period == 0 {
			period = 15 * time.Second // net.Dialer's
		}
		_ = conn.SetKeepAlive(true)
		_ = conn.SetKeepAlivePeriod(period)
	}
	return conn, nil
}

// cause gives a context's error as net.Dialer does.
func cause(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return os.ErrDeadlineExceeded
	}
	return err
}

// milliseconds gives a time as the C library takes it, where 0 is the default.
func milliseconds(t time.Duration) uint32 {
	const most = 1<<32 - 1
	switch ms := (t + time.Millisecond - 1) / time.Millisecond; {
	case t <= 0:
		return 0
	case ms > most:
		return most
	default:
		return uint32(ms)
	}
}
