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

// data sends until the connection has the subflows wanted: they are made once
// data went to and fro, in the course of later calls.
func data(t *testing.T, c *net.TCPConn, list []netip.AddrPort, want int) {
	t.Helper()
	await(t, "the subflows", func() bool {
		mustExchange(t, c, 10000)
		return len(locals(t, c, list)) == want
	})
	mustExchange(t, c, 1<<20)
	locals(t, c, list)
}

func sysctl(t *testing.T, name, value string) {
	t.Helper()
	path := "/proc/sys/net/mptcp/" + name
	was := contents(path)
	if err := asRoot(value, "tee", path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = asRoot(was, "tee", path) })
}

func TestDirectCapabilities(t *testing.T) {
	lab(t, "direct")
	caps, err := mptcp.Capabilities(nil)
	if err != nil {
		t.Fatal(err)
	}
	want, name := mptcp.BackendDirect, "direct"
	if byBroker() {
		want, name = mptcp.BackendBroker, "broker"
	}
	if caps.Backend != want || caps.Backend.String() != name || !caps.Has(mptcp.CapAddBefore) {
		t.Errorf("%+v", caps)
	}
	address, _ := serve(t, "tcp", "10.9.0.1:0")
	c := dial(t, &mptcp.Dialer{LocalAddrs: addrs("10.1.0.1")}, "tcp", address)
	caps, err = mptcp.Capabilities(c)
	if err != nil || caps.Control != mptcp.ControlConnection || !caps.Has(mptcp.CapAddLive) {
		t.Errorf("with a list: %+v %v", caps, err)
	}
	c = dial(t, &mptcp.Dialer{}, "tcp", address)
	caps, err = mptcp.Capabilities(c)
	if err != nil || caps.Control != mptcp.ControlKernel || caps.Has(mptcp.CapAddLive) {
		t.Errorf("without: %+v %v", caps, err)
	}
}

func TestDirectList(t *testing.T) {
	lab(t, "direct")
	for _, c := range []struct {
		server string
		list   []netip.AddrPort
		usable int
	}{
		{"10.9.0.1:0", addrs("10.1.0.1", "10.2.0.1"), 2},
		{"10.9.0.1:0", addrs("10.2.0.1"), 1},
		{"10.9.0.1:0", addrs("10.3.0.1", "10.2.0.1", "10.1.0.1"), 3},
		{"[fd09::1]:0", addrs("fd01::1", "fd02::1"), 2},
		{"10.9.0.1:0", addrs("fd01::1", "10.2.0.1", "fd02::1", "10.3.0.1"), 2}, // an IPv4 socket
		{"10.9.0.1:0", addrs("::ffff:10.2.0.1", "10.1.0.1"), 2},
	} {
		address, accepted := serve(t, "tcp", c.server)
		list := c.list
		if c.server == "10.9.0.1:0" {
			list = nil
			for _, a := range c.list {
				if a.Addr().Unmap().Is4() {
					list = append(list, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
				}
			}
		}
		conn := dial(t, &mptcp.Dialer{LocalAddrs: c.list, NoFallback: true}, "tcp", address)
		s := <-accepted
		for _, first := range []net.Addr{conn.LocalAddr(), s.RemoteAddr()} {
			if !has(list, first.(*net.TCPAddr).AddrPort()) {
				t.Fatalf("%v: the first subflow is from %v", c.list, first)
			}
		}
		got, err := mptcp.LocalAddrs(conn)
		if err != nil || len(got) != len(list) {
			t.Errorf("%v: local addresses %v %v", list, got, err)
		}
		for _, a := range got {
			if !has(list, a) {
				t.Errorf("%v: local addresses %v", list, got)
			}
		}
		data(t, conn, list, c.usable)
		for _, sf := range subflows(t, s) {
			if !has(list, sf.Remote) {
				t.Errorf("%v: the server sees %v", list, sf)
			}
		}
		if n := len(subflows(t, s)); n != c.usable {
			t.Errorf("%v: the server sees %d subflows", list, n)
		}
	}
}

// A name with addresses of both families, and a list of one: the other family
// isn't tried.
func TestDirectListName(t *testing.T) {
	lab(t, "direct")
	for _, c := range []struct {
		server string
		list   []netip.AddrPort
	}{
		{"10.9.0.1", addrs("10.1.0.1", "10.2.0.1")},
		{"fd09::1", addrs("fd01::1", "fd02::1")},
	} {
		address, _ := serve(t, "tcp", net.JoinHostPort(c.server, "0"))
		_, port, _ := net.SplitHostPort(address)
		name := net.JoinHostPort("server.test", port)
		conn := dial(t, &mptcp.Dialer{LocalAddrs: c.list, Resolver: resolver(t)}, "tcp", name)
		if conn.RemoteAddr().String() != address {
			t.Errorf("connected to %v, want %v", conn.RemoteAddr(), address)
		}
		data(t, conn, c.list, 2)
		d := mptcp.Dialer{LocalAddrs: c.list, Resolver: resolver(t), Timeout: patience}
		_, err := d.Dial("tcp", "server.test:1")
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v, want ECONNREFUSED", err)
		}
	}
}

func TestDirectListPort(t *testing.T) {
	lab(t, "direct")
	address, _ := serve(t, "tcp", "10.9.0.1:0")
	l, err := net.Listen("tcp", "10.2.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken := l.Addr().String()
	_, err = (&mptcp.Dialer{LocalAddrs: addrs(taken)}).Dial("tcp", address)
	isErrno(t, "a port that is taken", err, syscall.EADDRINUSE)
	isOpError(t, "a port that is taken", err)
	l.Close()
	c := dial(t, &mptcp.Dialer{LocalAddrs: addrs(taken)}, "tcp", address)
	if c.LocalAddr().String() != taken {
		t.Errorf("connected from %v, want %v", c.LocalAddr(), taken)
	}
	mustExchange(t, c, 1000)
}

// The in-kernel path manager has an endpoint, and uses it: but not with a list.
func TestDirectOutside(t *testing.T) {
	lab(t, "direct")
	if err := asRoot("", "ip", "mptcp", "endpoint", "add", "10.3.0.1", "dev", "lo", "subflow"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = asRoot("", "ip", "mptcp", "endpoint", "flush") })
	address, _ := serve(t, "tcp", "10.9.0.1:0")

	list := addrs("10.1.0.1", "10.2.0.1")
	c := dial(t, &mptcp.Dialer{LocalAddrs: list}, "tcp", address)
	data(t, c, list, 2)

	free := dial(t, &mptcp.Dialer{}, "tcp", address)
	await(t, "the kernel's own subflow", func() bool {
		mustExchange(t, free, 1000)
		for _, s := range subflows(t, free) {
			if s.Local.Addr() == list[0].Addr() || s.Local.Addr() == list[1].Addr() {
				t.Fatalf("%v has nothing to do with the list", s)
			}
			if s.Local.Addr().String() == "10.3.0.1" {
				return true
			}
		}
		return false
	})
	data(t, c, list, 2)
}

func TestDirectAddRemove(t *testing.T) {
	lab(t, "direct")
	for _, f := range []struct{ server, one, two, three string }{
		{"10.9.0.1:0", "10.1.0.1", "10.2.0.1", "10.3.0.1"},
		{"[fd09::1]:0", "fd01::1", "fd02::1", "fd03::1"},
	} {
		address, _ := serve(t, "tcp", f.server)
		c := dial(t, &mptcp.Dialer{LocalAddrs: addrs(f.one)}, "tcp", address)
		data(t, c, addrs(f.one), 1)
		if err := mptcp.Add(c, addrs(f.two, f.three), 0); err != nil {
			t.Fatal(err)
		}
		data(t, c, addrs(f.one, f.two, f.three), 3)
		if err := mptcp.Add(c, addrs(f.two), 0); err != nil {
			t.Errorf("add again: %v", err)
		}
		if err := mptcp.Remove(c, addrs(f.one)); err != nil {
			t.Fatal(err)
		}
		await(t, "the first subflow is gone", func() bool {
			for _, s := range subflows(t, c) {
				if s.Local.Addr() == addrs(f.one)[0].Addr() {
					return false
				}
			}
			return true
		})
		data(t, c, addrs(f.two, f.three), 2)
		if l, err := mptcp.LocalAddrs(c); err != nil || len(l) != 2 || has(l, addrs(f.one)[0]) {
			t.Errorf("local addresses %v %v", l, err)
		}
		isErrno(t, "remove again", mptcp.Remove(c, addrs(f.one)), syscall.EADDRNOTAVAIL)
		if err := mptcp.Add(c, addrs(f.one), mptcp.AddBackup); err != nil {
			t.Fatal(err)
		}
		data(t, c, addrs(f.one, f.two, f.three), 3)
	}
}

func TestDirectFlags(t *testing.T) {
	lab(t, "direct")
	address, _ := serve(t, "tcp", "10.9.0.1:0")
	list := addrs("10.1.0.1", "10.2.0.1")
	d := mptcp.Dialer{
		LocalAddrs: list,
		Control: func(_, _ string, c syscall.RawConn) error {
			both := mptcp.Add(mptcp.Raw(c), list, mptcp.AddNoAdvertise|mptcp.AddNoSubflow)
			isErrno(t, "flags that contradict", both, syscall.EINVAL)
			unknown := mptcp.Add(mptcp.Raw(c), list, 1<<20)
			isErrno(t, "unknown flag", unknown, syscall.EINVAL)
			return mptcp.Add(mptcp.Raw(c), addrs("10.3.0.1"), mptcp.AddNoSubflow)
		},
	}
	c := dial(t, &d, "tcp", address)
	// A peer that is Linux does nothing with an address that it is told before
	// its program has accepted the connection: so it is told once more.
	mustExchange(t, c, 1000)
	if err := mptcp.Remove(c, addrs("10.3.0.1")); err != nil {
		t.Fatal(err)
	}
	if err := mptcp.Add(c, addrs("10.3.0.1"), mptcp.AddNoSubflow); err != nil {
		t.Fatal(err)
	}
	told := addrs("10.3.0.1")[0].Addr()
	await(t, "our subflow, and one that the peer opens to the address it was told", func() bool {
		mustExchange(t, c, 1000)
		for _, sf := range subflows(t, c) {
			if sf.Local.Addr() == told && sf.Remote.String() == address {
				t.Fatalf("%v: nothing was to be opened from there", sf)
			}
		}
		return len(locals(t, c, append(addrs("10.3.0.1"), list...))) == 3
	})
	if l, err := mptcp.LocalAddrs(c); err != nil || len(l) != 3 {
		t.Errorf("local addresses %v %v", l, err)
	}
}

func TestDirectRemoveBefore(t *testing.T) {
	lab(t, "direct")
	unconnected(t, "tcp4", func(c syscall.Conn) {
		if err := mptcp.Enable(c, true); err != nil {
			t.Error(err)
		}
		list := addrs("10.1.0.1", "10.2.0.1")
		if err := mptcp.Add(c, list, 0); err != nil {
			t.Error(err)
		}
		isErrno(t, "remove another", mptcp.Remove(c, addrs("10.3.0.1")), syscall.EADDRNOTAVAIL)
		if l, err := mptcp.LocalAddrs(c); err != nil || len(l) != 2 {
			t.Errorf("local addresses %v %v", l, err)
		}
		for i := range list {
			if err := mptcp.Remove(c, list[i:i+1]); err != nil {
				t.Error(err)
			}
		}
		if l, err := mptcp.LocalAddrs(c); err != nil || len(l) != 0 {
			t.Errorf("local addresses %v %v", l, err)
		}
	})
}

func TestDirectRefusals(t *testing.T) {
	lab(t, "direct")
	v4, _ := serve(t, "tcp", "10.9.0.1:0")
	v6, _ := serve(t, "tcp", "[fd09::1]:0")
	plain := servePlain(t, "tcp", "10.9.0.1:0")
	var many []string
	for i := 0; i < 65; i++ {
		many = append(many, "10.1.0.1")
	}
	settled := leaks(t)
	for _, c := range []struct {
		what, network, to string
		list              []netip.AddrPort
		want              syscall.Errno
	}{
		{"not an address of this host", "tcp", v4, addrs("192.0.2.1"), syscall.EADDRNOTAVAIL},
		{"one that is not", "tcp", v4, addrs("10.1.0.1", "192.0.2.1"), syscall.EADDRNOTAVAIL},
		{"multicast", "tcp", v4, addrs("224.0.0.1"), syscall.EADDRNOTAVAIL},
		{"wildcard", "tcp", v4, addrs("0.0.0.0"), syscall.EINVAL},
		{"link-local without zone", "tcp", v6, addrs("fe80::1"), syscall.EINVAL},
		{"unknown zone", "tcp", v6, addrs("fe80::1%no-such-if"), syscall.EINVAL},
		{"too many", "tcp", v4, addrs(many...), syscall.EINVAL},
		{"no address", "tcp", v6, make([]netip.AddrPort, 1), syscall.EINVAL},
		{"only IPv6", "tcp", v4, addrs("fd01::1"), syscall.EADDRNOTAVAIL},
		{"only IPv4", "tcp", v6, addrs("10.1.0.1"), syscall.EADDRNOTAVAIL},
	} {
		d := mptcp.Dialer{LocalAddrs: c.list, Timeout: patience}
		conn, err := d.Dial(c.network, c.to)
		isErrno(t, c.what, err, c.want)
		if err == nil {
			conn.Close()
			continue
		}
		isOpError(t, c.what, err)
	}
	settled()
	unconnected(t, "tcp4", func(c syscall.Conn) {
		if err := mptcp.Enable(c, true); err != nil {
			t.Error(err)
		}
		isErrno(t, "IPv6 on IPv4", mptcp.Add(c, addrs("10.1.0.1", "fd01::1"), 0), syscall.EAFNOSUPPORT)
		isErrno(t, "empty", mptcp.Add(c, nil, 0), syscall.EINVAL)
		if l, err := mptcp.LocalAddrs(c); err != nil || len(l) != 0 {
			t.Errorf("all or nothing: %v %v", l, err)
		}
		if err := mptcp.Enable(c, false); err != nil {
			t.Error(err)
		}
		isErrno(t, "add on TCP", mptcp.Add(c, addrs("10.1.0.1"), 0), syscall.EOPNOTSUPP)
	})
	c := dial(t, &mptcp.Dialer{}, "tcp", plain)
	isErrno(t, "add after fallback", mptcp.Add(c, addrs("10.1.0.1"), 0), syscall.EOPNOTSUPP)
	c = dial(t, &mptcp.Dialer{}, "tcp", v4)
	isErrno(t, "add under the in-kernel path manager", mptcp.Add(c, addrs("10.1.0.1"), 0), syscall.EOPNOTSUPP)
}

// The list holds for plain TCP too: the peer has no MPTCP.
func TestDirectFallback(t *testing.T) {
	lab(t, "direct")
	for _, c := range []struct{ server, local string }{
		{"10.9.0.1:0", "10.2.0.1"},
		{"[fd09::1]:0", "fd02::1"},
	} {
		address := servePlain(t, "tcp", c.server)
		conn := dial(t, &mptcp.Dialer{LocalAddrs: addrs(c.local)}, "tcp", address)
		if !has(addrs(c.local), conn.LocalAddr().(*net.TCPAddr).AddrPort()) {
			t.Errorf("connected from %v", conn.LocalAddr())
		}
		if on, err := mptcp.Enabled(conn); err != nil || on {
			t.Errorf("enabled: %v %v", on, err)
		}
		mustExchange(t, conn, 1<<16)
	}
}

// The host has no MPTCP.
func TestDirectNoMPTCP(t *testing.T) {
	lab(t, "direct")
	v4, _ := serve(t, "tcp", "10.9.0.1:0")
	v6, _ := serve(t, "tcp", "[fd09::1]:0")
	sysctl(t, "enabled", "0")
	ctx := context.Background()

	for _, c := range []struct {
		to   string
		list []netip.AddrPort
		from string
	}{
		{v4, nil, ""},
		{v4, addrs("10.2.0.1"), "10.2.0.1"},
		{v4, addrs("fd01::1", "10.3.0.1"), "10.3.0.1"},
		{v6, addrs("10.1.0.1", "fd02::1"), "fd02::1"},
	} {
		d := mptcp.Dialer{LocalAddrs: c.list}
		conn := dial(t, &d, "tcp", c.to)
		if from := conn.LocalAddr().(*net.TCPAddr).IP.String(); c.from != "" && from != c.from {
			t.Errorf("connected from %v, want %v", from, c.from)
		}
		if on, err := mptcp.Enabled(conn); err != nil || on {
			t.Errorf("enabled: %v %v", on, err)
		}
		mustExchange(t, conn, 1000)
		d.NoFallback = true
		_, err := d.Dial("tcp", c.to)
		isErrno(t, "dial without fallback", err, syscall.EOPNOTSUPP)
	}
	_, err := (&mptcp.Dialer{LocalAddrs: addrs("192.0.2.1")}).Dial("tcp", v4)
	isErrno(t, "not an address of this host", err, syscall.EADDRNOTAVAIL)

	l, err := (&mptcp.ListenConfig{}).Listen(ctx, "tcp", "10.9.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = (&mptcp.ListenConfig{NoFallback: true}).Listen(ctx, "tcp", "10.9.0.1:0")
	isErrno(t, "listen without fallback", err, syscall.EOPNOTSUPP)
	isOpError(t, "listen without fallback", err)
	_, err = (&mptcp.ListenConfig{LocalAddrs: addrs("10.1.0.1")}).Listen(ctx, "tcp", "10.9.0.1:0")
	isErrno(t, "listen with a list", err, syscall.EOPNOTSUPP)

	dn := net.Dialer{Control: mptcp.Control, Timeout: patience}
	conn, err := dn.Dial("tcp", v4)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// Accepted connections can't be controlled here, and Listen says so.
func TestDirectListen(t *testing.T) {
	lab(t, "direct")
	settled := leaks(t)
	lc := mptcp.ListenConfig{LocalAddrs: addrs("10.1.0.1", "10.2.0.1")}
	_, err := lc.Listen(context.Background(), "tcp", "10.9.0.1:0")
	why := syscall.EOPNOTSUPP
	if byBroker() {
		why = syscall.EACCES // its policy
	}
	isErrno(t, "listen with a list", err, why)
	isOpError(t, "listen with a list", err)
	settled()
}

func TestDirectConcurrent(t *testing.T) {
	lab(t, "direct")
	v4, _ := serve(t, "tcp", "10.9.0.1:0")
	v6, _ := serve(t, "tcp", "[fd09::1]:0")
	lists := [][]netip.AddrPort{
		addrs("10.1.0.1"), addrs("fd01::1", "fd02::1"), addrs("10.2.0.1", "10.3.0.1"), addrs("fd03::1"),
	}
	one := func(g int) error {
		list, to := lists[g%len(lists)], v4
		if list[0].Addr().Is6() {
			to = v6
		}
		conn, err := (&mptcp.Dialer{LocalAddrs: list, NoFallback: true, Timeout: patience}).Dial("tcp", to)
		if err != nil {
			return err
		}
		defer conn.Close()
		c := conn.(*net.TCPConn)
		for end := time.Now().Add(patience); ; {
			if err := exchange(c, 5000); err != nil {
				return err
			}
			sf, err := mptcp.Subflows(c)
			if err != nil {
				return err
			}
			for _, s := range sf {
				if !has(list, s.Local) {
					return errors.New(s.Local.String() + " is not on the list of this one")
				}
			}
			if len(sf) == len(list) {
				break
			}
			if time.Now().After(end) {
				return errors.New("a subflow is missing")
			}
		}
		var e *mptcp.Error
		err = mptcp.Add(c, addrs("192.0.2.1"), 0)
		if !errors.As(err, &e) || e.Errno != syscall.EADDRNOTAVAIL {
			return errors.New("add: not EADDRNOTAVAIL")
		}
		return nil
	}
	if err := one(0); err != nil {
		t.Fatal(err)
	}
	settled := leaks(t)
	var wg sync.WaitGroup
	for g := 0; g < 32; g++ {
		wg.Add(1)
		go func(g int) {
			defer wg.Done()
			if err := one(g); err != nil {
				t.Errorf("%v: %v", lists[g%len(lists)], err)
			}
		}(g)
	}
	wg.Wait()
	settled()
}

// One connection, many goroutines.
func TestDirectShared(t *testing.T) {
	lab(t, "direct")
	address, _ := serve(t, "tcp", "10.9.0.1:0")
	all := addrs("10.1.0.1", "10.2.0.1", "10.3.0.1")
	c := dial(t, &mptcp.Dialer{LocalAddrs: all[:1]}, "tcp", address)
	var wg sync.WaitGroup
	do := func(what string, f func() error) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; i < 50; i++ {
				if err := f(); err != nil {
					t.Errorf("%s: %v", what, err)
					return
				}
			}
		}()
	}
	do("exchange", func() error { return exchange(c, 10000) })
	do("add, remove", func() error {
		if err := mptcp.Add(c, all[1:], 0); err != nil {
			return err
		}
		return mptcp.Remove(c, all[2:])
	})
	for i := 0; i < 4; i++ {
		do("subflows", func() error {
			sf, err := mptcp.Subflows(c)
			for _, s := range sf {
				if !has(all, s.Local) {
					return errors.New(s.Local.String())
				}
			}
			return err
		})
		do("local addresses", func() error { _, err := mptcp.LocalAddrs(c); return err })
	}
	wg.Wait()
	data(t, c, all[:2], 2)
}

// A listener with a list: the peer learns of its addresses and uses them, and
// what is accepted stays on them.
func TestUserspaceListen(t *testing.T) {
	lab(t, "userspace")
	for _, c := range []struct {
		listen       string
		list, client []netip.AddrPort
	}{
		{"10.9.0.1:0", addrs("10.1.0.1", "10.2.0.1"), addrs("10.3.0.1")},
		{"[fd09::1]:0", addrs("fd01::1", "fd02::1"), addrs("fd03::1")},
	} {
		lc := mptcp.ListenConfig{LocalAddrs: c.list, NoFallback: true}
		l, err := lc.Listen(context.Background(), "tcp", c.listen)
		if err != nil {
			t.Fatal(err)
		}
		accepted := echo(t, l)
		if got, err := mptcp.LocalAddrs(l); err != nil || len(got) < len(c.list) {
			t.Errorf("local addresses %v %v", got, err)
		}
		caps, err := mptcp.Capabilities(l)
		if err != nil || !caps.Has(mptcp.CapListen) {
			t.Errorf("%+v %v", caps, err)
		}
		allowed := append(append([]netip.AddrPort{}, c.list...), l.Addr().(*net.TCPAddr).AddrPort())
		conn := dial(t, &mptcp.Dialer{LocalAddrs: c.client, NoFallback: true}, "tcp", l.Addr().String())
		s := <-accepted
		await(t, "subflows to the addresses announced", func() bool {
			mustExchange(t, conn, 10000)
			locals(t, s, allowed)
			locals(t, conn, c.client)
			remotes := map[netip.Addr]bool{}
			for _, sf := range subflows(t, conn) {
				remotes[sf.Remote.Addr()] = true
			}
			return remotes[c.list[0].Addr()] && remotes[c.list[1].Addr()]
		})
		mustExchange(t, conn, 1<<20)
		inherited, err := mptcp.LocalAddrs(s)
		if err != nil || len(inherited) != len(c.list) || !has(inherited, c.list[0]) || !has(inherited, c.list[1]) {
			t.Errorf("accepted with the list %v %v, not %v", inherited, err, c.list)
		}
		peers, err := mptcp.PeerAddrs(conn)
		if err != nil || !has(peers, c.list[0]) || !has(peers, c.list[1]) {
			t.Errorf("peer addresses %v %v", peers, err)
		}
		if err := mptcp.Remove(s, c.list[:1]); err != nil {
			t.Fatal(err)
		}
		await(t, "the subflow is gone", func() bool {
			for _, sf := range append(subflows(t, s), subflows(t, conn)...) {
				if sf.Local.Addr() == c.list[0].Addr() || sf.Remote.Addr() == c.list[0].Addr() {
					return false
				}
			}
			return true
		})
		mustExchange(t, conn, 1<<20)
		before := fds(t)
		l.Close()
		await(t, "the listener is closed", func() bool {
			_, _ = mptcp.Subflows(conn) // steps the library
			return fds(t) < before
		})
	}
}

// The list doesn't change what is listened on.
func TestUserspaceListenBind(t *testing.T) {
	lab(t, "userspace")
	for _, c := range []struct{ network, host, list, to string }{
		{"tcp", "10.9.0.1", "10.1.0.1", "10.9.0.1"},
		{"tcp4", "0.0.0.0", "10.1.0.1", "10.9.0.1"},
		{"tcp", "fd09::1", "fd01::1", "fd09::1"},
		{"tcp", "::", "fd01::1", "fd09::1"},
		{"tcp", "::", "10.1.0.1", "10.9.0.1"},
	} {
		lc := mptcp.ListenConfig{LocalAddrs: addrs(c.list), NoFallback: true}
		l, err := lc.Listen(context.Background(), c.network, net.JoinHostPort(c.host, "0"))
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		accepted := echo(t, l)
		host, port, _ := net.SplitHostPort(l.Addr().String())
		if host != c.host {
			t.Errorf("%+v: listens on %v", c, l.Addr())
		}
		conn := dial(t, &mptcp.Dialer{NoFallback: true}, "tcp", net.JoinHostPort(c.to, port))
		mustExchange(t, conn, 1000)
		s := <-accepted
		if on, err := mptcp.Enabled(s); err != nil || !on {
			t.Errorf("%+v: enabled: %v %v", c, on, err)
		}
	}
}

// Where both ends are controlled, each keeps to its list.
func TestUserspaceDial(t *testing.T) {
	lab(t, "userspace")
	address, accepted := serve(t, "tcp", "10.9.0.1:0")
	list := addrs("10.1.0.1", "10.2.0.1")
	c := dial(t, &mptcp.Dialer{LocalAddrs: list, NoFallback: true}, "tcp", address)
	s := <-accepted
	data(t, c, list, 2)
	if n := len(subflows(t, s)); n < 2 {
		t.Errorf("the server sees %d subflows", n)
	}
	if err := mptcp.Add(c, addrs("10.3.0.1"), 0); err != nil {
		t.Fatal(err)
	}
	list = append(list, addrs("10.3.0.1")...)
	data(t, c, list, 3)
	if err := mptcp.Remove(c, list[:2]); err != nil {
		t.Fatal(err)
	}
	await(t, "one subflow is left", func() bool {
		mustExchange(t, c, 1000)
		return len(locals(t, c, list)) == 1
	})
	data(t, c, list[2:], 1)
}

func TestUserNobody(t *testing.T) {
	lab(t, "user")
	caps, err := mptcp.Capabilities(nil)
	if err != nil {
		t.Fatal(err)
	}
	if caps.Backend != mptcp.BackendNone || caps.BackendErrno != syscall.EPERM || caps.Reason == "" ||
		caps.Has(mptcp.CapAddBefore) || !caps.Has(mptcp.CapEnable) {
		t.Errorf("%+v", caps)
	}
	address, _ := serve(t, "tcp", "10.9.0.1:0")
	settled := leaks(t)
	_, err = (&mptcp.Dialer{LocalAddrs: addrs("10.1.0.1")}).Dial("tcp", address)
	isErrno(t, "dial with a list", err, syscall.EPERM)
	isOpError(t, "dial with a list", err)
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("%v is no os.ErrPermission", err)
	}
	_, err = (&mptcp.ListenConfig{LocalAddrs: addrs("10.1.0.1")}).Listen(context.Background(), "tcp", "10.9.0.1:0")
	isErrno(t, "listen with a list", err, syscall.EPERM)
	isOpError(t, "listen with a list", err)
	settled()
	c := dial(t, &mptcp.Dialer{NoFallback: true}, "tcp", address)
	isErrno(t, "add on a connection", mptcp.Add(c, addrs("10.1.0.1"), 0), syscall.EPERM)
	isErrno(t, "remove on a connection", mptcp.Remove(c, addrs("10.1.0.1")), syscall.EPERM)
	mustExchange(t, c, 1<<16)
	unconnected(t, "tcp4", func(c syscall.Conn) {
		if err := mptcp.Enable(c, true); err != nil {
			t.Error(err)
		}
		isErrno(t, "add", mptcp.Add(c, addrs("10.1.0.1"), 0), syscall.EPERM)
		if err := mptcp.Enable(c, false); err != nil {
			t.Error(err)
		}
	})
}
