// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

package mptcp_test

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"libmptcpapi/mptcp"
)

// still waits until all that was sent is acknowledged, and gives the numbers.
func still(t *testing.T, c syscall.Conn) (mptcp.ConnStats, []mptcp.SubflowStats) {
	t.Helper()
	var conn mptcp.ConnStats
	var list []mptcp.SubflowStats
	await(t, "all is acknowledged", func() bool {
		var err error
		if conn, list, err = mptcp.Stats(c); err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			if s.Unacked != 0 {
				return false
			}
		}
		return conn.BytesAcked >= conn.BytesSent
	})
	return conn, list
}

func TestAnyStats(t *testing.T) {
	lab(t, "any")
	for _, server := range []string{"10.9.0.1:0", "[fd09::1]:0"} {
		address, accepted := serve(t, "tcp", server)
		c := dial(t, &mptcp.Dialer{}, "tcp", address)
		s := <-accepted
		mustExchange(t, c, 5000)
		id, err := mptcp.ConnID(c)
		if err != nil {
			t.Fatal(err)
		}
		for i, end := range []*net.TCPConn{c, s} {
			conn, list := still(t, end)
			if len(list) != 1 || conn.Subflows != 1 || conn.Flags&mptcp.ConnFallback != 0 {
				t.Fatalf("%+v %+v", conn, list)
			}
			one := list[0]
			if conn.Flags&mptcp.ConnFull == 0 || !conn.Has(mptcp.HasConnConnID|mptcp.HasConnSubflows) {
				t.Errorf("%+v", conn)
			}
			if i == 0 && conn.ConnID != id {
				t.Errorf("connection id %v, not %v", conn.ConnID, id)
			}
			if conn.Has(mptcp.HasConnBytesSent) && (conn.BytesSent != 5000 || conn.BytesReceived != 5000 ||
				conn.ClosedBytesSent != 0 || one.ShareSent != 1000000 || one.ShareReceived != 1000000) {
				t.Errorf("%+v %+v", conn, one)
			}
			// More where the connection's timer was impatient.
			if one.BytesSent < 5000 || one.BytesReceived < 5000 || one.State != 1 {
				t.Errorf("%+v", one)
			}
			if !one.Has(mptcp.HasSubflowRTT|mptcp.HasSubflowCwnd) || one.RTT <= 0 || one.Cwnd <= 0 || one.MSS <= 0 {
				t.Errorf("%+v", one)
			}
			lo, _ := net.InterfaceByName("lo")
			if one.IfIndex != lo.Index {
				t.Errorf("interface %v", one.IfIndex)
			}
			// What inet_diag tells this user (Linux 6.15, before that root).
			if one.Flags&mptcp.SubflowPrioKnown != 0 {
				if !one.Has(mptcp.HasSubflowLocalID|mptcp.HasSubflowRemoteID) || one.LocalID != 0 {
					t.Errorf("%+v", one)
				}
				if (conn.Flags&mptcp.ConnServer != 0) != (i == 1) {
					t.Errorf("end %d: flags %#x", i, conn.Flags)
				}
			}
			alone, err := mptcp.StatsOfConn(end)
			if err != nil || alone.Known != conn.Known || alone.BytesSent != conn.BytesSent {
				t.Errorf("%+v %v, not %+v", alone, err, conn)
			}
			again, err := mptcp.StatsOfSubflow(end, subflows(t, end)[0])
			if err != nil || again.Local != one.Local || again.BytesSent < one.BytesSent {
				t.Errorf("%+v %v, not %+v", again, err, one)
			}
			other := one.Subflow
			other.Remote = netip.AddrPortFrom(other.Remote.Addr(), 1)
			_, err = mptcp.StatsOfSubflow(end, other)
			isErrno(t, "another subflow", err, syscall.ENOENT)
			_, err = mptcp.StatsOfSubflow(end, mptcp.Subflow{})
			isErrno(t, "no address", err, syscall.EINVAL)
		}
	}
}

func TestAnyStatsPlain(t *testing.T) {
	lab(t, "any")
	c := dial(t, &mptcp.Dialer{}, "tcp", servePlain(t, "tcp", "10.9.0.1:0"))
	mustExchange(t, c, 5000)
	conn, list := still(t, c)
	if conn.Flags != mptcp.ConnFallback || conn.Has(mptcp.HasConnConnID) || conn.SubflowsMax != 1 {
		t.Errorf("%+v", conn)
	}
	if conn.BytesSent != 5000 || len(list) != 1 || list[0].ShareSent != 1000000 ||
		list[0].Flags != mptcp.SubflowInitial|mptcp.SubflowFallback || list[0].Has(mptcp.HasSubflowLocalID) {
		t.Errorf("%+v %+v", conn, list)
	}
}

func TestAnyStatsNotConnected(t *testing.T) {
	lab(t, "any")
	l, err := (&mptcp.ListenConfig{}).Listen(context.Background(), "tcp", "10.9.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pair := addrs("10.1.0.1:1", "10.9.0.1:2")
	for _, c := range []syscall.Conn{l, nil} {
		want := syscall.ENOTCONN
		if c == nil {
			want = syscall.EINVAL
		}
		_, _, err = mptcp.Stats(c)
		isErrno(t, "stats", err, want)
		_, err = mptcp.StatsOfConn(c)
		isErrno(t, "connection", err, want)
		_, err = mptcp.StatsOfSubflow(c, mptcp.Subflow{Local: pair[0], Remote: pair[1]})
		isErrno(t, "subflow", err, want)
	}
}

func paths(t *testing.T) {
	list := addrs("10.1.0.1", "10.2.0.1")
	address, _ := serve(t, "tcp", "10.9.0.1:0")
	c := dial(t, &mptcp.Dialer{LocalAddrs: list}, "tcp", address)
	data(t, c, list, 2)
	if err := mptcp.Add(c, addrs("10.3.0.1"), mptcp.AddBackup); err != nil {
		t.Fatal(err)
	}
	await(t, "the backup subflow", func() bool {
		s := subflows(t, c)
		if len(s) != 3 {
			return false
		}
		stats, err := mptcp.StatsOfSubflow(c, s[2])
		return err == nil && stats.Flags&mptcp.SubflowBackup != 0
	})
	conn, before := still(t, c)
	total := 0
	for _, s := range before {
		total += s.ShareSent
	}
	if conn.Has(mptcp.HasConnBytesSent) && total != 1000000 {
		t.Errorf("shares make %d: %+v", total, before)
	}
	if err := mptcp.Remove(c, list[:1]); err != nil {
		t.Fatal(err)
	}
	await(t, "it is gone", func() bool { return len(subflows(t, c)) == 2 })
	_, err := mptcp.StatsOfSubflow(c, before[0].Subflow)
	isErrno(t, "the closed one", err, syscall.ENOENT)
	conn, after := still(t, c)
	if conn.Has(mptcp.HasConnBytesSent) && (conn.ClosedBytesSent == 0 || conn.ClosedBytesSent > before[0].BytesSent) {
		t.Errorf("closed: %d, and it had %d", conn.ClosedBytesSent, before[0].BytesSent)
	}
	if len(after) != 2 || conn.Subflows != 2 || after[0].ShareSent+after[1].ShareSent > 1000000 {
		t.Errorf("%+v %+v", conn, after)
	}
}

func TestDirectStats(t *testing.T) {
	lab(t, "direct")
	paths(t)
}

func TestUserspaceStats(t *testing.T) {
	lab(t, "userspace")
	paths(t)
}
