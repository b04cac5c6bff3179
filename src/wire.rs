// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages between the library and mptcpapid: values to bytes and back,
//! no I/O. The protocol is told in docs/broker.md.
//!
//! A message is one datagram: four bytes that name the protocol and its
//! version, then the value in postcard's encoding. It is taken whole or not at
//! all: a byte too few or too many, an unknown opcode, a number out of range
//! and the message is none.

use crate::addr;
use crate::engine::{self, Setting, Settings};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::manager;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// What every message begins with; the last byte is the version.
pub const MAGIC: [u8; 4] = [b'M', b'P', b'A', 1];

/// No message is longer.
pub const LIMIT: usize = 8192;
/// Few are longer.
const USUAL: usize = 256;

/// How long REMOVE may wait.
pub const PATIENCE_MAX: Duration = Duration::from_secs(2);

/// How long an open may wait for what becomes of it.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// From the library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Comes back in the reply.
    pub tag: u32,
    /// What is asked.
    pub ask: Ask,
}

/// To the library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's.
    pub tag: u32,
    /// What came of it.
    pub told: Told,
}

/// Identity of a socket, as the kernel numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// SO_COOKIE.
    pub cookie: u64,
    /// Inode of the descriptor.
    pub inode: u64,
}

/// A local address of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Port 0 for any.
    #[serde(with = "scoped")]
    pub addr: SocketAddr,
    /// Its subflows are for backup.
    pub backup: bool,
    /// The peer may be told of it.
    pub advertise: bool,
    /// Subflows are opened from it.
    pub subflow: bool,
}

/// What is asked. Where it is about a socket, its descriptor comes along and
/// is the only authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Who is there? Without a descriptor.
    Hello,
    /// TCP_MULTIPATH_ADD.
    Add(Vec<Entry>),
    /// TCP_MULTIPATH_REMOVE.
    Remove {
        /// Port 0 names every port.
        #[serde(with = "scoped")]
        addrs: Vec<SocketAddr>,
        /// How long to wait for alternatives.
        patience: Duration,
    },
    /// Restrict a bound socket to what it is bound to.
    RespectBinding,
    /// Make ready for connect(2) to the first of these.
    BeforeConnect(#[serde(with = "scoped")] Vec<SocketAddr>),
    /// Put under control; nothing else yet.
    Take,
    /// Who decides about its paths?
    Control,
    /// What is known of it?
    Facts,
    /// An attempt to connect has failed and it was disconnected.
    Disconnected,
    /// Nothing that was asked of it counts any more.
    Forget,
    /// These sockets, all this client's and not connected, are closed. Without
    /// a descriptor.
    Closed(Vec<Key>),
    /// Tell of what happens to it, or to what it accepts, by
    /// [`Told::Happened`]; nothing else is said on this line any more.
    Subscribe {
        /// Bits of [`What`](crate::events::What), or of
        /// [`CURRENT`](crate::events::CURRENT).
        events: u32,
    },
    /// The same of all that this process has made known. Without a descriptor.
    SubscribeAll {
        /// As above.
        events: u32,
    },
    /// What is in force of the settings?
    Settings,
    /// Change one of them.
    Set(Setting),
    /// mptcp_opensubflow().
    Open {
        /// `None`: any of the list.
        #[serde(with = "scoped")]
        local: Option<SocketAddr>,
        /// `None`: the initial peer.
        #[serde(with = "scoped")]
        remote: Option<SocketAddr>,
        /// For backup.
        backup: bool,
        /// The answer is what becomes of it, for so long.
        wait: Option<Duration>,
    },
    /// mptcp_closesubflow().
    Close {
        /// Here.
        #[serde(with = "scoped")]
        local: SocketAddr,
        /// There.
        #[serde(with = "scoped")]
        remote: SocketAddr,
    },
    /// mptcp_setbackup().
    Pin {
        /// Here.
        #[serde(with = "scoped")]
        local: SocketAddr,
        /// There.
        #[serde(with = "scoped")]
        remote: SocketAddr,
        /// For backup.
        backup: bool,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// It is in force, or accepted for later.
    Done,
    /// It can't be: an errno of the table in mptcp(7), and words.
    Refused {
        /// Positive.
        errno: i32,
        /// For mptcp_errmsg().
        words: String,
    },
    /// To [`Ask::Hello`].
    Welcome {
        /// SO_NETNS_COOKIE of the network namespace that is served.
        namespace: u64,
        /// Unconnected sockets can be put under control.
        switch: bool,
        /// Lists on listeners work.
        listen: bool,
    },
    /// To [`Ask::BeforeConnect`]: bind to one of these, best first; `None`: to
    /// nothing else than now. To [`Ask::Add`] where that is known already.
    Start(#[serde(with = "scoped")] Option<Vec<SocketAddr>>),
    /// To [`Ask::Control`]: by us, or by the in-kernel path manager.
    Control(Option<bool>),
    /// To [`Ask::Facts`].
    Facts {
        /// The list, `None` where there is none.
        #[serde(with = "scoped")]
        list: Option<Vec<SocketAddr>>,
        /// Addresses of the peer, announced or named.
        #[serde(with = "scoped")]
        peers: Vec<SocketAddr>,
    },
    /// To a subscriber.
    Happened(Event),
    /// To a subscriber: nothing will follow.
    Over,
    /// To [`Ask::Settings`].
    Settings(Settings),
}

impl Ask {
    /// Whether a descriptor must come with it.
    pub fn wants_descriptor(&self) -> bool {
        !matches!(self, Self::Hello | Self::Closed(_) | Self::SubscribeAll { .. })
    }

    /// Whether it can be asked again where nobody says whether it was done.
    pub fn is_repeatable(&self) -> bool {
        // There would be two.
        !matches!(self, Self::Open { .. })
    }

    /// The answer to a question that was asked again, as the first time may have
    /// done it and left nothing of what was to go.
    pub fn again(&self, told: Told) -> Told {
        match (self, &told) {
            (Self::Remove { .. }, Told::Refused { errno: libc::EADDRNOTAVAIL, .. })
            | (Self::Close { .. }, Told::Refused { errno: libc::ENOENT, .. }) => Told::Done,
            _ => told,
        }
    }

    /// The call on a socket that this is, checked as if its sender had checked
    /// nothing; `None` for what is no call.
    pub fn into_call(self) -> Option<Result<manager::Call>> {
        use engine::Request as R;
        use manager::Call;
        Some(match self {
            Self::Add(entries) => checked(entries).map(R::Add).map(Call::Ask),
            Self::Remove { addrs, patience } => {
                let patience = patience.min(PATIENCE_MAX);
                list(addrs).map(|addrs| Call::Ask(R::Remove { addrs, patience }))
            }
            Self::RespectBinding => Ok(Call::RespectBinding),
            Self::BeforeConnect(peers) => list(peers).map(Call::BeforeConnect),
            Self::Take => Ok(Call::Take),
            Self::Control => Ok(Call::Control),
            Self::Facts => Ok(Call::Facts),
            Self::Settings => Ok(Call::Settings),
            Self::Set(setting) => Ok(Call::Ask(R::Set(setting))),
            Self::Open { local, remote, backup, wait } => {
                let checked = |addr: Option<SocketAddr>| match addr {
                    Some(addr) => list(vec![addr]).map(|list| list.first().copied()),
                    None => Ok(None),
                };
                let wait = wait.map(|wait| wait.min(WAIT_MAX));
                checked(local).and_then(|local| {
                    let remote = checked(remote)?;
                    Ok(Call::Ask(R::Open { local, remote, backup, wait }))
                })
            }
            Self::Close { local, remote } => {
                let (local, remote) = (addr::canonical(local), addr::canonical(remote));
                Ok(Call::Ask(R::Close { local, remote }))
            }
            Self::Pin { local, remote, backup } => {
                let (local, remote) = (addr::canonical(local), addr::canonical(remote));
                Ok(Call::Ask(R::Pin { local, remote, backup }))
            }
            Self::Hello
            | Self::Disconnected
            | Self::Forget
            | Self::Closed(_)
            | Self::Subscribe { .. }
            | Self::SubscribeAll { .. } => return None,
        })
    }
}

/// One to [`addr::LIST_MAX`] addresses in the form of lists.
fn list(addrs: Vec<SocketAddr>) -> Result<Vec<SocketAddr>> {
    if addrs.is_empty() || addrs.len() > addr::LIST_MAX {
        return Err(Error::new(libc::EINVAL, format!("one to {} addresses", addr::LIST_MAX)));
    }
    addr::checked(addrs.into_iter().map(addr::canonical).collect())
}

fn checked(entries: Vec<Entry>) -> Result<Vec<engine::Entry>> {
    if entries.iter().any(|entry| !entry.advertise && !entry.subflow) {
        return Err(Error::new(libc::EINVAL, "an address neither advertised nor used is no use"));
    }
    let addrs = list(entries.iter().map(|entry| entry.addr).collect())?;
    let canonical = |addr: &SocketAddr| addr::canonical(*addr);
    Ok(addrs
        .into_iter()
        .filter_map(|addr| {
            let entry = entries.iter().find(|entry| addr::same(&canonical(&entry.addr), &addr))?;
            let Entry { backup, advertise, subflow, .. } = *entry;
            Some(engine::Entry { addr, backup, advertise, subflow })
        })
        .collect())
}

impl From<&engine::Entry> for Entry {
    fn from(entry: &engine::Entry) -> Self {
        let engine::Entry { addr, backup, advertise, subflow } = *entry;
        Self { addr, backup, advertise, subflow }
    }
}

impl From<engine::Key> for Key {
    fn from(key: engine::Key) -> Self {
        Self { cookie: key.cookie, inode: key.inode }
    }
}

impl From<Key> for engine::Key {
    fn from(key: Key) -> Self {
        Self { cookie: key.cookie, inode: key.inode }
    }
}

impl From<Result<manager::Answer>> for Told {
    fn from(result: Result<manager::Answer>) -> Self {
        use manager::{Answer, Control, Start};
        match result {
            Err(error) => Self::Refused { errno: error.errno(), words: error.to_string() },
            Ok(Answer::Done) => Self::Done,
            Ok(Answer::Start(Start::AsIs)) => Self::Start(None),
            Ok(Answer::Start(Start::From(choices))) => Self::Start(Some(choices)),
            Ok(Answer::Control(Control::Unknown)) => Self::Control(None),
            Ok(Answer::Control(control)) => Self::Control(Some(control == Control::Connection)),
            Ok(Answer::Facts(facts)) => Self::Facts { list: facts.list, peers: facts.peers },
            Ok(Answer::Settings(settings)) => Self::Settings(settings),
        }
    }
}

impl Told {
    /// The call's end, as the library gives it to its caller. EIO for what no
    /// call is answered with.
    pub fn into_answer(self) -> Result<manager::Answer> {
        use manager::{Answer, Control, Facts, Start};
        Ok(match self {
            Self::Done => Answer::Done,
            Self::Refused { errno, words } if errno > 0 => return Err(Error::new(errno, words)),
            Self::Start(None) => Answer::Start(Start::AsIs),
            Self::Start(Some(choices)) => Answer::Start(Start::From(choices)),
            Self::Control(None) => Answer::Control(Control::Unknown),
            Self::Control(Some(true)) => Answer::Control(Control::Connection),
            Self::Control(Some(false)) => Answer::Control(Control::Kernel),
            Self::Facts { list, peers } => Answer::Facts(Facts { list, peers }),
            Self::Settings(settings) => Answer::Settings(settings),
            Self::Refused { .. } | Self::Welcome { .. } | Self::Happened(_) | Self::Over => {
                return Err(Error::new(libc::EIO, "the broker gave an answer that fits no question"));
            }
        })
    }
}

/// Addresses with their scope, which link-local ones need and serde's own form
/// of an address leaves out: `#[serde(with = "scoped")]`.
pub mod scoped {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

    /// What consists of addresses.
    pub trait Scoped: Sized {
        /// How it is written.
        type Form: Serialize + for<'a> Deserialize<'a>;
        /// Its written form.
        fn form(&self) -> Self::Form;
        /// What the written form is of.
        fn of(form: Self::Form) -> Self;
    }

    /// An address and port as they are written.
    #[derive(Debug, Serialize, Deserialize)]
    pub enum Address {
        /// IPv4.
        V4(Ipv4Addr, u16),
        /// IPv6, with the scope id.
        V6(Ipv6Addr, u16, u32),
    }

    impl Scoped for SocketAddr {
        type Form = Address;
        fn form(&self) -> Address {
            match self {
                Self::V4(addr) => Address::V4(*addr.ip(), addr.port()),
                Self::V6(addr) => Address::V6(*addr.ip(), addr.port(), addr.scope_id()),
            }
        }
        fn of(form: Address) -> Self {
            match form {
                Address::V4(ip, port) => (ip, port).into(),
                Address::V6(ip, port, scope) => SocketAddrV6::new(ip, port, 0, scope).into(),
            }
        }
    }

    impl<T: Scoped> Scoped for Vec<T> {
        type Form = Vec<T::Form>;
        fn form(&self) -> Self::Form {
            self.iter().map(T::form).collect()
        }
        fn of(form: Self::Form) -> Self {
            form.into_iter().map(T::of).collect()
        }
    }

    impl<T: Scoped> Scoped for Option<T> {
        type Form = Option<T::Form>;
        fn form(&self) -> Self::Form {
            self.as_ref().map(T::form)
        }
        fn of(form: Self::Form) -> Self {
            form.map(T::of)
        }
    }

    macro_rules! itself {
        ($($number:ty),*) => {
            $(impl Scoped for $number {
                type Form = Self;
                fn form(&self) -> Self {
                    *self
                }
                fn of(form: Self) -> Self {
                    form
                }
            })*
        };
    }
    itself!(bool, u8, u16, u32);

    impl<A: Scoped, B: Scoped> Scoped for (A, B) {
        type Form = (A::Form, B::Form);
        fn form(&self) -> Self::Form {
            (self.0.form(), self.1.form())
        }
        fn of(form: Self::Form) -> Self {
            (A::of(form.0), B::of(form.1))
        }
    }

    impl<A: Scoped, B: Scoped, C: Scoped> Scoped for (A, B, C) {
        type Form = (A::Form, B::Form, C::Form);
        fn form(&self) -> Self::Form {
            (self.0.form(), self.1.form(), self.2.form())
        }
        fn of(form: Self::Form) -> Self {
            (A::of(form.0), B::of(form.1), C::of(form.2))
        }
    }

    /// For serde.
    pub fn serialize<T: Scoped, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        value.form().serialize(serializer)
    }

    /// For serde.
    pub fn deserialize<'a, T: Scoped, D: Deserializer<'a>>(deserializer: D) -> Result<T, D::Error> {
        T::Form::deserialize(deserializer).map(T::of)
    }
}

/// The bytes of a message. EMSGSIZE above [`LIMIT`].
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>> {
    let bytes = encode_any(message)?;
    if bytes.len() > LIMIT {
        return Err(Error::new(libc::EMSGSIZE, "a message to the broker is too long"));
    }
    Ok(bytes)
}

/// The same of any length, for a file.
pub fn encode_any(message: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(USUAL);
    bytes.extend_from_slice(&MAGIC);
    postcard::to_extend(message, bytes)
        .map_err(|_| Error::new(libc::EMSGSIZE, "a message that can't be encoded"))
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is of another protocol, or of a version that is not known.
    Version,
    /// Too short, too long, or nonsense.
    Shape,
}

/// The message that these bytes are, whole.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> std::result::Result<T, Flaw> {
    let body = bytes.strip_prefix(&MAGIC).ok_or(Flaw::Version)?;
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(Flaw::Shape),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addrs() -> impl Strategy<Value = Vec<SocketAddr>> {
        let addr = (any::<std::net::IpAddr>(), any::<u16>(), any::<u32>()).prop_map(|(ip, port, scope)| {
            let mut addr = SocketAddr::new(ip, port);
            if let SocketAddr::V6(addr) = &mut addr {
                addr.set_scope_id(scope);
            }
            addr
        });
        proptest::collection::vec(addr, 0..70)
    }

    fn ask() -> impl Strategy<Value = Ask> {
        prop_oneof![
            Just(Ask::Hello),
            (addrs(), any::<(bool, bool, bool)>()).prop_map(|(addrs, (backup, advertise, subflow))| {
                Ask::Add(addrs.into_iter().map(|addr| Entry { addr, backup, advertise, subflow }).collect())
            }),
            (addrs(), any::<u32>())
                .prop_map(|(addrs, ms)| Ask::Remove { addrs, patience: Duration::from_millis(ms.into()) }),
            addrs().prop_map(Ask::BeforeConnect),
            Just(Ask::Facts),
            proptest::collection::vec(any::<(u64, u64)>(), 0..40).prop_map(|keys| Ask::Closed(
                keys.into_iter().map(|(cookie, inode)| Key { cookie, inode }).collect()
            )),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(tag in any::<u32>(), ask in ask()) {
            let request = Request { tag, ask };
            let bytes = encode(&request).unwrap();
            prop_assert_eq!(decode::<Request>(&bytes), Ok(request));
        }

        #[test]
        fn a_byte_too_few_or_too_many_is_no_message(tag in any::<u32>(), ask in ask(), cut in any::<proptest::sample::Index>()) {
            let bytes = encode(&Request { tag, ask }).unwrap();
            prop_assert!(decode::<Request>(&bytes[..cut.index(bytes.len())]).is_err());
            prop_assert_eq!(decode::<Request>(&[&bytes[..], &[0]].concat()), Err(Flaw::Shape));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for bytes in [bytes.clone(), [&MAGIC[..], &bytes].concat()] {
                if let Ok(request) = decode::<Request>(&bytes) {
                    let _ = request.ask.into_call();
                }
                if let Ok(reply) = decode::<Reply>(&bytes) {
                    let _ = reply.told.into_answer();
                }
            }
        }
    }

    #[test]
    fn a_list_that_claims_a_million_entries_takes_no_memory() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[1, 1, 0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(decode::<Request>(&bytes), Err(Flaw::Shape));
    }

    #[test]
    fn a_full_list_fits() {
        let addr = "[fe80::1%4294967295]:1".parse().unwrap();
        let entries = vec![Entry { addr, backup: true, advertise: true, subflow: true }; addr::LIST_MAX];
        assert!(encode(&Request { tag: u32::MAX, ask: Ask::Add(entries) }).is_ok());
    }
}
