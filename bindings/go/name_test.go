// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

package mptcp_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"libmptcpapi/mptcp"
)

func byName(t *testing.T, d *mptcp.Dialer, network, address string) *net.TCPConn {
	t.Helper()
	d.Timeout = patience
	c, err := d.DialByName(context.Background(), network, address)
	if err != nil {
		t.Fatalf("dial %s %s: %v", network, address, err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func TestAnyByName(t *testing.T) {
	lab(t, "any")
	for _, c := range []struct{ network, address string }{
		{"tcp", "10.9.0.1:0"}, {"tcp4", "10.9.0.1:0"}, {"tcp", "[fd09::1]:0"}, {"tcp6", "[fd09::1]:0"},
	} {
		address, _ := serve(t, c.network, c.address)
		conn := byName(t, &mptcp.Dialer{}, c.network, address)
		mustExchange(t, conn, 100_000)
		if on, err := mptcp.Enabled(conn); err != nil || !on {
			t.Errorf("%v: %v %v", c, on, err)
		}
		if conn.RemoteAddr().String() != address {
			t.Errorf("%v: connected to %v", c, conn.RemoteAddr())
		}
	}

	// localhost, by the system's resolver.
	address, _ := serve(t, "tcp", "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(address)
	mustExchange(t, byName(t, &mptcp.Dialer{}, "tcp4", "localhost:"+port), 1000)
	mustExchange(t, byName(t, &mptcp.Dialer{}, "tcp4", ":"+port), 1000)

	// A peer without MPTCP.
	plain := servePlain(t, "tcp", "10.9.0.1:0")
	conn := byName(t, &mptcp.Dialer{}, "tcp", plain)
	mustExchange(t, conn, 1000)
	if on, err := mptcp.Enabled(conn); err != nil || on {
		t.Errorf("plain peer: %v %v", on, err)
	}
	_, err := (&mptcp.Dialer{NoFallback: true}).DialByName(context.Background(), "tcp", plain)
	isErrno(t, "NoFallback", err, syscall.EOPNOTSUPP)
	isOpError(t, "NoFallback", err)
}

func TestAnyByNameRefused(t *testing.T) {
	lab(t, "any")
	try := func(d mptcp.Dialer, network, address string) error {
		t.Helper()
		d.Timeout = patience
		c, err := d.DialByName(context.Background(), network, address)
		if err == nil {
			c.Close()
			t.Errorf("%s %s: connected", network, address)
		} else {
			isOpError(t, address, err)
		}
		return err
	}
	l, err := net.Listen("tcp", "10.9.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	err = try(mptcp.Dialer{}, "tcp", address)
	isErrno(t, "nobody listens", err, syscall.ECONNREFUSED)
	var e *mptcp.Error
	if !errors.As(err, &e) || e.Words != "10.9.0.1: "+address+" MPTCP, TCP: Connection refused" {
		t.Errorf("the words: %v", err)
	}
	isErrno(t, "another family", try(mptcp.Dialer{}, "tcp6", address), syscall.ENOENT)
	isErrno(t, "no service", try(mptcp.Dialer{}, "tcp", "10.9.0.1:no-such-service"), syscall.EINVAL)
	isErrno(t, "a NUL", try(mptcp.Dialer{}, "tcp", "a\x00b:80"), syscall.EINVAL)
	isErrno(t, "Resolver", try(mptcp.Dialer{Resolver: net.DefaultResolver}, "tcp", address), syscall.EINVAL)
	control := func(string, string, syscall.RawConn) error { return nil }
	isErrno(t, "Control", try(mptcp.Dialer{Control: control}, "tcp", address), syscall.EINVAL)
	isErrno(t, "no address", try(mptcp.Dialer{LocalAddrs: make([]netip.AddrPort, 1)}, "tcp", address), syscall.EINVAL)
	isErrno(t, "multicast", try(mptcp.Dialer{LocalAddrs: addrs("224.0.0.1")}, "tcp", address), syscall.EADDRNOTAVAIL)
	isErrno(t, "no path", try(mptcp.Dialer{LocalAddrs: addrs("fd01::1")}, "tcp", address), syscall.EADDRNOTAVAIL)
	var unknown net.UnknownNetworkError
	if err := try(mptcp.Dialer{}, "udp", address); !errors.As(err, &unknown) {
		t.Errorf("udp: %v", err)
	}
	if err := try(mptcp.Dialer{}, "tcp", "10.9.0.1"); err == nil {
		t.Error("no port is no error")
	}
}

func TestAnyByNameCancel(t *testing.T) {
	lab(t, "any")
	address := full(t)
	check := leaks(t)
	inTime := func(what string, begin time.Time, err error, timeout bool) {
		t.Helper()
		if took := time.Since(begin); took > patience/2 {
			t.Errorf("%s: took %v", what, took)
		}
		var ne net.Error
		if err == nil || timeout && (!errors.As(err, &ne) || !ne.Timeout()) {
			t.Errorf("%s: %v", what, err)
		}
		isOpError(t, what, err)
	}
	begin := time.Now()
	_, err := (&mptcp.Dialer{Timeout: 200 * time.Millisecond}).DialByName(context.Background(), "tcp", address)
	inTime("Timeout", begin, err, true)
	begin = time.Now()
	_, err = (&mptcp.Dialer{Deadline: begin.Add(200 * time.Millisecond)}).DialByName(context.Background(), "tcp", address)
	inTime("Deadline", begin, err, true)
	begin = time.Now()
	_, err = (&mptcp.Dialer{Timeout: -1}).DialByName(context.Background(), "tcp", address)
	inTime("a timeout that is over", begin, err, true)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a timeout that is over: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	begin = time.Now()
	// The thread that is left ends at the deadline.
	_, err = (&mptcp.Dialer{Timeout: time.Second}).DialByName(ctx, "tcp", address)
	inTime("cancel", begin, err, false)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancel: %v", err)
	}

	// At any moment, with somebody who answers: nothing is left open.
	l, err := (&mptcp.ListenConfig{}).Listen(context.Background(), "tcp", "10.9.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	var wg sync.WaitGroup
	for i := 0; i < 50; i++ {
		wg.Add(1)
		go func(after time.Duration) {
			defer wg.Done()
			ctx, cancel := context.WithTimeout(context.Background(), after)
			defer cancel()
			if c, err := (&mptcp.Dialer{}).DialByName(ctx, "tcp", l.Addr().String()); err == nil {
				c.Close()
			}
		}(time.Duration(i) * 100 * time.Microsecond)
	}
	wg.Wait()
	l.Close()
	check()
}

func testByNameList(t *testing.T) {
	address, _ := serve(t, "tcp", "10.9.0.1:0")
	list := addrs("10.1.0.1", "10.2.0.1")
	conn := byName(t, &mptcp.Dialer{LocalAddrs: list}, "tcp", address)
	await(t, "two subflows", func() bool {
		mustExchange(t, conn, 1000)
		return len(locals(t, conn, list)) == 2
	})
}

func TestDirectByNameList(t *testing.T)    { lab(t, "direct"); testByNameList(t) }
func TestUserspaceByNameList(t *testing.T) { lab(t, "userspace"); testByNameList(t) }

func TestUserByNameList(t *testing.T) {
	lab(t, "user")
	address, _ := serve(t, "tcp", "10.9.0.1:0")
	_, err := (&mptcp.Dialer{LocalAddrs: addrs("10.1.0.1")}).DialByName(context.Background(), "tcp", address)
	isErrno(t, "a list without privilege", err, syscall.EPERM)
}

// Something on the way swallows what has an option of MPTCP.
func TestDirectByNameEaten(t *testing.T) {
	lab(t, "direct")
	address, _ := serve(t, "tcp", "10.9.0.1:0")
	_, port, _ := net.SplitHostPort(address)
	rules := "add table inet t\n" +
		"add chain inet t c { type filter hook input priority 0; }\n" +
		"add rule inet t c tcp dport " + port + " tcp option mptcp exists drop\n"
	if err := asRoot(rules, "setpriv", "--reuid", "0", "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := asRoot("", "setpriv", "--reuid", "0", "nft", "delete", "table", "inet", "t"); err != nil {
			t.Error(err)
		}
	})
	begin := time.Now()
	conn := byName(t, &mptcp.Dialer{TCPDelay: 50 * time.Millisecond}, "tcp", address)
	if took := time.Since(begin); took < 50*time.Millisecond || took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	mustExchange(t, conn, 1000)
	if on, err := mptcp.Enabled(conn); err != nil || on {
		t.Errorf("%v %v", on, err)
	}
	// Elsewhere MPTCP is as before.
	other, _ := serve(t, "tcp", "10.9.0.1:0")
	if on, err := mptcp.Enabled(byName(t, &mptcp.Dialer{}, "tcp", other)); err != nil || !on {
		t.Errorf("elsewhere: %v %v", on, err)
	}
}
