// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

package mptcp_test

import (
	"context"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"libmptcpapi/mptcp"
)

// hosts are the local addresses of the subflows; those for backup are marked.
func hosts(t *testing.T, c syscall.Conn) string {
	t.Helper()
	_, list, err := mptcp.Stats(c)
	if err != nil {
		t.Fatal(err)
	}
	words := make([]string, len(list))
	for i, s := range list {
		words[i] = s.Local.Addr().String()
		if s.Flags&mptcp.SubflowBackup != 0 {
			words[i] += " backup"
		}
	}
	return strings.Join(words, ", ")
}

func awaitHosts(t *testing.T, c syscall.Conn, want string) {
	t.Helper()
	await(t, want, func() bool { return hosts(t, c) == want })
}

func subflowFrom(t *testing.T, c syscall.Conn, host string) mptcp.Subflow {
	t.Helper()
	for _, s := range subflows(t, c) {
		if s.Local.Addr().String() == host {
			return s
		}
	}
	t.Fatalf("no subflow from %s", host)
	return mptcp.Subflow{}
}

// three is a connection with three addresses on its list, settings made before.
func three(t *testing.T, prepare func(c syscall.Conn) error) *net.TCPConn {
	t.Helper()
	address, _ := serve(t, "tcp", "10.9.0.1:0")
	d := mptcp.Dialer{LocalAddrs: addrs("10.1.0.1", "10.2.0.1", "10.3.0.1")}
	if prepare != nil {
		d.Control = func(_, _ string, c syscall.RawConn) error { return prepare(mptcp.Raw(c)) }
	}
	c := dial(t, &d, "tcp", address)
	mustExchange(t, c, 5000)
	return c
}

func TestAnySettingsDefault(t *testing.T) {
	lab(t, "any")
	address, _ := serve(t, "tcp", "10.9.0.1:0")
	c := dial(t, &mptcp.Dialer{}, "tcp", address)
	n, err1 := mptcp.MaxSubflows(c)
	profile, err2 := mptcp.ProfileOf(c)
	traffic, err3 := mptcp.TrafficOf(c)
	policy, err4 := mptcp.PathPolicyOf(c)
	redundancy, err5 := mptcp.RedundancyOf(c)
	shares, err6 := mptcp.FateSharing(c)
	for _, err := range []error{err1, err2, err3, err4, err5, err6} {
		if err != nil {
			t.Error(err)
		}
	}
	if n != 255 || profile != mptcp.ProfileAggregate || traffic != (mptcp.Traffic{}) ||
		policy != (mptcp.PathPolicy{}) || redundancy != mptcp.RedundancyNone || shares {
		t.Error(n, profile, traffic, policy, redundancy, shares)
	}
	if err := mptcp.SetProfile(c, mptcp.ProfileAggregate); err != nil {
		t.Error(err)
	}
	isErrno(t, "no such profile", mptcp.SetProfile(c, 9), syscall.EINVAL)
	isErrno(t, "a negative time", mptcp.SetTraffic(c, mptcp.Traffic{Duration: -1}), syscall.EINVAL)
}

func TestDirectSettings(t *testing.T) {
	lab(t, "direct")
	hint := mptcp.Traffic{BytesToSend: 1 << 40, Rate: 7, Duration: 1500 * time.Millisecond}
	policy := mptcp.PathPolicy{Mode: mptcp.PathsOnDemand, After: time.Hour, AfterBytes: 1 << 30}
	c := three(t, func(c syscall.Conn) error {
		for _, err := range []error{
			mptcp.SetMaxSubflows(c, 2),
			mptcp.SetTraffic(c, hint),
			mptcp.SetProfile(c, mptcp.ProfileHandover),
			mptcp.SetFateSharing(c, true),
			mptcp.SetPathPolicy(c, policy),
		} {
			if err != nil {
				return err
			}
		}
		return nil
	})
	if got, err := mptcp.TrafficOf(c); err != nil || got != hint {
		t.Error(got, err)
	}
	if got, err := mptcp.PathPolicyOf(c); err != nil || !reflect.DeepEqual(got, policy) {
		t.Error(got, err)
	}
	if n, err := mptcp.MaxSubflows(c); err != nil || n != 2 {
		t.Error(n, err)
	}
	if on, err := mptcp.FateSharing(c); err != nil || !on {
		t.Error(on, err)
	}
	isErrno(t, "no scheduler", mptcp.SetRedundancy(c, mptcp.RedundancyFull), syscall.EOPNOTSUPP)
	// The hint is as much as the policy waits for.
	awaitHosts(t, c, "10.1.0.1, 10.2.0.1 backup")
	if err := mptcp.SetMaxSubflows(c, 0); err != nil {
		t.Error(err)
	}
	if err := mptcp.SetProfile(c, mptcp.ProfileAggregate); err != nil {
		t.Error(err)
	}
	awaitHosts(t, c, "10.1.0.1, 10.2.0.1, 10.3.0.1")
	mustExchange(t, c, 100000)
	if err := mptcp.CloseSubflow(c, subflowFrom(t, c, "10.1.0.1")); err != nil {
		t.Error(err)
	}
	awaitHosts(t, c, "")
}

func TestDirectByHand(t *testing.T) {
	lab(t, "direct")
	none := netip.AddrPort{}
	two, other := addrs("10.2.0.1")[0], addrs("10.3.0.1")[0]
	c := three(t, func(c syscall.Conn) error {
		return mptcp.SetPathPolicy(c, mptcp.PathPolicy{Mode: mptcp.PathsManual})
	})
	events, err := mptcp.Subscribe(c, mptcp.EventSubflowUp|mptcp.EventRequestFailed)
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := mptcp.OpenSubflow(c, two, none, true); err != nil {
		t.Fatal(err)
	}
	if e, err := events.Next(ctx); err != nil || e.What != mptcp.EventSubflowUp || e.Subflow.Local.Addr() != two.Addr() {
		t.Errorf("%+v %v", e, err)
	}
	awaitHosts(t, c, "10.1.0.1, 10.2.0.1 backup")
	isErrno(t, "not listed", mptcp.OpenSubflow(c, addrs("10.9.0.1")[0], none, false), syscall.EADDRNOTAVAIL)
	isErrno(t, "unlike families", mptcp.OpenSubflow(c, two, netip.MustParseAddrPort("[fd09::1]:0"), false), syscall.EAFNOSUPPORT)
	if err := mptcp.OpenSubflow(c, other, none, false); err != nil {
		t.Fatal(err)
	}
	awaitHosts(t, c, "10.1.0.1, 10.2.0.1 backup, 10.3.0.1")
	if err := mptcp.SetBackup(c, subflowFrom(t, c, "10.2.0.1"), false); err != nil {
		t.Error(err)
	}
	if err := mptcp.SetBackup(c, subflowFrom(t, c, "10.3.0.1"), true); err != nil {
		t.Error(err)
	}
	awaitHosts(t, c, "10.1.0.1, 10.2.0.1, 10.3.0.1 backup")
	closed := subflowFrom(t, c, "10.2.0.1")
	if err := mptcp.CloseSubflow(c, closed); err != nil {
		t.Error(err)
	}
	awaitHosts(t, c, "10.1.0.1, 10.3.0.1 backup")
	isErrno(t, "closed", mptcp.CloseSubflow(c, closed), syscall.ENOENT)
	isErrno(t, "closed", mptcp.SetBackup(c, closed, true), syscall.ENOENT)
	if err := mptcp.SetMaxSubflows(c, 2); err != nil {
		t.Error(err)
	}
	isErrno(t, "too many", mptcp.OpenSubflow(c, none, none, false), syscall.ENOSPC)
	mustExchange(t, c, 100000)
}

func TestUserSettings(t *testing.T) {
	lab(t, "user")
	address, _ := serve(t, "tcp", "10.9.0.1:0")
	c := dial(t, &mptcp.Dialer{}, "tcp", address)
	isErrno(t, "profile", mptcp.SetProfile(c, mptcp.ProfileHandover), syscall.EPERM)
	isErrno(t, "open", mptcp.OpenSubflow(c, netip.AddrPort{}, netip.AddrPort{}, false), syscall.EPERM)
	isErrno(t, "close", mptcp.CloseSubflow(c, subflows(t, c)[0]), syscall.EPERM)
	if p, err := mptcp.ProfileOf(c); err != nil || p != mptcp.ProfileAggregate {
		t.Error(p, err)
	}
}
