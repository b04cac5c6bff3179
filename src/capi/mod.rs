// SPDX-License-Identifier: MIT OR Apache-2.0
//! The C interface: one boundary for panics, null pointers, errno and words.
//!
//! Every exported function is a call of `boundary` (or takes no part in
//! errors at all); the doc comments here are those of `mptcp.h`.
#![allow(unsafe_code, reason = "pointers of C callers are followed here, each with its reason")]
#![allow(clippy::missing_safety_doc, reason = "the contracts are written for C callers")]

mod addresses;
mod also;
mod events;
mod names;
mod options;
mod stats;
mod subflows;
mod types;

pub use addresses::*;
pub use also::*;
pub use events::*;
pub use names::*;
pub use options::*;
pub use stats::*;
pub use subflows::*;
pub use types::*;

use crate::error::{Error, Result};
use crate::kernel::process::{self, CancellationHeld};
use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_char, c_int};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

/// Longest message, its NUL included.
const WORDS: usize = 256;

thread_local! {
    // Neither has a destructor: the library can be unloaded, and a thread that
    // ends after that runs nothing of it.
    static MESSAGE: UnsafeCell<[u8; WORDS]> = const { UnsafeCell::new([0; WORDS]) };
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs the body of an exported function: errno is as before on success and
/// the error's on failure, a panic is ENOTRECOVERABLE, and nothing in it is a
/// cancellation point.
fn boundary(body: impl FnOnce() -> Result<c_int>) -> c_int {
    let errno = process::errno();
    quiet_panics();
    let outer = INSIDE.replace(true);
    let outcome = {
        let _held = CancellationHeld::new();
        catch_unwind(AssertUnwindSafe(body))
    };
    INSIDE.set(outer);
    let error = match outcome {
        Ok(Ok(value)) => {
            process::set_errno(errno);
            return value;
        }
        Ok(Err(error)) => error,
        Err(panic) => {
            // Dropping the payload could panic again.
            std::mem::forget(panic);
            Error::new(libc::ENOTRECOVERABLE, "a bug in libmptcpapi: this call did nothing more")
        }
    };
    say(&error.to_string());
    let code = error.errno();
    drop(error);
    process::set_errno(code);
    -1
}

/// Runs a function of the caller's: its panics and its cancellation are its own
/// affair, as if it were called from outside.
fn outside<T>(call: impl FnOnce() -> T) -> T {
    let inner = INSIDE.replace(false);
    let result = call();
    INSIDE.set(inner);
    result
}

/// A panic inside the boundary becomes an errno; the host's stderr is not ours
/// to write on. Panics outside go where they went.
fn quiet_panics() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.load(Ordering::Relaxed) || DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !INSIDE.get() {
            others(info);
        }
    }));
}

/// Keeps the thread's last words: one line, cut at a character.
fn say(words: &str) {
    let mut buffer = [0u8; WORDS];
    let mut at = 0;
    for c in words.chars() {
        let c = if c.is_control() { ' ' } else { c };
        let end = at + c.len_utf8();
        match buffer.get_mut(at..end) {
            Some(room) if end < WORDS => {
                c.encode_utf8(room);
            }
            _ => break,
        }
        at = end;
    }
    // SAFETY: the cell is this thread's own, and no reference into it lives
    // longer than a copy; what C holds is a raw pointer, good until this call.
    MESSAGE.with(|message| unsafe { *message.get() = buffer });
}

fn last_words() -> *const c_char {
    MESSAGE.with(|message| message.get().cast::<c_char>().cast_const())
}

fn fault(what: &'static str) -> Error {
    Error::new(libc::EFAULT, format!("{what} is NULL"))
}

/// The caller's descriptor, for the time of the call.
fn borrowed<'a>(fd: c_int) -> Result<BorrowedFd<'a>> {
    if fd < 0 {
        return Err(Error::new(libc::EBADF, "the descriptor is negative"));
    }
    // SAFETY: the number is not negative, and every use of it is one system
    // call, which answers EBADF if nothing is open there.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// The caller's memory as bytes.
///
/// # Safety
/// `at` leads to `len` readable bytes for the time of the call.
unsafe fn bytes<'a>(at: *const u8, len: usize, what: &'static str) -> Result<&'a [u8]> {
    if at.is_null() {
        return Err(fault(what));
    }
    // SAFETY: not null, and readable by the contract above; bytes need no
    // alignment.
    Ok(unsafe { std::slice::from_raw_parts(at, len) })
}

/// Zeroed memory that C frees by our function; ENOMEM.
fn allocate(len: usize) -> Result<*mut u8> {
    // SAFETY: calloc has no preconditions.
    let at = unsafe { libc::calloc(1, len) };
    if at.is_null() {
        return Err(Error::new(libc::ENOMEM, "out of memory"));
    }
    Ok(at.cast())
}

/// Frees what [`allocate`] gave, errno unchanged.
///
/// # Safety
/// `at` is null or comes from [`allocate`] and is not used again.
unsafe fn release(at: *mut u8) {
    let errno = process::errno();
    // SAFETY: by the contract above.
    unsafe { libc::free(at.cast()) };
    process::set_errno(errno);
}

fn count(len: usize) -> Result<c_int> {
    c_int::try_from(len).map_err(|_| Error::new(libc::ENOMEM, "more entries than an int counts"))
}

/// Checks the size that a caller gives for an extensible struct whose first
/// field has `first` bytes.
fn struct_size(size: usize, first: usize) -> Result<()> {
    if size < first {
        return Err(Error::new(libc::EINVAL, format!("struct size {size} is less than the first field")));
    }
    if size > 4096 {
        return Err(Error::new(libc::E2BIG, format!("struct size {size} is over 4096")));
    }
    Ok(())
}

/// Writes an extensible struct: cut, or the rest zeroed.
///
/// # Safety
/// `to` leads to `size` writable bytes, and `T` is a C struct without padding.
unsafe fn write_struct<T>(to: *mut u8, size: usize, value: &T) {
    let ours = size_of::<T>();
    // SAFETY: `value` is `ours` readable bytes, all of them initialised since
    // the struct has no padding; `to` has room for `size`, and the two parts
    // written add up to that.
    unsafe {
        std::ptr::copy_nonoverlapping(std::ptr::from_ref(value).cast(), to, ours.min(size));
        std::ptr::write_bytes(to.add(ours.min(size)), 0, size.saturating_sub(ours));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> String {
        // SAFETY: the pointer leads to this thread's message, which has a NUL.
        unsafe { std::ffi::CStr::from_ptr(last_words()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_is_an_errno() {
        process::set_errno(77);
        #[allow(clippy::panic)]
        let rc = boundary(|| panic!("a bug"));
        assert_eq!((rc, process::errno()), (-1, libc::ENOTRECOVERABLE));
        assert!(words().contains("bug in libmptcpapi"));
    }

    #[test]
    fn errno_and_words_stay_on_success() {
        say("before");
        process::set_errno(77);
        let rc = boundary(|| {
            process::set_errno(5);
            Ok(3)
        });
        assert_eq!((rc, process::errno(), words().as_str()), (3, 77, "before"));
    }

    #[test]
    fn words_are_one_line_of_bounded_length() {
        say(&format!("a\nb{}", "ü".repeat(300)));
        let words = words();
        assert!(words.starts_with("a b") && words.len() < WORDS && words.ends_with('ü'));
    }
}
