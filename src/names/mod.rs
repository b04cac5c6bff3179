// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections by name (RFC 6897 appendix A.3, REQ5): the resolver's answers,
//! raced by Multipath TCP and TCP ([`race`]), each an attempt of its own, since
//! several answers can be several hosts.
//!
//! Where something on the way eats Multipath TCP's option TCP has answered long
//! before the kernel would take notice: three seconds unanswered, and an answer
//! to the SYN without the option then switches Multipath TCP off for the whole
//! network namespace. So no attempt is left to come to that.

pub mod learnt;
pub mod race;

use crate::addr;
use crate::advanced;
use crate::connect;
use crate::engine::{Profile, Setting};
use crate::error::{Errno, Error, Result};
use crate::kernel::process::{self, PerProcess};
use crate::kernel::{latch, poll, resolve, sockopt};
use crate::path;
use crate::socket::{self, Usage};
use crate::stream::{Socket, no_mptcp_socket};
use learnt::Learnt;
use race::{Attempt, Lane, Outcome, Plan, Race, Step};
use std::collections::{BTreeMap, HashSet};
use std::ffi::{CStr, CString};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How [`connect_by_name`] goes about it.
#[derive(Clone, Debug)]
pub struct ByName {
    /// Local addresses, as [`crate::add`] before the connection: these and no
    /// others. Empty: any.
    pub local: Vec<SocketAddr>,
    /// AF_UNSPEC, AF_INET or AF_INET6.
    pub family: i32,
    /// TCP_MULTIPATH_PROFILE, 0 the default.
    pub profile: i32,
    /// For all attempts together, counted from the resolver's answer. `None`:
    /// as long as the system tries.
    pub timeout: Option<Duration>,
    /// From one address to the next, while none fails sooner; 10 ms at least.
    pub attempt_delay: Duration,
    /// Multipath TCP's head start over TCP.
    pub tcp_delay: Duration,
    /// The descriptor is O_NONBLOCK.
    pub nonblocking: bool,
    /// Plain TCP may be the result.
    pub fallback: bool,
    /// Multipath TCP may be the result.
    pub multipath: bool,
    /// The name is an address, the service a port.
    pub numeric: bool,
}

impl Default for ByName {
    fn default() -> Self {
        Self {
            local: Vec::new(),
            family: libc::AF_UNSPEC,
            profile: 0,
            timeout: None,
            attempt_delay: Duration::from_millis(250),
            tcp_delay: Duration::from_millis(150),
            nonblocking: false,
            fallback: true,
            multipath: true,
            numeric: false,
        }
    }
}

/// Least time between addresses (RFC 8305 section 5).
const LEAST_DELAY: Duration = Duration::from_millis(10);
/// Head start of Multipath TCP where its option is held to be eaten: enough for
/// its answer to be the first if there is one.
const SHORT_HEAD_START: Duration = Duration::from_millis(10);
/// How long an attempt may take while others wait for its local port.
const TURN: Duration = Duration::from_secs(3);
/// The kernel waits so long for an answer to each of the first SYNs (RFC 6298).
const SYN_TIMEOUT: Duration = Duration::from_secs(1);
/// So long before the kernel would give the option up we do.
const MARGIN: Duration = Duration::from_millis(250);

static LEARNT: PerProcess<Mutex<Learnt>> = PerProcess::new();

fn with_learnt<T>(act: impl FnOnce(&mut Learnt) -> T) -> Option<T> {
    let learnt = LEARNT.get_or_init(Mutex::default).ok()?;
    Some(act(&mut learnt.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// A connection to a host by its name. Its addresses are tried as Happy
/// Eyeballs version 2 (RFC 8305) has it, each by Multipath TCP and, a head
/// start later, by TCP; the first to answer is what is returned. The descriptor
/// is CLOEXEC. Waits, whatever the descriptor will be.
///
/// ENOENT: no such name; EINVAL: no such service; EAGAIN, EIO: the resolver
/// failed, for now or for good; ETIMEDOUT; EOPNOTSUPP: plain TCP where that was
/// not allowed; EINTR; what [`crate::add`] says of the local addresses; else
/// the error of the best address. The words name each attempt.
pub fn connect_by_name(node: &str, service: &str, how: &ByName) -> Result<OwnedFd> {
    let text = |text: &str| {
        CString::new(text).map_err(|_| Error::new(libc::EINVAL, "a NUL inside the name or the service"))
    };
    by_name(&text(node)?, &text(service)?, how)
}

pub(crate) fn by_name(node: &CStr, service: &CStr, how: &ByName) -> Result<OwnedFd> {
    if !how.fallback && !how.multipath {
        return Err(Error::new(libc::EINVAL, "neither Multipath TCP nor TCP is allowed"));
    }
    if how.local.len() > addr::LIST_MAX {
        return Err(Error::new(libc::EINVAL, format!("a list has at most {} addresses", addr::LIST_MAX)));
    }
    profile_of(how.profile)?;
    let local = addr::checked(how.local.iter().copied().map(addr::canonical).collect())?;
    let multipath = how.multipath && available(how.fallback)?;
    let name = node.to_string_lossy();
    let mut answers = resolve::stream(node, service, how.family, how.numeric).map_err(|refusal| {
        let about = if refusal.is_service() { service.to_string_lossy() } else { name.clone() };
        Error::new(refusal.errno.0, format!("{about:.100}: {}", refusal.words()))
    })?;
    let begin = process::monotonic();
    if !local.is_empty() {
        answers.retain(|peer| local.iter().any(|local| addr::pair(local, peer)));
        if answers.is_empty() {
            let words = format!("{name:.100} has no address that one of the list could reach");
            return Err(Error::new(libc::EADDRNOTAVAIL, words));
        }
    }
    let peers = interleaved(answers);
    let shared_port = local.iter().any(|local| local.port() != 0);
    let plan = Plan {
        multipath,
        tcp: how.fallback,
        attempt_delay: how.attempt_delay.max(LEAST_DELAY),
        limit: multipath_limit(),
        turn: shared_port.then_some(TURN),
        deadline: how.timeout.map(|timeout| begin.saturating_add(timeout)),
    };
    let namespace = sockopt::thread_netns().unwrap_or(0);
    let head_start = |peer: &SocketAddr| {
        let eaten = with_learnt(|learnt| learnt.knows(&(namespace, peer.ip()), begin));
        if eaten == Some(true) { how.tcp_delay.min(SHORT_HEAD_START) } else { how.tcp_delay }
    };
    let head_starts: Vec<Duration> = peers.iter().map(head_start).collect();
    let mut driver = Driver {
        how,
        local,
        shared_port,
        peers,
        race: Race::new(&head_starts, plan),
        running: Vec::new(),
        reasons: BTreeMap::new(),
    };
    let won = driver.run()?;
    driver.learn(namespace, won.as_ref().map(|(attempt, _)| *attempt));
    match won {
        Some((_, fd)) => Ok(fd),
        None => Err(driver.failure(&name)),
    }
}

/// Values that a profile can have.
fn profile_of(number: i32) -> Result<Profile> {
    let known = usize::try_from(number).ok().and_then(|at| Profile::ALL.get(at));
    let none = || Error::new(libc::EINVAL, format!("TCP_MULTIPATH_PROFILE: no profile {number}"));
    known.copied().ok_or_else(none)
}

/// Whether this host has Multipath TCP; an error where nothing else will do.
fn available(fallback: bool) -> Result<bool> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    match sockopt::socket(libc::AF_INET, kind, libc::IPPROTO_MPTCP) {
        Err(
            errno @ Errno(
                libc::ENOPROTOOPT | libc::EPROTONOSUPPORT | libc::EINVAL | libc::EPERM | libc::EACCES,
            ),
        ) => {
            if fallback {
                Ok(false)
            } else {
                Err(no_mptcp_socket(errno))
            }
        }
        _ => Ok(true),
    }
}

/// How long the kernel's SYNs ask for Multipath TCP, and a little less; `None`:
/// always.
fn multipath_limit() -> Option<Duration> {
    let retries = latch::sysctl("syn_retrans_before_tcp_fallback");
    let retries = retries.and_then(|text| text.parse().ok()).unwrap_or(2u32);
    (retries < 128).then(|| (SYN_TIMEOUT * (retries + 1)).saturating_sub(MARGIN))
}

/// The answers by families in turn, from the best one's on (RFC 8305 section
/// 4), each once, and no more than a list may have.
fn interleaved(answers: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = HashSet::new();
    let first = answers.first().is_some_and(SocketAddr::is_ipv6);
    let once = answers.into_iter().filter(|peer| seen.insert(*peer));
    let (one, other): (Vec<_>, Vec<_>) = once.partition(|peer| peer.is_ipv6() == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut peers = Vec::new();
    while let pair = [one.next(), other.next()]
        && pair != [None, None]
    {
        peers.extend(pair.into_iter().flatten());
    }
    peers.truncate(addr::LIST_MAX);
    peers
}

/// A socket in the race. Unless it is taken out it ends without a trace: a peer
/// that has accepted it is told at once.
struct Contender {
    attempt: Attempt,
    fd: Option<OwnedFd>,
    /// Somebody was told about its paths.
    steered: bool,
}

impl Contender {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        let Some(fd) = &self.fd else { return };
        let at_once = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
        let _ = sockopt::set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &at_once);
        if let Ok(socket) = Socket::of(fd.as_fd()) {
            connect::abandon(&socket);
            if self.steered
                && let Some(control) = path::existing(&socket)
            {
                control.forget(&socket);
            }
        }
    }
}

/// Why an attempt could not be started.
enum Obstacle {
    /// The next may have more luck.
    Failed(Error),
    /// What was asked for can't be had, by whichever attempt.
    Fatal(Error),
}

struct Driver<'a> {
    how: &'a ByName,
    local: Vec<SocketAddr>,
    shared_port: bool,
    peers: Vec<SocketAddr>,
    race: Race,
    running: Vec<Contender>,
    reasons: BTreeMap<Attempt, String>,
}

impl Driver<'_> {
    /// Runs the race; the winner, if there is one.
    fn run(&mut self) -> Result<Option<(Attempt, OwnedFd)>> {
        loop {
            // Nothing is started where the answer is there already.
            self.hear(Some(Duration::ZERO))?;
            let now = process::monotonic();
            match self.race.poll(now) {
                Step::Start(attempt) => {
                    let Some(peer) = self.peers.get(attempt.address).copied() else { continue };
                    match self.start(attempt, &peer) {
                        Ok(contender) => {
                            self.running.push(contender);
                            self.look(attempt, &peer)?;
                            self.race.is_out(attempt, process::monotonic());
                        }
                        Err(Obstacle::Failed(error)) => self.failed(attempt, &peer, &error),
                        Err(Obstacle::Fatal(error)) => return Err(error),
                    }
                }
                Step::Stop(attempt) => self.running.retain(|contender| contender.attempt != attempt),
                Step::Wait(until) => self.hear(until.map(|at| at.saturating_sub(now)))?,
                Step::Over(None) => return Ok(None),
                Step::Over(Some(winner)) => {
                    let contender = self.running.iter_mut().find(|c| c.attempt == winner);
                    let Some(fd) = contender.and_then(|c| c.fd.take()) else {
                        return Err(Error::new(libc::ENOTRECOVERABLE, "the winner has no socket"));
                    };
                    self.running.clear();
                    if !self.how.nonblocking {
                        let flags = sockopt::fcntl(fd.as_fd(), libc::F_GETFL, 0);
                        flags
                            .and_then(|f| sockopt::fcntl(fd.as_fd(), libc::F_SETFL, f & !libc::O_NONBLOCK))
                            .map_err(|e| Error::kernel(e, "making the socket a blocking one"))?;
                    }
                    return Ok(Some((winner, fd)));
                }
            }
        }
    }

    /// Waits so long for an answer, without a time for ever, and looks at it.
    fn hear(&mut self, wait: Option<Duration>) -> Result<()> {
        let unanswered = self.running.iter().filter(|c| self.race.unanswered(c.attempt));
        let (attempts, fds): (Vec<Attempt>, Vec<BorrowedFd<'_>>) =
            unanswered.filter_map(|c| Some((c.attempt, c.fd()?))).unzip();
        if fds.is_empty() {
            return Ok(());
        }
        let ready = poll::any(&fds, libc::POLLOUT, wait);
        let ready = ready.map_err(|e| Error::kernel(e, "waiting for an answer"))?;
        for (attempt, _) in attempts.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            if let Some(peer) = self.peers.get(attempt.address).copied() {
                self.look(attempt, &peer)?;
            }
        }
        Ok(())
    }

    /// A socket with all that was asked for.
    fn start(&self, attempt: Attempt, peer: &SocketAddr) -> std::result::Result<Contender, Obstacle> {
        let multipath = attempt.lane == Lane::Multipath;
        let protocol = if multipath { libc::IPPROTO_MPTCP } else { libc::IPPROTO_TCP };
        let domain = if peer.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let failed = |e, doing| Obstacle::Failed(Error::kernel(e, doing));
        let fd = sockopt::socket(domain, kind, protocol).map_err(|e| failed(e, "making a socket"))?;
        let steered = multipath && (!self.local.is_empty() || self.how.profile != 0);
        let contender = Contender { attempt, fd: Some(fd), steered };
        let Some(fd) = contender.fd() else { return Ok(contender) };
        if self.shared_port {
            sockopt::set_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)
                .map_err(|e| failed(e, "setting SO_REUSEADDR"))?;
        }
        // Only IPv6 sockets carry both.
        let usable = self.local.iter().filter(|local| peer.is_ipv6() || local.is_ipv4());
        let usable: Vec<SocketAddr> = usable.copied().collect();
        if multipath {
            if self.how.profile != 0 {
                let profile = profile_of(self.how.profile).map_err(Obstacle::Fatal)?;
                advanced::set(fd, Setting::Profile(profile)).map_err(Obstacle::Fatal)?;
            }
            if !usable.is_empty() {
                socket::add(fd, usable, Usage::default()).map_err(Obstacle::Fatal)?;
            }
        } else if !usable.is_empty() {
            let socket = Socket::of(fd).map_err(Obstacle::Failed)?;
            connect::bind_towards(&socket, &usable, peer).map_err(Obstacle::Failed)?;
        }
        Ok(contender)
    }

    /// Connects, or looks at how far that has got.
    fn look(&mut self, attempt: Attempt, peer: &SocketAddr) -> Result<()> {
        let fd = self.running.iter().find(|c| c.attempt == attempt).and_then(Contender::fd);
        let Some(fd) = fd else { return Ok(()) };
        let answer = connect::connect(fd, &[*peer]).and_then(|_| {
            let multipath = attempt.lane == Lane::Multipath && socket::enabled(fd)?;
            if multipath || self.how.fallback {
                Ok(multipath)
            } else {
                Err(Error::new(libc::EOPNOTSUPP, "plain TCP only"))
            }
        });
        match answer {
            Ok(multipath) => self.race.report(attempt, Outcome::Connected { multipath }),
            Err(error) if matches!(error.errno(), libc::EINPROGRESS | libc::EALREADY) => {}
            Err(error) if error.errno() == libc::EINTR => return Err(error),
            Err(error) => {
                self.running.retain(|contender| contender.attempt != attempt);
                self.failed(attempt, peer, &error);
            }
        }
        Ok(())
    }

    fn failed(&mut self, attempt: Attempt, peer: &SocketAddr, error: &Error) {
        let words = error.to_string();
        let words = words.strip_prefix(&format!("connecting to {peer}: ")).unwrap_or(&words).to_owned();
        self.reasons.insert(attempt, words);
        self.race.report(attempt, Outcome::Failed(Errno(error.errno())));
    }

    /// What the race tells of a destination.
    fn learn(&self, namespace: u64, winner: Option<Attempt>) {
        let Some(Attempt { address, lane }) = winner else { return };
        let Some(place) = self.peers.get(address).map(|peer| (namespace, peer.ip())) else { return };
        let multipath = Attempt { address, lane: Lane::Multipath };
        let silent = [libc::ETIMEDOUT, libc::ECONNREFUSED, libc::ECONNRESET];
        let eaten = self.race.unanswered(multipath)
            || self.race.failure(multipath).is_some_and(|errno| silent.contains(&errno.0));
        match lane {
            Lane::Multipath => with_learnt(|learnt| learnt.forget(&place)),
            Lane::Tcp if eaten => with_learnt(|learnt| learnt.note(place, process::monotonic())),
            Lane::Tcp => None,
        };
    }

    /// Why nobody has won: every attempt with its reason, those of one address
    /// together.
    fn failure(&self, name: &str) -> Error {
        let plain = |errno: Option<Errno>| errno == Some(Errno(libc::EOPNOTSUPP));
        let only_plain = !self.how.fallback && self.race.attempts().any(|a| plain(self.race.failure(a)));
        let errno = if only_plain { Errno(libc::EOPNOTSUPP) } else { self.race.errno() };
        let reason = |attempt| {
            let known = self.reasons.get(&attempt).map(String::as_str);
            let waited = self.race.unanswered(attempt) || self.race.failure(attempt).is_some();
            known.or(waited.then_some("no answer"))
        };
        let mut told = Vec::new();
        for (address, peer) in self.peers.iter().enumerate() {
            let of = |lane| reason(Attempt { address, lane });
            told.push(match (of(Lane::Multipath), of(Lane::Tcp)) {
                (Some(one), Some(other)) if one == other => format!("{peer} MPTCP, TCP: {one}"),
                (Some(one), Some(other)) => format!("{peer} MPTCP: {one}, TCP: {other}"),
                (Some(one), None) => format!("{peer} MPTCP: {one}"),
                (None, Some(other)) => format!("{peer} TCP: {other}"),
                (None, None) => format!("{peer} not tried"),
            });
        }
        Error::new(errno.0, format!("{name:.100}: {}", told.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(text: &str) -> Vec<SocketAddr> {
        let addr = |word: &str| match word.strip_prefix('v') {
            Some(n) => format!("[fd00::{n}]:80").parse().unwrap(),
            None => format!("10.0.0.{word}:80").parse().unwrap(),
        };
        text.split_whitespace().map(addr).collect()
    }

    #[test]
    fn families_alternate_from_the_best_on() {
        assert_eq!(interleaved(list("v1 v2 v3 1 2")), list("v1 1 v2 2 v3"));
        assert_eq!(interleaved(list("1 2 v1")), list("1 v1 2"));
        assert_eq!(interleaved(list("1 1 v1 1")), list("1 v1"));
        assert_eq!(interleaved(list("")), list(""));
    }

    proptest! {
        #[test]
        fn each_once_and_in_the_order_of_its_family(
            answers in proptest::collection::vec((any::<bool>(), 1..80u8), 0..200)
        ) {
            let addr = |(v6, n): &(bool, u8)| if *v6 { format!("v{n}") } else { n.to_string() };
            let answers = list(&answers.iter().map(addr).collect::<Vec<_>>().join(" "));
            let peers = interleaved(answers.clone());
            prop_assert!(peers.len() <= addr::LIST_MAX);
            prop_assert_eq!(peers.first(), answers.first());
            let place = |peer| answers.iter().position(|answer| answer == peer).unwrap();
            for v6 in [false, true] {
                let of: Vec<usize> = peers.iter().filter(|p| p.is_ipv6() == v6).map(place).collect();
                prop_assert!(of.is_sorted_by(|a, b| a < b));
            }
            let switches = peers.windows(2).filter(|w| w[0].is_ipv6() != w[1].is_ipv6()).count();
            let fewer = peers.iter().filter(|p| p.is_ipv6()).count();
            let fewer = fewer.min(peers.len() - fewer);
            prop_assert!(peers.len() == addr::LIST_MAX || switches + 1 >= 2 * fewer);
        }
    }
}
