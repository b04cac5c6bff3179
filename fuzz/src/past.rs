// SPDX-License-Identifier: MIT OR Apache-2.0
//! The broker's journal, as it may be found after a crash.

use crate::journal::{Item, Past, Place, frame, recall, whole};
use mptcpapi::engine::{Engine, Event, Saved, Time};
use mptcpapi::manager::Prepared;
use mptcpapi::wire::MAGIC;

/// Bytes as the file, behind a sound beginning; or as its records, each of the
/// length that its first byte says and with the right checksum.
pub fn journal(bytes: &[u8]) {
    let here = Place { boot: "boot".into(), namespace: 4 };
    assert!(told(bytes, &here).items.is_empty() || bytes.len() > 20);
    let Some((how, mut rest)) = bytes.split_first() else { return };
    let mut file = whole(&here, [].iter(), None);
    if how % 8 == 0 {
        file.extend_from_slice(rest);
    } else {
        while let Some((len, after)) = rest.split_first_chunk() {
            let len = usize::from(u16::from_le_bytes(*len)).min(after.len());
            let (record, after) = after.split_at(len);
            frame(&mut file, &[&MAGIC, record].concat());
            rest = after;
        }
    }
    let past = told(&file, &here);
    let elsewhere = Place { namespace: 5, ..here };
    assert!(recall(&file, &elsewhere).items.is_empty());

    // The engine takes what it is given.
    let mut engine = Engine::default();
    for item in past.items {
        engine.handle(Event::Restore(Box::new(item.saved)), Time::from_secs(1));
    }
    assert!(engine.poll_command().is_none(), "nothing is done before a look");
}

/// What is recalled, written down and recalled again is the same.
fn told(file: &[u8], here: &Place) -> Past {
    let past = recall(file, here);
    let again = recall(&whole(here, past.items.iter(), past.held.as_deref()), here);
    assert_eq!(past.items, again.items);
    assert_eq!(past.held, again.held);
    past
}

/// What comes back of a socket's durable state, which is all of it.
pub fn written(saved: Saved) -> Saved {
    let here = Place { boot: "boot".into(), namespace: 4 };
    let item = Item { saved, prepared: Prepared::default(), owner: None };
    let past = recall(&whole(&here, [&item].into_iter(), None), &here);
    assert_eq!(past.items, [item]);
    past.items.into_iter().next().map(|item| item.saved).unwrap_or_default()
}
