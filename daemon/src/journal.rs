// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must outlive the broker: lists, address ids, owners. A file of records
//! that are appended as things change; the last one about a socket holds. It
//! is of one boot and one network namespace, and of one broker, which has it
//! locked.

use crate::log::log;
use mptcpapi::Errno;
use mptcpapi::engine::ids::Slot;
use mptcpapi::engine::{self, Device, Key, Peer, Saved, Settings, Wishes};
use mptcpapi::kernel::sockopt;
use mptcpapi::manager::Prepared;
use mptcpapi::wire::{self, scoped};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Whose a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user whose program first asked.
    pub uid: u32,
    /// That program.
    pub pid: i32,
}

/// A socket or connection as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What the engine knew.
    pub saved: Saved,
    /// What was done to the socket.
    pub prepared: Prepared,
    /// Whose it is, if anybody's.
    pub owner: Option<Owner>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Record {
    /// The first one: where the others are of.
    Begin(Place),
    Socket(Box<Written>),
    Gone(wire::Key),
    /// What the namespace's path manager was before a server's list.
    Held(Option<String>),
    /// Of the socket before, if anything.
    Wishes(wire::Key, Box<Wished>),
}

/// [`Wishes`] in the form of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Wished {
    settings: Settings,
    fate_default: bool,
    demanded: bool,
    doomed: bool,
    #[serde(with = "scoped")]
    pinned: Vec<(SocketAddr, SocketAddr, bool)>,
    #[serde(with = "scoped")]
    barred: Vec<(SocketAddr, SocketAddr)>,
    #[serde(with = "scoped")]
    opens: Vec<(SocketAddr, SocketAddr, bool)>,
}

impl From<Wishes> for Wished {
    fn from(wishes: Wishes) -> Self {
        let Wishes { settings, fate_default, demanded, doomed, pinned, barred, opens } = wishes;
        Self { settings, fate_default, demanded, doomed, pinned, barred, opens }
    }
}

impl From<Wished> for Wishes {
    fn from(wished: Wished) -> Self {
        let Wished { settings, fate_default, demanded, doomed, pinned, barred, opens } = wished;
        Self { settings, fate_default, demanded, doomed, pinned, barred, opens }
    }
}

/// An [`Item`] in the form of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    key: wire::Key,
    token: Option<u32>,
    server: bool,
    listed: bool,
    entries: Vec<wire::Entry>,
    #[serde(with = "scoped")]
    bound: Option<SocketAddr>,
    #[serde(with = "scoped")]
    device: Option<(u32, Vec<SocketAddr>)>,
    #[serde(with = "scoped")]
    excluded: Vec<SocketAddr>,
    #[serde(with = "scoped")]
    leaving: Vec<SocketAddr>,
    #[serde(with = "scoped")]
    initial: Option<(SocketAddr, SocketAddr)>,
    #[serde(with = "scoped")]
    peers: Vec<(Option<u8>, SocketAddr)>,
    #[serde(with = "scoped")]
    ids: Vec<(u8, SocketAddr, u16)>,
    last_id: u8,
    #[serde(with = "scoped")]
    announced: Vec<(SocketAddr, u8)>,
    #[serde(with = "scoped")]
    untold: Vec<SocketAddr>,
    #[serde(with = "scoped")]
    withdrawn: Vec<(SocketAddr, u8)>,
    #[serde(with = "scoped")]
    missed: Vec<(SocketAddr, SocketAddr)>,
    #[serde(with = "scoped")]
    tried: Vec<(SocketAddr, SocketAddr)>,
    taken: Vec<u8>,
    foreign: bool,
    unclaimed: bool,
    switched: bool,
    virgin: bool,
    may_serve: bool,
    owner: Option<Owner>,
}

impl From<Item> for Written {
    fn from(item: Item) -> Self {
        let saved = item.saved;
        Self {
            key: saved.key.into(),
            token: saved.token,
            server: saved.server,
            listed: saved.listed,
            entries: saved.entries.iter().map(Into::into).collect(),
            bound: saved.bound,
            device: saved.device.map(|device| (device.ifindex, device.addrs)),
            excluded: saved.excluded,
            leaving: saved.leaving,
            initial: saved.initial,
            peers: saved.peers.into_iter().map(|peer| (peer.id, peer.addr)).collect(),
            ids: saved.ids.into_iter().map(|slot| (slot.id, slot.addr, slot.port)).collect(),
            last_id: saved.last_id,
            announced: saved.announced,
            untold: saved.untold,
            withdrawn: saved.withdrawn,
            missed: saved.missed,
            tried: saved.tried,
            taken: saved.taken,
            foreign: saved.foreign,
            unclaimed: saved.unclaimed,
            switched: item.prepared.switched,
            virgin: item.prepared.virgin,
            may_serve: item.prepared.may_serve,
            owner: item.owner,
        }
    }
}

impl From<Written> for Item {
    fn from(written: Written) -> Self {
        let entry = |entry: &wire::Entry| {
            let wire::Entry { addr, backup, advertise, subflow } = *entry;
            engine::Entry { addr, backup, advertise, subflow }
        };
        Self {
            saved: Saved {
                key: written.key.into(),
                token: written.token,
                server: written.server,
                listed: written.listed,
                entries: written.entries.iter().map(entry).collect(),
                bound: written.bound,
                device: written.device.map(|(ifindex, addrs)| Device { ifindex, addrs }),
                excluded: written.excluded,
                leaving: written.leaving,
                initial: written.initial,
                peers: written.peers.into_iter().map(|(id, addr)| Peer { id, addr }).collect(),
                ids: written.ids.into_iter().map(|(id, addr, port)| Slot { id, addr, port }).collect(),
                last_id: written.last_id,
                announced: written.announced,
                untold: written.untold,
                withdrawn: written.withdrawn,
                missed: written.missed,
                tried: written.tried,
                taken: written.taken,
                wishes: Wishes::default(),
                foreign: written.foreign,
                unclaimed: written.unclaimed,
            },
            prepared: Prepared {
                switched: written.switched,
                virgin: written.virgin,
                may_serve: written.may_serve,
            },
            owner: written.owner,
        }
    }
}

/// What a file told.
#[derive(Debug, Default)]
pub struct Past {
    /// Every socket that is not gone.
    pub items: Vec<Item>,
    /// [`Journal::held`].
    pub held: Option<String>,
}

/// What a file is of; in another place it tells nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Of the kernel's boot_id.
    pub boot: String,
    /// SO_NETNS_COOKIE.
    pub namespace: u64,
}

/// The file.
pub struct Journal {
    path: PathBuf,
    file: File,
    place: Place,
    unwritten: Vec<u8>,
    size: usize,
    /// To be written afresh above this size.
    limit: usize,
}

const LIMIT: usize = 8 << 20;

impl Journal {
    /// Opens the journal of this namespace in a directory; what it told is
    /// given back, the file begins anew with it. One that another broker has
    /// is refused: each would write over what the other promised.
    pub fn open(directory: &Path, namespace: u64) -> Result<(Self, Past), String> {
        let path = directory.join("journal");
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let place = Place { boot: boot.trim().to_owned(), namespace };
        let failed = |e| format!("{}: {e}", path.display());
        let mut file = claim(&path).map_err(failed)?.ok_or_else(|| {
            format!(
                "{} is another broker's, which is running: give this one a --state directory",
                path.display()
            )
        })?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let past = recall(&bytes, &place);
        let mut journal = Self { file, path, place, unwritten: Vec::new(), size: 0, limit: LIMIT };
        journal.rewrite(past.items.iter(), past.held.as_deref())?;
        Ok((journal, past))
    }

    /// Notes a socket as it is now.
    pub fn put(&mut self, item: Item) {
        append_item(&mut self.unwritten, item);
    }

    /// Notes that a socket is gone.
    pub fn gone(&mut self, key: Key) {
        append(&mut self.unwritten, &Record::Gone(key.into()));
    }

    /// Notes what the namespace's path manager was before it was put in
    /// userspace mode, if it was.
    pub fn held(&mut self, original: Option<&str>) {
        append(&mut self.unwritten, &Record::Held(original.map(str::to_owned)));
    }

    /// Writes what was noted. True: it is time for [`Journal::rewrite`].
    pub fn flush(&mut self) -> bool {
        if self.unwritten.is_empty() {
            return false;
        }
        self.size = self.size.saturating_add(self.unwritten.len());
        if let Err(e) = self.file.write_all(&self.unwritten) {
            log!(Error, "{}: {e}", self.path.display());
            // What is missing or cut off hides all that follows.
            self.size = usize::MAX;
        }
        self.unwritten.clear();
        self.unwritten.shrink_to(1 << 16);
        self.size > self.limit
    }

    /// Writes the file afresh.
    pub fn rewrite<'a>(
        &mut self,
        items: impl Iterator<Item = &'a Item>,
        held: Option<&str>,
    ) -> Result<(), String> {
        let fresh = self.path.with_extension("new");
        let write = |bytes: &[u8]| -> std::io::Result<File> {
            let mut file = create(&fresh)?;
            file.set_len(0)?;
            // As the one before, until then.
            let _ = sockopt::lock_file(&file);
            file.write_all(bytes)?;
            std::fs::rename(&fresh, &self.path)?;
            Ok(file)
        };
        let bytes = whole(&self.place, items, held);
        self.file = write(&bytes).map_err(|e| format!("{}: {e}", fresh.display()))?;
        self.unwritten.clear();
        self.size = bytes.len();
        self.limit = LIMIT.max(4 * self.size);
        Ok(())
    }
}

fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
}

/// The file, locked; nothing where a process has it that is there still.
fn claim(path: &Path) -> std::io::Result<Option<File>> {
    let error = |errno: Errno| std::io::Error::from_raw_os_error(errno.0);
    loop {
        let file = create(path)?;
        match sockopt::lock_file(&file) {
            Ok(()) => {
                // Another may have put a new one in its place before it let go.
                let (ours, there) = (file.metadata()?, std::fs::symlink_metadata(path));
                if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                    return Ok(Some(file));
                }
            }
            Err(Errno(libc::EAGAIN | libc::EACCES)) => match sockopt::lock_holder(&file).map_err(error)? {
                // Its descriptors outlive one that was killed, as long as a
                // socket keeps one of its threads. It writes no more.
                Some(pid) if is_dead(pid) => return Ok(Some(file)),
                Some(_) => return Ok(None),
                None => {}
            },
            Err(errno) => return Err(error(errno)),
        }
    }
}

/// Whether a process is dead but for threads that can't be killed.
fn is_dead(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    matches!(stat.rsplit(") ").next().and_then(|rest| rest.chars().next()), Some('Z' | 'X'))
}

/// The bytes of a file that tells this and no more.
pub fn whole<'a>(place: &Place, items: impl Iterator<Item = &'a Item>, held: Option<&str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(&mut bytes, &Record::Begin(place.clone()));
    items.for_each(|item| append_item(&mut bytes, item.clone()));
    if let Some(held) = held {
        append(&mut bytes, &Record::Held(Some(held.to_owned())));
    }
    bytes
}

fn append_item(out: &mut Vec<u8>, mut item: Item) {
    let (key, wishes) = (item.saved.key, std::mem::take(&mut item.saved.wishes));
    append(out, &Record::Socket(Box::new(item.into())));
    if wishes != Wishes::default() {
        append(out, &Record::Wishes(key.into(), Box::new(wishes.into())));
    }
}

fn append(out: &mut Vec<u8>, record: &Record) {
    if let Ok(bytes) = wire::encode_any(record) {
        frame(out, &bytes);
    }
}

/// A record in the file: its length, a checksum, its bytes.
pub fn frame(out: &mut Vec<u8>, record: &[u8]) {
    let Ok(len) = u32::try_from(record.len()) else { return };
    out.extend_from_slice(&len.to_ne_bytes());
    out.extend_from_slice(&checksum(record).to_ne_bytes());
    out.extend_from_slice(record);
}

/// FNV-1a: against a record cut short, not against malice.
pub fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn records(mut bytes: &[u8]) -> impl Iterator<Item = Record> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (sum, rest) = rest.split_first_chunk::<4>()?;
        let (record, rest) = rest.split_at_checked(u32::from_ne_bytes(*len) as usize)?;
        if checksum(record) != u32::from_ne_bytes(*sum) {
            return None;
        }
        bytes = rest;
        wire::decode(record).ok()
    })
}

/// What these bytes tell, if they are of this place; up to the first record
/// that is damaged.
pub fn recall(bytes: &[u8], here: &Place) -> Past {
    let mut records = records(bytes);
    let mut past = Past::default();
    match records.next() {
        Some(Record::Begin(place)) if place == *here => {}
        _ => return past,
    }
    let mut items: HashMap<wire::Key, (usize, Item)> = HashMap::new();
    for (at, record) in records.enumerate() {
        match record {
            Record::Begin(_) => {}
            Record::Socket(written) => {
                items.insert(written.key, (at, (*written).into()));
            }
            Record::Gone(key) => drop(items.remove(&key)),
            Record::Held(held) => past.held = held,
            Record::Wishes(key, wished) => {
                if let Some((_, item)) = items.get_mut(&key) {
                    item.saved.wishes = (*wished).into();
                }
            }
        }
    }
    let mut ordered: Vec<_> = items.into_values().collect();
    ordered.sort_by_key(|(at, _)| *at);
    past.items = ordered.into_iter().map(|(_, item)| item).collect();
    past
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv6Addr, SocketAddrV6};

    fn item(n: u64) -> Item {
        let addr = |n: u64| -> SocketAddr {
            match n % 2 {
                0 => ([10, 0, (n >> 8) as u8, n as u8], 7).into(),
                _ => SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n as u16), 7, 0, 3).into(),
            }
        };
        Item {
            saved: Saved {
                key: Key { cookie: n, inode: n + 1 },
                token: n.is_multiple_of(2).then_some(n as u32),
                server: false,
                listed: true,
                entries: vec![addr(n).into()],
                bound: None,
                device: Some(Device { ifindex: 3, addrs: vec![addr(9)] }),
                excluded: vec![addr(8)],
                leaving: Vec::new(),
                initial: Some((addr(1), addr(2))),
                peers: vec![Peer { id: Some(0), addr: addr(2) }],
                ids: vec![Slot { id: 1, addr: addr(n), port: 5 }],
                last_id: 1,
                announced: vec![(addr(n), 1)],
                untold: vec![addr(n)],
                withdrawn: vec![(addr(8), 2)],
                missed: vec![(addr(n), addr(2))],
                tried: vec![(addr(n), addr(3))],
                taken: vec![4],
                wishes: if n.is_multiple_of(3) {
                    Wishes::default()
                } else {
                    Wishes {
                        settings: Settings { max_subflows: n as u8, ..Settings::default() },
                        pinned: vec![(addr(n), addr(2), true)],
                        opens: vec![(addr(n), addr(3), false)],
                        ..Wishes::default()
                    }
                },
                foreign: false,
                unclaimed: false,
            },
            prepared: Prepared { switched: true, virgin: false, may_serve: n % 2 == 1 },
            owner: Some(Owner { uid: 5, pid: 6 }),
        }
    }

    fn here() -> Place {
        Place { boot: "b".into(), namespace: 4 }
    }

    proptest! {
        #[test]
        fn the_last_word_holds_and_a_torn_end_loses_only_itself(
            ops in proptest::collection::vec((0u64..8, any::<bool>()), 0..40),
            torn in 0usize..40,
        ) {
            let mut bytes = whole(&here(), [].iter(), None);
            let mut expected = Vec::new();
            for (n, gone) in ops {
                expected.retain(|known: &Item| known.saved.key.cookie != n);
                if gone {
                    append(&mut bytes, &Record::Gone(item(n).saved.key.into()));
                } else {
                    append_item(&mut bytes, item(n));
                    expected.push(item(n));
                }
            }
            prop_assert_eq!(&recall(&bytes, &here()).items, &expected);
            let whole = bytes.len();
            append(&mut bytes, &Record::Held(Some("kernel of a long and torn name, to be cut".into())));
            bytes.truncate(whole + torn);
            prop_assert_eq!(&recall(&bytes, &here()).items, &expected);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(recall(&bytes, &here()).items.is_empty());
        }
    }

    #[test]
    fn another_boot_or_namespace_tells_nothing() {
        let bytes = whole(&Place { namespace: 5, ..here() }, [item(1)].iter(), None);
        assert!(recall(&bytes, &here()).items.is_empty());
    }
}
