// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

// Package capi is the cgo boundary: one Go function for each C call, and the
// only package that imports "C". Everything else is plain Go on top of it.
//
// errno and the words of mptcp_errmsg() belong to the thread that made the
// call, and a goroutine may be on another thread by its next line. So every
// call goes through a C helper that makes the call and, where it failed, takes
// errno and words along, all within one crossing from Go to C. The result is
// returned by value: nothing to allocate, nothing to free.
//
// Addresses are packed sockaddrs in a []byte, which has no pointers in it and
// isn't kept by the library, so it may be passed as it is. What the library
// allocates is copied and freed before a function here returns.
package capi

/*
#cgo pkg-config: mptcpapi
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <mptcp.h>

_Static_assert(sizeof(struct mptcp_caps) == 256, "mptcp_caps");
_Static_assert(sizeof(struct mptcp_subflow) == 288, "mptcp_subflow");
_Static_assert(sizeof(struct mptcp_conn_stats) == 104, "mptcp_conn_stats");
_Static_assert(sizeof(struct mptcp_subflow_stats) == 432, "mptcp_subflow_stats");
_Static_assert(sizeof(struct mptcp_event) == 336, "mptcp_event");
_Static_assert(sizeof(struct mptcp_traffic) == 32, "mptcp_traffic");
_Static_assert(sizeof(struct mptcp_path_policy) == 16, "mptcp_path_policy");
_Static_assert(sizeof(struct mptcp_connect_opts) == sizeof(void *) + 32, "mptcp_connect_opts");

// What one call gave. words is set where rc is negative.
struct capi_result {
	int rc;
	int err;
	uint32_t value;
	void *list;
	char words[256];
};

static struct capi_result capi_done(int rc, uint32_t value, void *list)
{
	struct capi_result r;
	int err = errno;

	r.rc = rc;
	r.err = 0;
	r.value = value;
	r.list = list;
	r.words[0] = '\0';
	if (rc < 0) {
		r.err = err;
		strncpy(r.words, mptcp_errmsg(), sizeof(r.words) - 1);
		r.words[sizeof(r.words) - 1] = '\0';
	}
	return r;
}

// The bytes of n packed addresses.
static uint32_t capi_bytes(const void *addrs, int n)
{
	const char *p = addrs;

	while (n-- > 0) {
		int len = mptcp_getaddrlen(((const struct sockaddr *)(const void *)p)->sa_family);

		if (len <= 0)
			break;
		p += len;
	}
	return (uint32_t)(p - (const char *)addrs);
}

static struct capi_result capi_setint(int fd, int option, int value)
{
	int rc = mptcp_setsockopt(fd, IPPROTO_TCP, option, &value, sizeof(value));

	return capi_done(rc, 0, NULL);
}

static struct capi_result capi_getint(int fd, int option)
{
	uint32_t value = 0;
	socklen_t len = sizeof(value);
	int rc = mptcp_getsockopt(fd, IPPROTO_TCP, option, &value, &len);

	return capi_done(rc, value, NULL);
}

static struct capi_result capi_bindx(int fd, const void *addrs, int count, int flags)
{
	int rc = mptcp_bindx(fd, addrs, count, flags);

	return capi_done(rc, 0, NULL);
}

static struct capi_result capi_connectx(int fd, const void *addrs, int count)
{
	uint32_t connid = 0;
	int rc = mptcp_connectx(fd, addrs, count, &connid);

	return capi_done(rc, connid, NULL);
}

// local apart: a struct that C is given may not have a pointer of Go's in it.
static struct capi_result capi_connectbyname(const char *node, const char *service, const void *local,
                                             struct mptcp_connect_opts opts)
{
	int rc;

	opts.local = local;
	rc = mptcp_connectbyname(node, service, &opts, sizeof(opts));
	return capi_done(rc, 0, NULL);
}

static struct capi_result capi_getsubflows(int fd)
{
	struct mptcp_subflow *list = NULL;
	int rc = mptcp_getsubflows(fd, &list);

	return capi_done(rc, 0, list);
}

static struct capi_result capi_getladdrs(int fd)
{
	struct sockaddr *list = NULL;
	int rc = mptcp_getladdrs(fd, &list);

	return capi_done(rc, rc > 0 ? capi_bytes(list, rc) : 0, list);
}

static struct capi_result capi_getpaddrs(int fd)
{
	struct sockaddr *list = NULL;
	int rc = mptcp_getpaddrs(fd, &list);

	return capi_done(rc, rc > 0 ? capi_bytes(list, rc) : 0, list);
}

static struct capi_result capi_getcaps(int fd, struct mptcp_caps *caps)
{
	int rc = mptcp_getcaps(fd, caps, sizeof(*caps));

	return capi_done(rc, 0, NULL);
}

static struct capi_result capi_getconnstats(int fd, struct mptcp_conn_stats *stats)
{
	int rc = mptcp_getconnstats(fd, stats, sizeof(*stats));

	return capi_done(rc, 0, NULL);
}

static struct capi_result capi_getsubflowstats(int fd, const struct mptcp_subflow *subflow,
					       struct mptcp_subflow_stats *stats)
{
	int rc = mptcp_getsubflowstats(fd, subflow, stats, sizeof(*stats));

	return capi_done(rc, 0, NULL);
}

static struct capi_result capi_getallstats(int fd, struct mptcp_conn_stats *conn)
{
	struct mptcp_subflow_stats *list = NULL;
	int rc = mptcp_getallstats(fd, conn, sizeof(*conn), &list, sizeof(*list));

	return capi_done(rc, 0, list);
}

static struct capi_result capi_settraffic(int fd, struct mptcp_traffic value)
{
	int rc = mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_TRAFFIC, &value, sizeof(value));

	return capi_done(rc, 0, NULL);
}

static struct capi_result capi_gettraffic(int fd, struct mptcp_traffic *value)
{
	socklen_t len = sizeof(*value);
	int rc = mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_TRAFFIC, value, &len);

	return capi_done(rc, 0, NULL);
}

static struct capi_result capi_setpolicy(int fd, struct mptcp_path_policy value)
{
	int rc = mptcp_setsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_PATH_POLICY, &value, sizeof(value));

	return capi_done(rc, 0, NULL);
}

static struct capi_result capi_getpolicy(int fd, struct mptcp_path_policy *value)
{
	socklen_t len = sizeof(*value);
	int rc = mptcp_getsockopt(fd, IPPROTO_TCP, TCP_MULTIPATH_PATH_POLICY, value, &len);

	return capi_done(rc, 0, NULL);
}

static struct capi_result capi_opensubflow(int fd, const void *local, const void *remote, int flags)
{
	return capi_done(mptcp_opensubflow(fd, local, remote, flags), 0, NULL);
}

static struct capi_result capi_closesubflow(int fd, const struct mptcp_subflow *subflow)
{
	return capi_done(mptcp_closesubflow(fd, subflow), 0, NULL);
}

static struct capi_result capi_setbackup(int fd, const struct mptcp_subflow *subflow, int on)
{
	return capi_done(mptcp_setbackup(fd, subflow, on), 0, NULL);
}

static struct capi_result capi_subscribe(int fd, uint32_t events)
{
	return capi_done(mptcp_subscribe(fd, events), 0, NULL);
}

static struct capi_result capi_nextevent(int evfd, struct mptcp_event *event)
{
	return capi_done(mptcp_nextevent(evfd, event, sizeof(*event)), 0, NULL);
}
*/
import "C"

import (
	"strings"
	"syscall"
	"unsafe"
)

// Constants of mptcp.h, with its values.
const (
	BindxAddAddr     = C.MPTCP_BINDX_ADD_ADDR
	BindxRemAddr     = C.MPTCP_BINDX_REM_ADDR
	BindxBackup      = C.MPTCP_BINDX_BACKUP
	BindxNoAdvertise = C.MPTCP_BINDX_NO_ADVERTISE
	BindxNoSubflow   = C.MPTCP_BINDX_NO_SUBFLOW

	SubflowInitial    = C.MPTCP_SUBFLOW_INITIAL
	SubflowFallback   = C.MPTCP_SUBFLOW_FALLBACK
	SubflowPrioKnown  = C.MPTCP_SUBFLOW_PRIO_KNOWN
	SubflowBackup     = C.MPTCP_SUBFLOW_BACKUP
	SubflowPeerBackup = C.MPTCP_SUBFLOW_PEER_BACKUP

	CapEnable       = C.MPTCP_CAP_ENABLE
	CapSubflows     = C.MPTCP_CAP_SUBFLOWS
	CapConnID       = C.MPTCP_CAP_CONNID
	CapConnStats    = C.MPTCP_CAP_CONN_STATS
	CapSubflowStats = C.MPTCP_CAP_SUBFLOW_STATS
	CapAddBefore    = C.MPTCP_CAP_ADD_BEFORE
	CapAddLive      = C.MPTCP_CAP_ADD_LIVE
	CapCloseSubflow = C.MPTCP_CAP_CLOSE_SUBFLOW
	CapListen       = C.MPTCP_CAP_LISTEN
	CapBackup       = C.MPTCP_CAP_BACKUP
	CapProfile      = C.MPTCP_CAP_PROFILE
	CapRedundancy   = C.MPTCP_CAP_REDUNDANCY
	CapFateSharing  = C.MPTCP_CAP_FATE_SHARING
	CapEvents       = C.MPTCP_CAP_EVENTS
	CapLateBind     = C.MPTCP_CAP_LATE_BIND

	BackendNone   = C.MPTCP_BACKEND_NONE
	BackendBroker = C.MPTCP_BACKEND_BROKER
	BackendDirect = C.MPTCP_BACKEND_DIRECT

	ControlUnknown    = C.MPTCP_CONTROL_UNKNOWN
	ControlKernel     = C.MPTCP_CONTROL_KERNEL
	ControlConnection = C.MPTCP_CONTROL_CONNECTION

	CSBytesSent        = C.MPTCP_CS_BYTES_SENT
	CSBytesReceived    = C.MPTCP_CS_BYTES_RECEIVED
	CSBytesAcked       = C.MPTCP_CS_BYTES_ACKED
	CSBytesRetrans     = C.MPTCP_CS_BYTES_RETRANS
	CSClosedSent       = C.MPTCP_CS_CLOSED_SENT
	CSClosedReceived   = C.MPTCP_CS_CLOSED_RECEIVED
	CSConnID           = C.MPTCP_CS_CONNID
	CSFlags            = C.MPTCP_CS_FLAGS
	CSSubflows         = C.MPTCP_CS_SUBFLOWS
	CSSubflowsPending  = C.MPTCP_CS_SUBFLOWS_PENDING
	CSSubflowsMax      = C.MPTCP_CS_SUBFLOWS_MAX
	CSRetransmits      = C.MPTCP_CS_RETRANSMITS
	CSLastDataSent     = C.MPTCP_CS_LAST_DATA_SENT
	CSLastDataReceived = C.MPTCP_CS_LAST_DATA_RECEIVED
	CSLastAckReceived  = C.MPTCP_CS_LAST_ACK_RECEIVED
	CSAddrsAnnounced   = C.MPTCP_CS_ADDRS_ANNOUNCED
	CSAddrsReceived    = C.MPTCP_CS_ADDRS_RECEIVED

	ConnFallback = C.MPTCP_CONN_FALLBACK
	ConnServer   = C.MPTCP_CONN_SERVER
	ConnChecksum = C.MPTCP_CONN_CHECKSUM
	ConnFull     = C.MPTCP_CONN_FULL

	SSBytesSent        = C.MPTCP_SS_BYTES_SENT
	SSBytesReceived    = C.MPTCP_SS_BYTES_RECEIVED
	SSBytesAcked       = C.MPTCP_SS_BYTES_ACKED
	SSBytesRetrans     = C.MPTCP_SS_BYTES_RETRANS
	SSDeliveryRate     = C.MPTCP_SS_DELIVERY_RATE
	SSPacingRate       = C.MPTCP_SS_PACING_RATE
	SSShareSent        = C.MPTCP_SS_SHARE_SENT
	SSShareReceived    = C.MPTCP_SS_SHARE_RECEIVED
	SSState            = C.MPTCP_SS_STATE
	SSRTT              = C.MPTCP_SS_RTT
	SSRTTVar           = C.MPTCP_SS_RTTVAR
	SSMinRTT           = C.MPTCP_SS_MIN_RTT
	SSRTO              = C.MPTCP_SS_RTO
	SSBackoff          = C.MPTCP_SS_BACKOFF
	SSCwnd             = C.MPTCP_SS_CWND
	SSSSThresh         = C.MPTCP_SS_SSTHRESH
	SSMSS              = C.MPTCP_SS_MSS
	SSUnacked          = C.MPTCP_SS_UNACKED
	SSLost             = C.MPTCP_SS_LOST
	SSRetrans          = C.MPTCP_SS_RETRANS
	SSReordering       = C.MPTCP_SS_REORDERING
	SSLastDataSent     = C.MPTCP_SS_LAST_DATA_SENT
	SSLastDataReceived = C.MPTCP_SS_LAST_DATA_RECEIVED
	SSLastAckReceived  = C.MPTCP_SS_LAST_ACK_RECEIVED
	SSLocalID          = C.MPTCP_SS_LOCAL_ID
	SSRemoteID         = C.MPTCP_SS_REMOTE_ID
	SSIfIndex          = C.MPTCP_SS_IFINDEX

	OptMaxSubflows = C.TCP_MULTIPATH_MAX_SUBFLOWS
	OptProfile     = C.TCP_MULTIPATH_PROFILE
	OptRedundancy  = C.TCP_MULTIPATH_REDUNDANCY
	OptFateSharing = C.TCP_MULTIPATH_FATE_SHARING

	ProfileAggregate   = C.MPTCP_PROFILE_AGGREGATE
	ProfileInteractive = C.MPTCP_PROFILE_INTERACTIVE
	ProfileHandover    = C.MPTCP_PROFILE_HANDOVER
	ProfileOverflow    = C.MPTCP_PROFILE_OVERFLOW

	PathsEager    = C.MPTCP_PATHS_EAGER
	PathsOnDemand = C.MPTCP_PATHS_ON_DEMAND
	PathsManual   = C.MPTCP_PATHS_MANUAL

	RedundancyNone  = C.MPTCP_REDUNDANCY_NONE
	RedundancySpare = C.MPTCP_REDUNDANCY_SPARE
	RedundancyFull  = C.MPTCP_REDUNDANCY_FULL

	OpenBackup = C.MPTCP_OPEN_BACKUP

	EvSubflowUp     = C.MPTCP_EV_SUBFLOW_UP
	EvSubflowDown   = C.MPTCP_EV_SUBFLOW_DOWN
	EvPriority      = C.MPTCP_EV_PRIORITY
	EvPeerAddr      = C.MPTCP_EV_PEER_ADDR
	EvPeerAddrGone  = C.MPTCP_EV_PEER_ADDR_GONE
	EvFallback      = C.MPTCP_EV_FALLBACK
	EvUp            = C.MPTCP_EV_UP
	EvDown          = C.MPTCP_EV_DOWN
	EvRequestFailed = C.MPTCP_EV_REQUEST_FAILED
	EvAll           = C.MPTCP_EV_ALL
	EvCurrent       = C.MPTCP_EV_CURRENT
	EvOverflow      = C.MPTCP_EV_OVERFLOW

	OriginUnknown = C.MPTCP_ORIGIN_UNKNOWN
	OriginApp     = C.MPTCP_ORIGIN_APP
	OriginPolicy  = C.MPTCP_ORIGIN_POLICY
	OriginPeer    = C.MPTCP_ORIGIN_PEER
	OriginNetwork = C.MPTCP_ORIGIN_NETWORK

	// HeaderVersion is that of the header this was compiled with.
	HeaderVersion = C.MPTCPAPI_VERSION_NUMBER
)

// Failure is a call that returned -1.
type Failure struct {
	Errno syscall.Errno
	Words string // of mptcp_errmsg()
}

// Subflow is struct mptcp_subflow with the addresses as the C side wrote them.
type Subflow struct {
	Local, Remote [C.sizeof_struct_sockaddr_storage]byte
	ID, Flags     uint32
}

// Caps is struct mptcp_caps.
type Caps struct {
	Works, Known uint64
	Backend      uint32
	BackendErrno int32
	Control      uint32
	Library      uint32
	SubflowsMax  uint32
	AddrsMax     uint32
	Reason       string
}

func failure(r *C.struct_capi_result) *Failure {
	if r.rc >= 0 {
		return nil
	}
	return &Failure{Errno: syscall.Errno(r.err), Words: C.GoString(&r.words[0])}
}

// SetEnable is mptcp_setsockopt(TCP_MULTIPATH_ENABLE).
func SetEnable(fd int, on bool) *Failure {
	value := C.int(0)
	if on {
		value = 1
	}
	r := C.capi_setint(C.int(fd), C.TCP_MULTIPATH_ENABLE, value)
	return failure(&r)
}

// Enable is mptcp_getsockopt(TCP_MULTIPATH_ENABLE).
func Enable(fd int) (bool, *Failure) {
	r := C.capi_getint(C.int(fd), C.TCP_MULTIPATH_ENABLE)
	return r.value != 0, failure(&r)
}

// ConnID is mptcp_getsockopt(TCP_MULTIPATH_CONNID).
func ConnID(fd int) (uint32, *Failure) {
	r := C.capi_getint(C.int(fd), C.TCP_MULTIPATH_CONNID)
	return uint32(r.value), failure(&r)
}

// start is a pointer to b that isn't nil for an empty list, which is for the
// library to refuse.
func start(b []byte) unsafe.Pointer {
	if len(b) == 0 {
		b = make([]byte, C.sizeof_struct_sockaddr_in6)
	}
	return unsafe.Pointer(&b[0])
}

// Bindx is mptcp_bindx. addrs holds count packed addresses.
func Bindx(fd int, addrs []byte, count, flags int) *Failure {
	r := C.capi_bindx(C.int(fd), start(addrs), C.int(count), C.int(flags))
	return failure(&r)
}

// Connectx is mptcp_connectx. addrs holds count packed addresses.
func Connectx(fd int, addrs []byte, count int) (connid uint32, f *Failure) {
	r := C.capi_connectx(C.int(fd), start(addrs), C.int(count))
	return uint32(r.value), failure(&r)
}

// Subflows is mptcp_getsubflows.
func Subflows(fd int) ([]Subflow, *Failure) {
	r := C.capi_getsubflows(C.int(fd))
	if r.rc <= 0 {
		return nil, failure(&r)
	}
	list := (*C.struct_mptcp_subflow)(r.list)
	defer C.mptcp_freesubflows(list)
	subflows := make([]Subflow, int(r.rc))
	for i, s := range unsafe.Slice(list, int(r.rc)) {
		subflows[i] = subflow(&s)
	}
	return subflows, nil
}

func subflow(s *C.struct_mptcp_subflow) Subflow {
	return Subflow{
		Local:  *(*[C.sizeof_struct_sockaddr_storage]byte)(unsafe.Pointer(&s.local)),
		Remote: *(*[C.sizeof_struct_sockaddr_storage]byte)(unsafe.Pointer(&s.remote)),
		ID:     uint32(s.id),
		Flags:  uint32(s.flags),
	}
}

// ConnStats is struct mptcp_conn_stats.
type ConnStats struct {
	Valid                                              uint64
	BytesSent, BytesReceived, BytesAcked, BytesRetrans uint64
	ClosedBytesSent, ClosedBytesReceived               uint64
	ConnID, Flags                                      uint32
	Subflows, SubflowsPending, SubflowsMax             uint32
	Retransmits                                        uint32
	LastDataSent, LastDataReceived, LastAckReceived    uint32 // ms
	AddrsAnnounced, AddrsReceived                      uint32
}

func connStats(s *C.struct_mptcp_conn_stats) ConnStats {
	return ConnStats{
		Valid:               uint64(s.valid),
		BytesSent:           uint64(s.bytes_sent),
		BytesReceived:       uint64(s.bytes_received),
		BytesAcked:          uint64(s.bytes_acked),
		BytesRetrans:        uint64(s.bytes_retrans),
		ClosedBytesSent:     uint64(s.closed_bytes_sent),
		ClosedBytesReceived: uint64(s.closed_bytes_received),
		ConnID:              uint32(s.connid),
		Flags:               uint32(s.flags),
		Subflows:            uint32(s.subflows),
		SubflowsPending:     uint32(s.subflows_pending),
		SubflowsMax:         uint32(s.subflows_max),
		Retransmits:         uint32(s.retransmits),
		LastDataSent:        uint32(s.last_data_sent_ms),
		LastDataReceived:    uint32(s.last_data_received_ms),
		LastAckReceived:     uint32(s.last_ack_received_ms),
		AddrsAnnounced:      uint32(s.addrs_announced),
		AddrsReceived:       uint32(s.addrs_received),
	}
}

// SubflowStats is struct mptcp_subflow_stats.
type SubflowStats struct {
	Subflow                                            Subflow
	Valid                                              uint64
	BytesSent, BytesReceived, BytesAcked, BytesRetrans uint64
	DeliveryRate, PacingRate                           uint64
	ShareSent, ShareReceived                           uint32 // ppm
	State                                              uint32
	RTT, RTTVar, MinRTT, RTO                           uint32 // us
	Backoff, Cwnd, SSThresh, MSS                       uint32
	Unacked, Lost, Retrans, Reordering                 uint32
	LastDataSent, LastDataReceived, LastAckReceived    uint32 // ms
	LocalID, RemoteID                                  uint32
	IfIndex                                            int32
}

func subflowStats(s *C.struct_mptcp_subflow_stats) SubflowStats {
	return SubflowStats{
		Subflow:          subflow(&s.subflow),
		Valid:            uint64(s.valid),
		BytesSent:        uint64(s.bytes_sent),
		BytesReceived:    uint64(s.bytes_received),
		BytesAcked:       uint64(s.bytes_acked),
		BytesRetrans:     uint64(s.bytes_retrans),
		DeliveryRate:     uint64(s.delivery_rate),
		PacingRate:       uint64(s.pacing_rate),
		ShareSent:        uint32(s.share_sent_ppm),
		ShareReceived:    uint32(s.share_received_ppm),
		State:            uint32(s.state),
		RTT:              uint32(s.rtt_us),
		RTTVar:           uint32(s.rttvar_us),
		MinRTT:           uint32(s.min_rtt_us),
		RTO:              uint32(s.rto_us),
		Backoff:          uint32(s.backoff),
		Cwnd:             uint32(s.cwnd),
		SSThresh:         uint32(s.ssthresh),
		MSS:              uint32(s.mss),
		Unacked:          uint32(s.unacked),
		Lost:             uint32(s.lost),
		Retrans:          uint32(s.retrans),
		Reordering:       uint32(s.reordering),
		LastDataSent:     uint32(s.last_data_sent_ms),
		LastDataReceived: uint32(s.last_data_received_ms),
		LastAckReceived:  uint32(s.last_ack_received_ms),
		LocalID:          uint32(s.local_id),
		RemoteID:         uint32(s.remote_id),
		IfIndex:          int32(s.ifindex),
	}
}

// GetConnStats is mptcp_getconnstats.
func GetConnStats(fd int) (ConnStats, *Failure) {
	var c C.struct_mptcp_conn_stats
	r := C.capi_getconnstats(C.int(fd), &c)
	if f := failure(&r); f != nil {
		return ConnStats{}, f
	}
	return connStats(&c), nil
}

// named is the struct that names a subflow, by packed addresses.
func named(local, remote []byte, id uint32) C.struct_mptcp_subflow {
	var name C.struct_mptcp_subflow
	copy((*[C.sizeof_struct_sockaddr_storage]byte)(unsafe.Pointer(&name.local))[:], local)
	copy((*[C.sizeof_struct_sockaddr_storage]byte)(unsafe.Pointer(&name.remote))[:], remote)
	name.id = C.uint32_t(id)
	return name
}

// GetSubflowStats is mptcp_getsubflowstats. local and remote are packed
// addresses.
func GetSubflowStats(fd int, local, remote []byte, id uint32) (SubflowStats, *Failure) {
	var s C.struct_mptcp_subflow_stats
	name := named(local, remote, id)
	r := C.capi_getsubflowstats(C.int(fd), &name, &s)
	if f := failure(&r); f != nil {
		return SubflowStats{}, f
	}
	return subflowStats(&s), nil
}

// GetAllStats is mptcp_getallstats.
func GetAllStats(fd int) (ConnStats, []SubflowStats, *Failure) {
	var c C.struct_mptcp_conn_stats
	r := C.capi_getallstats(C.int(fd), &c)
	if f := failure(&r); f != nil {
		return ConnStats{}, nil, f
	}
	list := (*C.struct_mptcp_subflow_stats)(r.list)
	defer C.mptcp_freeallstats(list)
	subflows := make([]SubflowStats, int(r.rc))
	if list != nil {
		for i, s := range unsafe.Slice(list, int(r.rc)) {
			subflows[i] = subflowStats(&s)
		}
	}
	return connStats(&c), subflows, nil
}

// SetInt is mptcp_setsockopt of an option that is an int.
func SetInt(fd, option, value int) *Failure {
	r := C.capi_setint(C.int(fd), C.int(option), C.int(value))
	return failure(&r)
}

// GetInt is mptcp_getsockopt of an option that is an int.
func GetInt(fd, option int) (int, *Failure) {
	r := C.capi_getint(C.int(fd), C.int(option))
	return int(int32(r.value)), failure(&r)
}

// Traffic is struct mptcp_traffic.
type Traffic struct {
	BytesToSend, BytesToReceive, Rate uint64
	Duration                          uint32 // ms
}

// SetTraffic is mptcp_setsockopt(TCP_MULTIPATH_TRAFFIC).
func SetTraffic(fd int, t Traffic) *Failure {
	r := C.capi_settraffic(C.int(fd), C.struct_mptcp_traffic{
		bytes_to_send:    C.uint64_t(t.BytesToSend),
		bytes_to_receive: C.uint64_t(t.BytesToReceive),
		rate:             C.uint64_t(t.Rate),
		duration_ms:      C.uint32_t(t.Duration),
	})
	return failure(&r)
}

// GetTraffic is mptcp_getsockopt(TCP_MULTIPATH_TRAFFIC).
func GetTraffic(fd int) (Traffic, *Failure) {
	var t C.struct_mptcp_traffic
	r := C.capi_gettraffic(C.int(fd), &t)
	return Traffic{
		BytesToSend:    uint64(t.bytes_to_send),
		BytesToReceive: uint64(t.bytes_to_receive),
		Rate:           uint64(t.rate),
		Duration:       uint32(t.duration_ms),
	}, failure(&r)
}

// PathPolicy is struct mptcp_path_policy.
type PathPolicy struct {
	Mode, After uint32 // ms
	AfterBytes  uint64
}

// SetPathPolicy is mptcp_setsockopt(TCP_MULTIPATH_PATH_POLICY).
func SetPathPolicy(fd int, p PathPolicy) *Failure {
	r := C.capi_setpolicy(C.int(fd), C.struct_mptcp_path_policy{
		mode:        C.uint32_t(p.Mode),
		after_ms:    C.uint32_t(p.After),
		after_bytes: C.uint64_t(p.AfterBytes),
	})
	return failure(&r)
}

// GetPathPolicy is mptcp_getsockopt(TCP_MULTIPATH_PATH_POLICY).
func GetPathPolicy(fd int) (PathPolicy, *Failure) {
	var p C.struct_mptcp_path_policy
	r := C.capi_getpolicy(C.int(fd), &p)
	return PathPolicy{uint32(p.mode), uint32(p.after_ms), uint64(p.after_bytes)}, failure(&r)
}

// OpenSubflow is mptcp_opensubflow; local and remote are packed addresses, or
// nil for NULL.
func OpenSubflow(fd int, local, remote []byte, flags int) *Failure {
	var l, r unsafe.Pointer
	if len(local) > 0 {
		l = unsafe.Pointer(&local[0])
	}
	if len(remote) > 0 {
		r = unsafe.Pointer(&remote[0])
	}
	res := C.capi_opensubflow(C.int(fd), l, r, C.int(flags))
	return failure(&res)
}

// CloseSubflow is mptcp_closesubflow, of one with these packed addresses.
func CloseSubflow(fd int, local, remote []byte, id uint32) *Failure {
	name := named(local, remote, id)
	r := C.capi_closesubflow(C.int(fd), &name)
	return failure(&r)
}

// SetBackup is mptcp_setbackup, of one with these packed addresses.
func SetBackup(fd int, local, remote []byte, id uint32, on bool) *Failure {
	name := named(local, remote, id)
	value := C.int(0)
	if on {
		value = 1
	}
	r := C.capi_setbackup(C.int(fd), &name, value)
	return failure(&r)
}

// ByName is struct mptcp_connect_opts; times are in milliseconds. Local is
// packed addresses.
type ByName struct {
	Local                           []byte
	LocalCount                      int
	NoFallback                      bool
	Family                          int32
	Timeout, AttemptDelay, TCPDelay uint32
}

// ConnectByName is mptcp_connectbyname: a descriptor, non-blocking.
func ConnectByName(node, service string, how *ByName) (int, *Failure) {
	if strings.IndexByte(node, 0) >= 0 || strings.IndexByte(service, 0) >= 0 {
		return -1, &Failure{Errno: syscall.EINVAL, Words: "a NUL inside the name or the service"}
	}
	n, s := C.CString(node), C.CString(service)
	defer C.free(unsafe.Pointer(n))
	defer C.free(unsafe.Pointer(s))
	opts := C.struct_mptcp_connect_opts{
		local_count:      C.uint32_t(how.LocalCount),
		flags:            C.MPTCP_CONNECT_NONBLOCK,
		family:           C.int32_t(how.Family),
		timeout_ms:       C.uint32_t(how.Timeout),
		attempt_delay_ms: C.uint32_t(how.AttemptDelay),
		tcp_delay_ms:     C.uint32_t(how.TCPDelay),
	}
	if how.NoFallback {
		opts.flags |= C.MPTCP_CONNECT_NO_FALLBACK
	}
	r := C.capi_connectbyname(n, s, start(how.Local), opts)
	return int(r.rc), failure(&r)
}

// LocalAddrs is mptcp_getladdrs: packed addresses.
func LocalAddrs(fd int) ([]byte, *Failure) {
	r := C.capi_getladdrs(C.int(fd))
	if r.rc <= 0 {
		return nil, failure(&r)
	}
	defer C.mptcp_freeladdrs((*C.struct_sockaddr)(r.list))
	return C.GoBytes(r.list, C.int(r.value)), nil
}

// PeerAddrs is mptcp_getpaddrs: packed addresses.
func PeerAddrs(fd int) ([]byte, *Failure) {
	r := C.capi_getpaddrs(C.int(fd))
	if r.rc <= 0 {
		return nil, failure(&r)
	}
	defer C.mptcp_freepaddrs((*C.struct_sockaddr)(r.list))
	return C.GoBytes(r.list, C.int(r.value)), nil
}

// GetCaps is mptcp_getcaps. fd -1 is this host.
func GetCaps(fd int) (Caps, *Failure) {
	var c C.struct_mptcp_caps
	r := C.capi_getcaps(C.int(fd), &c)
	if f := failure(&r); f != nil {
		return Caps{}, f
	}
	return Caps{
		Works:        uint64(c.works),
		Known:        uint64(c.known),
		Backend:      uint32(c.backend),
		BackendErrno: int32(c.backend_errno),
		Control:      uint32(c.control),
		Library:      uint32(c.library),
		SubflowsMax:  uint32(c.subflows_max),
		AddrsMax:     uint32(c.addrs_max),
		Reason:       C.GoString(&c.reason[0]),
	}, nil
}

// Version is mptcp_version.
func Version() string {
	return C.GoString(C.mptcp_version())
}

// Event is struct mptcp_event.
type Event struct {
	What, ConnID        uint32
	TimeNS              uint64
	Subflow             Subflow
	Error               int32
	ResetReason, AddrID uint32
	IfIndex             int32
	Origin, Lost        uint32
}

// Subscribe is mptcp_subscribe.
func Subscribe(fd int, events uint32) (evfd int, f *Failure) {
	r := C.capi_subscribe(C.int(fd), C.uint32_t(events))
	return int(r.rc), failure(&r)
}

// NextEvent is mptcp_nextevent; false after the last one.
func NextEvent(evfd int) (event Event, more bool, f *Failure) {
	var e C.struct_mptcp_event
	r := C.capi_nextevent(C.int(evfd), &e)
	if r.rc <= 0 {
		return Event{}, false, failure(&r)
	}
	return Event{
		What:        uint32(e.what),
		ConnID:      uint32(e.connid),
		TimeNS:      uint64(e.time_ns),
		Subflow:     subflow(&e.subflow),
		Error:       int32(e.error),
		ResetReason: uint32(e.reset_reason),
		AddrID:      uint32(e.addr_id),
		IfIndex:     int32(e.ifindex),
		Origin:      uint32(e.origin),
		Lost:        uint32(e.lost),
	}, true, nil
}
