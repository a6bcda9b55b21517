//! The policies, except the one of [`super::ring`].

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use rand::Rng;

use super::{
    Call, Settings,
    endpoint::{Endpoint, Nanos},
    table::Group,
};

/// How an instance is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// Of two at random (by weight) the one that probably answers sooner: by its latency and the
    /// calls under way, where a rise counts at once and a fall slowly (power of two choices with
    /// peak EWMA). The best choice when instances or machines are not all alike.
    #[default]
    PeakEwma,
    /// Of two at random (by weight) the one with fewer calls under way.
    LeastRequest,
    /// Each in its turn, those of more weight more often and spread evenly (the static stride
    /// scheduler of gRFC A58, which takes no lock).
    RoundRobin,
    /// At random, by weight.
    Random,
    /// By the call's key, so that calls of one key go to one instance as long as it is there,
    /// and few keys move when instances come and go (the ring of Envoy and of gRFC A42: the same
    /// key finds the same instance through any of them).
    RingHash,
}

/// Draws before all members are looked at: with half of them unusable, one choice in 16 does.
const DRAWS: usize = 4;

/// Weights as the stride scheduler has them: the largest becomes this.
const STRIDE: u64 = u16::MAX as u64;

/// Whose turn it is. Tables of one balancer share it.
#[derive(Clone, Debug)]
pub(super) struct Turn(Arc<AtomicUsize>);

impl Turn {
    /// Callers that start together must not all begin with the first instance.
    pub(super) fn random() -> Self {
        Self(Arc::new(AtomicUsize::new(rand::random_range(0..usize::MAX / 2))))
    }

    fn next(&self) -> usize {
        self.0.fetch_add(1, Relaxed)
    }

    /// A number from 0 to 1 that goes through its range evenly (by the golden ratio), so that a
    /// share of calls is that share also of few calls.
    pub(super) fn share(&self) -> f64 {
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        // Of the number only what an f64 multiplies without loss.
        (f64::from(self.next() as u32) * GOLDEN).fract()
    }
}

/// One of a group.
pub(super) fn choose<'g>(
    group: &'g Group,
    settings: &Settings,
    turn: &Turn,
    call: &Call<'_>,
    now: Nanos,
    rng: &mut impl Rng,
) -> Option<&'g Arc<Endpoint>> {
    match settings.policy {
        Policy::RoundRobin => in_turn(group, settings, turn, call, now, rng),
        Policy::Random | Policy::RingHash => draw(group, settings, call, now, rng),
        Policy::LeastRequest | Policy::PeakEwma => {
            let first = draw_any(group, call, now, rng)?;
            let second = draw_any(group, call, now, rng)?;
            let cost = |endpoint: &Endpoint| {
                let cost = match settings.policy {
                    Policy::LeastRequest => f64::from(endpoint.load.under_way()) + 1.0,
                    _ => endpoint.load.cost(now, settings.decay),
                };
                cost / endpoint.warmth(now, settings.slow_start)
            };
            Some(if cost(second) < cost(first) { second } else { first })
        }
    }
}

/// One by weight that may be chosen.
fn draw_any<'g>(
    group: &'g Group,
    call: &Call<'_>,
    now: Nanos,
    rng: &mut impl Rng,
) -> Option<&'g Arc<Endpoint>> {
    let usable = group.usable(call, now);
    for _ in 0..DRAWS {
        let drawn = group.draw(rng)?;
        if usable(drawn) {
            return Some(drawn);
        }
    }
    group.draw_usable(rng, usable)
}

/// The same, and a new one the less often the newer it is.
fn draw<'g>(
    group: &'g Group,
    settings: &Settings,
    call: &Call<'_>,
    now: Nanos,
    rng: &mut impl Rng,
) -> Option<&'g Arc<Endpoint>> {
    for _ in 1..DRAWS {
        let drawn = draw_any(group, call, now, rng)?;
        if is_warm(drawn, settings, now, rng) {
            return Some(drawn);
        }
    }
    draw_any(group, call, now, rng)
}

fn is_warm(endpoint: &Endpoint, settings: &Settings, now: Nanos, rng: &mut impl Rng) -> bool {
    let warmth = endpoint.warmth(now, settings.slow_start);
    warmth >= 1.0 || rng.random::<f64>() < warmth
}

fn in_turn<'g>(
    group: &'g Group,
    settings: &Settings,
    turn: &Turn,
    call: &Call<'_>,
    now: Nanos,
    rng: &mut impl Rng,
) -> Option<&'g Arc<Endpoint>> {
    let usable = group.usable(call, now);
    let mut last = None;
    for _ in 0..DRAWS {
        let number = turn.next();
        let (member, round) = stride(group, turn, number)?;
        if !usable(member) {
            // Counting only the rest: to go on to the next would give the neighbour of a dead
            // instance all of its calls.
            if !group.weighs_the_same() {
                return group.draw_usable(rng, usable);
            }
            let left = || group.members.iter().filter(|member| usable(member));
            return left().nth(round.checked_rem(left().count())?);
        }
        last = Some(member);
        if is_warm(member, settings, now, rng) {
            break;
        }
    }
    last
}

/// The member whose turn it is, from a number on; and that number.
fn stride<'g>(
    group: &'g Group,
    turn: &Turn,
    mut number: usize,
) -> Option<(&'g Arc<Endpoint>, usize)> {
    let count = group.members.len();
    if group.weighs_the_same() {
        return Some((group.members.get(number.checked_rem(count)?)?, number));
    }
    if group.most == 0 {
        return None;
    }
    loop {
        let (index, round) = (number % count, (number / count) as u64);
        let member = &group.members[index];
        let weight = (u64::from(member.instance.weight) * STRIDE).div_ceil(group.most);
        // In each round a member's turn comes if the sum of its weights passes a multiple of the
        // largest; each begins elsewhere, so that they do not all pass in one round.
        let offset = (STRIDE / 2) * index as u64;
        let place = weight.wrapping_mul(round % STRIDE).wrapping_add(offset) % STRIDE;
        if place >= STRIDE - weight {
            return Some((member, number));
        }
        number = turn.next();
    }
}
