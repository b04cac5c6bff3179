// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

package mptcp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"libmptcpapi/mptcp"
)

func TestAnyVersion(t *testing.T) {
	lab(t, "any")
	var major, minor, patch int
	if n, _ := fmt.Sscanf(mptcp.Version(), "%d.%d.%d", &major, &minor, &patch); n != 3 {
		t.Fatalf("version %q", mptcp.Version())
	}
	caps, err := mptcp.Capabilities(nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := uint32(major<<16 | minor<<8 | patch); caps.Library != want {
		t.Errorf("library is %#x, version %s", caps.Library, mptcp.Version())
	}
}

func TestAnyCapabilities(t *testing.T) {
	lab(t, "any")
	address, _ := serve(t, "tcp", "10.9.0.1:0")
	for _, c := range []syscall.Conn{nil, dial(t, &mptcp.Dialer{}, "tcp", address)} {
		caps, err := mptcp.Capabilities(c)
		if err != nil {
			t.Fatal(err)
		}
		if !caps.Has(mptcp.CapSubflows | mptcp.CapConnID) {
			t.Errorf("%+v", caps)
		}
		if c == nil && !caps.Has(mptcp.CapEnable) {
			t.Errorf("%+v", caps)
		}
		if caps.Works&^caps.Known != 0 || caps.AddrsMax != 64 {
			t.Errorf("%+v", caps)
		}
		if caps.Has(mptcp.CapSubflows | mptcp.CapFateSharing<<40) {
			t.Error("a capability nobody knows of")
		}
	}
}

func TestAnyEnable(t *testing.T) {
	lab(t, "any")
	for _, network := range []string{"tcp4", "tcp6"} {
		unconnected(t, network, func(c syscall.Conn) {
			if err := mptcp.Enable(c, false); err != nil { // where it isn't by default
				t.Error(err)
			}
			for _, on := range []bool{false, true, true, false, true} {
				if err := mptcp.Enable(c, on); err != nil {
					t.Errorf("%s enable %v: %v", network, on, err)
				}
				if got, err := mptcp.Enabled(c); err != nil || got != on {
					t.Errorf("%s enabled: %v %v, want %v", network, got, err, on)
				}
			}
		})
	}
}

// The socket is replaced: what the runtime and the application set must stay.
func TestAnyEnableKeeps(t *testing.T) {
	lab(t, "any")
	state := func(c syscall.Conn) (s [5]int) {
		rc, _ := c.SyscallConn()
		err := rc.Control(func(p uintptr) {
			fd := int(p)
			s[0] = fd
			fl, _, _ := syscall.Syscall(syscall.SYS_FCNTL, p, syscall.F_GETFL, 0)
			s[1] = int(fl)
			fl, _, _ = syscall.Syscall(syscall.SYS_FCNTL, p, syscall.F_GETFD, 0)
			s[2] = int(fl)
			s[3], _ = syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
			s[4], _ = syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF)
		})
		if err != nil {
			t.Error(err)
		}
		return s
	}
	unconnected(t, "tcp4", func(c syscall.Conn) {
		rc, _ := c.SyscallConn()
		_ = rc.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1)
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 40000)
		})
		before := state(c)
		if err := mptcp.Enable(c, true); err != nil {
			t.Error(err)
		}
		if after := state(c); after != before {
			t.Errorf("fd, flags, fd flags, keepalive, rcvbuf: %v, were %v", after, before)
		}
		if before[1]&syscall.O_NONBLOCK == 0 || before[2] != syscall.FD_CLOEXEC || before[3] != 1 {
			t.Errorf("%v", before)
		}
	})
}

func TestAnyDial(t *testing.T) {
	lab(t, "any")
	for _, server := range []string{"10.9.0.1:0", "[fd09::1]:0"} {
		address, accepted := serve(t, "tcp", server)
		c := dial(t, &mptcp.Dialer{NoFallback: true}, "tcp", address)
		s := <-accepted
		for _, end := range []*net.TCPConn{c, s} {
			if on, err := mptcp.Enabled(end); err != nil || !on {
				t.Fatalf("enabled: %v %v", on, err)
			}
			sf := subflows(t, end)
			if len(sf) != 1 || sf[0].Flags != mptcp.SubflowInitial || sf[0].ID == 0 ||
				sf[0].Local != end.LocalAddr().(*net.TCPAddr).AddrPort() ||
				sf[0].Remote != end.RemoteAddr().(*net.TCPAddr).AddrPort() {
				t.Errorf("%v -> %v has subflows %+v", end.LocalAddr(), end.RemoteAddr(), sf)
			}
			l, err := mptcp.LocalAddrs(end)
			if err != nil || len(l) != 1 || l[0].Addr() != sf[0].Local.Addr() {
				t.Errorf("local addresses %v %v", l, err)
			}
			p, err := mptcp.PeerAddrs(end)
			if err != nil || len(p) == 0 || p[0].Addr() != sf[0].Remote.Addr() {
				t.Errorf("peer addresses %v %v", p, err)
			}
		}
		ci, err := mptcp.ConnID(c)
		if err != nil || ci == 0 {
			t.Errorf("connid %v %v", ci, err)
		}
		si, err := mptcp.ConnID(s)
		if err != nil || si == 0 || si == ci {
			t.Errorf("connid %v %v, the other's %v", si, err, ci)
		}
		mustExchange(t, c, 1<<20)
		isErrno(t, "enable on a connection", mptcp.Enable(c, false), syscall.EISCONN)
	}
}

func TestAnyFallback(t *testing.T) {
	lab(t, "any")
	for _, server := range []string{"10.9.0.1:0", "[fd09::1]:0"} {
		address := servePlain(t, "tcp", server)
		c := dial(t, &mptcp.Dialer{}, "tcp", address)
		if on, err := mptcp.Enabled(c); err != nil || on {
			t.Errorf("enabled: %v %v", on, err)
		}
		sf := subflows(t, c)
		if len(sf) != 1 || sf[0].Flags&mptcp.SubflowFallback == 0 || sf[0].Remote.String() != address {
			t.Errorf("subflows %+v", sf)
		}
		_, err := mptcp.ConnID(c)
		isErrno(t, "connid of plain TCP", err, syscall.EOPNOTSUPP)
		mustExchange(t, c, 1<<16)

		d := mptcp.Dialer{NoFallback: true}
		settled := leaks(t)
		_, err = d.Dial("tcp", address)
		isErrno(t, "dial without fallback", err, syscall.EOPNOTSUPP)
		isOpError(t, "dial without fallback", err)
		settled()
	}
}

// A client without MPTCP gets TCP from an MPTCP listener.
func TestAnyAcceptPlain(t *testing.T) {
	lab(t, "any")
	address, accepted := serve(t, "tcp", "10.9.0.1:0")
	d := net.Dialer{Timeout: patience, Control: func(_, _ string, c syscall.RawConn) error {
		return mptcp.Enable(mptcp.Raw(c), false)
	}}
	c, err := d.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := <-accepted
	for _, end := range []*net.TCPConn{c.(*net.TCPConn), s} {
		if on, err := mptcp.Enabled(end); err != nil || on {
			t.Errorf("enabled: %v %v", on, err)
		}
	}
	mustExchange(t, c, 1000)
}

func TestAnyControl(t *testing.T) {
	lab(t, "any")
	lc := net.ListenConfig{Control: mptcp.Control}
	l, err := lc.Listen(context.Background(), "tcp", "10.9.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	echo(t, l)
	d := net.Dialer{Control: mptcp.Control, Timeout: patience}
	c, err := d.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if on, err := mptcp.Enabled(c.(*net.TCPConn)); err != nil || !on {
		t.Errorf("enabled: %v %v", on, err)
	}
	mustExchange(t, c, 1000)
	u, err := d.Dial("udp", "10.9.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	u.Close()
}

func TestAnyNotConnected(t *testing.T) {
	lab(t, "any")
	check := func(c syscall.Conn) {
		_, err := mptcp.Subflows(c)
		isErrno(t, "subflows", err, syscall.ENOTCONN)
		_, err = mptcp.ConnID(c)
		isErrno(t, "connid", err, syscall.ENOTCONN)
		_, err = mptcp.PeerAddrs(c)
		isErrno(t, "peer addresses", err, syscall.ENOTCONN)
	}
	unconnected(t, "tcp4", func(c syscall.Conn) {
		if err := mptcp.Enable(c, true); err != nil {
			t.Error(err)
		}
		check(c)
		if l, err := mptcp.LocalAddrs(c); err != nil || len(l) != 0 {
			t.Errorf("local addresses %v %v", l, err)
		}
	})
	l, err := (&mptcp.ListenConfig{}).Listen(context.Background(), "tcp", "10.9.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	check(l)
	isErrno(t, "enable on a listener", mptcp.Enable(l, false), syscall.EISCONN)
}

func TestAnyOtherFiles(t *testing.T) {
	lab(t, "any")
	every := func(what string, c syscall.Conn, check func(what string, err error)) {
		_, err := mptcp.Enabled(c)
		check(what+": enabled", err)
		check(what+": enable", mptcp.Enable(c, true))
		_, err = mptcp.Subflows(c)
		check(what+": subflows", err)
		_, err = mptcp.ConnID(c)
		check(what+": connid", err)
		_, err = mptcp.LocalAddrs(c)
		check(what+": local addresses", err)
		_, err = mptcp.PeerAddrs(c)
		check(what+": peer addresses", err)
		check(what+": add", mptcp.Add(c, addrs("10.1.0.1"), 0))
		check(what+": remove", mptcp.Remove(c, addrs("10.1.0.1")))
	}
	want := func(errno syscall.Errno) func(string, error) {
		return func(what string, err error) { isErrno(t, what, err, errno) }
	}

	u, err := net.Dial("udp", "10.9.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	every("UDP", u.(syscall.Conn), want(syscall.EOPNOTSUPP))

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	every("pipe", r, want(syscall.ENOTSOCK))

	every("nil", nil, want(syscall.EINVAL))

	address, _ := serve(t, "tcp", "10.9.0.1:0")
	c := dial(t, &mptcp.Dialer{}, "tcp", address)
	c.Close()
	every("closed", c, func(what string, err error) {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v, want net.ErrClosed", what, err)
		}
	})
	if _, err := mptcp.Capabilities(c); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: capabilities: %v", err)
	}
}

func TestAnyNetworks(t *testing.T) {
	lab(t, "any")
	for _, network := range []string{"udp", "unix", ""} {
		_, err := (&mptcp.Dialer{}).Dial(network, "10.9.0.1:9")
		var unknown net.UnknownNetworkError
		if !errors.As(err, &unknown) {
			t.Errorf("dial %q: %v", network, err)
		}
		_, err = (&mptcp.ListenConfig{}).Listen(context.Background(), network, "10.9.0.1:0")
		if !errors.As(err, &unknown) {
			t.Errorf("listen %q: %v", network, err)
		}
	}
}

func TestAnyRefused(t *testing.T) {
	lab(t, "any")
	for _, host := range []string{"10.9.0.1", "fd09::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		l.Close()
		for i := 0; i < 20; i++ { // refused before, within or after connect(2)
			d := mptcp.Dialer{Timeout: patience}
			_, err = d.Dial("tcp", address)
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Fatalf("dial: %v, want ECONNREFUSED", err)
			}
			isOpError(t, "refused", err)
		}
	}
}

// resolver knows every name: it has the two addresses of the server.
func resolver(t *testing.T) *net.Resolver {
	answer := func(query []byte) []byte {
		end := 12 // behind the header
		for query[end] != 0 {
			end += int(query[end]) + 1
		}
		end += 5 // the root, type and class
		var ip net.IP
		switch query[end-3] {
		case 1:
			ip = net.ParseIP("10.9.0.1").To4()
		case 28:
			ip = net.ParseIP("fd09::1")
		}
		r := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, query[12:end]...)
		if ip != nil {
			r[7] = 1
			r = append(r, 0xc0, 12, 0, query[end-3], 0, 1, 0, 0, 0, 60, 0, byte(len(ip)))
			r = append(r, ip...)
		}
		return r
	}
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		c, s := net.Pipe() // as a stream: each message has its length before it
		go func() {
			defer s.Close()
			var length [2]byte
			for {
				if _, err := io.ReadFull(s, length[:]); err != nil {
					return
				}
				query := make([]byte, int(length[0])<<8|int(length[1]))
				if _, err := io.ReadFull(s, query); err != nil {
					return
				}
				r := answer(query)
				if _, err := s.Write(append([]byte{byte(len(r) >> 8), byte(len(r))}, r...)); err != nil {
					return
				}
			}
		}()
		return c, nil
	}}
}

// A name with two addresses, one of which refuses.
func TestAnyName(t *testing.T) {
	lab(t, "any")
	for _, host := range []string{"10.9.0.1", "fd09::1"} {
		address, _ := serve(t, "tcp", net.JoinHostPort(host, "0"))
		_, port, _ := net.SplitHostPort(address)
		d := mptcp.Dialer{NoFallback: true, Resolver: resolver(t)}
		c := dial(t, &d, "tcp", net.JoinHostPort("server.test", port))
		if c.RemoteAddr().String() != address {
			t.Errorf("connected to %v, want %v", c.RemoteAddr(), address)
		}
		mustExchange(t, c, 1000)
	}
}

func TestAnyUserControl(t *testing.T) {
	lab(t, "any")
	address, accepted := serve(t, "tcp", "10.9.0.1:0")
	d := mptcp.Dialer{Control: func(network, to string, c syscall.RawConn) error {
		if network != "tcp4" || to != address {
			t.Errorf("control called for %s %s", network, to)
		}
		if on, err := mptcp.Enabled(mptcp.Raw(c)); err != nil || !on {
			t.Errorf("enabled: %v %v", on, err)
		}
		var err error
		_ = c.Control(func(fd uintptr) {
			err = syscall.Bind(int(fd), &syscall.SockaddrInet4{Addr: [4]byte{10, 3, 0, 1}})
		})
		return err
	}}
	c := dial(t, &d, "tcp", address)
	if got := c.LocalAddr().(*net.TCPAddr).IP.String(); got != "10.3.0.1" {
		t.Errorf("connected from %v", got)
	}
	if got := (<-accepted).RemoteAddr().(*net.TCPAddr).IP.String(); got != "10.3.0.1" {
		t.Errorf("accepted from %v", got)
	}
	d.Control = func(_, _ string, c syscall.RawConn) error { return mptcp.Enable(mptcp.Raw(c), false) }
	c = dial(t, &d, "tcp", address)
	if on, err := mptcp.Enabled(c); err != nil || on {
		t.Errorf("enabled: %v %v", on, err)
	}
	mustExchange(t, c, 1000)
	d.Control = func(_, _ string, c syscall.RawConn) error { return errStop }
	if _, err := d.Dial("tcp", address); !errors.Is(err, errStop) {
		t.Errorf("dial: %v", err)
	}
	lc := mptcp.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return errStop }}
	if _, err := lc.Listen(context.Background(), "tcp", "10.9.0.1:0"); !errors.Is(err, errStop) {
		t.Errorf("listen: %v", err)
	}
}

func TestAnyCancel(t *testing.T) {
	lab(t, "any")
	address := full(t)
	settled := leaks(t)
	check := func(what string, start time.Time, err error) {
		t.Helper()
		var ne net.Error
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("%s: after %v", what, took)
		}
		if err == nil || !errors.As(err, &ne) {
			t.Fatalf("%s: %v", what, err)
		}
		isOpError(t, what, err)
		if timeout := what != "canceled" && what != "canceled before"; ne.Timeout() != timeout {
			t.Errorf("%s: %v, timeout is %v", what, err, ne.Timeout())
		}
	}
	for i := 0; i < 3; i++ {
		ctx, cancel := context.WithCancel(context.Background())
		d := mptcp.Dialer{Control: func(_, _ string, _ syscall.RawConn) error {
			time.AfterFunc(50*time.Millisecond, cancel) // connect(2) is next
			return nil
		}}
		start := time.Now()
		_, err := d.DialContext(ctx, "tcp", address)
		check("canceled", start, err)

		start = time.Now()
		_, err = (&mptcp.Dialer{}).DialContext(ctx, "tcp", address)
		check("canceled before", start, err)

		ctx, cancel = context.WithTimeout(context.Background(), 50*time.Millisecond)
		start = time.Now()
		_, err = (&mptcp.Dialer{}).DialContext(ctx, "tcp", address)
		check("context's deadline", start, err)
		cancel()

		start = time.Now()
		_, err = (&mptcp.Dialer{Timeout: 50 * time.Millisecond}).Dial("tcp", address)
		check("timeout", start, err)

		start = time.Now()
		_, err = (&mptcp.Dialer{Deadline: start.Add(50 * time.Millisecond)}).Dial("tcp", address)
		check("deadline", start, err)
	}
	settled()
}

// The runtime's poller knows the socket that replaced the first one.
func TestAnyPoller(t *testing.T) {
	lab(t, "any")
	address, accepted := serve(t, "tcp", "10.9.0.1:0")
	c := dial(t, &mptcp.Dialer{NoFallback: true}, "tcp", address)
	for _, end := range []*net.TCPConn{c, <-accepted} {
		if err := end.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := end.Write([]byte{0}); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %v", err)
		}
		if err := end.SetWriteDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	mustExchange(t, c, 1<<20)
	if err := c.SetNoDelay(false); err != nil {
		t.Error(err)
	}
	done := make(chan error)
	go func() {
		done <- nil
		_, err := c.Read(make([]byte, 1))
		done <- err
	}()
	<-done
	c.Close()
	select {
	case err := <-done:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("close doesn't wake up a read")
	}
}

// A proxy with io.Copy in both directions, as splice(2) or otherwise.
func TestAnyProxy(t *testing.T) {
	lab(t, "any")
	address, _ := serve(t, "tcp", "10.9.0.1:0")
	l, err := (&mptcp.ListenConfig{NoFallback: true}).Listen(context.Background(), "tcp", "10.9.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Add(1)
	go func() {
		defer wg.Done()
		in, err := l.AcceptTCP()
		if err != nil {
			t.Error(err)
			return
		}
		defer in.Close()
		d := mptcp.Dialer{NoFallback: true, Timeout: patience}
		out, err := d.Dial("tcp", address)
		if err != nil {
			t.Error(err)
			return
		}
		defer out.Close()
		wg.Add(1)
		go func() {
			defer wg.Done()
			_, _ = io.Copy(out, in)
			_ = out.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(in, out)
	}()
	c := dial(t, &mptcp.Dialer{NoFallback: true}, "tcp", l.Addr().String())
	mustExchange(t, c, 8<<20)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
		t.Errorf("%d bytes, %v at the end", len(b), err)
	}
}

// errno and words belong to one thread: each goroutine must get its own.
func TestAnyWords(t *testing.T) {
	lab(t, "any")
	u, err := net.Dial("udp", "10.9.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	l, err := (&mptcp.ListenConfig{}).Listen(context.Background(), "tcp", "10.9.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	calls := []func() error{
		func() error { return mptcp.Enable(l, false) },
		func() error { _, err := mptcp.ConnID(l); return err },
		func() error { _, err := mptcp.Subflows(r); return err },
		func() error { _, err := mptcp.Subflows(u.(syscall.Conn)); return err },
		func() error { return mptcp.Add(l, nil, 0) },
		func() error { return mptcp.Add(l, addrs("0.0.0.0"), 0) },
		func() error { return mptcp.Remove(r, addrs("10.1.0.1")) },
	}
	want := make([]mptcp.Error, len(calls))
	words := map[string]bool{}
	for i, call := range calls {
		var e *mptcp.Error
		if err := call(); !errors.As(err, &e) || e.Words == "" {
			t.Fatalf("call %d: %v", i, err)
		}
		want[i] = *e
		words[e.Words] = true
	}
	if len(words) < 4 {
		t.Fatalf("too much alike to tell anything: %v", words)
	}
	var wg sync.WaitGroup
	for g := 0; g < 64; g++ {
		wg.Add(1)
		go func(g int) {
			defer wg.Done()
			for n := 0; n < 100; n++ {
				i := (g + n) % len(calls)
				err := calls[i]()
				if e, ok := err.(*mptcp.Error); !ok || *e != want[i] {
					t.Errorf("call %d: %v, want %v", i, err, &want[i])
					return
				}
				runtime.Gosched()
			}
		}(g)
	}
	wg.Wait()
}

func TestAnyDescriptors(t *testing.T) {
	lab(t, "any")
	address, accepted := serve(t, "tcp", "10.9.0.1:0")
	plain := servePlain(t, "tcp", "10.9.0.1:0")
	round := func() {
		var d mptcp.Dialer
		d.Timeout = patience
		for _, to := range []string{address, plain} {
			c, err := d.Dial("tcp", to)
			if err != nil {
				t.Fatal(err)
			}
			mustExchange(t, c, 100)
			subflows(t, c.(*net.TCPConn))
			c.Close()
			if to == address {
				<-accepted
			}
		}
		l, err := (&mptcp.ListenConfig{}).Listen(context.Background(), "tcp", "10.9.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	round()
	settled := leaks(t)
	for i := 0; i < 50; i++ {
		round()
	}
	settled()
}
