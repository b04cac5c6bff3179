// SPDX-License-Identifier: MIT OR Apache-2.0
//! The corpora again, and each a little changed: the same changes every time.

use std::path::Path;

struct Dice(u64);

impl Dice {
    /// 0 to below `sides` (splitmix64).
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) as usize % sides.max(1)
    }

    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let at = self.roll(input.len());
        match self.roll(6) {
            0 => input.truncate(at),
            1 => input.insert(at, self.roll(256) as u8),
            2 => input.splice(at.., other.iter().skip(self.roll(other.len())).copied()).for_each(drop),
            3 if !input.is_empty() => input[at] ^= 1 << self.roll(8),
            4 if !input.is_empty() => input[at] = [0, 1, 0x7f, 0x80, 0xff][self.roll(5)],
            _ if !input.is_empty() => drop(input.remove(at)),
            _ => {}
        }
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    // A target without a finding has no files.
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Shows what was tried where it fails.
struct Tried<'a>(&'a [u8]);

impl Drop for Tried<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{:?}", self.0);
        }
    }
}

fn holds(target: &str, check: fn(&[u8]), changed: usize) {
    let inputs = [corpus(target), mptcpapi_fuzz::seeds(target)].concat();
    assert!(!inputs.is_empty());
    for input in &inputs {
        let tried = Tried(input);
        check(tried.0);
    }
    let mut dice = Dice(1);
    for _ in 0..changed {
        let mut input = inputs[dice.roll(inputs.len())].clone();
        for _ in 0..=dice.roll(4) {
            let other = dice.roll(inputs.len());
            dice.change(&mut input, &inputs[other]);
        }
        let tried = Tried(&input);
        check(tried.0);
    }
}

#[test]
fn wire() {
    holds("wire", mptcpapi_fuzz::wire, 30_000);
}

#[test]
fn journal() {
    holds("journal", mptcpapi_fuzz::journal, 10_000);
}

#[test]
fn netlink() {
    holds("netlink", mptcpapi_fuzz::netlink, 30_000);
}

#[test]
fn engine() {
    holds("engine", mptcpapi_fuzz::engine, 2_000);
}
