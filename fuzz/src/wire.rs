// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages between the library and the broker, from a peer that is no friend.

use crate::memory;
use mptcpapi::wire::{self, Entry, MAGIC, PATIENCE_MAX, Reply, Request};
use mptcpapi::{addr, engine::Request as Asks, manager::Call};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use std::net::SocketAddr;

/// Any bytes, as they are and as the body of a message.
pub fn wire(bytes: &[u8]) {
    // What the library or the broker would have thrown away before.
    let bytes = bytes.get(..wire::LIMIT - MAGIC.len()).unwrap_or(bytes);
    for message in [bytes, &[&MAGIC, bytes].concat()] {
        if let Some(request) = read::<Request>(message) {
            asked(request);
        }
        if let Some(reply) = read::<Reply>(message) {
            match reply.told.into_answer() {
                Ok(answer) => {
                    let told = wire::Told::from(Ok(answer.clone()));
                    assert_eq!(told.into_answer(), Ok(answer));
                }
                Err(error) => assert!(error.errno() > 0),
            }
        }
    }
}

/// Reading takes no more memory than a list of that length does, and what was
/// read is written and read again as the same.
fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let (result, peak) = memory::peak(|| wire::decode::<T>(bytes));
    assert!(peak <= 64 * bytes.len(), "{peak} bytes for a message of {}", bytes.len());
    let message = result.ok()?;
    let again = wire::encode_any(&message).expect("it was read");
    // Nanoseconds over a second make the seconds longer.
    assert!(again.len() <= bytes.len() + 1, "written longer than it came");
    assert_eq!(wire::decode::<T>(&again).as_ref(), Ok(&message));
    Some(message)
}

/// What the broker believes of a request.
fn asked(request: Request) {
    let about_a_socket = request.ask.wants_descriptor();
    match request.ask.into_call() {
        Some(Ok(call)) => {
            assert!(about_a_socket);
            match call {
                Call::Ask(Asks::Add(entries)) => {
                    assert!(entries.iter().all(|entry| entry.advertise || entry.subflow));
                    let addrs: Vec<SocketAddr> = entries.iter().map(|entry| entry.addr).collect();
                    listed(&addrs);
                    // The library's own way there and back.
                    let ask = wire::Ask::Add(entries.iter().map(Entry::from).collect());
                    assert_eq!(
                        ask.into_call().map(|r| r.map(|c| format!("{c:?}"))),
                        Some(Ok(format!("{:?}", Call::Ask(Asks::Add(entries)))))
                    );
                }
                Call::Ask(Asks::Remove { addrs, patience }) => {
                    listed(&addrs);
                    assert!(patience <= PATIENCE_MAX);
                }
                Call::BeforeConnect(peers) => listed(&peers),
                _ => {}
            }
        }
        Some(Err(error)) => assert!(error.errno() > 0),
        None => {}
    }
}

fn listed(addrs: &[SocketAddr]) {
    assert!((1..=addr::LIST_MAX).contains(&addrs.len()));
    assert!(addrs.iter().all(|addr| addr::canonical(*addr) == *addr && !addr::is_wildcard(addr)));
    assert!(addrs.iter().enumerate().all(|(at, addr)| !addrs[..at].contains(addr)), "named twice");
}
