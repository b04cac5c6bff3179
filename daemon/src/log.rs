// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines to standard error, each with the priority that journald reads where
//! it is journald that listens.

use std::io::Write;
use std::sync::OnceLock;

/// How much it matters (syslog(3)).
#[derive(Clone, Copy)]
pub enum Level {
    /// Something does not work.
    Error = 3,
    /// Something is not as it should be.
    Warning = 4,
    /// What an administrator may want to know.
    Notice = 5,
    /// What goes on.
    Info = 6,
}

static TO_JOURNAL: OnceLock<bool> = OnceLock::new();

/// Writes a line.
pub fn line(level: Level, words: std::fmt::Arguments<'_>) {
    let to_journal = *TO_JOURNAL.get_or_init(|| std::env::var_os("JOURNAL_STREAM").is_some());
    let mut line = if to_journal { format!("<{}>", level as u8) } else { String::from("mptcpapid: ") };
    line.extend(words.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }));
    line.push('\n');
    // Nobody to tell where that fails.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

macro_rules! log {
    ($level:ident, $($words:tt)*) => {
        $crate::log::line($crate::log::Level::$level, format_args!($($words)*))
    };
}
pub(crate) use log;
