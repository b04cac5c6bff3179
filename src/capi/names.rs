// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections by name (RFC 6897 appendix A.3, REQ5).

use super::addresses::list;
use super::types::*;
use super::{boundary, bytes, fault, struct_size};
use crate::addr;
use crate::error::{Error, Result};
use crate::names::{self, ByName};
use std::ffi::{CStr, c_char, c_int};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::IntoRawFd;
use std::time::Duration;

/// Connects to a host by its name.
///
/// node and service are as getaddrinfo(3) takes them. The addresses are tried
/// as Happy Eyeballs version 2 (RFC 8305) has it, families in turn, each by
/// Multipath TCP and, a head start later, by TCP: the first to answer is
/// returned, the others are ended, so something on the way that eats Multipath
/// TCP's option costs no more than the head start. Several addresses are never
/// taken for one host. opts may be NULL with size 0; else size is sizeof(struct
/// mptcp_connect_opts). Waits, whatever its flags: MPTCP_CONNECT_NONBLOCK is
/// about the descriptor returned.
///
/// Returns a connected descriptor, CLOEXEC, to be closed with close(2), or -1
/// and errno: ENOENT (no such name, or no address of the family), EAGAIN, EIO
/// (the resolver failed, for now or for good), EINVAL (no such service; flags,
/// profile, reserved; a list that mptcp_setsockopt() would not take),
/// EAFNOSUPPORT, EFAULT, E2BIG; EADDRNOTAVAIL (local: no address of this host,
/// or none that reaches the peer), EPERM, EACCES, EDQUOT, EIO and what else
/// TCP_MULTIPATH_ADD says of the list; EOPNOTSUPP (only plain TCP was to be had
/// with MPTCP_CONNECT_NO_FALLBACK; the profile); ETIMEDOUT (timeout_ms); EINTR
/// (a signal handler ran, also one with SA_RESTART; nothing is left); else that
/// of connect(2) to the best address. mptcp_errmsg() names each attempt.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mptcp_connectbyname(
    node: *const c_char,
    service: *const c_char,
    opts: *const mptcp_connect_opts,
    size: usize,
) -> c_int {
    boundary(|| {
        if node.is_null() || service.is_null() {
            return Err(fault(if node.is_null() { "node" } else { "service" }));
        }
        // SAFETY: not null, and the caller gives C strings.
        let (node, service) = unsafe { (CStr::from_ptr(node), CStr::from_ptr(service)) };
        let how = if opts.is_null() && size == 0 {
            ByName::default()
        } else {
            struct_size(size, size_of::<*const libc::sockaddr>())?;
            // SAFETY: the caller says that opts has `size` bytes.
            let given = unsafe { bytes(opts.cast(), size, "opts")? };
            let opts = Options::read(given)?;
            let mut how = opts.how()?;
            if opts.0.local_count != 0 {
                // SAFETY: the caller gives local_count packed addresses.
                how.local = unsafe { opts.local()? };
            }
            how
        };
        Ok(names::by_name(node, service, &how)?.into_raw_fd())
    })
}

/// The caller's struct, zero-extended.
struct Options(mptcp_connect_opts);

const SIZE: usize = size_of::<mptcp_connect_opts>();

impl Options {
    fn read(given: &[u8]) -> Result<Self> {
        let (known, rest) = given.split_at(given.len().min(SIZE));
        if rest.iter().any(|byte| *byte != 0) {
            return Err(Error::new(libc::E2BIG, "opts has more than this version knows"));
        }
        let mut opts = MaybeUninit::<mptcp_connect_opts>::zeroed();
        // SAFETY: as many bytes as the struct has at most, which is integers
        // and a pointer: any bytes, and zeros, are values of them.
        let opts = unsafe {
            opts.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(known.as_ptr(), known.len());
            Self(opts.assume_init())
        };
        if opts.0.reserved != 0 {
            return Err(Error::new(libc::EINVAL, "opts.reserved is not zero"));
        }
        Ok(opts)
    }

    /// All but the list.
    fn how(&self) -> Result<ByName> {
        let opts = &self.0;
        let known = MPTCP_CONNECT_NONBLOCK
            | MPTCP_CONNECT_NO_FALLBACK
            | MPTCP_CONNECT_NO_MPTCP
            | MPTCP_CONNECT_NUMERIC;
        if opts.flags & !known != 0 {
            return Err(Error::new(libc::EINVAL, format!("flags {:#x}: no such flag", opts.flags & !known)));
        }
        let flag = |bit| opts.flags & bit != 0;
        let time = |ms: u32, default: Duration| match ms {
            0 => default,
            ms => Duration::from_millis(ms.into()),
        };
        let default = ByName::default();
        Ok(ByName {
            local: Vec::new(),
            family: opts.family,
            profile: opts.profile,
            timeout: (opts.timeout_ms != 0).then(|| Duration::from_millis(opts.timeout_ms.into())),
            attempt_delay: time(opts.attempt_delay_ms, default.attempt_delay),
            tcp_delay: time(opts.tcp_delay_ms, default.tcp_delay),
            nonblocking: flag(MPTCP_CONNECT_NONBLOCK),
            fallback: !flag(MPTCP_CONNECT_NO_FALLBACK),
            multipath: !flag(MPTCP_CONNECT_NO_MPTCP),
            numeric: flag(MPTCP_CONNECT_NUMERIC),
        })
    }

    /// # Safety
    /// `local` leads to `local_count` packed addresses, at least one.
    unsafe fn local(&self) -> Result<Vec<SocketAddr>> {
        let count = self.0.local_count;
        if count as usize > addr::LIST_MAX {
            let words = format!("{count} local addresses: a list has 1 to {}", addr::LIST_MAX);
            return Err(Error::new(libc::EINVAL, words));
        }
        // SAFETY: by the contract above.
        unsafe { list(self.0.local, count as c_int) }
    }
}
