// SPDX-License-Identifier: MIT OR Apache-2.0
//! What waits, user by user, each in its turn: one who has much to do waits
//! longer, and nobody else does.

use std::collections::{HashMap, VecDeque};

/// Queues of users.
#[derive(Debug)]
pub struct Turns<T> {
    waiting: HashMap<u32, VecDeque<T>>,
    /// Users for whom something waits, each once, who is next first.
    order: VecDeque<u32>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Turns<T> {
    /// Whether something waits of a user who may.
    pub fn any(&self, may: impl FnMut(u32) -> bool) -> bool {
        self.order.iter().copied().any(may)
    }

    /// Puts something at the end of a user's queue.
    pub fn push(&mut self, user: u32, item: T) {
        let queue = self.waiting.entry(user).or_insert_with(|| {
            self.order.push_back(user);
            VecDeque::new()
        });
        queue.push_back(item);
    }

    /// Takes the first of the user whose turn it is, among those who may.
    pub fn pop(&mut self, mut may: impl FnMut(u32) -> bool) -> Option<T> {
        let at = self.order.iter().position(|user| may(*user))?;
        let user = self.order.remove(at)?;
        let queue = self.waiting.get_mut(&user)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&user);
        } else {
            self.order.push_back(user);
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn in_order_for_each_user_and_each_in_turn(items in proptest::collection::vec((0u32..4, any::<u32>()), 0..60)) {
            let mut turns = Turns::default();
            for (user, item) in &items {
                turns.push(*user, (*user, *item));
            }
            let mut left: Vec<usize> =
                (0..4).map(|user| items.iter().filter(|(of, _)| *of == user).count()).collect();
            let mut taken = Vec::new();
            while turns.any(|_| true) {
                // As many as there are users, and each of them once.
                let round = left.iter().filter(|count| **count > 0).count();
                let some: Vec<_> = (0..round).filter_map(|_| turns.pop(|_| true)).collect();
                for user in 0..4 {
                    let count = some.iter().filter(|(of, _)| *of == user as u32).count();
                    prop_assert_eq!(count, usize::from(left[user] > 0));
                    left[user] -= count;
                }
                taken.extend(some);
            }
            prop_assert!(turns.pop(|_| true).is_none());
            for user in 0..4 {
                let of = |list: &[(u32, u32)]| list.iter().filter(|(of, _)| *of == user).copied().collect::<Vec<_>>();
                prop_assert_eq!(of(&taken), of(&items));
            }
        }
    }

    #[test]
    fn who_may_not_keeps_its_place() {
        let mut turns = Turns::default();
        (0..3).for_each(|user| turns.push(user, user));
        assert_eq!(turns.pop(|user| user != 0), Some(1));
        assert!(!turns.any(|user| user == 1));
        assert_eq!(turns.pop(|_| true), Some(0));
        assert_eq!(turns.pop(|user| user == 0), None);
    }
}
