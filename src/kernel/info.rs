// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel counts: struct mptcp_info of a connection and struct
//! tcp_info of a subflow, each field known if the kernel wrote that far.

use super::uapi::*;

/// struct mptcp_info: a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MptcpInfo {
    /// Further subflows that the in-kernel path manager allows; 0 under the
    /// userspace path manager (6.12).
    pub subflows_max: u8,
    /// Addresses announced to the peer.
    pub addrs_announced: u8,
    /// Addresses of the peer that the in-kernel path manager took.
    pub addrs_accepted: u8,
    /// MPTCP_INFO_FLAG_*.
    pub flags: u32,
    /// The connection's local token.
    pub token: u32,
    /// Checksums are in use.
    pub checksum: Option<bool>,
    /// The connection's retransmission timer, how often in a row (6.5).
    pub retransmits: Option<u32>,
    /// Payload given to the subflows, each byte once (6.5).
    pub bytes_sent: Option<u64>,
    /// Payload received in order, each byte once (6.5).
    pub bytes_received: Option<u64>,
    /// Payload that the peer acknowledged, and 1 for the end of the stream
    /// (6.5).
    pub bytes_acked: Option<u64>,
    /// Payload that the connection's timer gave to a subflow again (6.5).
    pub bytes_retrans: Option<u64>,
    /// Milliseconds since data was sent (6.10).
    pub last_data_sent: Option<u32>,
    /// Milliseconds since data was received (6.10).
    pub last_data_received: Option<u32>,
    /// Milliseconds since an acknowledgement was received (6.10).
    pub last_ack_received: Option<u32>,
}

/// struct tcp_info: one subflow, as far as it is of use here. `None` is not
/// known, or not measured yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// tcp(7) state, 1 = ESTABLISHED.
    pub state: u8,
    /// Retransmission timeouts in a row.
    pub retransmits: Option<u32>,
    /// How often the retransmission timeout was doubled.
    pub backoff: Option<u32>,
    /// Retransmission timeout in microseconds.
    pub rto_us: Option<u32>,
    /// Payload of a segment at most, in bytes.
    pub mss: Option<u32>,
    /// Segments sent and not acknowledged.
    pub unacked: Option<u32>,
    /// Segments held to be lost.
    pub lost: Option<u32>,
    /// Milliseconds since data was sent.
    pub last_data_sent_ms: Option<u32>,
    /// Milliseconds since data was received.
    pub last_data_received_ms: Option<u32>,
    /// Milliseconds since an acknowledgement was received.
    pub last_ack_received_ms: Option<u32>,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: Option<u32>,
    /// Its mean deviation.
    pub rttvar_us: Option<u32>,
    /// Least round-trip time of late, in microseconds.
    pub min_rtt_us: Option<u32>,
    /// Slow start threshold in segments; 0x7fffffff: none yet.
    pub ssthresh: Option<u32>,
    /// Congestion window in segments.
    pub cwnd: Option<u32>,
    /// Segments that arrive out of order before one is held to be lost.
    pub reordering: Option<u32>,
    /// Segments retransmitted, ever.
    pub retrans: Option<u32>,
    /// Bytes per second at which it may send.
    pub pacing_rate: Option<u64>,
    /// Bytes per second that the peer acknowledged of late.
    pub delivery_rate: Option<u64>,
    /// Payload sent, retransmissions included.
    pub bytes_sent: Option<u64>,
    /// Retransmissions among them.
    pub bytes_retrans: Option<u64>,
    /// Bytes acknowledged: payload, and 1 each for this end's SYN and FIN.
    pub bytes_acked: Option<u64>,
    /// Bytes received in order: payload, and 1 for the peer's FIN.
    pub bytes_received: Option<u64>,
    /// Payload that waits to be sent the first time.
    pub notsent: Option<u32>,
}

fn read<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

impl MptcpInfo {
    /// Reads as much as there is.
    pub fn parse(bytes: &[u8]) -> Self {
        let byte = |at: usize| bytes.get(at).copied();
        let word = |at| read(bytes, at).map(u32::from_ne_bytes);
        let long = |at| read(bytes, at).map(u64::from_ne_bytes);
        Self {
            addrs_announced: byte(1).unwrap_or(0),
            addrs_accepted: byte(2).unwrap_or(0),
            subflows_max: byte(3).unwrap_or(0),
            flags: word(8).unwrap_or(0),
            token: word(12).unwrap_or(0),
            checksum: byte(42).map(|on| on != 0),
            // The struct of 48 bytes (before 6.5) ends with padding here.
            retransmits: word(44).filter(|_| bytes.len() > 48),
            bytes_retrans: long(48),
            bytes_sent: long(56),
            bytes_received: long(64),
            bytes_acked: long(72),
            last_data_sent: word(84).filter(|_| bytes.len() >= INFO_SIZE),
            last_data_received: word(88).filter(|_| bytes.len() >= INFO_SIZE),
            last_ack_received: word(92),
        }
    }

    /// Payload that all subflows there ever were have taken to send: each byte
    /// once, and once more where the connection's timer sent it again.
    pub fn carried_sent(&self) -> Option<u64> {
        Some(self.bytes_sent?.saturating_add(self.bytes_retrans?))
    }
}

impl TcpInfo {
    /// Reads as much as there is.
    pub fn parse(bytes: &[u8]) -> Self {
        let byte = |at: usize| bytes.get(at).copied();
        let word = |at| read(bytes, at).map(u32::from_ne_bytes);
        let long = |at| read(bytes, at).map(u64::from_ne_bytes);
        let measured = |value: Option<u32>| value.filter(|v| *v != 0);
        Self {
            state: byte(0).unwrap_or(TCP_CLOSE),
            retransmits: byte(2).map(u32::from),
            backoff: byte(4).map(u32::from),
            rto_us: word(8),
            mss: word(16),
            unacked: word(24),
            lost: word(32),
            last_data_sent_ms: word(44),
            last_data_received_ms: word(52),
            last_ack_received_ms: word(56),
            rtt_us: measured(word(68)),
            rttvar_us: word(72).filter(|_| measured(word(68)).is_some()),
            ssthresh: word(76),
            cwnd: word(80),
            reordering: word(88),
            retrans: word(100),
            // All ones: nothing bounds it.
            pacing_rate: long(104).filter(|rate| *rate != u64::MAX),
            bytes_acked: long(120),
            bytes_received: long(128),
            notsent: word(144),
            // All ones: none measured.
            min_rtt_us: word(148).filter(|rtt| *rtt != u32::MAX),
            delivery_rate: long(160).filter(|rate| *rate != 0),
            bytes_sent: long(200),
            bytes_retrans: long(208),
        }
    }

    /// Payload that the subflow has taken to send, each byte once.
    pub fn carried_sent(&self) -> Option<u64> {
        let once = self.bytes_sent?.saturating_sub(self.bytes_retrans?);
        Some(once.saturating_add(u64::from(self.notsent.unwrap_or(0))))
    }

    /// Payload that the subflow has received in order.
    pub fn carried_received(&self) -> Option<u64> {
        let fin = matches!(self.state, TCP_CLOSE_WAIT | TCP_LAST_ACK | TCP_CLOSING | TCP_TIME_WAIT);
        Some(self.bytes_received?.saturating_sub(u64::from(fin)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Each field is known exactly where the kernel wrote all of its bytes.
    #[test]
    fn presence_follows_the_length() {
        let bytes = [1u8; TCP_INFO_SIZE];
        for len in 0..=bytes.len() {
            let info = TcpInfo::parse(&bytes[..len]);
            assert_eq!(info.rtt_us.is_some(), len >= 72);
            assert_eq!(info.delivery_rate.is_some(), len >= 168);
            assert_eq!(info.bytes_sent.is_some(), len >= 208);
            assert_eq!(info.carried_sent().is_some(), len >= 216);
        }
        // 5.16 to 6.4, 6.5, 6.10.
        let bytes = [1u8; INFO_SIZE];
        for (len, counted, dated) in [(48, false, false), (80, true, false), (96, true, true)] {
            let info = MptcpInfo::parse(&bytes[..len]);
            assert_eq!(info.checksum, Some(true));
            assert_eq!((info.retransmits.is_some(), info.bytes_acked.is_some()), (counted, counted));
            assert_eq!(info.carried_sent().is_some(), counted);
            assert_eq!((info.last_data_sent.is_some(), info.last_ack_received.is_some()), (dated, dated));
        }
    }

    #[test]
    fn what_was_not_measured_is_not_known() {
        let mut bytes = [0u8; TCP_INFO_SIZE];
        bytes[104..112].fill(0xff);
        bytes[148..152].fill(0xff);
        let info = TcpInfo::parse(&bytes);
        assert_eq!((info.rtt_us, info.rttvar_us, info.min_rtt_us), (None, None, None));
        assert_eq!((info.pacing_rate, info.delivery_rate), (None, None));
        assert_eq!((info.mss, info.bytes_sent), (Some(0), Some(0)));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let tcp = TcpInfo::parse(&bytes);
            let _ = (tcp.carried_sent(), tcp.carried_received(), MptcpInfo::parse(&bytes).carried_sent());
        }
    }
}
