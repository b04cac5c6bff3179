// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers and layouts of Linux's user interface that libc does not have.
//! Facts of include/uapi/linux/{mptcp,mptcp_pm,inet_diag,genetlink,netlink}.h.
#![allow(missing_docs, reason = "the names are the kernel's and documented there")]

/// Level of MPTCP's own socket options.
pub const SOL_MPTCP: i32 = 284;
/// struct mptcp_info (5.16).
pub const MPTCP_INFO: i32 = 1;
/// tcp_info of every subflow (5.16).
pub const MPTCP_TCPINFO: i32 = 2;
/// Address pair of every subflow (5.16).
pub const MPTCP_SUBFLOW_ADDRS: i32 = 3;
/// All of these in one call (6.5).
pub const MPTCP_FULL_INFO: i32 = 4;
/// Whether a socket speaks Multipath TCP now (6.10), at SOL_TCP.
pub const TCP_IS_MPTCP: i32 = 43;
/// Whether buffer sizes were set by hand (5.14), at SOL_SOCKET.
pub const SO_BUF_LOCK: i32 = 72;
/// Cookie of the socket's network namespace (5.14).
pub const SO_NETNS_COOKIE: i32 = 71;
/// mptcpi_flags: the peer's key is known, so the handshake went through.
pub const INFO_FALLBACK: u32 = 0x1;
pub const INFO_REMOTE_KEY: u32 = 0x2;

/// Header of MPTCP_TCPINFO and MPTCP_SUBFLOW_ADDRS.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct SubflowData {
    pub size_subflow_data: u32,
    pub num_subflows: u32,
    pub size_kernel: u32,
    pub size_user: u32,
}

/// struct mptcp_subflow_addrs: two sockaddr_storage.
pub type SubflowAddrs = [u8; 256];

/// struct mptcp_subflow_info.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct SubflowInfo {
    pub id: u32,
    pub pad: u32,
    pub addrs: SubflowAddrs,
}

/// struct mptcp_full_info. The kernel fills in as much of `info` as the length
/// that it is given covers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FullInfo {
    pub size_tcpinfo_kernel: u32,
    pub size_tcpinfo_user: u32,
    pub size_sfinfo_kernel: u32,
    pub size_sfinfo_user: u32,
    pub num_subflows: u32,
    pub size_arrays_user: u32,
    pub subflow_info: u64,
    pub tcp_info: u64,
    pub info: [u8; INFO_SIZE],
}

/// Bytes of struct mptcp_info (6.10 to 7.3) that are read.
pub const INFO_SIZE: usize = 96;
/// Bytes of struct tcp_info that are read: all up to tcpi_bytes_retrans (4.19).
pub const TCP_INFO_SIZE: usize = 216;
/// Bytes of struct mptcp_full_info before `info`: asked for alone they cost
/// the kernel nothing of the rest.
pub const FULL_INFO_HEAD: usize = std::mem::offset_of!(FullInfo, info);

const _: () = {
    assert!(size_of::<SubflowData>() == 16);
    assert!(size_of::<SubflowInfo>() == 264);
    assert!(FULL_INFO_HEAD == 40);
    assert!(size_of::<FullInfo>() == 136);
};

/// tcp(7) states.
pub const TCP_ESTABLISHED: u8 = 1;
pub const TCP_SYN_SENT: u8 = 2;
pub const TCP_SYN_RECV: u8 = 3;
pub const TCP_TIME_WAIT: u8 = 6;
pub const TCP_CLOSE: u8 = 7;
pub const TCP_CLOSE_WAIT: u8 = 8;
pub const TCP_LAST_ACK: u8 = 9;
pub const TCP_LISTEN: u8 = 10;
pub const TCP_CLOSING: u8 = 11;

/// Generic netlink's controller.
pub const CTRL_CMD_GETFAMILY: u8 = 3;
pub const CTRL_ATTR_FAMILY_ID: u16 = 1;
pub const CTRL_ATTR_FAMILY_NAME: u16 = 2;
pub const CTRL_ATTR_OPS: u16 = 6;
pub const CTRL_ATTR_OP_ID: u16 = 1;
pub const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
pub const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
pub const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

pub const NLM_F_REQUEST: u16 = 0x1;
pub const NLM_F_ACK: u16 = 0x4;
pub const NLM_F_DUMP_INTR: u16 = 0x10;
pub const NLM_F_DUMP: u16 = 0x300;
pub const NLM_F_CAPPED: u16 = 0x100;
pub const NLM_F_ACK_TLVS: u16 = 0x200;
pub const NLMSG_ERROR: u16 = 2;
pub const NLMSG_DONE: u16 = 3;
pub const NLMSGERR_ATTR_MSG: u16 = 1;
pub const NLA_F_NESTED: u16 = 0x8000;

/// The generic netlink family of MPTCP's path managers.
pub const PM_FAMILY: &str = "mptcp_pm";
pub const PM_GROUP: &str = "mptcp_pm_events";
pub const PM_CMD_GET_ADDR: u8 = 3;
pub const PM_CMD_GET_LIMITS: u8 = 6;
pub const PM_CMD_SET_FLAGS: u8 = 7;
pub const PM_CMD_ANNOUNCE: u8 = 8;
pub const PM_CMD_REMOVE: u8 = 9;
pub const PM_CMD_SUBFLOW_CREATE: u8 = 10;
pub const PM_CMD_SUBFLOW_DESTROY: u8 = 11;
pub const PM_ATTR_ADDR: u16 = 1;
pub const PM_ATTR_RCV_ADD_ADDRS: u16 = 2;
pub const PM_ATTR_SUBFLOWS: u16 = 3;
pub const PM_ATTR_TOKEN: u16 = 4;
pub const PM_ATTR_LOC_ID: u16 = 5;
pub const PM_ATTR_ADDR_REMOTE: u16 = 6;
pub const PM_ADDR_FAMILY: u16 = 1;
pub const PM_ADDR_ID: u16 = 2;
pub const PM_ADDR_ADDR4: u16 = 3;
pub const PM_ADDR_ADDR6: u16 = 4;
/// Host byte order, unlike the ports of events.
pub const PM_ADDR_PORT: u16 = 5;
pub const PM_ADDR_FLAGS: u16 = 6;
pub const PM_ADDR_IF_IDX: u16 = 7;
pub const PM_FLAG_SIGNAL: u32 = 0x1;
pub const PM_FLAG_SUBFLOW: u32 = 0x2;
pub const PM_FLAG_BACKUP: u32 = 0x4;
/// 5.15.
pub const PM_FLAG_FULLMESH: u32 = 0x8;
/// Made by the kernel itself (5.18).
pub const PM_FLAG_IMPLICIT: u32 = 0x10;
/// 6.18.
pub const PM_FLAG_LAMINAR: u32 = 0x20;

pub const EVENT_CREATED: u8 = 1;
pub const EVENT_ESTABLISHED: u8 = 2;
pub const EVENT_CLOSED: u8 = 3;
pub const EVENT_ANNOUNCED: u8 = 6;
pub const EVENT_REMOVED: u8 = 7;
pub const EVENT_SUB_ESTABLISHED: u8 = 10;
pub const EVENT_SUB_CLOSED: u8 = 11;
pub const EVENT_SUB_PRIORITY: u8 = 13;
pub const EVENT_LISTENER_CREATED: u8 = 15;
pub const EVENT_LISTENER_CLOSED: u8 = 16;
pub const EV_TOKEN: u16 = 1;
pub const EV_LOC_ID: u16 = 3;
pub const EV_REM_ID: u16 = 4;
pub const EV_SADDR4: u16 = 5;
pub const EV_SADDR6: u16 = 6;
pub const EV_DADDR4: u16 = 7;
pub const EV_DADDR6: u16 = 8;
pub const EV_SPORT: u16 = 9;
pub const EV_DPORT: u16 = 10;
pub const EV_BACKUP: u16 = 11;
pub const EV_ERROR: u16 = 12;
pub const EV_FLAGS: u16 = 13;
pub const EV_IF_IDX: u16 = 15;
pub const EV_RESET_REASON: u16 = 16;
pub const EV_SERVER_SIDE: u16 = 18;
/// EV_FLAGS of 6.18 on: this end accepted the connection.
pub const EV_FLAG_SERVER_SIDE: u16 = 0x2;

pub const RTM_NEWADDR: u16 = 20;
pub const RTM_GETADDR: u16 = 22;
pub const IFA_ADDRESS: u16 = 1;
pub const IFA_LOCAL: u16 = 2;

pub const SOCK_DIAG_BY_FAMILY: u16 = 20;
pub const SOCK_DESTROY: u16 = 21;
pub const INET_DIAG_REQ_PROTOCOL: u16 = 3;
/// idiag_ext: the INFO attribute, and with it ULP_INFO.
pub const INET_DIAG_EXT_INFO: u8 = 0x2;
pub const INET_DIAG_INFO: u16 = 2;
pub const INET_DIAG_ULP_INFO: u16 = 19;
pub const ULP_INFO_MPTCP: u16 = 3;
pub const SUBFLOW_ATTR_TOKEN_LOC: u16 = 2;
pub const SUBFLOW_ATTR_FLAGS: u16 = 8;
pub const SUBFLOW_ATTR_ID_REM: u16 = 9;
pub const SUBFLOW_ATTR_ID_LOC: u16 = 10;
/// SUBFLOW_ATTR_FLAGS: this subflow carried the MP_CAPABLE handshake.
pub const SUBFLOW_FLAG_MCAP: u32 = 0x3;
/// SUBFLOW_ATTR_FLAGS: this end sent the MP_CAPABLE of the SYN.
pub const SUBFLOW_FLAG_MCAP_LOC: u32 = 0x2;
/// SUBFLOW_ATTR_FLAGS: this end asked for it (MP_CAPABLE or MP_JOIN).
pub const SUBFLOW_FLAG_ACTIVE: u32 = 0x2 | 0x8;
pub const SUBFLOW_FLAG_BKUP_REM: u32 = 0x10;
pub const SUBFLOW_FLAG_BKUP_LOC: u32 = 0x20;
pub const SUBFLOW_FLAG_FULLY_ESTABLISHED: u32 = 0x40;

/// Every flag of an address; the eight bits of ifaddrmsg are the lowest.
pub const IFA_FLAGS: u16 = 8;
pub const RTEXT_FILTER_SKIP_STATS: u32 = 0x8;

/// The interface `lo`, in every namespace.
pub const LOOPBACK_IFINDEX: u32 = 1;
