// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

package mptcp

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestUnitPack(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil || lo.Index != 1 {
		t.Fatalf("lo: %v %v", lo, err)
	}
	fe80 := netip.MustParseAddr("fe80::1")
	list := []netip.AddrPort{
		netip.MustParseAddrPort("10.1.2.3:258"),
		netip.MustParseAddrPort("[2001:db8::1]:0"),
		netip.MustParseAddrPort("[::ffff:10.9.8.7]:65535"),
		netip.AddrPortFrom(fe80.WithZone("lo"), 7),
		netip.AddrPortFrom(fe80.WithZone("1"), 7),
		netip.AddrPortFrom(fe80.WithZone("4000000000"), 7),
	}
	b, err := pack("add", list)
	if err != nil {
		t.Fatal(err)
	}
	if want := 2*syscall.SizeofSockaddrInet4 + 4*syscall.SizeofSockaddrInet6; len(b) != want {
		t.Fatalf("%d bytes, want %d", len(b), want)
	}
	if want := []byte{1, 2, 10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0}; !bytes.Equal(b[2:16], want) {
		t.Errorf("sockaddr_in is % x, want % x behind the family", b[:16], want)
	}
	list[2] = netip.MustParseAddrPort("10.9.8.7:65535") // v4-mapped is IPv4
	list[4] = list[3]                                   // a number that has a name is shown by name
	got := unpackAll(b)
	if len(got) != len(list) {
		t.Fatalf("%v, want %v", got, list)
	}
	for i := range list {
		if got[i] != list[i] {
			t.Errorf("address %d: %v, want %v", i, got[i], list[i])
		}
	}
	for _, bad := range []netip.AddrPort{{}, netip.AddrPortFrom(fe80.WithZone("no-such-if"), 0)} {
		_, err := pack("add", []netip.AddrPort{list[0], bad})
		var e *Error
		if !errors.As(err, &e) || e.Op != "add" || !errors.Is(err, syscall.EINVAL) {
			t.Errorf("pack(%v): %v, want EINVAL", bad, err)
		}
	}
	for _, bad := range [][]byte{nil, {2}, {2, 0, 1}, make([]byte, 128)} {
		if _, n := unpack(bad); n != 0 {
			t.Errorf("unpack(% x) took %d bytes", bad, n)
		}
	}
}

func TestUnitError(t *testing.T) {
	err := error(&net.OpError{Op: "dial", Net: "tcp", Err: &Error{"add", syscall.EPERM, "nobody may"}})
	if !errors.Is(err, syscall.EPERM) || !errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EACCES) {
		t.Errorf("%v is not EPERM", err)
	}
	if s := err.Error(); !strings.Contains(s, "mptcp add: operation not permitted: nobody may") {
		t.Errorf("%q", s)
	}
	var e *Error
	if !errors.As(err, &e) || e.Timeout() || e.Temporary() {
		t.Errorf("%#v", e)
	}
	if err := net.Error(&net.OpError{Err: &Error{"connect", syscall.ETIMEDOUT, ""}}); !err.Timeout() {
		t.Errorf("%v is no timeout", err)
	}
}

func TestUnitNarrow(t *testing.T) {
	v4 := []netip.AddrPort{netip.MustParseAddrPort("10.1.0.1:0")}
	v6 := []netip.AddrPort{netip.MustParseAddrPort("[fd01::1]:0")}
	for _, c := range []struct {
		list             []netip.AddrPort
		network, address string
		want             string
	}{
		{nil, "tcp", "host:1", "tcp"},
		{v4, "tcp", "host:1", "tcp4"},
		{v6, "tcp", "host:1", "tcp6"},
		{append(v6, v4...), "tcp", "host:1", "tcp"},
		{v4, "tcp6", "host:1", "tcp6"},
		{v4, "tcp", "[fd09::1]:1", "tcp"},
	} {
		d := Dialer{LocalAddrs: c.list}
		if got := d.narrow(c.network, c.address); got != c.want {
			t.Errorf("%v to %s %s: %s, want %s", c.list, c.network, c.address, got, c.want)
		}
	}
}
