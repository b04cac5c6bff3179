// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets, capabilities, words.

use super::types::*;
use super::{borrowed, boundary, fault, last_words, struct_size, write_struct};
use crate::caps;
use crate::path::{Backend, Control};
use crate::socket;
use std::ffi::{c_char, c_int};
use std::os::fd::IntoRawFd;

/// socket(2), but AF_INET or AF_INET6 with SOCK_STREAM (and SOCK_NONBLOCK,
/// SOCK_CLOEXEC) and protocol 0, IPPROTO_TCP or IPPROTO_MPTCP gives a Multipath
/// TCP socket where there is any, else one of TCP; TCP_MULTIPATH_ENABLE tells.
///
/// Returns a descriptor to be closed with close(2), or -1 and errno: only what
/// socket(2) refuses for TCP too.
#[unsafe(no_mangle)]
pub extern "C" fn mptcp_socket(domain: c_int, r#type: c_int, protocol: c_int) -> c_int {
    boundary(|| Ok(socket::socket(domain, r#type, protocol)?.into_raw_fd()))
}

/// Tells what works, for a socket or (fd -1) for this host in the calling
/// thread's network namespace, and what is missing for more. Never changes
/// anything; a bit set is a promise for the next call, not for ever.
///
/// size is sizeof(struct mptcp_caps). Returns 0, or -1 and errno: EBADF,
/// ENOTSOCK, EOPNOTSUPP, EFAULT, EINVAL (size under 8), E2BIG (over 4096).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_getcaps(fd: c_int, caps: *mut mptcp_caps, size: usize) -> c_int {
    boundary(|| {
        let socket = if fd == -1 { None } else { Some(borrowed(fd)?) };
        if let Some(fd) = socket {
            crate::stream::Socket::of(fd)?;
        }
        if caps.is_null() {
            return Err(fault("caps"));
        }
        struct_size(size, size_of::<u64>())?;
        let found = caps::capabilities(socket)?;
        let mut reason = [0; 208];
        let words = found.missing.as_ref().map(ToString::to_string).unwrap_or_default();
        let cut = words
            .char_indices()
            .map(|(at, c)| at + c.len_utf8())
            .take_while(|end| *end < reason.len())
            .last();
        for (to, from) in reason.iter_mut().zip(words.bytes().take(cut.unwrap_or(0))) {
            *to = from as c_char;
        }
        let value = mptcp_caps {
            works: found.works,
            known: caps::KNOWN,
            backend: match found.backend {
                Backend::None => MPTCP_BACKEND_NONE,
                Backend::Broker => MPTCP_BACKEND_BROKER,
                Backend::Direct => MPTCP_BACKEND_DIRECT,
            },
            backend_errno: found.missing.as_ref().map_or(0, crate::Error::errno),
            control: match found.control {
                Control::Unknown => MPTCP_CONTROL_UNKNOWN,
                Control::Kernel => MPTCP_CONTROL_KERNEL,
                Control::Connection => MPTCP_CONTROL_CONNECTION,
            },
            library: MPTCPAPI_VERSION_NUMBER,
            subflows_max: found.subflows_max,
            addrs_max: found.addrs_max,
            reserved: [0; 2],
            reason,
        };
        // SAFETY: not null, and the caller says that it has `size` bytes; the
        // struct has no padding (its layout is asserted).
        unsafe { write_struct(caps.cast(), size, &value) };
        Ok(0)
    })
}

/// Why the calling thread's last failure happened, in words: UTF-8, one line,
/// under 256 bytes. Never NULL; "" before the first failure; unchanged by
/// success, like errno. Valid until the thread's next mptcp call.
#[unsafe(no_mangle)]
pub extern "C" fn mptcp_errmsg() -> *const c_char {
    last_words()
}

/// The library's version, "0.1.0": static. Async-signal-safe.
#[unsafe(no_mangle)]
pub extern "C" fn mptcp_version() -> *const c_char {
    c"0.1.0".as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_stands_in_one_form_everywhere() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(MPTCPAPI_VERSION, version);
        // SAFETY: a static C string.
        assert_eq!(unsafe { std::ffi::CStr::from_ptr(mptcp_version()) }.to_str(), Ok(version));
        let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
        assert_eq!(MPTCPAPI_VERSION_NUMBER, parts[0] << 16 | parts[1] << 8 | parts[2]);
    }
}
