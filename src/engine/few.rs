// SPDX-License-Identifier: MIT OR Apache-2.0
//! A list that is empty or short for most connections: two words, and no room
//! to spare behind them.

use std::ops::{Deref, DerefMut};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Few<T>(Box<[T]>);

impl<T> Few<T> {
    fn change<R>(&mut self, change: impl FnOnce(&mut Vec<T>) -> R) -> R {
        let mut items = std::mem::take(&mut self.0).into_vec();
        let result = change(&mut items);
        self.0 = items.into_boxed_slice();
        result
    }

    /// Appends.
    pub fn push(&mut self, item: T) {
        self.change(|items| {
            items.reserve_exact(1);
            items.push(item);
        });
    }

    /// Takes one out, if it is there.
    pub fn take_at(&mut self, at: usize) -> Option<T> {
        (at < self.len()).then(|| self.change(|items| items.remove(at)))
    }

    /// Keeps what `keep` says.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        if !self.is_empty() {
            self.change(|items| items.retain(keep));
        }
    }

    /// Everything, leaving nothing.
    pub fn take(&mut self) -> Vec<T> {
        std::mem::take(&mut self.0).into_vec()
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(items: Vec<T>) -> Self {
        Self(items.into_boxed_slice())
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}
