// SPDX-License-Identifier: MIT OR Apache-2.0
//! Netlink: messages as bytes (no I/O), and a socket that sends and reads
//! them. Synchronous, no thread, bounded buffers.

use super::uapi::*;
use crate::error::{Errno, KernelResult};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const HEADER: usize = 16;

/// A message under construction; finished by [`Socket`].
pub struct Message(Vec<u8>);

impl Message {
    /// A message of this type. Length, sequence number and port are filled in
    /// when it is sent.
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self(bytes)
    }

    /// The same for a generic netlink command, version 1.
    pub fn generic(family: u16, command: u8, flags: u16) -> Self {
        Self::new(family, flags).raw(&[command, 1, 0, 0])
    }

    /// Appends bytes as they are: the fixed part of a family.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends an attribute.
    pub fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        push_attr(&mut self.0, kind, value);
        self
    }

    /// Appends a nested attribute.
    pub fn nested(self, kind: u16, attributes: &Attributes) -> Self {
        self.attr(kind | NLA_F_NESTED, &attributes.0)
    }

    /// Whether something comes after the answers: an acknowledgement or the
    /// end of a dump.
    fn ends(&self) -> bool {
        let flags = self.0.get(6..8).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes);
        flags & (NLM_F_ACK | NLM_F_DUMP) != 0
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = self.0.len() as u32;
        for (at, word) in [(0, len), (8, sequence)] {
            if let Some(slot) = self.0.get_mut(at..at + 4) {
                slot.copy_from_slice(&word.to_ne_bytes());
            }
        }
        self.0
    }
}

/// The inside of a nested attribute.
#[derive(Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Appends an attribute.
    pub fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        push_attr(&mut self.0, kind, value);
        self
    }
}

fn push_attr(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = value.len() as u16 + 4;
    out.extend_from_slice(&len.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// A message read.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// nlmsg_type.
    pub kind: u16,
    /// nlmsg_flags.
    pub flags: u16,
    /// nlmsg_seq.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages of one datagram; ends at the first that is cut short.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let message = Received {
            kind: u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?),
            flags: u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?),
            sequence: u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?),
            payload: bytes.get(HEADER..len)?,
        };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes of a payload, nesting bits removed; ends at the first that
/// is cut short.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// First attribute of this kind.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// A refusal: errno and the kernel's own words, which may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the kernel answered, or what kept the request from it.
    pub errno: Errno,
    /// Its extended acknowledgement.
    pub text: String,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, text: String::new() }
    }
}

/// Reads NLMSG_ERROR: `Ok` is an acknowledgement.
pub fn acknowledgement(message: &Received<'_>) -> Result<(), Refusal> {
    let code = message.payload.get(..4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    let code = code.ok_or(Errno(libc::EBADMSG))?;
    if code == 0 {
        return Ok(());
    }
    let mut text = String::new();
    if message.flags & NLM_F_ACK_TLVS != 0 {
        let request = if message.flags & NLM_F_CAPPED != 0 {
            HEADER
        } else {
            let len = message.payload.get(4..8).and_then(|b| b.try_into().ok());
            len.map_or(HEADER, |bytes| u32::from_ne_bytes(bytes) as usize)
        };
        let at = request.checked_next_multiple_of(4).and_then(|len| len.checked_add(4));
        let tlvs = at.and_then(|at| message.payload.get(at..));
        if let Some(bytes) = tlvs.and_then(|tlvs| find(tlvs, NLMSGERR_ATTR_MSG)) {
            let bytes = bytes.split(|b| *b == 0).next().unwrap_or_default();
            text = String::from_utf8_lossy(bytes).into_owned();
        }
    }
    // Some families answer positive numbers.
    Err(Refusal { errno: Errno(code.saturating_abs()), text })
}

/// A netlink socket of the calling thread's network namespace.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Datagrams read at a time.
const BATCH: usize = 8;

impl Socket {
    /// Opens one; CLOEXEC.
    pub fn open(protocol: i32) -> KernelResult<Self> {
        let fd = super::sockopt::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol)?;
        let mut name = [0u8; size_of::<libc::sockaddr_nl>()];
        if let Some(family) = name.get_mut(..2) {
            family.copy_from_slice(&(libc::AF_NETLINK as u16).to_ne_bytes());
        }
        // A socket without a port of its own hears no multicast: the kernel
        // takes it for the sender.
        // SAFETY: pointer and length describe `name`, a sockaddr_nl of zeros.
        if unsafe { libc::bind(fd.as_raw_fd(), name.as_ptr().cast(), name.len() as u32) } != 0 {
            return Err(Errno::last());
        }
        let on = 1i32.to_ne_bytes();
        // Without them the words are missing, nothing else.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            let _ = super::sockopt::set(fd.as_fd(), libc::SOL_NETLINK, option, &on);
        }
        Ok(Self::of(fd))
    }

    fn of(fd: OwnedFd) -> Self {
        // The kernel fills no more into one datagram of a dump.
        Self { fd, sequence: 0, buffer: vec![0; 32 << 10] }
    }

    /// Takes over a socket that was opened before, perhaps by another process:
    /// EINVAL where it is not netlink's, or of another protocol.
    pub fn adopt(fd: OwnedFd, protocol: i32) -> KernelResult<Self> {
        for (option, wanted) in [(libc::SO_DOMAIN, libc::AF_NETLINK), (libc::SO_PROTOCOL, protocol)] {
            if super::sockopt::get_int(fd.as_fd(), libc::SOL_SOCKET, option)? != wanted {
                return Err(Errno(libc::EINVAL));
            }
        }
        Ok(Self::of(fd))
    }

    /// Whether the socket has joined this multicast group (4.2).
    pub fn joined(&self, group: u32) -> KernelResult<bool> {
        let mut words = [0u8; 128];
        let option = libc::NETLINK_LIST_MEMBERSHIPS;
        let len = super::sockopt::get(self.as_fd(), libc::SOL_NETLINK, option, &mut words)?;
        let Some(bit) = group.checked_sub(1) else { return Ok(false) };
        let word = words.get(..len).and_then(|words| words.chunks_exact(4).nth(bit as usize / 32));
        let word = word.and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes);
        Ok(word >> (bit % 32) & 1 != 0)
    }

    /// Joins a multicast group.
    pub fn join(&self, group: u32) -> KernelResult<()> {
        let group = group.to_ne_bytes();
        super::sockopt::set(self.as_fd(), libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, &group)
    }

    /// Sends a request that the kernel acknowledges.
    pub fn command(&mut self, message: Message) -> Result<(), Refusal> {
        self.converse(message, |_| ())
    }

    /// Sends a request and gives every answer to `each`, a dump's to its end;
    /// one answer, where the request asks for neither a dump nor an
    /// acknowledgement. EAGAIN where the kernel says that the dump was
    /// interrupted.
    pub fn converse(&mut self, message: Message, mut each: impl FnMut(Received<'_>)) -> Result<(), Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let ends = message.ends();
        self.send(&message.finish(sequence))?;
        let mut interrupted = false;
        loop {
            let len = match self.receive(0) {
                Err(Errno(libc::EINTR)) => continue,
                other => other?,
            };
            for message in messages(self.buffer.get(..len).unwrap_or_default()) {
                if message.sequence != sequence {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_ERROR => return acknowledgement(&message),
                    NLMSG_DONE if interrupted => return Err(Errno(libc::EAGAIN).into()),
                    // A dump's failure stands in its last message.
                    NLMSG_DONE => {
                        let code = message
                            .payload
                            .get(..4)
                            .and_then(|b| b.try_into().ok())
                            .map_or(0, i32::from_ne_bytes);
                        return if code < 0 { Err(Errno(code.saturating_abs()).into()) } else { Ok(()) };
                    }
                    _ => {
                        each(message);
                        if !ends {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> KernelResult<()> {
        loop {
            // SAFETY: pointer and length describe `bytes`. An unconnected
            // netlink socket sends to port 0, the kernel.
            let rc = unsafe {
                libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL)
            };
            match Errno::last() {
                _ if rc >= 0 => return Ok(()),
                Errno(libc::EINTR) => {}
                errno => return Err(errno),
            }
        }
    }

    /// One datagram from the kernel into the buffer; datagrams of others are
    /// thrown away. ENOBUFS where messages were lost.
    fn receive(&mut self, flags: i32) -> KernelResult<usize> {
        loop {
            let mut sender = [0u8; size_of::<libc::sockaddr_nl>()];
            let mut sender_len = sender.len() as libc::socklen_t;
            // SAFETY: both pairs of pointer and length describe buffers of
            // ours, which live until the call returns.
            let len = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    self.buffer.as_mut_ptr().cast(),
                    self.buffer.len(),
                    flags | libc::MSG_TRUNC,
                    sender.as_mut_ptr().cast(),
                    &raw mut sender_len,
                )
            };
            if len < 0 {
                return Err(Errno::last());
            }
            let port = sender.get(4..8).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
            let len = len as usize;
            if port != Some(0) {
                continue;
            }
            if len > self.buffer.len() {
                // Grown for the next one; this one is lost, like an overrun.
                self.buffer.resize(len.next_power_of_two(), 0);
                return Err(Errno(libc::ENOBUFS));
            }
            return Ok(len);
        }
    }

    /// Gives what has arrived to `each`, without waiting. ENOBUFS where
    /// messages were lost; that is said when all has been read, since until
    /// then the kernel goes on throwing messages away, and says so only once.
    pub fn drain(&mut self, mut each: impl FnMut(Received<'_>)) -> KernelResult<()> {
        let mut lost = false;
        loop {
            let room = self.buffer.len() / BATCH;
            let mut lens = [None; BATCH];
            match self.receive_some(room, &mut lens) {
                Ok(count) => {
                    let mut longest = 0;
                    for (len, part) in lens.iter().take(count).zip(self.buffer.chunks_exact(room)) {
                        match len {
                            None => {}
                            Some(len) if *len > room => longest = longest.max(*len),
                            Some(len) => messages(part.get(..*len).unwrap_or_default()).for_each(&mut each),
                        }
                    }
                    if longest > 0 {
                        // Grown for the next one; this one is lost, like an overrun.
                        self.buffer.resize(longest.next_power_of_two().saturating_mul(BATCH), 0);
                        lost = true;
                    }
                    if count < BATCH {
                        // An overrun meanwhile is told by the next call.
                        return if lost { Err(Errno(libc::ENOBUFS)) } else { Ok(()) };
                    }
                }
                Err(Errno(libc::EAGAIN)) if lost => return Err(Errno(libc::ENOBUFS)),
                Err(Errno(libc::EAGAIN)) => return Ok(()),
                Err(Errno(libc::ENOBUFS)) => lost = true,
                Err(Errno(libc::EINTR)) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Up to BATCH datagrams, each into `room` bytes of the buffer, without
    /// waiting; how many, and how long each is, `None` where it is not the
    /// kernel's.
    fn receive_some(&mut self, room: usize, lens: &mut [Option<usize>; BATCH]) -> KernelResult<usize> {
        let mut senders = [[0u32; size_of::<libc::sockaddr_nl>() / 4]; BATCH];
        // SAFETY: these structs are plain memory, for which zeros are values.
        let (mut headers, mut parts): ([libc::mmsghdr; BATCH], [libc::iovec; BATCH]) =
            unsafe { std::mem::zeroed() };
        let chunks = self.buffer.chunks_exact_mut(room);
        for (((header, part), sender), chunk) in
            headers.iter_mut().zip(&mut parts).zip(&mut senders).zip(chunks)
        {
            (part.iov_base, part.iov_len) = (chunk.as_mut_ptr().cast(), chunk.len());
            let message = &mut header.msg_hdr;
            (message.msg_name, message.msg_namelen) =
                (sender.as_mut_ptr().cast(), size_of_val(sender) as u32);
            (message.msg_iov, message.msg_iovlen) = (&raw mut *part, 1);
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: there are BATCH headers; each leads to a sender's room and to
        // one part of the buffer, which live and are not used until the call
        // returns.
        let count = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as u32,
                flags as _,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else { return Err(Errno::last()) };
        let from_kernel = |sender: &[u32]| sender.get(1) == Some(&0);
        for ((len, header), sender) in lens.iter_mut().zip(&headers).zip(&senders).take(count) {
            *len = from_kernel(sender).then_some(header.msg_len as usize);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for message in messages(&bytes) {
                let _ = acknowledgement(&message);
                for (_, value) in attributes(message.payload) {
                    attributes(value).for_each(drop);
                }
            }
        }

        #[test]
        fn what_is_written_is_read(values in proptest::collection::vec(
            (1u16..100, proptest::collection::vec(any::<u8>(), 0..40)), 0..8)) {
            let mut message = Message::new(7, 1);
            for (kind, value) in &values {
                message = message.attr(*kind, value);
            }
            let bytes = message.finish(9);
            let read: Vec<_> = messages(&bytes).collect();
            prop_assert_eq!(read.len(), 1);
            prop_assert_eq!((read[0].kind, read[0].flags, read[0].sequence), (7, 1, 9));
            let back: Vec<_> = attributes(read[0].payload).map(|(k, v)| (k, v.to_vec())).collect();
            prop_assert_eq!(back, values);
        }
    }

    #[test]
    fn many_are_drained_and_one_too_long_is_not_lost_twice() {
        let mut socket = Socket::open(libc::NETLINK_ROUTE).unwrap();
        let off = 0i32.to_ne_bytes();
        super::super::sockopt::set(socket.as_fd(), libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, &off).unwrap();
        // The kernel refuses what it doesn't know, and repeats it.
        let ask = |socket: &Socket, len: usize, sequence| {
            let unknown = Message::new(0x7ff0, NLM_F_REQUEST | NLM_F_ACK).attr(1, &vec![0; len]);
            socket.send(&unknown.finish(sequence)).unwrap();
        };
        let read = |socket: &mut Socket| {
            let mut read = Vec::new();
            let result = socket.drain(|message| read.push((message.sequence, message.payload.len())));
            (result, read)
        };
        for count in [0, 1, BATCH as u32 - 1, BATCH as u32, 3 * BATCH as u32 + 1] {
            (0..count).for_each(|n| ask(&socket, 4, n));
            let (result, read) = read(&mut socket);
            assert_eq!(result, Ok(()));
            assert!(read.iter().map(|(n, _)| *n).eq(0..count));
        }
        ask(&socket, 6000, 1);
        ask(&socket, 4, 2);
        let (result, read_first) = read(&mut socket);
        assert_eq!(result, Err(Errno(libc::ENOBUFS)));
        assert!(read_first.iter().map(|(n, _)| *n).eq([2]));
        ask(&socket, 6000, 3);
        let (result, read_then) = read(&mut socket);
        assert_eq!((result, read_then.len()), (Ok(()), 1));
        assert!(read_then[0].1 > 6000);
    }

    /// Whenever the queue overran, before or in the middle of a batch.
    #[test]
    fn no_loss_is_passed_over() {
        let mut socket = Socket::open(libc::NETLINK_ROUTE).unwrap();
        super::super::sockopt::set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 0).unwrap();
        let sender = Socket::of(super::super::sockopt::duplicate(socket.as_fd()).unwrap());
        let done = std::sync::atomic::AtomicBool::new(false);
        let count = 200_000;
        let (mut last, mut told, mut untold, mut losses) = (0, false, false, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=count {
                    sender.send(&Message::new(0x7ff0, NLM_F_REQUEST | NLM_F_ACK).finish(n)).unwrap();
                }
                done.store(true, std::sync::atomic::Ordering::SeqCst);
            });
            loop {
                let over = done.load(std::sync::atomic::Ordering::SeqCst);
                let result = socket.drain(|message| {
                    assert!(message.sequence > last);
                    untold |= message.sequence != last + 1 && !told;
                    (last, told) = (message.sequence, false);
                });
                if result == Err(Errno(libc::ENOBUFS)) {
                    (told, untold, losses) = (true, false, losses + 1);
                }
                if over && result == Ok(()) {
                    break;
                }
            }
        });
        assert!(
            losses > 0 && !untold && (last == count || told),
            "{losses} losses, {last} last, {untold} {told}"
        );
    }

    #[test]
    fn a_refusal_carries_the_kernel_text() {
        let mut payload = (-22i32).to_ne_bytes().to_vec();
        payload.extend_from_slice(&[0; 16]);
        push_attr(&mut payload, NLMSGERR_ATTR_MSG, b"invalid token\0");
        let flags = NLM_F_CAPPED | NLM_F_ACK_TLVS;
        let message = Received { kind: NLMSG_ERROR, flags, sequence: 1, payload: &payload };
        let refusal = acknowledgement(&message).unwrap_err();
        assert_eq!((refusal.errno, refusal.text.as_str()), (Errno(22), "invalid token"));
    }
}
