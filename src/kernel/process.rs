// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is peculiar to living in somebody else's process: state that a forked
//! child starts without, signals held back, cancellation put off.

use crate::error::{Errno, KernelResult};
use once_cell::race::OnceNonZeroUsize;
use std::collections::HashSet;
use std::ffi::CStr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A value made at first use and kept while the process lives. A forked child
/// sees it empty: the pointer stands in a page that fork(2) wipes
/// (MADV_WIPEONFORK), so no lock that another thread held can stop the child.
#[derive(Debug)]
pub struct PerProcess<T> {
    page: OnceNonZeroUsize,
    value: std::marker::PhantomData<AtomicPtr<T>>,
}

impl<T: Sync> PerProcess<T> {
    /// An empty one.
    #[expect(clippy::new_without_default, reason = "made in statics only")]
    pub const fn new() -> Self {
        Self { page: OnceNonZeroUsize::new(), value: std::marker::PhantomData }
    }

    fn slot(at: NonZeroUsize) -> &'static AtomicPtr<T> {
        // SAFETY: `at` is the start of a page that `map` made: it is aligned,
        // zeroed (a null AtomicPtr), and never unmapped.
        unsafe { &*(at.get() as *const AtomicPtr<T>) }
    }

    /// The value, if this process has made it.
    pub fn get(&self) -> Option<&'static T> {
        let value = Self::slot(self.page.get()?).load(Ordering::Acquire);
        // SAFETY: the pointer is null or comes from Box::into_raw in `init`
        // and is never freed.
        unsafe { value.as_ref() }
    }

    /// The value, made by `make` if there is none. Where two threads meet, one
    /// of the two values made is dropped.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> KernelResult<&'static T> {
        if let Some(value) = self.get() {
            return Ok(value);
        }
        let page = match self.page.get() {
            Some(page) => page,
            None => {
                let page = map()?;
                match self.page.set(page) {
                    Ok(()) => page,
                    Err(()) => {
                        // SAFETY: this page lost the race and nobody knows it.
                        unsafe { libc::munmap(page.get() as *mut libc::c_void, PAGE) };
                        self.page.get().ok_or(Errno(libc::ENOMEM))?
                    }
                }
            }
        };
        let fresh = Box::into_raw(Box::new(make()));
        let slot = Self::slot(page);
        match slot.compare_exchange(std::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: just made, stored for good, and never freed.
            Ok(_) => Ok(unsafe { &*fresh }),
            Err(winner) => {
                // SAFETY: `fresh` lost the race and nobody else has it.
                drop(unsafe { Box::from_raw(fresh) });
                // SAFETY: the winner is non-null and never freed.
                Ok(unsafe { &*winner })
            }
        }
    }
}

const PAGE: usize = 4096;

fn map() -> KernelResult<NonZeroUsize> {
    // SAFETY: an anonymous mapping at an address of the kernel's choice
    // touches nothing that exists.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: the whole mapping just made.
    if unsafe { libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) } != 0 {
        let errno = Errno::last();
        // SAFETY: nobody knows the mapping yet.
        unsafe { libc::munmap(page, PAGE) };
        return Err(errno);
    }
    NonZeroUsize::new(page as usize).ok_or(Errno(libc::ENOMEM))
}

/// Holds every signal of the calling thread back while it lives.
pub struct SignalsHeld(libc::sigset_t);

impl SignalsHeld {
    /// Blocks all that can be blocked.
    #[expect(clippy::new_without_default, reason = "it acts")]
    pub fn new() -> Self {
        // SAFETY: both sets are plain memory that the calls fill.
        unsafe {
            let mut all = std::mem::zeroed::<libc::sigset_t>();
            let mut old = std::mem::zeroed::<libc::sigset_t>();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
            Self(old)
        }
    }
}

impl SignalsHeld {
    /// Takes one signal back that came to this thread meanwhile.
    pub fn discard(&self, signal: libc::c_int) {
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set is plain memory that the calls fill; the time is
        // read, and nothing is written.
        unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, signal);
            libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const now);
        }
    }
}

impl Drop for SignalsHeld {
    fn drop(&mut self) {
        // SAFETY: the set was filled by pthread_sigmask in `new`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// Puts thread cancellation off while it lives.
pub struct CancellationHeld(libc::c_int);

unsafe extern "C" {
    fn pthread_setcancelstate(state: libc::c_int, old: *mut libc::c_int) -> libc::c_int;
    #[cfg(target_env = "gnu")]
    fn secure_getenv(name: *const libc::c_char) -> *const libc::c_char;
}

const PTHREAD_CANCEL_DISABLE: libc::c_int = 1;

impl CancellationHeld {
    /// Disables cancellation for the calling thread.
    #[expect(clippy::new_without_default, reason = "it acts")]
    pub fn new() -> Self {
        let mut old = 0;
        // SAFETY: writes one int.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut old) };
        Self(old)
    }
}

impl Drop for CancellationHeld {
    fn drop(&mut self) {
        let mut old = 0;
        // SAFETY: restores what `new` found.
        unsafe { pthread_setcancelstate(self.0, &raw mut old) };
    }
}

/// An environment variable, unless the process runs with more rights than its
/// caller.
pub fn environment(name: &CStr) -> Option<String> {
    // SAFETY: the name is a C string; the result is null or a C string of the
    // environment, copied at once.
    let value = unsafe {
        let value = secure_getenv(name.as_ptr());
        if value.is_null() {
            return None;
        }
        CStr::from_ptr(value)
    };
    value.to_str().ok().map(str::to_owned)
}

#[cfg(not(target_env = "gnu"))]
/// # Safety
/// `name` is a C string.
unsafe fn secure_getenv(name: *const libc::c_char) -> *const libc::c_char {
    // SAFETY: getauxval takes an integer; getenv a C string.
    unsafe { if libc::getauxval(libc::AT_SECURE) != 0 { std::ptr::null() } else { libc::getenv(name) } }
}

/// Inodes of this process's sockets; `None` where they can't be listed, which
/// says nothing of any. Not /proc/self: that is the first thread's, and empty
/// once that has ended.
pub fn open_sockets() -> Option<HashSet<u64>> {
    let mut sockets = HashSet::new();
    for entry in std::fs::read_dir("/proc/thread-self/fd").ok()? {
        // A descriptor can be closed meanwhile.
        let Ok(target) = std::fs::read_link(entry.ok()?.path()) else { continue };
        let inode: Option<u64> =
            target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        sockets.extend(inode);
    }
    Some(sockets)
}

/// The effective user id.
pub fn effective_uid() -> u32 {
    // SAFETY: always succeeds and touches no memory.
    unsafe { libc::geteuid() }
}

/// Monotonic time in milliseconds.
pub fn milliseconds() -> u64 {
    u64::try_from(monotonic().as_millis()).unwrap_or(u64::MAX)
}

/// CLOCK_MONOTONIC.
pub fn monotonic() -> std::time::Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    std::time::Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The kernel's version, by uname(2), if it begins as one: for what nothing
/// else tells.
pub fn release() -> Option<(u32, u32)> {
    // SAFETY: the struct is arrays of characters, which uname fills.
    let name = unsafe {
        let mut name = std::mem::zeroed::<libc::utsname>();
        (libc::uname(&raw mut name) == 0).then_some(name)
    }?;
    let release = name.release.map(|c| c as u8);
    let text = std::str::from_utf8(release.split(|c| *c == 0).next()?).ok()?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// errno of the calling thread.
pub fn errno() -> i32 {
    // SAFETY: the location is the thread's own and always valid.
    unsafe { *libc::__errno_location() }
}

/// Sets errno of the calling thread.
pub fn set_errno(value: i32) {
    // SAFETY: the location is the thread's own and always valid.
    unsafe { *libc::__errno_location() = value };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_kernels() {
        let (major, minor) = release().unwrap();
        let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let rest = text.strip_prefix(&format!("{major}.{minor}")).unwrap();
        assert!(!rest.starts_with(|c: char| c.is_ascii_digit()), "{text}");
    }

    #[test]
    fn a_forked_child_starts_without() {
        static SLOT: PerProcess<u32> = PerProcess::new();
        assert!(SLOT.get().is_none());
        assert_eq!(SLOT.get_or_init(|| 7), Ok(&7));
        assert_eq!(SLOT.get_or_init(|| 8), Ok(&7));
        // SAFETY: the child calls nothing but _exit after reading memory.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let empty = SLOT.get().is_none() && SLOT.get_or_init(|| 9) == Ok(&9);
            // SAFETY: ends the child without running the harness's handlers.
            unsafe { libc::_exit(i32::from(!empty)) };
        }
        let mut status = 0;
        // SAFETY: waits for the child just made, writes one int.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0);
        assert_eq!(SLOT.get(), Some(&7));
    }
}
