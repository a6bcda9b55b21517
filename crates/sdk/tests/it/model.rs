//! Random schedules of Pods, annotations and broken watches against a set that is kept by hand.
//!
//! Whatever happens to the watch, a subscriber ends with what is on the server, its changes lead
//! there one by one, and it was never told of less than was true for a reason of ours.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use portolan_sdk::{Delta, Subscription};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::timeout;

use crate::{DEADLINE, fake::Fake, registry, until};

/// Enough that each kind of break meets each kind of change.
const SEEDS: u64 = 24;
const ROUNDS: usize = 3;
const STEPS: usize = 16;
const PODS: u8 = 6;
const INTERFACES: [&str; 3] = ["a", "b", "c"];

/// What is so: the Pods with their readiness and what they offer.
type Oracle = BTreeMap<u8, (bool, BTreeSet<&'static str>)>;

/// The Pods of an interface, each with whether it takes calls.
fn expected(oracle: &Oracle, interface: &str) -> Vec<(String, bool)> {
    let of = oracle.iter().filter(|(_, (_, offers))| offers.contains(interface));
    of.map(|(number, (ready, _))| (format!("p{number}"), *ready)).collect()
}

fn seen(subscription: &Subscription) -> Vec<(String, bool)> {
    let current = subscription.current();
    current.instances().iter().map(|one| (one.pod.clone(), one.is_available())).collect()
}

/// Changes one Pod, here and there.
fn change(fake: &Fake, oracle: &mut Oracle, rng: &mut StdRng) {
    let number = rng.random_range(1..=PODS);
    if rng.random_bool(0.25) && oracle.contains_key(&number) {
        oracle.remove(&number);
        fake.delete(&format!("p{number}"));
        return;
    }
    let ready = rng.random_bool(0.7);
    let offers: Vec<&str> = INTERFACES.into_iter().filter(|_| rng.random_bool(0.5)).collect();
    fake.put(number, ready, &offers);
    oracle.insert(number, (ready, offers.into_iter().collect()));
}

async fn play(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let fake = Fake::start().await;
    let mut oracle = Oracle::new();
    for _ in 0..PODS {
        change(&fake, &mut oracle, &mut rng);
    }
    let registry = registry(&fake, "p1").await;
    let mut subscriptions = Vec::new();
    for interface in INTERFACES {
        let subscription = registry.subscribe(interface).await.unwrap();
        assert_eq!(seen(&subscription), expected(&oracle, interface), "seed {seed}");
        let deltas = subscription.deltas();
        subscriptions.push((interface, subscription, deltas, BTreeMap::new()));
    }
    for round in 0..ROUNDS {
        let mut refused = false;
        for _ in 0..STEPS {
            match rng.random_range(0..20) {
                0 => fake.cut(),
                1 => fake.compact(),
                2 => fake.bookmark(),
                3 if !refused => {
                    refused = true;
                    fake.refuse(Some([429, 500, 503][rng.random_range(0..3)]));
                }
                4 => tokio::task::yield_now().await,
                _ => change(&fake, &mut oracle, &mut rng),
            }
        }
        fake.refuse(None);
        for (interface, subscription, deltas, told) in &mut subscriptions {
            let all = expected(&oracle, interface);
            let what = format!("{all:?} of {interface}, seed {seed}, round {round}");
            until(&what, || seen(subscription) == all).await;
            // The changes lead to the same, each of them possible where it stands.
            while told.iter().map(|(pod, up)| (String::clone(pod), *up)).collect::<Vec<_>>() != all
            {
                let next = timeout(DEADLINE, deltas.next()).await;
                let delta = next.unwrap_or_else(|_| panic!("{what}, but {told:?}")).unwrap();
                let one = delta.instance();
                let (pod, up) = (one.pod.clone(), one.is_available());
                let possible = match delta {
                    Delta::Added(_) => told.insert(pod, up).is_none(),
                    Delta::Modified(_) => told.insert(pod, up).is_some_and(|before| before != up),
                    Delta::Removed(_) => told.remove(&pod).is_some(),
                };
                assert!(possible, "{what}: {one:?} after {told:?}");
            }
        }
    }
}

#[tokio::test]
async fn subscribers_end_with_what_is_so() {
    let plays: Vec<_> = (0..SEEDS).map(|seed| tokio::spawn(play(seed))).collect();
    for (seed, play) in plays.into_iter().enumerate() {
        play.await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}
