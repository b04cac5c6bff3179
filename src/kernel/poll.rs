// SPDX-License-Identifier: MIT OR Apache-2.0
//! epoll, eventfd and timerfd: descriptors that say when there is something
//! to do.

use super::sockopt::fcntl;
use crate::error::{Errno, KernelResult};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

fn owned(fd: RawFd) -> KernelResult<OwnedFd> {
    if fd < 0 {
        return Err(Errno::last());
    }
    // SAFETY: the caller's system call just returned this descriptor, and
    // nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Which of these descriptors poll(2) has something to say of: one of the
/// events, an error or an end. It waits for so long, without a time for ever.
/// EINTR is the caller's.
pub fn any(fds: &[BorrowedFd<'_>], events: i16, timeout: Option<Duration>) -> KernelResult<Vec<bool>> {
    let poll = |fd: &BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    let mut polls: Vec<libc::pollfd> = fds.iter().map(poll).collect();
    let time = timeout.map(|time| libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(time.subsec_nanos() as i32) as _,
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: as many pollfds as their number says, a timespec or null, and no
    // signal mask; all live until the call returns.
    let rc = unsafe { libc::ppoll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, time, std::ptr::null()) };
    if rc < 0 { Err(Errno::last()) } else { Ok(polls.iter().map(|poll| poll.revents != 0).collect()) }
}

/// An epoll descriptor; CLOEXEC, and said to be non-blocking.
pub fn epoll() -> KernelResult<OwnedFd> {
    // SAFETY: takes an integer.
    let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    fcntl(epoll.as_fd(), libc::F_SETFL, libc::O_NONBLOCK)?;
    Ok(epoll)
}

/// An eventfd that is readable for ever.
pub fn always() -> KernelResult<OwnedFd> {
    // SAFETY: takes two integers.
    owned(unsafe { libc::eventfd(1, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

/// A timer on CLOCK_MONOTONIC, readable once its time has come.
pub fn timer() -> KernelResult<OwnedFd> {
    // SAFETY: takes two integers.
    owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) })
}

/// Sets a timer to a moment, or to none; it is not readable before that.
pub fn set_timer(timer: BorrowedFd<'_>, at: Option<Duration>) -> KernelResult<()> {
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let value = at.map_or(never, |at| libc::timespec {
        tv_sec: at.as_secs() as libc::time_t,
        // Zero altogether would be none.
        tv_nsec: libc::c_long::from(at.subsec_nanos()).max(1) as _,
    });
    let spec = libc::itimerspec { it_interval: never, it_value: value };
    // SAFETY: reads one itimerspec; a null pointer says that the old one isn't
    // wanted.
    let rc = unsafe {
        libc::timerfd_settime(
            timer.as_raw_fd(),
            libc::TFD_TIMER_ABSTIME,
            &raw const spec,
            std::ptr::null_mut(),
        )
    };
    if rc < 0 { Err(Errno::last()) } else { Ok(()) }
}

fn control(epoll: RawFd, what: i32, fd: BorrowedFd<'_>, readable: bool, data: u64) -> KernelResult<()> {
    let mut event = libc::epoll_event { events: if readable { libc::EPOLLIN as u32 } else { 0 }, u64: data };
    // SAFETY: reads one epoll_event.
    let rc = unsafe { libc::epoll_ctl(epoll, what, fd.as_raw_fd(), &raw mut event) };
    if rc < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// Has an epoll descriptor watch another, or know it only, under this number.
/// What is no epoll descriptor is left alone, here and below.
pub fn watch(epoll: RawFd, fd: BorrowedFd<'_>, readable: bool, data: u64) -> KernelResult<()> {
    control(epoll, libc::EPOLL_CTL_ADD, fd, readable, data)
}

/// The same for one that it knows already.
pub fn change(epoll: RawFd, fd: BorrowedFd<'_>, readable: bool, data: u64) -> KernelResult<()> {
    control(epoll, libc::EPOLL_CTL_MOD, fd, readable, data)
}

/// Whether an epoll descriptor knows another; the one stays as it is.
pub fn knows(epoll: RawFd, fd: BorrowedFd<'_>) -> bool {
    match control(epoll, libc::EPOLL_CTL_ADD, fd, false, 0) {
        Err(errno) => errno == Errno(libc::EEXIST),
        Ok(()) => {
            let _ = unwatch(epoll, fd);
            false
        }
    }
}

/// Has it forget another.
pub fn unwatch(epoll: RawFd, fd: BorrowedFd<'_>) -> KernelResult<()> {
    control(epoll, libc::EPOLL_CTL_DEL, fd, false, 0)
}

/// The numbers of up to four watched descriptors that are readable now, and
/// how many; EINVAL where it is no epoll descriptor.
pub fn look(epoll: BorrowedFd<'_>) -> KernelResult<([u64; 4], usize)> {
    const NONE: libc::epoll_event = libc::epoll_event { events: 0, u64: 0 };
    let mut events = [NONE; 4];
    // SAFETY: the kernel writes at most as many events as there is room for.
    let n = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, 0) };
    match usize::try_from(n) {
        Ok(n) => Ok((events.map(|event| event.u64), n)),
        Err(_) => Err(Errno::last()),
    }
}

/// The epoll descriptors of this process by their numbers, with what they know
/// the watched ones under.
pub fn epolls() -> Option<Vec<(RawFd, Vec<u64>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/thread-self/fd").ok()? {
        let entry = entry.ok()?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        // A descriptor can be closed meanwhile.
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        if target.as_os_str() == "anon_inode:[eventpoll]" {
            found.extend(numbers(number).map(|numbers| (number, numbers)));
        }
    }
    Some(found)
}

/// What an epoll descriptor knows those it watches under.
pub fn numbers(fd: RawFd) -> Option<Vec<u64>> {
    Some(known(fd)?.into_iter().map(|known| known.number).collect())
}

/// A file that an epoll descriptor watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// What it is known under.
    pub number: u64,
    /// Its inode.
    pub inode: u64,
}

/// Those that an epoll descriptor watches, at one moment. One whose last
/// descriptor was closed, in whatever process that was, is not among them.
pub fn known(fd: RawFd) -> Option<Vec<Known>> {
    let text = std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{fd}")).ok()?;
    let field = |line: &str, name: &str| {
        let rest = line.split(name).nth(1)?;
        u64::from_str_radix(rest.split_whitespace().next()?, 16).ok()
    };
    let known = |line: &str| {
        let line = line.strip_prefix("tfd:")?;
        Some(Known { number: field(line, "data:")?, inode: field(line, "ino:")? })
    };
    Some(text.lines().filter_map(known).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::process;

    #[test]
    fn what_is_readable_is_told_by_its_number() {
        let (outer, ready, timer) = (epoll().unwrap(), always().unwrap(), timer().unwrap());
        assert_eq!(look(outer.as_fd()).unwrap().1, 0);
        watch(outer.as_raw_fd(), ready.as_fd(), false, 7 << 40).unwrap();
        watch(outer.as_raw_fd(), timer.as_fd(), true, 9).unwrap();
        assert_eq!(look(outer.as_fd()).unwrap().1, 0);
        set_timer(timer.as_fd(), Some(process::monotonic())).unwrap();
        let found = look(outer.as_fd()).unwrap();
        assert_eq!((found.0[0], found.1), (9, 1));
        set_timer(timer.as_fd(), None).unwrap();
        change(outer.as_raw_fd(), ready.as_fd(), true, 7 << 40).unwrap();
        let found = look(outer.as_fd()).unwrap();
        assert_eq!((found.0[0], found.1), (7 << 40, 1));
        let mut numbers = numbers(outer.as_raw_fd()).unwrap();
        numbers.sort_unstable();
        assert_eq!(numbers, [9, 7 << 40]);
        assert!(epolls().unwrap().iter().any(|(fd, n)| *fd == outer.as_raw_fd() && n.contains(&9)));
        assert!(knows(outer.as_raw_fd(), ready.as_fd()));
        unwatch(outer.as_raw_fd(), ready.as_fd()).unwrap();
        assert!(!knows(outer.as_raw_fd(), ready.as_fd()));
        assert!(!knows(ready.as_raw_fd(), timer.as_fd()));
        assert_eq!(look(outer.as_fd()).unwrap().1, 0);
        assert_eq!(look(ready.as_fd()).err(), Some(Errno(libc::EINVAL)));
    }
}
