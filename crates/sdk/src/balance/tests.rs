//! Each policy on its own, and what all of them share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::AtomicUsize,
};

use portolan_dialects::Registration;
use portolan_model::State;
use proptest::prelude::*;
use tokio::sync::watch;

use super::*;
use crate::Snapshot;

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 80))
}

fn instance(number: u8, weight: u32) -> Instance {
    let registration = Registration::new("a", "http", address(number));
    Instance::fixed(Registration { weight, ..registration })
}

fn in_zone(number: u8, zone: &str) -> Instance {
    Instance { zone: Some(zone.to_owned()), ..instance(number, 100) }
}

fn fixed(weights: &[u32]) -> Subscription {
    let numbered = (1..).zip(weights);
    Subscription::fixed("a", numbered.map(|(number, weight)| instance(number, *weight)))
}

fn with(policy: Policy, weights: &[u32]) -> Balancer {
    Balancer::builder(fixed(weights)).policy(policy).build()
}

/// A subscription whose next snapshots are sent by hand.
fn channel(instances: Vec<Instance>) -> (watch::Sender<Arc<Snapshot>>, Subscription) {
    let sender = watch::Sender::new(snapshot(instances));
    let subscription = Subscription::new("a", sender.subscribe(), Arc::new(()));
    (sender, subscription)
}

fn snapshot(instances: Vec<Instance>) -> Arc<Snapshot> {
    let instances = instances.into_iter().map(Arc::new).collect();
    Arc::new(Snapshot::new(1, instances, crate::subscription::Observed::now(), None))
}

const SECOND: Nanos = 1_000_000_000;

/// The last byte of the address of whom a call goes to, which succeeds at once.
fn called(balancer: &Balancer, call: &Call<'_>, now: Nanos) -> u8 {
    let pick = balancer.pick_at(call, now).unwrap();
    let number = last_byte(&pick);
    pick.succeeded_at(now);
    number
}

fn last_byte(instance: &Instance) -> u8 {
    match instance.address {
        std::net::IpAddr::V4(address) => address.octets()[3],
        std::net::IpAddr::V6(_) => unreachable!("the tests have no such"),
    }
}

fn counts(balancer: &Balancer, calls: usize) -> BTreeMap<u8, usize> {
    counts_at(balancer, calls, 0)
}

fn counts_at(balancer: &Balancer, calls: usize, now: Nanos) -> BTreeMap<u8, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        *counts.entry(called(balancer, &Call::default(), now)).or_default() += 1;
    }
    counts
}

const ALL: [Policy; 5] =
    [Policy::PeakEwma, Policy::LeastRequest, Policy::RoundRobin, Policy::Random, Policy::RingHash];

#[test]
fn nobody_is_available() {
    for policy in ALL {
        assert!(with(policy, &[]).pick().is_none());
        let one = with(policy, &[100]);
        let call = Call { tried: &[address(1)], ..Call::default() };
        assert!(one.pick_for(&call).is_none(), "{policy:?}");
        let off = Instance { state: State::Failing, ..instance(1, 100) };
        let off = Balancer::builder(Subscription::fixed("a", [off])).policy(policy).build();
        assert!(off.pick().is_none());
    }
}

proptest! {
    /// Over whole rounds each gets the same number of calls, whatever the turn
    /// it began with, and what was tried gets none.
    #[test]
    fn everyone_in_turn(count in 1..20_u8, tried in 0..20_u8, rounds in 1..4_usize) {
        let tried = tried % count;
        let balancer = with(Policy::RoundRobin, &vec![100; usize::from(count)]);
        let excluded: Vec<SocketAddr> = (1..=tried).map(address).collect();
        let left = usize::from(count - tried);
        let mut calls: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        // Picks that land on one that was tried look at the rest by the number of the turn.
        let all = if tried == 0 { left * rounds } else { 0 };
        for _ in 0..all {
            let picked = balancer.pick_for(&Call { tried: &excluded, ..Call::default() }).unwrap();
            *calls.entry(picked.socket_address()).or_default() += 1;
        }
        prop_assert!(calls.values().all(|number| *number == rounds));
        for _ in 0..4 * left {
            let picked = balancer.pick_for(&Call { tried: &excluded, ..Call::default() }).unwrap();
            prop_assert!(!excluded.contains(&picked.socket_address()));
        }
    }

    /// Whatever the policy, what is chosen is available and was not tried; and somebody is
    /// chosen while there is somebody.
    #[test]
    fn nothing_else_is_chosen(
        weights in proptest::collection::vec(0..300_u32, 0..12),
        tried in proptest::collection::btree_set(1..12_u8, 0..6),
        failing in proptest::collection::btree_set(1..12_u8, 0..12),
    ) {
        let tried: Vec<SocketAddr> = tried.into_iter().map(address).collect();
        for policy in ALL {
            let balancer = Balancer::builder(fixed(&weights))
                .policy(policy)
                .ejection(1, Duration::from_secs(60))
                .build();
            for _ in 0..weights.len() * 4 {
                let Some(pick) = balancer.pick() else { continue };
                if failing.contains(&last_byte(&pick)) { pick.failed() } else { pick.succeeded() }
            }
            let left = (1..).zip(&weights)
                .any(|(number, weight)| *weight > 0 && !tried.contains(&address(number)));
            // Ejected ones are spared while others are left; to have tried all others is none.
            let ejected = (1..).zip(&weights).all(|(number, weight)| {
                *weight == 0 || tried.contains(&address(number)) || failing.contains(&number)
            });
            let pick = balancer.pick_for(&Call { tried: &tried, ..Call::default() });
            if let Some(pick) = &pick {
                prop_assert!(pick.weight > 0 && !tried.contains(&pick.socket_address()));
            }
            prop_assert!(pick.is_some() || !left || ejected, "{:?}", policy);
        }
    }
}

#[test]
fn weights_are_shares() {
    for policy in [Policy::RoundRobin, Policy::Random, Policy::RingHash] {
        let counts = counts(&with(policy, &[100, 300, 600]), 10_000);
        for (number, share) in [(1, 1_000), (2, 3_000), (3, 6_000)] {
            let found = counts[&number];
            // The ring's entries have an error of their own.
            let slack = if policy == Policy::RingHash { share / 4 } else { share / 10 };
            assert!(found.abs_diff(share) < slack, "{policy:?}: {counts:?}");
        }
    }
    // Two drawn by weight, none of them busy: the first, so the share is the weight's.
    let counts = counts(&with(Policy::LeastRequest, &[100, 900]), 10_000);
    assert!(counts[&1].abs_diff(1_000) < 150, "{counts:?}");
}

#[test]
fn turns_are_spread_evenly() {
    let balancer = with(Policy::RoundRobin, &[100, 100, 400]);
    let turns: Vec<u8> = (0..600).map(|_| called(&balancer, &Call::default(), 0)).collect();
    for window in turns.windows(9) {
        let heavy = window.iter().filter(|number| **number == 3).count();
        assert!((4..=8).contains(&heavy), "{window:?}");
    }
    let heavy = turns.iter().filter(|number| **number == 3).count();
    assert!(heavy.abs_diff(400) <= 2, "{heavy}");
}

#[test]
fn the_faster_of_two() {
    let balancer = with(Policy::PeakEwma, &[100, 100]);
    // Each is tried first, then measured: one answers in 1 ms, the other in 50.
    let mut now = 0;
    for _ in 0..50 {
        let pick = balancer.pick_at(&Call::default(), now).unwrap();
        now += if last_byte(&pick) == 1 { SECOND / 1_000 } else { SECOND / 20 };
        pick.succeeded_at(now);
    }
    let mut counts: BTreeMap<u8, usize> = BTreeMap::new();
    for _ in 0..1_000 {
        // Given up: nothing is learned from it.
        let pick = balancer.pick_at(&Call::default(), now).unwrap();
        *counts.entry(last_byte(&pick)).or_default() += 1;
    }
    // Both drawn are the slow one: a quarter.
    assert!(counts[&1] > 650, "{counts:?}");
    // Calls that wait make the fast one the slower one.
    let waiting: Vec<Pick> =
        (0..200).map(|_| balancer.pick_at(&Call::default(), now).unwrap()).collect();
    let fast = waiting.iter().filter(|pick| last_byte(pick) == 1).count();
    assert!(fast < 200, "{fast}");
}

#[test]
fn the_less_busy_of_two() {
    let balancer = with(Policy::LeastRequest, &[100; 4]);
    let held: Vec<Pick> = (0..400).map(|_| balancer.pick().unwrap()).collect();
    let mut busy: BTreeMap<u8, usize> = BTreeMap::new();
    for pick in &held {
        *busy.entry(last_byte(pick)).or_default() += 1;
    }
    assert!(busy.values().all(|calls| calls.abs_diff(100) < 10), "{busy:?}");
    drop(held);
    let table = balancer.table.load();
    assert!(table.endpoints().all(|endpoint| endpoint.load.under_way() == 0), "picks end");
}

#[test]
fn who_fails_is_left_alone_for_a_while() {
    for policy in ALL {
        let balancer = Balancer::builder(fixed(&[100, 100, 100]))
            .policy(policy)
            .ejection(3, Duration::from_secs(30))
            .build();
        let fail = |number: u8| {
            let others: Vec<SocketAddr> =
                (1..=3).filter(|other| *other != number).map(address).collect();
            for _ in 0..3 {
                let call = Call { tried: &others, ..Call::default() };
                balancer.pick_at(&call, 0).unwrap().failed_at(0);
            }
        };
        fail(1);
        let left: BTreeSet<u8> = counts(&balancer, 200).into_keys().collect();
        assert_eq!(left, BTreeSet::from([2, 3]), "{policy:?}");
        fail(2);
        // Two of three: it is not them.
        let all: BTreeSet<u8> =
            (0..400).map(|_| last_byte(&balancer.pick_at(&Call::default(), 0).unwrap())).collect();
        assert!(all.contains(&1) && all.contains(&2), "{policy:?}: {all:?}");
        let back = counts_at(&balancer, 400, 31 * SECOND);
        assert!(back.contains_key(&1), "{policy:?}: {back:?}");
    }
}

#[test]
fn who_is_new_begins_slowly() {
    for policy in [Policy::Random, Policy::RoundRobin, Policy::LeastRequest] {
        let (sender, subscription) = channel(vec![instance(1, 100)]);
        let window = Duration::from_secs(100);
        let balancer = Balancer::builder(subscription).policy(policy).slow_start(window).build();
        assert_eq!(counts(&balancer, 10)[&1], 10);
        sender.send_replace(snapshot(vec![instance(1, 100), instance(2, 100)]));
        let early = counts(&balancer, 1_000);
        assert!(early[&2] < 300, "{policy:?}: {early:?}");
        let late = counts_at(&balancer, 1_000, 100 * SECOND);
        assert!(late[&2].abs_diff(500) < 100, "{policy:?}: {late:?}");
    }
}

#[test]
fn calls_stay_in_the_zone_while_it_can_take_them() {
    let waiting = |number| Instance { state: State::Failing, ..in_zone(number, "here") };
    let far = [in_zone(101, "there"), in_zone(102, "there")];
    for (near, stays) in [
        (vec![in_zone(1, "here"), in_zone(2, "here")], 1_000),
        // Three of four are enough.
        (vec![in_zone(1, "here"), in_zone(2, "here"), in_zone(3, "here"), waiting(4)], 1_000),
        // One of two is 70 % of what is wanted.
        (vec![in_zone(1, "here"), waiting(2)], 700),
        (vec![waiting(1)], 0),
        (vec![], 0),
    ] {
        for policy in [Policy::PeakEwma, Policy::Random, Policy::RoundRobin] {
            let all = near.iter().cloned().chain(far.clone());
            let balancer = Balancer::builder(Subscription::fixed("a", all));
            let balancer = balancer.policy(policy).zone("here").build();
            let counts = counts(&balancer, 1_000);
            let found: usize = counts.range(..100).map(|(_, calls)| calls).sum();
            assert!(found.abs_diff(stays) < 40, "{policy:?}, {stays}: {counts:?}");
        }
    }
    // Nobody of it is left for this call.
    let all = [in_zone(1, "here"), in_zone(101, "there")];
    let balancer = Balancer::builder(Subscription::fixed("a", all)).zone("here").build();
    assert_eq!(called(&balancer, &Call { tried: &[address(1)], ..Call::default() }, 0), 101);
    // Who does not say where it is takes from all.
    let all = [in_zone(1, "here"), in_zone(101, "there")];
    let balancer = Balancer::builder(Subscription::fixed("a", all)).zone("").build();
    assert_eq!(counts(&balancer, 100).len(), 2);
}

#[test]
fn a_key_has_one_instance_and_few_keys_move() {
    let keys: Vec<String> = (0..1_000).map(|number| format!("user-{number}")).collect();
    let owners = |weights: &[u32]| -> Vec<u8> {
        let balancer = with(Policy::RingHash, weights);
        let owner = |key: &String| {
            let call = Call { key: Some(key.as_bytes()), ..Call::default() };
            let first = called(&balancer, &call, 0);
            assert_eq!(called(&balancer, &call, 0), first);
            first
        };
        keys.iter().map(owner).collect()
    };
    let (four, five) = (owners(&[100; 4]), owners(&[100; 5]));
    // A modulo would move four of five. (With the number of instances the number of entries of
    // each changes, as with Envoy: that moves some keys between those that stay.)
    let moved = four.iter().zip(&five).filter(|(before, after)| before != after).count();
    assert!(moved > 150 && moved < 400, "{moved}");
    // Whoever is tried or gone gives its keys to the next on the ring: all clients agree.
    let balancer = with(Policy::RingHash, &[100; 4]);
    let call = Call { key: Some(b"user-1"), ..Call::default() };
    let first = called(&balancer, &call, 0);
    let tried = [address(first)];
    let next = called(&balancer, &Call { tried: &tried, ..call }, 0);
    assert_ne!(next, first);
    assert_eq!(called(&balancer, &Call { tried: &tried, ..call }, 0), next);
}

#[test]
fn what_was_learned_outlives_a_snapshot() {
    let (sender, subscription) = channel(vec![instance(1, 100), instance(2, 100)]);
    let balancer = Balancer::builder(subscription)
        .policy(Policy::RoundRobin)
        .ejection(1, Duration::from_secs(30))
        .build();
    let call = Call { tried: &[address(2)], ..Call::default() };
    balancer.pick_at(&call, 0).unwrap().failed_at(0);
    // Another weight, and another instance: 1 stays ejected.
    sender.send_replace(snapshot(vec![instance(1, 50), instance(2, 100), instance(3, 100)]));
    assert!(!counts(&balancer, 100).contains_key(&1));
    // It went and came back: a new one.
    sender.send_replace(snapshot(vec![instance(2, 100), instance(3, 100)]));
    assert_eq!(counts(&balancer, 100).len(), 2);
    sender.send_replace(snapshot(vec![instance(1, 100), instance(2, 100), instance(3, 100)]));
    assert_eq!(counts(&balancer, 100).len(), 3);
}

#[tokio::test]
async fn calls_that_fail() {
    let balancer = with(Policy::RoundRobin, &[100; 3]);
    let asked = AtomicUsize::new(0);
    let refuse = async |_: &Instance| {
        asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Err::<(), _>("refused")
    };
    let times = || asked.swap(0, std::sync::atomic::Ordering::Relaxed);
    let error = balancer.failfast(refuse).await.unwrap_err();
    assert!(matches!(error, CallError::Failed { attempts: 1, error: "refused" }), "{error}");
    assert_eq!(times(), 1);
    let error = balancer.failover(9, refuse).await.unwrap_err();
    assert!(matches!(error, CallError::Failed { attempts: 3, .. }), "each once: {error}");
    assert_eq!(times(), 3);
    assert_eq!(balancer.failsafe(refuse).await, None);
    assert_eq!(times(), 1);
    let answer = balancer
        .failover(2, async |instance: &Instance| match last_byte(instance) {
            2 => Ok("two"),
            _ => Err("not two"),
        })
        .await;
    assert_eq!(answer.unwrap(), "two");
    let nobody = with(Policy::RoundRobin, &[]);
    let error = nobody.failover(2, refuse).await.unwrap_err();
    assert_eq!(error.to_string(), "no instance of a is available");
}

#[tokio::test]
async fn an_outage_is_not_made_worse_by_asking_again() {
    let builder = Balancer::builder(fixed(&[100; 2])).ejection(0, Duration::ZERO);
    let balancer = builder.build();
    let asked = AtomicUsize::new(0);
    for _ in 0..1_000 {
        let failed = balancer.failover(1, async |_: &Instance| {
            asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Err::<(), _>("overloaded")
        });
        failed.await.unwrap_err();
    }
    let asked = asked.into_inner();
    assert!(asked < 1_060, "{asked} for 1,000 calls");
}

/// Computed by another implementation (Python's xxhash) from the text of gRFC A42.
#[test]
fn the_ring_is_that_of_envoy_and_grpc() {
    let balancer = with(Policy::RingHash, &[100; 3]);
    for (key, owner) in [("", 2), ("user-1", 2), ("user-2", 2), ("user-3", 3), ("abc", 3)] {
        let call = Call { key: Some(key.as_bytes()), ..Call::default() };
        assert_eq!(called(&balancer, &call, 0), owner, "{key:?}");
    }
}

/// What another balancer, or another process, has found out counts as one's own.
#[test]
fn calls_that_were_made_elsewhere_count() {
    let balancer = with(Policy::PeakEwma, &[100, 100, 100]);
    let bad = address(2);
    for _ in 0..EJECTED_AFTER {
        assert!(balancer.observe(bad, false, Duration::from_millis(5)));
    }
    let chosen: BTreeSet<u8> = (0..200).map(|_| last_byte(&balancer.pick().unwrap())).collect();
    assert_eq!(chosen, BTreeSet::from([1, 3]));
    assert!(!balancer.observe(address(9), true, Duration::ZERO), "there is no such instance");
    let pick = balancer.pick().unwrap();
    let slow = last_byte(&pick);
    pick.ended(true, Duration::from_secs(9));
    let others: BTreeSet<u8> = (0..200)
        .map(|_| {
            let pick = balancer.pick().unwrap();
            let number = last_byte(&pick);
            pick.ended(true, Duration::from_millis(1));
            number
        })
        .collect();
    assert!(others.contains(&(4 - slow)), "{others:?}");
}
