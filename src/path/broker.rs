// SPDX-License-Identifier: MIT OR Apache-2.0
//! The broker backend: mptcpapid has the privilege; this process shows it the
//! socket's descriptor and says what it wants.

use super::{Abilities, Backend, Control, Open, PathControl, Start};
use crate::engine::{Entry, Key, Setting, Settings, Time};
use crate::error::{Errno, Error, Result};
use crate::events::Next;
use crate::kernel::process::{self, PerProcess};
use crate::kernel::{sockopt, unix};
use crate::manager::{Answer, Facts};
use crate::stream::Socket;
use crate::wire::{self, Ask, Reply, Request, Told};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Connections of this process at most. A call has one to itself while it
/// waits, so that a long one (REMOVE) holds no other up.
const LINES: usize = 4;

/// How long a reply may take (ABI).
const PATIENCE: Time = Time::from_secs(1);

/// Where the broker listens unless MPTCPAPI_BROKER says otherwise.
pub const SOCKET: &str = "/run/mptcpapi/broker.sock";

struct State {
    lines: [Mutex<Option<Line>>; LINES],
    next: AtomicUsize,
    /// What the broker was told of and is not known to be connected or closed:
    /// nothing tells it when such a socket is closed.
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// With what connect(2) is to begin from, where that is known.
    keys: HashMap<Key, Option<Vec<SocketAddr>>>,
    sweep_at: usize,
    /// The call that was begun last of those that can tell what a socket is to
    /// begin from, where no other has changed that since.
    asking: HashMap<Key, u64>,
    numbers: u64,
}

impl Waiting {
    /// What the socket is to begin from changes, or has just changed.
    fn change(&mut self, key: &Key) {
        self.asking.remove(key);
        if let Some(plan) = self.keys.get_mut(key) {
            *plan = None;
        }
    }

    /// The same, by a call that tells what it is to begin from then.
    fn ask(&mut self, key: Key) -> u64 {
        self.change(&key);
        self.numbers += 1;
        self.asking.insert(key, self.numbers);
        self.numbers
    }

    /// That call was answered. Where another was under way at the same time
    /// nobody knows which was the later one.
    fn answered(&mut self, key: Key, number: u64, plan: Option<Vec<SocketAddr>>) {
        let alone = self.asking.get(&key) == Some(&number);
        self.asking.remove(&key);
        self.keys.insert(key, plan.filter(|_| alone));
    }
}

static STATE: PerProcess<State> = PerProcess::new();
static BROKER: Broker = Broker;

struct Broker;

/// A connection to the broker.
struct Line {
    fd: OwnedFd,
    /// SO_COOKIE: the program may have closed the descriptor.
    cookie: u64,
    tag: u32,
    namespace: u64,
    abilities: Abilities,
    /// A signal ends the wait for a reply.
    interruptible: bool,
}

fn path() -> PathBuf {
    process::environment(c"MPTCPAPI_BROKER").filter(|path| !path.is_empty()).unwrap_or(SOCKET.into()).into()
}

/// The backend, if the broker answers and serves the socket's network
/// namespace; without a socket, the calling thread's. The error says why not.
pub fn available(socket: Option<&Socket<'_>>) -> Result<&'static dyn PathControl> {
    let namespace = match on_a_line(|line| Ok(line.namespace)) {
        Ok(namespace) => namespace,
        // It was there before: no reason to do without.
        Err(_) if STATE.get().is_some() => return Ok(&BROKER),
        Err(error) => return Err(error),
    };
    match socket.map_or_else(sockopt::thread_netns, |socket| sockopt::netns_cookie(socket.fd)) {
        Ok(own) if own != namespace => Err(elsewhere()),
        _ => Ok(&BROKER),
    }
}

/// The backend, if this process has used it.
pub fn existing() -> Option<&'static dyn PathControl> {
    STATE.get().map(|_| &BROKER as &dyn PathControl)
}

/// What a broker that doesn't know a question says of it.
fn newer(error: Error) -> Error {
    match error.errno() {
        libc::EPROTO => {
            Error::new(libc::EOPNOTSUPP, "the broker is older than this library and doesn't know the request")
        }
        _ => error,
    }
}

fn elsewhere() -> Error {
    Error::new(libc::EOPNOTSUPP, "the broker serves another network namespace")
}

fn lost(errno: Errno) -> Error {
    Error::kernel(Errno(libc::EIO), &format!("the broker went away or does not answer ({errno})"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    fn open() -> Result<Self> {
        let path = path();
        let deadline = process::monotonic().saturating_add(PATIENCE);
        let fd = loop {
            match unix::connect(&path) {
                // Many connect at once: it has not come to us yet.
                Err(Errno(libc::EAGAIN)) if process::monotonic() < deadline => {
                    std::thread::sleep(Time::from_millis(1));
                }
                other => {
                    break other.map_err(|errno| {
                        Error::new(libc::EPERM, format!("no broker answers at {} ({errno})", path.display()))
                    })?;
                }
            }
        };
        let cookie = sockopt::cookie(fd.as_fd()).map_err(lost)?;
        let none = Abilities { switch: false, listen: false };
        let mut line = Self { fd, cookie, tag: 0, namespace: 0, abilities: none, interruptible: false };
        line.greet().map_err(|error| match error.errno() {
            libc::EIO => Error::new(libc::EPERM, error.to_string()),
            _ => error,
        })?;
        Ok(line)
    }

    fn greet(&mut self) -> Result<()> {
        match self.ask(Ask::Hello, None, PATIENCE).map_err(lost)? {
            Told::Welcome { namespace, switch, listen } => {
                self.namespace = namespace;
                self.abilities = Abilities { switch, listen };
                Ok(())
            }
            Told::Refused { errno, words } => Err(Error::new(errno, words)),
            _ => Err(lost(Errno(libc::EBADMSG))),
        }
    }

    fn intact(&self) -> bool {
        sockopt::cookie(self.fd.as_fd()) == Ok(self.cookie)
    }

    /// Says something whose reply nobody waits for; it is passed over by the
    /// next question.
    fn remark(&mut self, ask: Ask, attached: Option<BorrowedFd<'_>>) -> std::result::Result<(), Errno> {
        self.tag = self.tag.wrapping_add(1);
        let message = wire::encode(&Request { tag: self.tag, ask }).map_err(|error| Errno(error.errno()))?;
        unix::send(self.fd.as_fd(), &message, attached, true)
    }

    /// What the broker said before it closed the line.
    fn last_words(&self) -> Option<Told> {
        let mut buffer = [0u8; wire::LIMIT];
        loop {
            let received = unix::receive(self.fd.as_fd(), &mut buffer, true).ok().filter(|r| r.len > 0)?;
            match wire::decode(buffer.get(..received.len)?) {
                Ok(Reply { tag: 0, told }) => return Some(told),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// One question, one reply. An errno where the line is of no use any more.
    fn ask(
        &mut self,
        ask: Ask,
        attached: Option<BorrowedFd<'_>>,
        patience: Time,
    ) -> std::result::Result<Told, Errno> {
        self.tag = self.tag.wrapping_add(1);
        let tag = self.tag;
        let message = wire::encode(&Request { tag, ask }).map_err(|error| Errno(error.errno()))?;
        let deadline = process::monotonic().saturating_add(patience);
        let fd = self.fd.as_fd();
        while let Err(errno) = unix::send(fd, &message, attached, true) {
            if errno != Errno(libc::EAGAIN) {
                // It may have said why it hung up.
                return self.last_words().ok_or(errno);
            }
            wait(fd, libc::POLLOUT, deadline, false)?;
        }
        let mut buffer = [0u8; wire::LIMIT];
        loop {
            let received = match unix::receive(fd, &mut buffer, true) {
                Err(Errno(libc::EAGAIN)) => {
                    wait(fd, libc::POLLIN, deadline, self.interruptible)?;
                    continue;
                }
                other => other?,
            };
            if received.len == 0 {
                return Err(Errno(libc::ECONNRESET));
            }
            let bytes = buffer.get(..received.len).unwrap_or_default();
            let reply: Reply = wire::decode(bytes).map_err(|_| Errno(libc::EBADMSG))?;
            if reply.tag == tag {
                return Ok(reply.told);
            }
            // 0 tells why the line is being closed.
            if reply.tag == 0 {
                return Ok(reply.told);
            }
        }
    }
}

/// Waits for the descriptor; ETIMEDOUT at the deadline, EINTR if asked for.
fn wait(
    fd: BorrowedFd<'_>,
    events: i16,
    deadline: Time,
    interruptible: bool,
) -> std::result::Result<(), Errno> {
    loop {
        let left = deadline.saturating_sub(process::monotonic());
        if left.is_zero() {
            return Err(Errno(libc::ETIMEDOUT));
        }
        let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
        match sockopt::poll(fd, events, millis) {
            Err(Errno(libc::EINTR)) if interruptible => return Err(Errno(libc::EINTR)),
            Ok(0) | Err(Errno(libc::EINTR)) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

/// Runs `act` on a free line, opened where there is none.
fn on_a_line<T>(act: impl FnOnce(&mut Line) -> Result<T>) -> Result<T> {
    let Some(state) = STATE.get() else {
        // Nothing is kept where nobody answers.
        let mut line = Line::open()?;
        let result = act(&mut line);
        let make =
            || State { lines: Default::default(), next: AtomicUsize::new(0), waiting: Mutex::default() };
        let state = STATE.get_or_init(make).map_err(|e| Error::kernel(e, "making room for state"))?;
        if let Some(mut free) = state.lines.iter().find_map(|slot| slot.try_lock().ok())
            && free.is_none()
        {
            *free = Some(line);
        }
        return result;
    };
    let free = state.lines.iter().find_map(|slot| slot.try_lock().ok());
    let mut slot = free.unwrap_or_else(|| {
        let at = state.next.fetch_add(1, Ordering::Relaxed) % LINES;
        // All are waiting for replies, which come within seconds.
        state.lines.get(at).map_or_else(|| unreachable_slot(state), lock)
    });
    if slot.as_ref().is_some_and(|line| !line.intact()) {
        // The number is somebody else's now.
        std::mem::forget(slot.take());
    }
    if slot.is_none() {
        *slot = Some(Line::open()?);
    }
    match slot.as_mut() {
        Some(line) => act(line),
        None => Err(Error::new(libc::ENOTRECOVERABLE, "no line to the broker")),
    }
}

fn unreachable_slot(state: &State) -> MutexGuard<'_, Option<Line>> {
    let [first, ..] = &state.lines;
    lock(first)
}

/// Asks the broker; a second time, on a fresh line, where the first broke.
fn tell(ask: Ask, attached: Option<BorrowedFd<'_>>, patience: Time) -> Result<Told> {
    let mut broken = None;
    // It may have been done by one that died before it could say so.
    let mut taken = false;
    for _ in 0..2 {
        let question = ask.clone();
        let result = on_a_line(|line| {
            let before = line.cookie;
            match line.ask(question, attached, PATIENCE.saturating_add(patience)) {
                Ok(told) => Ok(Ok(told)),
                Err(errno) => Ok(Err((before, errno))),
            }
        });
        match result {
            Ok(Ok(told)) => return Ok(if taken { ask.again(told) } else { told }),
            Ok(Err((cookie, errno))) => {
                hang_up(cookie);
                broken = Some(errno);
                // A line that had ended before took nothing.
                taken |= errno != Errno(libc::EPIPE);
                if errno == Errno(libc::ETIMEDOUT) || (taken && !ask.is_repeatable()) {
                    break;
                }
            }
            Err(_) if broken.is_some() || STATE.get().is_some() => {
                return Err(lost(broken.unwrap_or(Errno(libc::ECONNREFUSED))));
            }
            Err(error) => return Err(error),
        }
    }
    Err(lost(broken.unwrap_or(Errno(libc::EBADMSG))))
}

/// Closes the line with this cookie.
fn hang_up(cookie: u64) {
    let Some(state) = STATE.get() else { return };
    for slot in &state.lines {
        if let Ok(mut slot) = slot.try_lock()
            && slot.as_ref().is_some_and(|line| line.cookie == cookie && line.intact())
        {
            *slot = None;
        }
    }
}

/// Tells the broker of something that it believes anyway; where that can't be
/// said at once, with a reply.
fn remark(socket: &Socket<'_>, ask: Ask) {
    let said = on_a_line(|line| Ok(line.remark(ask.clone(), Some(socket.fd))));
    if !matches!(said, Ok(Ok(()))) {
        let _ = call(socket, ask, Time::ZERO);
    }
}

fn call(socket: &Socket<'_>, ask: Ask, patience: Time) -> Result<Answer> {
    tell(ask, Some(socket.fd), patience)?.into_answer()
}

fn done(socket: &Socket<'_>, ask: Ask) -> Result<()> {
    let key = socket.key()?;
    let number = STATE.get().map_or(0, |state| lock(&state.waiting).ask(key));
    let answer = match call(socket, ask.clone(), Time::ZERO) {
        // Sockets that are closed may be among those that are too many.
        Err(error) if error.errno() == libc::EDQUOT && tell_closed(true) => call(socket, ask, Time::ZERO),
        result => result,
    };
    let answer = answer.inspect_err(|_| forget_plan(socket))?;
    let plan = match answer {
        Answer::Start(Start::From(choices)) => Some(choices),
        _ => None,
    };
    if let Some(state) = STATE.get() {
        lock(&state.waiting).answered(key, number, plan);
        tell_closed(false);
    }
    Ok(())
}

/// What the last ADD has told of the socket, if nothing was done to it since.
fn plan(socket: &Socket<'_>) -> Option<Start> {
    let key = socket.key().ok()?;
    let plan = lock(&STATE.get()?.waiting).keys.get_mut(&key)?.take()?;
    let ours = sockopt::info(socket.fd).is_ok_and(|info| info.subflows_max == 0);
    let unbound = socket.bound_by_application().is_none() && !socket.on_device();
    (ours && unbound).then_some(Start::From(plan))
}

fn forget_plan(socket: &Socket<'_>) {
    if let Some(state) = STATE.get()
        && let Ok(key) = socket.key()
    {
        lock(&state.waiting).change(&key);
    }
}

/// Tells the broker which of the sockets that it waits for are closed, if they
/// are many, or `now`; whether there was any.
fn tell_closed(now: bool) -> bool {
    let Some(state) = STATE.get() else { return false };
    let gone = {
        let mut waiting = lock(&state.waiting);
        if waiting.keys.len() < waiting.sweep_at.max(64) && !now {
            return false;
        }
        let Some(open) = process::open_sockets() else {
            waiting.sweep_at += 64;
            return false;
        };
        let gone: Vec<Key> = waiting.keys.keys().filter(|key| !open.contains(&key.inode)).copied().collect();
        waiting.keys.retain(|key, _| open.contains(&key.inode));
        waiting.sweep_at = 64 + 2 * waiting.keys.len();
        gone
    };
    for some in gone.chunks(256) {
        let _ = tell(Ask::Closed(some.iter().copied().map(Into::into).collect()), None, Time::ZERO);
    }
    !gone.is_empty()
}

/// Whether the descriptor is a line to the broker: then it is of
/// [`Broker::subscribe`]'s, the others are nobody's but ours.
pub fn is_line(fd: BorrowedFd<'_>) -> bool {
    let is = |option, value| sockopt::get_int(fd, libc::SOL_SOCKET, option) == Ok(value);
    is(libc::SO_DOMAIN, libc::AF_UNIX)
        && is(libc::SO_TYPE, libc::SOCK_SEQPACKET)
        && unix::is_connected_to(fd, &path())
}

/// What the kernel keeps for us of such a line: that its end was told.
fn set_ended(fd: BorrowedFd<'_>, ended: bool) {
    let _ = sockopt::set_int(fd, libc::SOL_SOCKET, libc::SO_PASSCRED, ended.into());
}

/// The error of [`next_event`] is to come again.
pub fn untold(fd: BorrowedFd<'_>) {
    set_ended(fd, false);
}

/// The next event of such a line.
pub fn next_event(fd: BorrowedFd<'_>) -> Result<Next> {
    let mut buffer = [0u8; 1024];
    let ended = || sockopt::get_int(fd, libc::SOL_SOCKET, libc::SO_PASSCRED) == Ok(1);
    let end = || set_ended(fd, true);
    let mut received = unix::receive(fd, &mut buffer, true);
    if let Err(Errno(libc::ECONNRESET)) = received {
        // The kernel says so before it gives what had come.
        received = unix::receive(fd, &mut buffer, true);
    }
    let received = match received {
        Err(Errno(libc::EAGAIN)) if ended() => return Ok(Next::End),
        Err(Errno(libc::EAGAIN)) => return Ok(Next::Nothing),
        Err(errno) => return Err(lost(errno)),
        Ok(received) => buffer.get(..received.len).filter(|bytes| !bytes.is_empty()),
    };
    let reply = received.map(wire::decode::<Reply>);
    match reply.map(|reply| reply.map(|reply| reply.told)) {
        Some(Ok(Told::Happened(event))) => Ok(Next::Event(event)),
        Some(Ok(Told::Over)) => {
            end();
            Ok(Next::End)
        }
        None if ended() => Ok(Next::End),
        flaw => {
            end();
            let errno = if flaw.is_none() { libc::ECONNRESET } else { libc::EBADMSG };
            Err(lost(Errno(errno)))
        }
    }
}

impl PathControl for Broker {
    fn add(&self, socket: &Socket<'_>, entries: Vec<Entry>) -> Result<()> {
        done(socket, Ask::Add(entries.iter().map(Into::into).collect()))
    }

    fn remove(&self, socket: &Socket<'_>, addrs: Vec<SocketAddr>) -> Result<()> {
        let nonblocking = sockopt::nonblocking(socket.fd);
        let patience = if nonblocking { Time::ZERO } else { wire::PATIENCE_MAX };
        forget_plan(socket);
        let result = call(socket, Ask::Remove { addrs, patience }, patience);
        // Another thread's ADD may have been answered before it was done.
        forget_plan(socket);
        result.map(drop)
    }

    fn respect_binding(&self, socket: &Socket<'_>) -> Result<()> {
        done(socket, Ask::RespectBinding)
    }

    fn before_connect(&self, socket: &Socket<'_>, peers: &[SocketAddr]) -> Result<Start> {
        if peers.len() == 1
            && let Some(start) = plan(socket)
        {
            return Ok(start);
        }
        let answer = call(socket, Ask::BeforeConnect(peers.to_vec()), Time::ZERO)?;
        Ok(match answer {
            Answer::Start(start) => start,
            _ => Start::AsIs,
        })
    }

    fn disconnected(&self, socket: &Socket<'_>) {
        forget_plan(socket);
        remark(socket, Ask::Disconnected);
    }

    fn make_socket(&self, domain: i32, kind: i32) -> Result<OwnedFd> {
        let fresh = sockopt::socket(domain, kind, libc::IPPROTO_MPTCP)
            .map_err(|errno| Error::kernel(errno, "making a Multipath TCP socket"))?;
        // A fresh one has no internal subflow yet, which a switch would
        // number.
        done(&Socket::of(fresh.as_fd())?, Ask::Take)?;
        Ok(fresh)
    }

    fn forget(&self, socket: &Socket<'_>) {
        forget_plan(socket);
        remark(socket, Ask::Forget);
    }

    fn facts(&self, socket: &Socket<'_>) -> Facts {
        match call(socket, Ask::Facts, Time::ZERO) {
            Ok(Answer::Facts(facts)) => facts,
            _ => Facts::default(),
        }
    }

    fn settings(&self, socket: &Socket<'_>) -> Result<Settings> {
        match call(socket, Ask::Settings, Time::ZERO) {
            Ok(Answer::Settings(settings)) => Ok(settings),
            // One that doesn't know the question has set nothing.
            Err(error) if error.errno() != libc::EPROTO => Err(error),
            _ => Ok(Settings::default()),
        }
    }

    fn set(&self, socket: &Socket<'_>, setting: Setting) -> Result<()> {
        done(socket, Ask::Set(setting)).map_err(newer)
    }

    fn open(&self, socket: &Socket<'_>, open: &Open) -> Result<()> {
        let Open { local, remote, backup, wait } = *open;
        let ask = Ask::Open { local, remote, backup, wait };
        let Some(wait) = wait else { return done(socket, ask).map_err(newer) };
        // A line of its own: it can take long.
        let mut line = Line::open().map_err(|error| match error.errno() {
            libc::EPERM if STATE.get().is_some() => Error::new(libc::EIO, error.to_string()),
            _ => error,
        })?;
        line.interruptible = true;
        match line.ask(ask, Some(socket.fd), PATIENCE.saturating_add(wait)) {
            Err(Errno(libc::EINTR)) => {
                Err(Error::new(libc::EINTR, "a signal came; the subflow is being opened"))
            }
            told => told.map_err(lost)?.into_answer().map(drop).map_err(newer),
        }
    }

    fn close(&self, socket: &Socket<'_>, local: SocketAddr, remote: SocketAddr) -> Result<()> {
        call(socket, Ask::Close { local, remote }, Time::ZERO).map(drop).map_err(newer)
    }

    fn pin(&self, socket: &Socket<'_>, local: SocketAddr, remote: SocketAddr, backup: bool) -> Result<()> {
        call(socket, Ask::Pin { local, remote, backup }, Time::ZERO).map(drop).map_err(newer)
    }

    fn control(&self, socket: &Socket<'_>) -> Result<Control> {
        match call(socket, Ask::Control, Time::ZERO)? {
            Answer::Control(control) => Ok(control),
            _ => Ok(Control::Unknown),
        }
    }

    fn subscribe(&self, socket: Option<&Socket<'_>>, events: u32) -> Result<OwnedFd> {
        let ask = if socket.is_some() { Ask::Subscribe { events } } else { Ask::SubscribeAll { events } };
        let attached = socket.map(|socket| socket.fd);
        // A line of its own, which is what the application gets.
        let mut line = Line::open().map_err(|error| match error.errno() {
            libc::EPERM if STATE.get().is_some() => Error::new(libc::EIO, error.to_string()),
            _ => error,
        })?;
        match line.ask(ask, attached, PATIENCE).map_err(lost)? {
            Told::Done => Ok(line.fd),
            told => Err(told.into_answer().err().unwrap_or_else(|| lost(Errno(libc::EBADMSG)))),
        }
    }

    fn abilities(&self) -> Abilities {
        on_a_line(|line| {
            line.greet()?;
            Ok(line.abilities)
        })
        .unwrap_or(Abilities { switch: false, listen: false })
    }

    fn backend(&self) -> Backend {
        Backend::Broker
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::events::{Event, What};
    use socket2::{Domain, Type};
    use std::os::fd::AsFd;

    /// Whatever two threads do at once, a socket begins from nothing that is
    /// not in its list.
    #[test]
    fn a_plan_lasts_until_anything_else_is_done() {
        let key = Key { cookie: 1, inode: 2 };
        let plan = || Some(vec!["10.1.0.1:0".parse().unwrap()]);
        let mut waiting = Waiting::default();
        let planned =
            |waiting: &mut Waiting| waiting.keys.get_mut(&key).is_some_and(|plan| plan.take().is_some());
        let add = waiting.ask(key);
        waiting.answered(key, add, plan());
        assert!(planned(&mut waiting) && !planned(&mut waiting));

        // A REMOVE: before, during, after.
        let add = waiting.ask(key);
        waiting.answered(key, add, plan());
        waiting.change(&key);
        assert!(!planned(&mut waiting));
        let add = waiting.ask(key);
        waiting.change(&key);
        waiting.answered(key, add, plan());
        assert!(!planned(&mut waiting));
        waiting.change(&key);
        let add = waiting.ask(key);
        waiting.answered(key, add, plan());
        waiting.change(&key);
        assert!(!planned(&mut waiting));

        // Two ADDs.
        for first in [true, false] {
            let adds = [waiting.ask(key), waiting.ask(key)];
            waiting.answered(key, adds[usize::from(first)], plan());
            waiting.answered(key, adds[usize::from(!first)], plan());
            assert!(!planned(&mut waiting));
        }
        assert!(waiting.asking.is_empty());
    }

    #[test]
    fn what_came_before_a_reset_is_told_before_it() {
        let (ours, theirs) = socket2::Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        for connection in [1, 2] {
            let told = Told::Happened(Event::new(What::Up, connection, Time::from_secs(1)));
            theirs.send(&wire::encode(&Reply { tag: 0, told }).unwrap()).unwrap();
        }
        // What the other end has not read makes its end a reset.
        ours.send(b"unread").unwrap();
        drop(theirs);
        for connection in [1, 2] {
            match next_event(ours.as_fd()) {
                Ok(Next::Event(event)) => assert_eq!(event.connection, connection),
                Ok(_) => panic!("nothing"),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(next_event(ours.as_fd()).err().map(|error| error.errno()), Some(libc::EIO));
        assert!(matches!(next_event(ours.as_fd()), Ok(Next::End)));
    }
}
