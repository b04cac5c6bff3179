// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes as what may be told to an engine: few sockets and few addresses, so
//! that it is often about the same ones.

use arbitrary::{Result, Unstructured};
use mptcpapi::addr;
use mptcpapi::engine::ids::Slot;
use mptcpapi::engine::{
    Device, Endpoint, Entry, Facts, Key, Limits, Mode, Outcome, PathPolicy, Peer, Profile, Redundancy,
    Request, Saved, Seen, Setting, Settings, Time, Traffic, Wishes,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Where one's bytes come from.
pub struct Script<'a>(Unstructured<'a>);

impl<'a> Script<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// Nothing is left.
    pub fn ended(&self) -> bool {
        self.0.is_empty()
    }

    /// 0 to `max`; 0 at the end.
    pub fn upto(&mut self, max: usize) -> Result<usize> {
        Ok(usize::from(self.0.arbitrary::<u8>()?) % (max + 1))
    }

    pub fn bit(&mut self) -> Result<bool> {
        Ok(self.upto(1)? != 0)
    }

    pub fn byte(&mut self) -> Result<u8> {
        self.0.arbitrary()
    }

    pub fn word(&mut self) -> Result<u16> {
        self.0.arbitrary()
    }

    fn maybe<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        if self.bit()? { read(self).map(Some) } else { Ok(None) }
    }

    fn few<T>(&mut self, max: usize, read: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        (0..self.upto(max)?).map(|_| read(self)).collect()
    }

    pub fn token(&mut self) -> Result<u32> {
        Ok(self.upto(3)? as u32 + 1)
    }

    /// A descriptor's socket.
    pub fn key(&mut self) -> Result<Key> {
        let n = self.upto(5)? as u64;
        Ok(Key { cookie: n % 3 + 1, inode: n / 3 + 1 })
    }

    /// The same, or an accepted one without a descriptor.
    pub fn any_key(&mut self) -> Result<Key> {
        let n = self.upto(8)? as u64;
        Ok(Key { cookie: n % 3 + 1, inode: n / 3 })
    }

    pub fn ip(&mut self) -> Result<IpAddr> {
        Ok(match self.upto(19)? {
            n @ 0..=4 => Ipv4Addr::new(10, n as u8 + 1, 0, 1).into(),
            n @ 5..=7 => Ipv4Addr::new(10, 9, 0, n as u8).into(),
            8 => Ipv4Addr::LOCALHOST.into(),
            9 => Ipv4Addr::UNSPECIFIED.into(),
            10 => Ipv4Addr::new(224, 0, 0, 1).into(),
            11 => Ipv4Addr::from(0x0a40_0000 | u32::from(self.word()?)).into(),
            n @ 12..=14 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n as u16).into(),
            15 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(),
            16 => Ipv6Addr::LOCALHOST.into(),
            17 => Ipv6Addr::UNSPECIFIED.into(),
            n => Ipv4Addr::new(10, n as u8 - 17, 0, 1).to_ipv6_mapped().into(),
        })
    }

    pub fn port(&mut self) -> Result<u16> {
        Ok(match self.upto(7)? {
            0..=3 => 0,
            4 => 80,
            5 => 40000,
            6 => 40001,
            _ => self.word()?,
        })
    }

    /// As the kernel may name it.
    pub fn addr(&mut self) -> Result<SocketAddr> {
        let (ip, port) = (self.ip()?, self.port()?);
        Ok(match ip {
            IpAddr::V6(ip) if addr::is_link_local(&ip) => {
                SocketAddrV6::new(ip, port, 0, self.upto(2)? as u32).into()
            }
            ip => (ip, port).into(),
        })
    }

    /// What a subflow can join.
    pub fn pair(&mut self) -> Result<(SocketAddr, SocketAddr)> {
        let (local, remote) = (self.addr()?, self.addr()?);
        let fit = addr::pair(&addr::canonical(local), &addr::canonical(remote));
        Ok((local, if fit { remote } else { local }))
    }

    /// As a list may hold it.
    fn listable(&mut self) -> Result<SocketAddr> {
        let addr = addr::canonical(self.addr()?);
        let good = addr::checked(vec![addr]).is_ok();
        Ok(if good { addr } else { (Ipv4Addr::new(10, 1, 0, 1), 0).into() })
    }

    pub fn list(&mut self) -> Result<Vec<SocketAddr>> {
        let mut list = match self.upto(15)? {
            // As many as there may be.
            15 => {
                let first = self.byte()?;
                let port = self.port()?;
                (0..addr::LIST_MAX as u8).map(|n| ([10, 64, first, n], port).into()).collect()
            }
            n => (0..n % 4 + 1).map(|_| self.listable()).collect::<Result<Vec<_>>>()?,
        };
        let mut seen = Vec::new();
        list.retain(|addr| {
            !seen.contains(addr) && {
                seen.push(*addr);
                true
            }
        });
        Ok(list)
    }

    fn entry(&mut self, addr: SocketAddr) -> Result<Entry> {
        let bits = self.upto(11)?;
        let (advertise, subflow) = [(true, true), (true, true), (true, false), (false, true)][bits % 4];
        Ok(Entry { addr, backup: bits % 3 == 2, advertise, subflow })
    }

    pub fn entries(&mut self) -> Result<Vec<Entry>> {
        let list = self.list()?;
        list.into_iter().map(|addr| self.entry(addr)).collect()
    }

    pub fn request(&mut self) -> Result<Request> {
        Ok(match self.upto(15)? {
            0..=5 => Request::Add(self.entries()?),
            6..=9 => Request::Remove {
                addrs: self.list()?,
                patience: Time::from_millis(250) * self.upto(8)? as u32,
            },
            10 | 11 => Request::Set(self.setting()?),
            12 => Request::Open {
                local: self.maybe(Self::listable)?,
                remote: self.maybe(Self::listable)?,
                backup: self.bit()?,
                wait: self.maybe(Self::time)?,
            },
            13 => {
                let (local, remote) = self.canonical_pair()?;
                Request::Close { local, remote }
            }
            _ => {
                let (local, remote) = self.canonical_pair()?;
                Request::Pin { local, remote, backup: self.bit()? }
            }
        })
    }

    fn canonical_pair(&mut self) -> Result<(SocketAddr, SocketAddr)> {
        let (local, remote) = self.pair()?;
        Ok((addr::canonical(local), addr::canonical(remote)))
    }

    /// Small numbers, and any.
    fn amount(&mut self) -> Result<u64> {
        Ok(match self.upto(3)? {
            0 => 0,
            1 => self.byte()?.into(),
            2 => u64::from(self.word()?) << 10,
            _ => self.0.arbitrary()?,
        })
    }

    fn setting(&mut self) -> Result<Setting> {
        let settings = self.settings()?;
        Ok(match self.upto(5)? {
            0 => Setting::MaxSubflows(settings.max_subflows),
            1 => Setting::Policy(settings.policy),
            2 => Setting::Traffic(settings.traffic),
            3 => Setting::Profile(settings.profile),
            4 => Setting::Redundancy(settings.redundancy),
            _ => Setting::FateSharing(settings.fate_sharing == Some(true)),
        })
    }

    fn settings(&mut self) -> Result<Settings> {
        let number = |s: &mut Self| Ok(s.amount()?.min(u32::MAX.into()) as u32);
        Ok(Settings {
            max_subflows: if self.bit()? { 0 } else { self.upto(5)? as u8 },
            policy: PathPolicy {
                mode: [Mode::Eager, Mode::OnDemand, Mode::Manual][self.upto(2)?],
                after_ms: number(self)?,
                after_bytes: self.amount()?,
            },
            traffic: Traffic {
                bytes_to_send: self.amount()?,
                bytes_to_receive: self.amount()?,
                rate: self.amount()?,
                duration_ms: number(self)?,
            },
            profile: Profile::ALL[self.upto(3)?],
            redundancy: [Redundancy::None, Redundancy::Spare, Redundancy::Full][self.upto(2)?],
            fate_sharing: self.maybe(Self::bit)?,
        })
    }

    fn wishes(&mut self) -> Result<Wishes> {
        let marked = |s: &mut Self| {
            let (local, remote) = s.canonical_pair()?;
            Ok((local, remote, s.bit()?))
        };
        Ok(Wishes {
            settings: self.settings()?,
            fate_default: self.bit()?,
            demanded: self.bit()?,
            doomed: self.bit()?,
            pinned: self.few(3, marked)?,
            barred: self.few(3, Self::canonical_pair)?,
            opens: self.few(3, marked)?,
        })
    }

    pub fn peers(&mut self) -> Result<Vec<SocketAddr>> {
        self.list()
    }

    pub fn bound(&mut self) -> Result<Option<SocketAddr>> {
        self.maybe(Self::listable)
    }

    pub fn device(&mut self) -> Result<Option<Device>> {
        self.maybe(|s| {
            let addrs = s.few(3, |s| Ok(addr::with_port(s.listable()?, 0)))?;
            Ok(Device { ifindex: s.upto(3)? as u32, addrs })
        })
    }

    pub fn id(&mut self) -> Result<u8> {
        Ok(match self.upto(7)? {
            7 => self.byte()?,
            n => n as u8,
        })
    }

    pub fn seen(&mut self, initial: bool) -> Result<Seen> {
        let (local, remote) = self.pair()?;
        let (local_id, remote_id) = (self.id()?, self.id()?);
        Ok(Seen {
            local,
            remote,
            local_id,
            remote_id,
            up: self.bit()?,
            initial,
            backup: self.maybe(Self::bit)?,
        })
    }

    pub fn subflows(&mut self) -> Result<Vec<Seen>> {
        let count = self.upto(4)?;
        let first_is_initial = self.bit()?;
        (0..count).map(|n| self.seen(n == 0 && first_is_initial)).collect()
    }

    pub fn outcome(&mut self) -> Result<Outcome> {
        let errnos = [
            libc::EADDRINUSE,
            libc::EADDRINUSE,
            libc::ENETUNREACH,
            libc::EADDRNOTAVAIL,
            libc::EPERM,
            libc::ENOMEM,
            libc::EINVAL,
            libc::ESRCH,
        ];
        Ok(match self.upto(15)? {
            0..=5 => Outcome::Taken,
            6..=7 => Outcome::Mismatch,
            8 => Outcome::NotReady,
            9 => Outcome::NotOurs,
            10 => Outcome::Gone,
            _ => Outcome::Refused(errnos[self.upto(errnos.len() - 1)?]),
        })
    }

    /// How much time goes by.
    pub fn time(&mut self) -> Result<Time> {
        Ok(match self.upto(7)? {
            0..=2 => Time::from_millis(u64::from(self.byte()?) * 10),
            3..=5 => Time::from_millis(u64::from(self.word()?)),
            6 => Time::from_secs(u64::from(self.word()?)),
            _ => Time::ZERO,
        })
    }

    /// What `ip mptcp` shows.
    pub fn endpoints(&mut self) -> Result<(Vec<Endpoint>, Limits)> {
        let endpoint = |s: &mut Self| {
            let flags = s.byte()?;
            Ok(Endpoint {
                id: s.id()?,
                addr: s.listable()?,
                ifindex: s.upto(2)? as u32,
                signal: flags & 1 != 0,
                subflow: flags & 2 != 0,
                backup: flags & 4 != 0,
                fullmesh: flags & 8 != 0,
                laminar: flags & 16 != 0,
                implicit: flags & 96 == 96,
            })
        };
        let endpoints = self.few(8, endpoint)?;
        Ok((endpoints, Limits { subflows: self.upto(8)? as u32, add_addr_accepted: self.upto(8)? as u32 }))
    }

    /// How a subflow fares: well, silent, or anything.
    pub fn facts(&mut self) -> Result<Facts> {
        let millis = |s: &mut Self| Ok(Time::from_millis(u64::from(s.word()?)));
        let kind = self.upto(3)?;
        if kind == 3 {
            let long = |s: &mut Self| Ok(Time::from_secs(s.0.arbitrary()?));
            return Ok(Facts {
                unacked: self.0.arbitrary()?,
                backoff: self.0.arbitrary()?,
                rto: long(self)?,
                rtt: long(self)?,
                rttvar: long(self)?,
                rtt_min: long(self)?,
                since_ack: long(self)?,
                since_sent: long(self)?,
                bytes_acked: self.0.arbitrary()?,
                bytes_sent: self.0.arbitrary()?,
                bytes_retrans: self.0.arbitrary()?,
                segs_out: self.0.arbitrary()?,
                total_retrans: self.0.arbitrary()?,
                bytes_received: self.0.arbitrary()?,
                cwnd: self.0.arbitrary()?,
                notsent: self.0.arbitrary()?,
                flight: self.0.arbitrary()?,
            });
        }
        let well = Facts {
            rto: Time::from_millis(220),
            rtt: Time::from_millis(20),
            rttvar: Time::from_millis(5),
            bytes_acked: 1_000_000,
            bytes_sent: 1_000_000 + u64::from(self.byte()?),
            segs_out: 1000,
            cwnd: 10,
            notsent: if self.bit()? { 0 } else { self.word()?.into() },
            ..Facts::default()
        };
        if kind < 2 {
            return Ok(well);
        }
        let backoff = self.upto(6)? as u32;
        Ok(Facts {
            unacked: 10,
            backoff,
            rto: well.rto * (1 << backoff),
            since_ack: millis(self)?,
            since_sent: millis(self)?,
            ..well
        })
    }

    pub fn saved(&mut self) -> Result<Saved> {
        let canonical = Self::canonical_pair;
        let (bits, flags) = (self.byte()?, self.byte()?);
        Ok(Saved {
            key: self.any_key()?,
            token: self.maybe(Self::token)?,
            server: bits & 1 != 0,
            listed: bits & 2 != 0,
            foreign: bits & 12 == 12,
            unclaimed: bits & 48 == 48,
            entries: if flags & 1 != 0 { self.entries()? } else { Vec::new() },
            bound: if flags & 2 != 0 { self.bound()? } else { None },
            device: if flags & 4 != 0 { self.device()? } else { None },
            excluded: if flags & 8 != 0 { self.list()? } else { Vec::new() },
            leaving: if flags & 16 != 0 { self.list()? } else { Vec::new() },
            initial: self.maybe(Self::pair)?,
            peers: self.few(4, |s| Ok(Peer { id: s.maybe(Self::id)?, addr: addr::canonical(s.addr()?) }))?,
            ids: if flags & 32 != 0 {
                self.few(4, |s| Ok(Slot { id: s.id()?, addr: addr::canonical(s.addr()?), port: s.port()? }))?
            } else {
                Vec::new()
            },
            last_id: self.byte()?,
            announced: if flags & 64 != 0 {
                self.few(3, |s| Ok((addr::canonical(s.addr()?), s.id()?)))?
            } else {
                Vec::new()
            },
            untold: if bits & 12 == 4 { self.list()? } else { Vec::new() },
            withdrawn: if bits & 12 == 8 {
                self.few(3, |s| Ok((addr::canonical(s.addr()?), s.id()?)))?
            } else {
                Vec::new()
            },
            missed: if flags & 128 != 0 { self.few(3, canonical)? } else { Vec::new() },
            tried: if bits & 64 != 0 { self.few(3, canonical)? } else { Vec::new() },
            taken: if bits & 128 != 0 { self.few(3, Self::id)? } else { Vec::new() },
            wishes: if bits & 48 == 16 { self.wishes()? } else { Wishes::default() },
        })
    }
}
