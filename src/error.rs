// SPDX-License-Identifier: MIT OR Apache-2.0
//! One error for the whole library: an errno and the reason in words.

use std::borrow::Cow;
use std::fmt;

/// A bare errno, as the kernel gives it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(
    /// The number, positive.
    pub i32,
);

/// What the kernel layer returns: the caller adds the words.
pub type KernelResult<T> = std::result::Result<T, Errno>;

impl Errno {
    /// The calling thread's errno.
    pub fn last() -> Self {
        Self::of(&std::io::Error::last_os_error())
    }

    /// The errno inside an I/O error; EIO where it holds none.
    pub fn of(error: &std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        // std appends " (os error N)"; the number travels beside the words.
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

/// Why a call failed: an errno of the table in mptcp(7), and words that name
/// the cause and, where there is one, the cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct Error {
    errno: Errno,
    words: Cow<'static, str>,
}

/// The library's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with words of its own.
    pub fn new(errno: i32, words: impl Into<Cow<'static, str>>) -> Self {
        Self { errno: Errno(errno), words: words.into() }
    }

    /// A kernel's refusal: `doing` says what was tried.
    pub fn kernel(errno: Errno, doing: &str) -> Self {
        Self { errno, words: format!("{doing}: {errno}").into() }
    }

    /// The errno that the C interface reports.
    pub fn errno(&self) -> i32 {
        self.errno.0
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = std::io::Error::from_raw_os_error(error.errno()).kind();
        std::io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_carry_the_kernel_text_without_the_number() {
        let error = Error::kernel(Errno(libc::EADDRINUSE), "bind");
        assert_eq!(error.errno(), libc::EADDRINUSE);
        assert_eq!(error.to_string(), "bind: Address already in use");
    }

    #[test]
    fn io_error_keeps_kind_and_words() {
        let io: std::io::Error = Error::new(libc::EPERM, "nobody may").into();
        assert_eq!(io.kind(), std::io::ErrorKind::PermissionDenied);
        assert_eq!(io.to_string(), "nobody may");
    }
}
