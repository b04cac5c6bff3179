// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes to begin with where the format is ours: made afresh from its types,
//! so that they don't age with it. Also what is not in them is found, later.

use crate::journal::{Item, Owner, Place, whole};
use mptcpapi::engine::ids::Slot;
use mptcpapi::engine::{Device, Key, Peer, Saved, Wishes};
use mptcpapi::manager::Prepared;
use mptcpapi::wire::{self, Ask, Entry, Reply, Request, Told};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::time::Duration;

fn addrs() -> Vec<SocketAddr> {
    let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    let link_local = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 0, 0, 3);
    vec![([10, 1, 0, 1], 4711).into(), link_local.into(), (v6, 0).into()]
}

/// What `target` should be tried with.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "wire" => messages(),
        "journal" => records(),
        _ => Vec::new(),
    }
}

/// Writes them into the directory that SEEDS names.
pub fn sow(target: &str) {
    let Some(directory) = std::env::var_os("SEEDS") else { return };
    for (at, seed) in seeds(target).into_iter().enumerate() {
        let path = Path::new(&directory).join(format!("seed-{at}"));
        std::fs::write(&path, seed).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}

fn body(message: &impl serde::Serialize) -> Vec<u8> {
    let bytes = wire::encode_any(message).unwrap_or_default();
    bytes.get(wire::MAGIC.len()..).unwrap_or_default().to_vec()
}

fn messages() -> Vec<Vec<u8>> {
    let entry = |addr| Entry { addr, backup: true, advertise: true, subflow: false };
    let asks = [
        Ask::Hello,
        Ask::Add(addrs().into_iter().map(entry).collect()),
        Ask::Remove { addrs: addrs(), patience: Duration::from_millis(1500) },
        Ask::RespectBinding,
        Ask::BeforeConnect(addrs()),
        Ask::Take,
        Ask::Control,
        Ask::Facts,
        Ask::Disconnected,
        Ask::Forget,
        Ask::Closed(vec![wire::Key { cookie: 1 << 40, inode: 70_000 }; 2]),
    ];
    let tolds = [
        Told::Done,
        Told::Refused { errno: libc::EPERM, words: "words".into() },
        Told::Welcome { namespace: 1, switch: true, listen: false },
        Told::Start(None),
        Told::Start(Some(addrs())),
        Told::Control(Some(true)),
        Told::Facts { list: Some(addrs()), peers: addrs() },
    ];
    let asks = asks.into_iter().map(|ask| body(&Request { tag: 300, ask }));
    asks.chain(tolds.into_iter().map(|told| body(&Reply { tag: 300, told }))).collect()
}

/// In the form that [`crate::journal()`] takes: records with their lengths.
fn records() -> Vec<Vec<u8>> {
    let [one, two, three] = [0, 1, 2].map(|n| addrs()[n]);
    let item = Item {
        saved: Saved {
            key: Key { cookie: 7, inode: 8 },
            token: Some(9),
            server: false,
            listed: true,
            entries: vec![one.into(), two.into()],
            bound: Some(one),
            device: Some(Device { ifindex: 3, addrs: vec![three] }),
            excluded: vec![three],
            leaving: vec![two],
            initial: Some((one, two)),
            peers: vec![Peer { id: Some(0), addr: two }, Peer { id: None, addr: three }],
            ids: vec![Slot { id: 1, addr: one, port: 5 }],
            last_id: 1,
            announced: vec![(one, 1)],
            untold: vec![one],
            withdrawn: vec![(three, 2)],
            missed: vec![(three, two)],
            tried: vec![(one, two)],
            taken: vec![4],
            foreign: false,
            unclaimed: true,
            wishes: Wishes {
                pinned: vec![(one, two, true)],
                opens: vec![(one, three, false)],
                ..Wishes::default()
            },
        },
        prepared: Prepared { switched: true, virgin: true, may_serve: false },
        owner: Some(Owner { uid: 1000, pid: 300 }),
    };
    let place = Place { boot: String::new(), namespace: 0 };
    let file = whole(&place, [item].iter(), Some("kernel"));
    let mut seed = vec![1];
    let mut rest = file.as_slice();
    while let Some((len, after)) = rest.split_first_chunk() {
        let Some((record, after)) =
            after.get(4..).and_then(|r| r.split_at_checked(u32::from_ne_bytes(*len) as usize))
        else {
            break;
        };
        let record = record.strip_prefix(&wire::MAGIC).unwrap_or(record);
        seed.extend((record.len() as u16).to_le_bytes());
        seed.extend(record);
        rest = after;
    }
    vec![seed]
}
