// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names: getaddrinfo(3), whatever it is configured to ask.

use super::process;
use crate::addr;
use crate::error::Errno;
use std::ffi::CStr;
use std::net::SocketAddr;

/// EAI_*, where it says that names can't be encoded for the resolver.
#[cfg(target_env = "gnu")]
const EAI_IDN_ENCODE: i32 = -105;
/// Flag: a name beyond ASCII is encoded after IDNA 2008, by libidn2.
#[cfg(target_env = "gnu")]
const AI_IDN: i32 = 0x40;
#[cfg(not(target_env = "gnu"))]
const AI_IDN: i32 = 0;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// EAI_*.
    pub code: i32,
    /// What stands for it.
    pub errno: Errno,
}

impl Refusal {
    fn of(code: i32) -> Self {
        let errno = match code {
            libc::EAI_NONAME => libc::ENOENT,
            #[cfg(target_env = "gnu")]
            // EAI_ADDRFAMILY; the name is there, but has no such address.
            libc::EAI_NODATA | -9 | EAI_IDN_ENCODE => libc::ENOENT,
            libc::EAI_SERVICE => libc::EINVAL,
            libc::EAI_AGAIN => libc::EAGAIN,
            libc::EAI_FAIL => libc::EIO,
            libc::EAI_FAMILY => libc::EAFNOSUPPORT,
            libc::EAI_MEMORY => libc::ENOMEM,
            libc::EAI_SYSTEM => match process::errno() {
                0 => libc::EIO,
                errno => errno,
            },
            _ => libc::EINVAL,
        };
        Self { code, errno: Errno(errno) }
    }

    /// Whether it is the service that is not known.
    pub fn is_service(&self) -> bool {
        self.code == libc::EAI_SERVICE
    }

    /// The reason in words.
    pub fn words(&self) -> String {
        match self.code {
            libc::EAI_SYSTEM => self.errno.to_string(),
            // SAFETY: gai_strerror takes any number and gives a C string that
            // stays; it is copied at once.
            code => unsafe { CStr::from_ptr(libc::gai_strerror(code)) }.to_string_lossy().into_owned(),
        }
    }
}

/// Whether it is a number that no port has. glibc takes what 16 bits hold of it.
fn is_beyond_ports(service: &CStr) -> bool {
    let text = service.to_str().map_or("", str::trim_start);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_err()
}

/// Stream addresses of a name and a service, in the order of RFC 6724. With
/// `numeric` the node is an address, the service a port, and nobody is asked.
pub fn stream(node: &CStr, service: &CStr, family: i32, numeric: bool) -> Result<Vec<SocketAddr>, Refusal> {
    if is_beyond_ports(service) {
        return Err(Refusal::of(libc::EAI_SERVICE));
    }
    // SAFETY: every field is an integer or a pointer that may be null.
    let mut hints = unsafe { std::mem::zeroed::<libc::addrinfo>() };
    hints.ai_family = family;
    hints.ai_socktype = libc::SOCK_STREAM;
    hints.ai_protocol = libc::IPPROTO_TCP;
    hints.ai_flags = if numeric { libc::AI_NUMERICHOST | libc::AI_NUMERICSERV } else { AI_IDN };
    let mut list = std::ptr::null_mut::<libc::addrinfo>();
    process::set_errno(0);
    // SAFETY: two C strings, hints without pointers; one pointer is written
    // on success.
    let code = unsafe { libc::getaddrinfo(node.as_ptr(), service.as_ptr(), &raw const hints, &raw mut list) };
    if code != 0 {
        return Err(Refusal::of(code));
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: `next` is null or an element of the list, which lives until
    // freeaddrinfo below.
    while let Some(item) = unsafe { next.as_ref() } {
        next = item.ai_next;
        if item.ai_addr.is_null() {
            continue;
        }
        // SAFETY: ai_addr leads to a sockaddr of ai_addrlen bytes.
        let bytes =
            unsafe { std::slice::from_raw_parts(item.ai_addr.cast::<u8>(), item.ai_addrlen as usize) };
        found.extend(addr::from_sockaddr(bytes).map(addr::canonical));
    }
    // SAFETY: the list that getaddrinfo gave, freed once.
    unsafe { libc::freeaddrinfo(list) };
    if found.is_empty() {
        return Err(Refusal::of(libc::EAI_NONAME));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(node: &CStr, service: &CStr, family: i32) -> Result<Vec<SocketAddr>, i32> {
        stream(node, service, family, true).map_err(|refusal| refusal.errno.0)
    }

    #[test]
    fn addresses_are_taken_as_they_are() {
        assert_eq!(numeric(c"10.1.0.1", c"80", 0), Ok(vec!["10.1.0.1:80".parse().unwrap()]));
        assert_eq!(numeric(c"fd01::1", c"80", libc::AF_INET6), Ok(vec!["[fd01::1]:80".parse().unwrap()]));
        // IPv4-mapped is IPv4.
        assert_eq!(numeric(c"::ffff:10.1.0.1", c"80", 0), Ok(vec!["10.1.0.1:80".parse().unwrap()]));
    }

    #[test]
    fn a_number_is_a_port_or_nothing() {
        for service in
            [c"65536", c"65616", c" 65616", c"+65616", c"-4294967216", c"4294967376", c"99999999999999999999"]
        {
            for asked in [true, false] {
                let refusal = stream(c"10.1.0.1", service, 0, asked).map_err(|refusal| refusal.errno.0);
                assert_eq!(refusal, Err(libc::EINVAL), "{service:?}");
            }
        }
        assert_eq!(numeric(c"10.1.0.1", c"65535", 0), Ok(vec!["10.1.0.1:65535".parse().unwrap()]));
    }

    #[test]
    fn refusals_are_of_the_table() {
        assert_eq!(numeric(c"no.such.name", c"80", 0), Err(libc::ENOENT));
        assert_eq!(numeric(c"10.1.0.1", c"no-such-service", 0), Err(libc::ENOENT));
        assert_eq!(numeric(c"10.1.0.1", c"80", libc::AF_INET6), Err(libc::ENOENT));
        assert_eq!(numeric(c"10.1.0.1", c"80", 12345), Err(libc::EAFNOSUPPORT));
        let service = stream(c"10.1.0.1", c"no-such-service", 0, false).unwrap_err();
        assert!(service.is_service() && service.errno == Errno(libc::EINVAL), "{service:?}");
        for (code, errno) in [(libc::EAI_AGAIN, libc::EAGAIN), (libc::EAI_FAIL, libc::EIO)] {
            let refusal = Refusal::of(code);
            assert!(refusal.errno == Errno(errno) && !refusal.words().is_empty());
        }
    }
}
