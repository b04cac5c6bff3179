// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

package mptcp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"
)

// scopeID is the interface index of a zone, by name or by number.
func scopeID(zone string) (uint32, bool) {
	if zone == "" {
		return 0, true
	}
	if ifi, err := net.InterfaceByName(zone); err == nil {
		return uint32(ifi.Index), true
	}
	n, err := strconv.ParseUint(zone, 10, 32)
	return uint32(n), err == nil
}

// zone is the name of an interface, or its index where it has none.
func zone(scope uint32) string {
	if scope == 0 {
		return ""
	}
	if ifi, err := net.InterfaceByIndex(int(scope)); err == nil {
		return ifi.Name
	}
	return strconv.FormatUint(uint64(scope), 10)
}

// htons gives a port as it stands in a sockaddr.
func htons(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return *(*uint16)(unsafe.Pointer(&b))
}

// ntohs is the way back.
func ntohs(port uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&port))[:])
}

// pack writes addresses one behind the other as sockaddr_in and sockaddr_in6.
func pack(op string, addrs []netip.AddrPort) ([]byte, error) {
	var b []byte
	for _, a := range addrs {
		switch ip := a.Addr().Unmap(); {
		case ip.Is4():
			sa := syscall.RawSockaddrInet4{Family: syscall.AF_INET, Port: htons(a.Port()), Addr: ip.As4()}
			b = append(b, (*[syscall.SizeofSockaddrInet4]byte)(unsafe.Pointer(&sa))[:]...)
		case ip.Is6():
			scope, ok := scopeID(ip.Zone())
			if !ok {
				return nil, &Error{op, syscall.EINVAL, "no interface " + ip.Zone() + " for " + ip.String()}
			}
			sa := syscall.RawSockaddrInet6{Family: syscall.AF_INET6, Port: htons(a.Port()), Addr: ip.As16(), Scope_id: scope}
			b = append(b, (*[syscall.SizeofSockaddrInet6]byte)(unsafe.Pointer(&sa))[:]...)
		default:
			return nil, &Error{op, syscall.EINVAL, "the zero netip.AddrPort is no address"}
		}
	}
	return b, nil
}

// unpack reads the first address of b, and says how long it is: 0 for none
// that it knows.
func unpack(b []byte) (netip.AddrPort, int) {
	if len(b) < 2 {
		return netip.AddrPort{}, 0
	}
	var family uint16
	copy((*[2]byte)(unsafe.Pointer(&family))[:], b)
	switch {
	case family == syscall.AF_INET && len(b) >= syscall.SizeofSockaddrInet4:
		var sa syscall.RawSockaddrInet4
		copy((*[syscall.SizeofSockaddrInet4]byte)(unsafe.Pointer(&sa))[:], b)
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), ntohs(sa.Port)), syscall.SizeofSockaddrInet4
	case family == syscall.AF_INET6 && len(b) >= syscall.SizeofSockaddrInet6:
		var sa syscall.RawSockaddrInet6
		copy((*[syscall.SizeofSockaddrInet6]byte)(unsafe.Pointer(&sa))[:], b)
		ip := netip.AddrFrom16(sa.Addr).WithZone(zone(sa.Scope_id))
		return netip.AddrPortFrom(ip, ntohs(sa.Port)), syscall.SizeofSockaddrInet6
	}
	return netip.AddrPort{}, 0
}

// unpackAll reads a packed list.
func unpackAll(b []byte) []netip.AddrPort {
	var addrs []netip.AddrPort
	for {
		a, n := unpack(b)
		if n == 0 {
			return addrs
		}
		addrs = append(addrs, a)
		b = b[n:]
	}
}

// families tells which ones a list has.
func families(addrs []netip.AddrPort) (v4, v6 bool) {
	for _, a := range addrs {
		if a.Addr().Unmap().Is4() {
			v4 = true
		} else {
			v6 = true
		}
	}
	return v4, v6
}

// only4 leaves out IPv6: an AF_INET socket can't carry it.
func only4(addrs []netip.AddrPort) []netip.AddrPort {
	var list []netip.AddrPort
	for _, a := range addrs {
		if a.Addr().Unmap().Is4() {
			list = append(list, a)
		}
	}
	return list
}
