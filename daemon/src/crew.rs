// SPDX-License-Identifier: MIT OR Apache-2.0
//! The threads. All are alike: each takes a task if there is one, else the
//! lead if nobody has it: waiting for what happens, and deciding. So what is
//! decided is carried out at once by whoever decided it. One more, the first,
//! watches: it wakes another where somebody does not come back within a
//! millisecond.
//!
//! A task can wait without end for a socket's lock. A thread that is not back
//! in time is given up: another takes its place, and its user is served no
//! more until it is back. It can also wait for the lock of the path manager's
//! switch, which another process has: that is no fault of its user's.

use crate::broker::{Broker, Ended, Task};
use crate::log::log;
use crate::warden::Windows;
use mptcpapi::kernel::latch::{Fault, Warden};
use mptcpapi::manager::{self, Found, Hands};
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Threads that are not stuck.
const CREW: usize = 4;
/// Threads in all.
const CREW_MAX: usize = 256;
/// Events taken at a time: all, as a rule, so that each user has its turn.
const BATCH: usize = 4096;
const STACK: usize = 256 << 10;

/// What the threads share.
pub struct Ship {
    broker: Mutex<Broker>,
    work: Condvar,
    timer: TimerFd,
    epoll: Arc<Epoll>,
    windows: Arc<Windows>,
    namespace: u64,
}

impl Ship {
    /// Wakes the one who watches, again and again.
    fn look_every(&self, time: Duration) {
        let again = Expiration::Interval(TimeSpec::from_duration(time));
        let _ = self.timer.set(again, TimerSetTimeFlags::empty());
    }

    fn lock(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same if nobody has it, else lets others run.
    fn try_lock(&self) -> Option<MutexGuard<'_, Broker>> {
        let lock = self.broker.try_lock().ok();
        if lock.is_none() {
            std::thread::yield_now();
        }
        lock
    }
}

/// Runs the broker until it is told to stop, and gives it back.
pub fn sail(broker: Broker, epoll: Arc<Epoll>, namespace: u64) -> Result<(), String> {
    let windows = broker.windows();
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).map_err(|e| e.to_string())?;
    let ship =
        Arc::new(Ship { broker: Mutex::new(broker), work: Condvar::new(), timer, epoll, windows, namespace });
    let crew = (0..CREW).map(|_| hands(&ship)).collect::<Result<Vec<Hands>, String>>()?;
    // All are there before the first begins.
    let mut broker = ship.lock();
    for hands in crew {
        enlist(&ship, &mut broker, hands)?;
    }
    drop(broker);
    watch(&ship);
    ship.windows.stop();
    ship.lock().stop();
    Ok(())
}

fn hands(ship: &Ship) -> Result<Hands, String> {
    let mut hands = Hands::open(ship.namespace, true).map_err(|e| e.to_string())?;
    hands.latch().watch(Arc::clone(&ship.windows) as Arc<dyn Warden>);
    Ok(hands)
}

fn enlist(ship: &Arc<Ship>, broker: &mut Broker, hands: Hands) -> Result<(), String> {
    let spawned = std::thread::Builder::new().name("worker".into()).stack_size(STACK).spawn({
        let ship = Arc::clone(ship);
        move || serve(&ship, hands)
    });
    spawned.map_err(|e| format!("no thread: {e}"))?;
    broker.crew.threads += 1;
    Ok(())
}

/// Makes another thread. It opens its hands itself: they are generic netlink's,
/// which a socket can hold up, and with it whoever watches.
fn hire(ship: &Arc<Ship>) {
    let spawned = std::thread::Builder::new().name("worker".into()).stack_size(STACK).spawn({
        let ship = Arc::clone(ship);
        move || match hands(&ship) {
            Ok(hands) => {
                let mut broker = ship.lock();
                (broker.crew.hire_at, broker.crew.threads) = (Duration::ZERO, broker.crew.threads + 1);
                drop(broker);
                serve(&ship, hands);
            }
            Err(words) => ship.lock().crew.lacks(&words),
        }
    });
    if let Err(e) = spawned {
        ship.lock().crew.lacks(&format!("no thread: {e}"));
    }
}

/// One thread's life; it goes when there are enough.
fn serve(ship: &Arc<Ship>, mut hands: Hands) {
    let mut broker = ship.lock();
    let number = broker.crew.number();
    let barred = hands.latch().waits();
    loop {
        if broker.crew.done {
            ship.work.notify_all();
            ship.look_every(SLOW);
            return;
        }
        if let Some(task) = broker.next_task() {
            broker.crew.begin(number, task.user(), task.socket(), &barred);
            if !std::mem::replace(&mut broker.crew.watched, true) {
                ship.look_every(SLOW);
            }
            drop(broker);
            broker = perform(ship, &mut hands, task);
            broker.crew.end(number);
            if broker.crew.is_led() && broker.is_sooner() {
                broker.rouse();
            }
        } else if let Some(mut events) = broker.crew.lead.take() {
            broker.flush();
            let wait = broker.timeout();
            drop(broker);
            let count = ship.epoll.wait(&mut events, millis(wait)).unwrap_or(0);
            broker = ship.lock();
            broker.turn(events.get(..count).unwrap_or_default());
            broker.crew.lead = Some(events);
        } else if broker.crew.active() > CREW {
            broker.crew.threads -= 1;
            return;
        } else {
            broker.flush();
            broker.crew.idle += 1;
            broker = ship.work.wait(broker).unwrap_or_else(PoisonError::into_inner);
            broker.crew.idle -= 1;
        }
    }
}

/// Sees to it that somebody leads and works while others are held up, and that
/// no window stays open: while tasks are done it looks every millisecond. A
/// timer wakes it, which costs those who begin a task less than to wake it
/// themselves. It does no task, so nobody can keep it: it is also who comes back
/// when all is to end.
fn watch(ship: &Arc<Ship>) {
    let (mut passed_by, mut quiet) = (0, 0);
    while matches!(ship.timer.wait(), Ok(()) | Err(nix::Error::EINTR)) {
        ship.windows.look(manager::Manager::now());
        // Who has the lock gets on. It is never waited for: windows are to be
        // closed meanwhile, and who gives it up would have to wake us.
        let tries = if passed_by < PATIENT { 1 } else { INSISTENT };
        let Some(mut broker) = (0..tries).find_map(|_| ship.try_lock()) else {
            passed_by += 1;
            continue;
        };
        passed_by = 0;
        if broker.crew.done {
            return;
        }
        quiet = if broker.crew.busy.is_empty() { quiet + 1 } else { 0 };
        if quiet > QUIET {
            // With the lock held: who begins a task after it sets it again.
            let _ = ship.timer.unset();
            (broker.crew.watched, quiet) = (false, 0);
        }
        for late in broker.crew.look(manager::Manager::now()) {
            match late {
                Late::Barred => log!(Warning, "{}", manager::fault(Fault::Locked)),
                Late::Held(user) => {
                    log!(Warning, "user {user} holds a thread up: a socket does not let go of its lock");
                }
            }
        }
        let waiting = broker.has_tasks() || !broker.crew.is_led();
        if !(waiting && broker.crew.is_slow()) {
            continue;
        }
        if broker.crew.idle > 0 {
            ship.work.notify_one();
        } else if broker.crew.threads < CREW_MAX && broker.crew.hires() {
            broker.crew.hire_at = Duration::MAX;
            drop(broker);
            hire(ship);
        }
    }
}

/// Does a task without the broker's lock, and reports.
fn perform<'a>(ship: &'a Ship, hands: &mut Hands, task: Task) -> MutexGuard<'a, Broker> {
    match task {
        Task::Close(user, fds, parting) => {
            let count = fds.len();
            drop(fds);
            let mut broker = ship.lock();
            broker.scrapped(user, count);
            if let Some(parting) = parting {
                broker.give(&parting);
            }
            broker
        }
        Task::Job { job, fd, roll, .. } => {
            use std::os::fd::AsFd;
            if let (Some(fd), Some((roll, key))) = (&fd, &roll) {
                // Where it can't be, the library tells.
                let _ = roll.enter(fd.as_fd(), *key);
            }
            let found: Found = hands.run(job.work, fd.as_deref().map(AsFd::as_fd));
            let mut broker = ship.lock();
            let ended = broker.report(job.lane, job.call, found);
            // Nobody must be answered while we have it for nothing.
            let fd = fd.filter(|fd| Arc::strong_count(fd) == 1);
            if ended.is_empty() && fd.is_none() {
                return broker;
            }
            // Closing can wait too.
            drop(broker);
            drop(fd);
            let partings: Vec<_> = ended.into_iter().map(Ended::close).collect();
            let mut broker = ship.lock();
            broker.left(job.call);
            partings.iter().for_each(|parting| broker.give(parting));
            broker
        }
    }
}

fn millis(wait: Option<Duration>) -> EpollTimeout {
    match wait {
        None => EpollTimeout::NONE,
        Some(wait) => {
            let millis = wait.as_micros().div_ceil(1000).min(60_000);
            EpollTimeout::try_from(millis as u64).unwrap_or(EpollTimeout::ZERO)
        }
    }
}

/// Who is at what.
pub struct Crew {
    /// Threads in all.
    pub threads: usize,
    /// Those that wait for work.
    pub idle: usize,
    /// Room for what happens; whoever waits for that has it.
    lead: Option<Vec<EpollEvent>>,
    /// Somebody looks whether the others get on.
    watched: bool,
    /// Everybody is to go.
    pub done: bool,
    numbers: u64,
    busy: Vec<Busy>,
    /// No further thread is made before: one is on its way, or none could be
    /// made.
    hire_at: Duration,
    /// When it was last told that none could be made.
    complained: Option<Duration>,
}

struct Busy {
    number: u64,
    user: u32,
    socket: Option<u64>,
    since: Duration,
    stuck: bool,
    /// It waits for the path manager's switch, which another process has.
    barred: Arc<AtomicBool>,
}

impl Busy {
    fn barred(&self) -> bool {
        self.barred.load(Ordering::Relaxed)
    }
}

/// What keeps a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// A socket of this user does not let go of its lock.
    Held(u32),
    /// Another process has the path manager's switch.
    Barred,
}

/// How often in a row the watcher passes by while somebody decides.
const PATIENT: u32 = 2;
/// How often it tries then: long enough for what is decided as a rule.
const INSISTENT: u32 = 32;
/// How often in a row it finds nobody at a task before it sleeps: to set the
/// timer costs more than to be woken by it once more.
const QUIET: u32 = 2;
/// After this long at one task another thread takes over what waits.
const SLOW: Duration = Duration::from_millis(1);
/// After this long a thread counts as stuck.
const STUCK: Duration = Duration::from_millis(500);
/// After a thread could not be made, until the next is tried.
const PAUSE: Duration = Duration::from_millis(100);
/// And until that is told again.
const SILENCE: Duration = Duration::from_secs(60);
/// For whom tasks are done that are nobody's.
pub const NOBODY: u32 = u32::MAX;
/// Threads that work for one user at a time.
const PER_USER: usize = 2;

impl Default for Crew {
    fn default() -> Self {
        let lead = Some(vec![EpollEvent::empty(); BATCH]);
        Self {
            threads: 0,
            idle: 0,
            lead,
            watched: false,
            done: false,
            numbers: 0,
            busy: Vec::new(),
            hire_at: Duration::ZERO,
            complained: None,
        }
    }
}

impl Crew {
    /// Somebody waits for what happens.
    fn is_led(&self) -> bool {
        self.lead.is_none()
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn begin(&mut self, number: u64, user: u32, socket: Option<u64>, barred: &Arc<AtomicBool>) {
        let since = manager::Manager::now();
        self.busy.push(Busy { number, user, socket, since, stuck: false, barred: Arc::clone(barred) });
    }

    fn end(&mut self, number: u64) {
        self.busy.retain(|busy| busy.number != number);
    }

    /// Whether somebody has been at one task for too long.
    fn is_slow(&self) -> bool {
        let now = manager::Manager::now();
        self.busy.iter().any(|busy| now.saturating_sub(busy.since) >= SLOW)
    }

    /// Whether another thread may be made.
    fn hires(&self) -> bool {
        self.hire_at <= manager::Manager::now()
    }

    /// None could be made, and why.
    fn lacks(&mut self, words: &str) {
        let now = manager::Manager::now();
        self.hire_at = now.saturating_add(PAUSE);
        if self.complained.is_none_or(|at| now.saturating_sub(at) >= SILENCE) {
            self.complained = Some(now);
            log!(Error, "{words}");
        }
    }

    fn active(&self) -> usize {
        self.threads.saturating_sub(self.busy.iter().filter(|busy| busy.stuck).count())
    }

    /// Whether another task of this user may begin.
    pub fn has_room(&self, user: u32) -> bool {
        user == NOBODY || self.busy.iter().filter(|busy| busy.user == user).count() < PER_USER
    }

    /// What has all the threads that this user may have, and does not let go of
    /// them.
    pub fn stuck(&self, user: u32) -> Option<Late> {
        let mut stuck = self.busy.iter().filter(|busy| busy.user == user && busy.stuck);
        let barred = stuck.clone().any(Busy::barred);
        stuck.nth(PER_USER - 1)?;
        Some(if barred { Late::Barred } else { Late::Held(user) })
    }

    /// Whether somebody is at a task of this socket, and what keeps that.
    pub fn at(&self, cookie: u64) -> Option<Late> {
        let busy = self.busy.iter().find(|busy| busy.socket == Some(cookie))?;
        Some(if busy.barred() { Late::Barred } else { Late::Held(busy.user) })
    }

    /// Notes who is stuck by now; what keeps those that were not before. Of the
    /// switch that another process has it is told once.
    fn look(&mut self, now: Duration) -> Vec<Late> {
        let mut told = self.busy.iter().any(|busy| busy.stuck && busy.barred());
        let mut found = Vec::new();
        for busy in self.busy.iter_mut().filter(|busy| !busy.stuck) {
            if now.saturating_sub(busy.since) < STUCK {
                continue;
            }
            busy.stuck = true;
            if !busy.barred() {
                found.extend((busy.user != NOBODY).then_some(Late::Held(busy.user)));
            } else if !std::mem::replace(&mut told, true) {
                found.push(Late::Barred);
            }
        }
        found
    }
}
