// SPDX-License-Identifier: MIT OR Apache-2.0
//! A list that is empty for most connections, and short for the others: one
//! word, and no room to spare behind it.

use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};

/// Never a box of nothing: so those that are equal look equal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::box_collection, reason = "a boxed slice takes two words, also where it is empty")]
pub struct Few<T>(Option<Box<Vec<T>>>);

impl<T> Few<T> {
    fn change<R>(&mut self, change: impl FnOnce(&mut Vec<T>) -> R) -> R {
        let mut items = self.take();
        let result = change(&mut items);
        *self = items.into();
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
        self.0.take().map(|items| *items).unwrap_or_default()
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(mut items: Vec<T>) -> Self {
        items.shrink_to_fit();
        Self((!items.is_empty()).then(|| Box::new(items)))
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        items.into_iter().collect::<Vec<T>>().into()
    }
}

impl<T: Hash> Hash for Few<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.0.as_deref_mut().map_or(&mut [], Vec::as_mut_slice)
    }
}
