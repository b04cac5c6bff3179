// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

package mptcp_test

// What the tests share. They run in the network namespace that tests/lab of
// this project makes, in one of four modes, which a test's name begins with:
//
//	TestAny        any of them
//	TestDirect     the in-kernel path manager is the default; CAP_NET_ADMIN, or
//	               none and the broker
//	TestUserspace  the userspace path manager is; the same
//	TestUser       no privilege and no broker
//
// tests/run runs them all.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"libmptcpapi/mptcp"
)

const patience = 10 * time.Second // for what happens at once

func inLab() bool {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if strings.HasPrefix(a.String(), "10.9.0.1/") {
			return true
		}
	}
	return false
}

func contents(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

// With T_USER in the environment the tests are an ordinary user's: neither uid
// is root's and no capability is effective. Only the saved uid is 0, for asRoot.
func TestMain(m *testing.M) {
	if os.Getenv("T_USER") != "" {
		become := func() error {
			if err := syscall.Setgroups(nil); err != nil {
				return err
			}
			if err := syscall.Setresgid(nobody, nobody, 0); err != nil {
				return err
			}
			return syscall.Setresuid(nobody, nobody, 0)
		}
		if err := become(); err != nil {
			fmt.Fprintln(os.Stderr, "becoming an ordinary user:", err)
			os.Exit(1)
		}
		// /proc/self is the user's own.
		if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 1, 0); errno != 0 {
			fmt.Fprintln(os.Stderr, "prctl:", errno)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

const nobody = 65534

// asRoot runs a command that sets something up; its words are its input's.
func asRoot(stdin string, command ...string) error {
	c := exec.Command(command[0], command[1:]...)
	c.Stdin = strings.NewReader(stdin)
	if os.Getenv("T_USER") != "" {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{NoSetGroups: true}}
	}
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %v: %s", command, err, out)
	}
	return nil
}

// byBroker is whether tests/lab has started the broker.
func byBroker() bool {
	return strings.HasPrefix(os.Getenv("MPTCPAPI_BROKER"), "@")
}

// mode is what kind of lab this is: direct, userspace or user.
func mode() string {
	for _, line := range strings.Split(contents("/proc/self/status"), "\n") {
		var caps uint64
		n, _ := fmt.Sscanf(line, "CapEff: %x", &caps)
		if n == 1 && caps&(1<<12) == 0 && !byBroker() {
			return "user"
		}
	}
	if contents("/proc/sys/net/mptcp/pm_type") == "1" {
		return "userspace"
	}
	return "direct"
}

// lab skips a test where it can't run, and says why.
func lab(t *testing.T, want string) {
	t.Helper()
	if !inLab() {
		t.Skip("needs the addresses that tests/lab makes")
	}
	if got := mode(); want != "any" && got != want {
		t.Skipf("this is a lab of kind %q, the test is for %q", got, want)
	}
}

// await waits until cond holds.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

func addrs(list ...string) []netip.AddrPort {
	var l []netip.AddrPort
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			l = append(l, netip.AddrPortFrom(a, 0))
		} else {
			l = append(l, netip.MustParseAddrPort(s))
		}
	}
	return l
}

func has(list []netip.AddrPort, a netip.AddrPort) bool {
	for _, l := range list {
		if l.Addr() == a.Addr() {
			return true
		}
	}
	return false
}

func isErrno(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
		return
	}
	var e *mptcp.Error
	if !errors.As(err, &e) || e.Errno != want || e.Words == "" || e.Op == "" {
		t.Errorf("%s: %#v, want an *mptcp.Error with words", what, err)
	}
}

func isOpError(t *testing.T, what string, err error) {
	t.Helper()
	if e, ok := err.(*net.OpError); !ok || e.Op == "" || e.Net == "" {
		t.Errorf("%s: %T %v, want a *net.OpError", what, err, err)
	}
}

// echo serves on l until it is closed, and hands out what it accepts.
func echo(t *testing.T, l net.Listener) <-chan *net.TCPConn {
	t.Helper()
	accepted := make(chan *net.TCPConn, 1000)
	var wg sync.WaitGroup
	wg.Add(1)
	var mu sync.Mutex
	var all []net.Conn
	go func() {
		defer wg.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			all = append(all, c)
			mu.Unlock()
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer c.Close()
				// Not by splice(2), whose pipes stay open until a GC.
				_, _ = io.Copy(struct{ io.Writer }{c}, c)
			}()
			accepted <- c.(*net.TCPConn)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range all {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return accepted
}

// serve is an echo server; its address.
func serve(t *testing.T, network, address string) (string, <-chan *net.TCPConn) {
	t.Helper()
	lc := mptcp.ListenConfig{NoFallback: true}
	l, err := lc.Listen(context.Background(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l.Addr().String(), echo(t, l)
}

// servePlain is one that speaks TCP only.
func servePlain(t *testing.T, network, address string) string {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return mptcp.Enable(mptcp.Raw(c), false)
	}}
	l, err := lc.Listen(context.Background(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, l)
	return l.Addr().String()
}

func dial(t *testing.T, d *mptcp.Dialer, network, address string) *net.TCPConn {
	t.Helper()
	d.Timeout = patience
	c, err := d.Dial(network, address)
	if err != nil {
		t.Fatalf("dial %s %s: %v", network, address, err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// exchange sends size bytes and wants them back.
func exchange(c net.Conn, size int) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	sent := make([]byte, size)
	rand.Read(sent)
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		wrote <- err
	}()
	got := make([]byte, size)
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if err := <-wrote; err != nil {
		return err
	}
	if !bytes.Equal(sent, got) {
		return errors.New("other bytes came back")
	}
	return c.SetDeadline(time.Time{})
}

func mustExchange(t *testing.T, c net.Conn, size int) {
	t.Helper()
	if err := exchange(c, size); err != nil {
		t.Fatal(err)
	}
}

func subflows(t *testing.T, c syscall.Conn) []mptcp.Subflow {
	t.Helper()
	s, err := mptcp.Subflows(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// locals are the local addresses in use, without ports. Each must be in list.
func locals(t *testing.T, c syscall.Conn, list []netip.AddrPort) map[string]bool {
	t.Helper()
	m := map[string]bool{}
	for _, s := range subflows(t, c) {
		if !has(list, s.Local) {
			t.Fatalf("subflow %v is outside the list %v", s, list)
		}
		m[s.Local.Addr().String()] = true
	}
	return m
}

// full is the address of a listener whose queue is full: nobody answers.
func full(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{10, 9, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("10.9.0.1:%d", sa.(*syscall.SockaddrInet4).Port)
	for i := 0; i < 8; i++ {
		c, err := net.DialTimeout("tcp", address, 300*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue doesn't get full")
	return ""
}

var errStop = errors.New("stop")

// unconnected runs f on a socket that isn't connected yet, and never will be.
func unconnected(t *testing.T, network string, f func(c syscall.Conn)) {
	t.Helper()
	address := "10.9.0.1:9"
	if network == "tcp6" {
		address = "[fd09::1]:9"
	}
	ran := false
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		f(mptcp.Raw(c))
		ran = true
		return errStop
	}}
	c, err := d.Dial(network, address)
	if !errors.Is(err, errStop) || !ran {
		if c != nil {
			c.Close()
		}
		t.Fatalf("dial: %v", err)
	}
}

func fds(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// leaks notes what is open. The function it returns waits until no more is,
// without the help of the GC, which closes what was forgotten.
func leaks(t *testing.T) func() {
	t.Helper()
	percent := debug.SetGCPercent(-1)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	// What the library keeps open, it has open from here on.
	if _, err := mptcp.Capabilities(nil); err != nil {
		t.Fatal(err)
	}
	var descriptors, goroutines int
	await(t, "rest", func() bool {
		d, g := fds(t), runtime.NumGoroutine()
		rest := d == descriptors && g == goroutines
		descriptors, goroutines = d, g
		return rest
	})
	if byBroker() {
		descriptors += 3 // some more lines to it, where several ask at once
	}
	return func() {
		t.Helper()
		await(t, "no descriptor and no goroutine is left over", func() bool {
			return fds(t) <= descriptors && runtime.NumGoroutine() <= goroutines
		})
	}
}
