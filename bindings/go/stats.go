// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

package mptcp

import (
	"net/netip"
	"syscall"
	"time"

	"libmptcpapi/mptcp/internal/capi"
)

// ConnFields are fields of ConnStats that may be known or not.
type ConnFields uint64

const (
	HasConnBytesSent           ConnFields = capi.CSBytesSent
	HasConnBytesReceived       ConnFields = capi.CSBytesReceived
	HasConnBytesAcked          ConnFields = capi.CSBytesAcked
	HasConnBytesRetrans        ConnFields = capi.CSBytesRetrans
	HasConnClosedBytesSent     ConnFields = capi.CSClosedSent
	HasConnClosedBytesReceived ConnFields = capi.CSClosedReceived
	HasConnConnID              ConnFields = capi.CSConnID
	HasConnFlags               ConnFields = capi.CSFlags
	HasConnSubflows            ConnFields = capi.CSSubflows
	HasConnSubflowsPending     ConnFields = capi.CSSubflowsPending
	HasConnSubflowsMax         ConnFields = capi.CSSubflowsMax
	HasConnRetransmits         ConnFields = capi.CSRetransmits
	HasConnLastDataSent        ConnFields = capi.CSLastDataSent
	HasConnLastDataReceived    ConnFields = capi.CSLastDataReceived
	HasConnLastAckReceived     ConnFields = capi.CSLastAckReceived
	HasConnAddrsAnnounced      ConnFields = capi.CSAddrsAnnounced
	HasConnAddrsReceived       ConnFields = capi.CSAddrsReceived
)

// ConnFlags are the properties of a connection.
type ConnFlags uint32

const (
	ConnFallback ConnFlags = capi.ConnFallback // plain TCP
	ConnServer   ConnFlags = capi.ConnServer   // accepted here; not set where that isn't known
	ConnChecksum ConnFlags = capi.ConnChecksum // MPTCP's checksums are in use
	ConnFull     ConnFlags = capi.ConnFull     // fully established: subflows can be made
)

// ConnStats is a connection in numbers.
type ConnStats struct {
	Known ConnFields // the fields that are known; the others are zero

	// Payload, each byte once, and the part of it that was sent on a subflow
	// once more since the peer did not acknowledge it in time (Linux 6.5).
	// Acknowledged is also the end of the stream, and the SYN of plain TCP.
	BytesSent, BytesReceived, BytesAcked, BytesRetrans uint64

	// What moved on subflows that are gone; received: at least (Linux 6.5).
	ClosedBytesSent, ClosedBytesReceived uint64

	ConnID          uint32
	Flags           ConnFlags
	Subflows        int // established
	SubflowsPending int // SYN sent
	SubflowsMax     int // limit of the in-kernel path manager
	Retransmits     int // how often in a row the connection's timer ran out

	LastDataSent     time.Duration // ago (Linux 6.10), as the next two
	LastDataReceived time.Duration
	LastAckReceived  time.Duration

	AddrsAnnounced int // to the peer
	AddrsReceived  int // from the peer, as far as they were taken
}

// Has reports whether all of f are known.
func (s ConnStats) Has(f ConnFields) bool { return s.Known&f == f }

// SubflowFields are fields of SubflowStats that may be known or not.
type SubflowFields uint64

const (
	HasSubflowBytesSent        SubflowFields = capi.SSBytesSent
	HasSubflowBytesReceived    SubflowFields = capi.SSBytesReceived
	HasSubflowBytesAcked       SubflowFields = capi.SSBytesAcked
	HasSubflowBytesRetrans     SubflowFields = capi.SSBytesRetrans
	HasSubflowDeliveryRate     SubflowFields = capi.SSDeliveryRate
	HasSubflowPacingRate       SubflowFields = capi.SSPacingRate
	HasSubflowShareSent        SubflowFields = capi.SSShareSent
	HasSubflowShareReceived    SubflowFields = capi.SSShareReceived
	HasSubflowState            SubflowFields = capi.SSState
	HasSubflowRTT              SubflowFields = capi.SSRTT
	HasSubflowRTTVar           SubflowFields = capi.SSRTTVar
	HasSubflowMinRTT           SubflowFields = capi.SSMinRTT
	HasSubflowRTO              SubflowFields = capi.SSRTO
	HasSubflowBackoff          SubflowFields = capi.SSBackoff
	HasSubflowCwnd             SubflowFields = capi.SSCwnd
	HasSubflowSSThresh         SubflowFields = capi.SSSSThresh
	HasSubflowMSS              SubflowFields = capi.SSMSS
	HasSubflowUnacked          SubflowFields = capi.SSUnacked
	HasSubflowLost             SubflowFields = capi.SSLost
	HasSubflowRetrans          SubflowFields = capi.SSRetrans
	HasSubflowReordering       SubflowFields = capi.SSReordering
	HasSubflowLastDataSent     SubflowFields = capi.SSLastDataSent
	HasSubflowLastDataReceived SubflowFields = capi.SSLastDataReceived
	HasSubflowLastAckReceived  SubflowFields = capi.SSLastAckReceived
	HasSubflowLocalID          SubflowFields = capi.SSLocalID
	HasSubflowRemoteID         SubflowFields = capi.SSRemoteID
	HasSubflowIfIndex          SubflowFields = capi.SSIfIndex
)

// SubflowStats is a subflow in numbers: those of TCP, as ss(8) shows them.
type SubflowStats struct {
	Subflow               // with the backup flags, where SubflowPrioKnown is set
	Known   SubflowFields // the fields that are known; the others are zero

	BytesSent     uint64 // payload, retransmissions included
	BytesReceived uint64 // a FIN counts as one
	BytesAcked    uint64 // a SYN sent and a FIN count as one
	BytesRetrans  uint64
	DeliveryRate  uint64 // bytes per second, of late
	PacingRate    uint64 // bytes per second at which it may send

	// Its part of what all subflows, living and gone, moved, in millionths
	// (Linux 6.5).
	ShareSent, ShareReceived int

	State      int // tcp(7): 1 is ESTABLISHED
	RTT        time.Duration
	RTTVar     time.Duration
	MinRTT     time.Duration
	RTO        time.Duration
	Backoff    int // how often RTO was doubled
	Cwnd       int // segments, as the others
	SSThresh   int // 0x7fffffff: none yet
	MSS        int // bytes
	Unacked    int
	Lost       int
	Retrans    int // ever
	Reordering int

	LastDataSent     time.Duration // ago
	LastDataReceived time.Duration
	LastAckReceived  time.Duration

	LocalID, RemoteID int // MPTCP's numbers of the addresses
	IfIndex           int // bound to it, else it has the local address
}

// Has reports whether all of f are known.
func (s SubflowStats) Has(f SubflowFields) bool { return s.Known&f == f }

// Stats tells the numbers of a connection and of its established subflows,
// oldest first, at one moment: only here the subflows' shares add up, to
// 1,000,000 less what closed ones had. A plain TCP connection has one subflow.
// No privilege is needed.
//
// ENOTCONN: not connected. EOPNOTSUPP: MPTCP before Linux 5.16.
func Stats(c syscall.Conn) (ConnStats, []SubflowStats, error) {
	var conn capi.ConnStats
	var list []capi.SubflowStats
	err := control("stats", c, func(fd int) (f *capi.Failure) {
		conn, list, f = capi.GetAllStats(fd)
		return f
	})
	if err != nil {
		return ConnStats{}, nil, err
	}
	subflows := make([]SubflowStats, len(list))
	for i := range list {
		subflows[i] = newSubflowStats(&list[i])
	}
	return newConnStats(&conn), subflows, nil
}

// StatsOfConn tells the numbers of the connection alone, as Stats.
func StatsOfConn(c syscall.Conn) (ConnStats, error) {
	var conn capi.ConnStats
	err := control("connstats", c, func(fd int) (f *capi.Failure) {
		conn, f = capi.GetConnStats(fd)
		return f
	})
	if err != nil {
		return ConnStats{}, err
	}
	return newConnStats(&conn), nil
}

// StatsOfSubflow tells the numbers of one subflow, as Stats. It is known by its
// addresses and ports, and by its ID where that isn't 0.
//
// ENOENT: no such subflow, or no more.
func StatsOfSubflow(c syscall.Conn, s Subflow) (SubflowStats, error) {
	local, err := pack("subflowstats", []netip.AddrPort{s.Local})
	if err != nil {
		return SubflowStats{}, err
	}
	remote, err := pack("subflowstats", []netip.AddrPort{s.Remote})
	if err != nil {
		return SubflowStats{}, err
	}
	var stats capi.SubflowStats
	err = control("subflowstats", c, func(fd int) (f *capi.Failure) {
		stats, f = capi.GetSubflowStats(fd, local, remote, s.ID)
		return f
	})
	if err != nil {
		return SubflowStats{}, err
	}
	return newSubflowStats(&stats), nil
}

func ms(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }
func us(n uint32) time.Duration { return time.Duration(n) * time.Microsecond }

func newConnStats(s *capi.ConnStats) ConnStats {
	return ConnStats{
		Known:               ConnFields(s.Valid),
		BytesSent:           s.BytesSent,
		BytesReceived:       s.BytesReceived,
		BytesAcked:          s.BytesAcked,
		BytesRetrans:        s.BytesRetrans,
		ClosedBytesSent:     s.ClosedBytesSent,
		ClosedBytesReceived: s.ClosedBytesReceived,
		ConnID:              s.ConnID,
		Flags:               ConnFlags(s.Flags),
		Subflows:            int(s.Subflows),
		SubflowsPending:     int(s.SubflowsPending),
		SubflowsMax:         int(s.SubflowsMax),
		Retransmits:         int(s.Retransmits),
		LastDataSent:        ms(s.LastDataSent),
		LastDataReceived:    ms(s.LastDataReceived),
		LastAckReceived:     ms(s.LastAckReceived),
		AddrsAnnounced:      int(s.AddrsAnnounced),
		AddrsReceived:       int(s.AddrsReceived),
	}
}

func newSubflowStats(s *capi.SubflowStats) SubflowStats {
	return SubflowStats{
		Subflow:          newSubflow(&s.Subflow),
		Known:            SubflowFields(s.Valid),
		BytesSent:        s.BytesSent,
		BytesReceived:    s.BytesReceived,
		BytesAcked:       s.BytesAcked,
		BytesRetrans:     s.BytesRetrans,
		DeliveryRate:     s.DeliveryRate,
		PacingRate:       s.PacingRate,
		ShareSent:        int(s.ShareSent),
		ShareReceived:    int(s.ShareReceived),
		State:            int(s.State),
		RTT:              us(s.RTT),
		RTTVar:           us(s.RTTVar),
		MinRTT:           us(s.MinRTT),
		RTO:              us(s.RTO),
		Backoff:          int(s.Backoff),
		Cwnd:             int(s.Cwnd),
		SSThresh:         int(s.SSThresh),
		MSS:              int(s.MSS),
		Unacked:          int(s.Unacked),
		Lost:             int(s.Lost),
		Retrans:          int(s.Retrans),
		Reordering:       int(s.Reordering),
		LastDataSent:     ms(s.LastDataSent),
		LastDataReceived: ms(s.LastDataReceived),
		LastAckReceived:  ms(s.LastAckReceived),
		LocalID:          int(s.LocalID),
		RemoteID:         int(s.RemoteID),
		IfIndex:          int(s.IfIndex),
	}
}
