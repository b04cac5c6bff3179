// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel says over netlink and getsockopt(2): it is trusted not to
//! lie, but a kernel of another year may say things that were never seen.

use mptcpapi::addr;
use mptcpapi::kernel::diag::{Record, Subflow, TcpFacts};
use mptcpapi::kernel::info::{MptcpInfo, TcpInfo};
use mptcpapi::kernel::netlink::{Received, acknowledgement, attributes, find, messages};
use mptcpapi::kernel::pm::{Endpoint, Event, Family, Limits};
use mptcpapi::kernel::rtnl::Change;
use mptcpapi::kernel::sockopt;

/// Bytes as a datagram; the first two choose the type of the message that the
/// rest is also taken for.
pub fn netlink(bytes: &[u8]) {
    let mut count = 0;
    for message in messages(bytes) {
        count += 1;
        each(&message);
    }
    assert!(count <= bytes.len() / 16 + 1);
    if let Some((head, payload)) = bytes.split_first_chunk::<4>() {
        let [kind, flags] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_le_bytes);
        each(&Received { kind, flags, sequence: 1, payload });
    }
    sockaddrs(bytes);
}

fn each(message: &Received<'_>) {
    let payload = message.payload;
    nested(payload, 4);
    if let Err(refusal) = acknowledgement(message) {
        assert!(refusal.errno.0 > 0);
        assert!(refusal.text.len() <= 3 * payload.len());
    }
    let _ = Family::parse(message);
    let _ = Endpoint::parse(payload);
    let _ = Limits::parse(payload);
    if let Some(event) = Event::parse(payload) {
        assert_eq!(
            event.token().is_none(),
            matches!(event, Event::ListenerUp { .. } | Event::ListenerDown { .. })
        );
    }
    if let Some(record) = Record::parse(message) {
        assert_eq!(record.local.is_ipv4(), record.remote.is_ipv4());
        assert_eq!(record.subflow, Subflow::parse(&payload[72..]));
    }
    let facts = TcpFacts::parse(payload);
    // Later kernels append; nothing that is appended matters.
    assert_eq!(facts, TcpFacts::parse(payload.get(..232).unwrap_or(payload)));
    counted(payload);
    if let Some(Change::Link { name, usable, present, .. }) = Change::parse(message) {
        assert!(!name.contains('\0') && (present || !usable));
    }
}

/// struct tcp_info and mptcp_info: more of them tells more and changes nothing
/// that was known.
fn counted(bytes: &[u8]) {
    let tcp = TcpInfo::parse(bytes);
    assert!(tcp.carried_sent().is_none() || tcp.bytes_sent.is_some());
    assert_eq!(tcp.carried_received().is_some(), tcp.bytes_received.is_some());
    let mptcp = MptcpInfo::parse(bytes);
    assert!(mptcp.carried_sent().is_none() || mptcp.bytes_sent.is_some());
    let longer = [bytes, &[1; 8]].concat();
    let known = |before: Option<u64>, after: Option<u64>| before.is_none() || before == after;
    assert!(known(tcp.bytes_sent, TcpInfo::parse(&longer).bytes_sent));
    assert!(known(mptcp.bytes_acked, MptcpInfo::parse(&longer).bytes_acked));
}

/// Attributes within attributes; every one lies in its parent.
fn nested(bytes: &[u8], depth: usize) {
    let mut room = bytes.len();
    for (kind, value) in attributes(bytes) {
        assert!(kind < 1 << 14 && value.len() + 4 <= room);
        room -= value.len() + 4;
        assert!(find(bytes, kind).is_some());
        if depth > 0 {
            nested(value, depth - 1);
        }
    }
}

/// Socket addresses, from the kernel and from callers in C.
fn sockaddrs(bytes: &[u8]) {
    if let Some((pair, rest)) = bytes.split_first_chunk::<256>() {
        let _ = sockopt::entry(1, pair, rest.first().copied().unwrap_or(0));
    }
    if let Ok(list) = addr::unpack(bytes) {
        assert!((1..=addr::LIST_MAX).contains(&list.len()));
        let packed = addr::pack(&list);
        assert!(packed.len() <= bytes.len());
        assert_eq!(addr::unpack(&packed).as_deref(), Ok(&list[..]));
        if let Ok(checked) = addr::checked(list.clone()) {
            assert!(checked.iter().all(|addr| list.contains(addr)));
        }
    }
}
