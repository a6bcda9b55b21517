//! Choosing an instance for each call.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{Instance, Subscription};

/// Each available instance in its turn, over the newest snapshot. Choosing
/// takes no I/O; share it between tasks behind an `Arc`.
///
/// Weights count only as on or off (0) here.
#[derive(Debug)]
pub struct RoundRobin {
    subscription: Subscription,
    turn: AtomicUsize,
}

impl RoundRobin {
    /// Balances over a subscription.
    pub fn new(subscription: Subscription) -> Self {
        // Callers that start together must not all begin with the first one.
        Self { subscription, turn: AtomicUsize::new(rand::random_range(0..usize::MAX / 2)) }
    }

    /// What it balances over.
    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// The instance for the next call. `None`: none is available.
    pub fn pick(&self) -> Option<Arc<Instance>> {
        self.pick_excluding(&[])
    }

    /// The same, without instances that this call has tried already: when one
    /// refuses the connection, the request was never sent, and another one may
    /// be asked at once.
    pub fn pick_excluding(&self, tried: &[SocketAddr]) -> Option<Arc<Instance>> {
        let snapshot = self.subscription.current();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        choose(snapshot.available(), turn, tried).cloned()
    }
}

/// The instance whose turn it is, among those that were not tried.
fn choose<'a>(
    available: &'a [Arc<Instance>],
    turn: usize,
    tried: &[SocketAddr],
) -> Option<&'a Arc<Instance>> {
    if tried.is_empty() {
        return available.get(turn.checked_rem(available.len())?);
    }
    // Counting only the rest: starting at the turn and skipping would give the
    // neighbour of a dead instance all of its calls.
    let is_left = |one: &&Arc<Instance>| !tried.contains(&one.socket_address());
    let left = available.iter().filter(is_left).count();
    available.iter().filter(is_left).nth(turn.checked_rem(left)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use portolan_dialects::Registration;
    use proptest::prelude::*;

    use super::*;

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 80))
    }

    fn instances(numbers: impl IntoIterator<Item = u8>) -> Vec<Instance> {
        numbers
            .into_iter()
            .map(|number| Instance::fixed(Registration::new("a", "http", address(number))))
            .collect()
    }

    #[test]
    fn nobody_is_available() {
        let none = RoundRobin::new(Subscription::fixed("a", []));
        assert!(none.pick().is_none());
        let one = RoundRobin::new(Subscription::fixed("a", instances([1])));
        assert!(one.pick_excluding(&[address(1)]).is_none());
        let mut off = instances([1]);
        off[0].state = portolan_model::State::Failing;
        assert!(RoundRobin::new(Subscription::fixed("a", off)).pick().is_none());
    }

    proptest! {
        /// Over whole rounds each gets the same number of calls, whatever the
        /// turn it began with, and what was tried gets none.
        #[test]
        fn everyone_in_turn(count in 1..20_u8, tried in 0..20_u8, rounds in 1..4_usize) {
            let tried = tried % count;
            let balancer = RoundRobin::new(Subscription::fixed("a", instances(0..count)));
            let excluded: Vec<SocketAddr> = (0..tried).map(address).collect();
            let left = usize::from(count - tried);
            let mut calls: BTreeMap<SocketAddr, usize> = BTreeMap::new();
            for _ in 0..left * rounds {
                let picked = balancer.pick_excluding(&excluded).unwrap();
                *calls.entry(picked.socket_address()).or_default() += 1;
            }
            prop_assert_eq!(calls.len(), left);
            prop_assert!(calls.values().all(|number| *number == rounds));
            prop_assert!(calls.keys().all(|at| !excluded.contains(at)));
        }
    }
}
