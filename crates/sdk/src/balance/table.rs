//! What can be chosen: the available instances of one snapshot, arranged for choosing.

use std::{cell::OnceCell, collections::HashMap, sync::Arc};

use rand::Rng;

use super::{
    Call, Settings,
    endpoint::{Endpoint, Health, Load, Nanos},
    policy::{self, Policy, Turn},
    ring::Ring,
};
use crate::{Instance, Snapshot, instance::Key};

/// Calls stay in the zone while this times the available share of its instances is 1 or more
/// (Envoy's `overprovisioning_factor`).
const OVERPROVISIONING: f64 = 1.4;

/// The instances that one choice is made among.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) members: Box<[Arc<Endpoint>]>,
    /// The sum of the weights up to and with each member; `None` if all weigh the same.
    sums: Option<Box<[u64]>>,
    /// The largest weight.
    pub(super) most: u64,
}

impl Group {
    fn new(members: Vec<Arc<Endpoint>>) -> Self {
        let weight = |member: &Arc<Endpoint>| u64::from(member.instance.weight);
        let same = members.windows(2).all(|pair| weight(&pair[0]) == weight(&pair[1]));
        let sums = (!same).then(|| {
            let sums = members.iter().scan(0_u64, |sum, member| {
                *sum += weight(member);
                Some(*sum)
            });
            sums.collect()
        });
        let most = members.iter().map(weight).max().unwrap_or(0);
        Self { members: members.into(), sums, most }
    }

    pub(super) fn weighs_the_same(&self) -> bool {
        self.sums.is_none()
    }

    /// One of them, by weight.
    pub(super) fn draw(&self, rng: &mut impl Rng) -> Option<&Arc<Endpoint>> {
        if self.members.is_empty() {
            return None;
        }
        let index = match &self.sums {
            // Of 32 bits, which favours nobody by more than a millionth.
            None => ((u64::from(rng.random::<u32>()) * self.members.len() as u64) >> 32) as usize,
            Some(sums) => {
                let all = sums.last().copied().filter(|all| *all > 0)?;
                let point = rng.random_range(0..all);
                sums.partition_point(|sum| *sum <= point)
            }
        };
        self.members.get(index)
    }

    /// One of those that are `usable`, by weight; at the cost of looking at all of them.
    pub(super) fn draw_usable(
        &self,
        rng: &mut impl Rng,
        usable: impl Fn(&Endpoint) -> bool,
    ) -> Option<&Arc<Endpoint>> {
        let left = || self.members.iter().filter(|member| usable(member));
        let weight = |member: &Endpoint| u64::from(member.instance.weight);
        let all: u64 = left().map(|member| weight(member)).sum();
        let mut point = rng.random_range(0..all.max(1));
        left().find(|member| {
            let here = point < weight(member);
            point = point.saturating_sub(weight(member));
            here
        })
    }

    /// Whether so many are ejected that ejections say more about this process, or its network,
    /// than about them (Envoy's panic threshold).
    fn is_in_panic(&self, now: Nanos) -> bool {
        let ejected = self.members.iter().filter(|member| member.health.is_ejected(now)).count();
        ejected * 2 > self.members.len()
    }

    /// What may be chosen for a call.
    pub(super) fn usable<'a>(
        &'a self,
        call: &'a Call<'_>,
        now: Nanos,
    ) -> impl Fn(&Endpoint) -> bool + 'a {
        // Looks at all of them, so not before it matters.
        let panic = OnceCell::new();
        let in_panic = move || *panic.get_or_init(|| self.is_in_panic(now));
        move |member| !is_tried(member, call) && (!member.health.is_ejected(now) || in_panic())
    }
}

fn is_tried(member: &Endpoint, call: &Call<'_>) -> bool {
    !call.tried.is_empty() && call.tried.contains(&member.instance.socket_address())
}

/// All that can be chosen.
#[derive(Debug)]
pub(super) struct Table {
    source: Arc<[Arc<Instance>]>,
    /// Those of this process's zone, if it said which and there are some.
    near: Option<Group>,
    /// The share of calls that stays near, of 1.
    near_share: f64,
    /// All others; all, if there is no zone.
    others: Group,
    ring: Option<Ring>,
    turn: Turn,
}

impl Table {
    /// Of the first snapshot, whose instances are not new.
    pub(super) fn first(snapshot: &Snapshot, settings: &Settings) -> Self {
        let endpoints = snapshot.available_list().iter().map(|instance| Endpoint {
            instance: instance.clone(),
            load: Arc::default(),
            health: Arc::default(),
            since: None,
        });
        Self::new(snapshot, endpoints.collect(), settings, Turn::random())
    }

    /// Of the next snapshot. What was learned of an instance stays with it as long as it is
    /// available.
    pub(super) fn next(&self, snapshot: &Snapshot, settings: &Settings, now: Nanos) -> Self {
        type Known = (Arc<Load>, Arc<Health>, Option<Nanos>);
        let known: HashMap<Key, Known> = self
            .endpoints()
            .map(|e| (e.instance.key(), (e.load.clone(), e.health.clone(), e.since)))
            .collect();
        let endpoints = snapshot.available_list().iter().map(|instance| {
            let (load, health, since) = known
                .get(&instance.key())
                .cloned()
                .unwrap_or_else(|| (Arc::default(), Arc::default(), Some(now)));
            Endpoint { instance: instance.clone(), load, health, since }
        });
        Self::new(snapshot, endpoints.collect(), settings, self.turn.clone())
    }

    fn new(snapshot: &Snapshot, all: Vec<Endpoint>, settings: &Settings, turn: Turn) -> Self {
        let all: Vec<Arc<Endpoint>> = all.into_iter().map(Arc::new).collect();
        let source = snapshot.available_list().clone();
        if settings.policy == Policy::RingHash {
            let ring = Some(Ring::new(&all));
            let others = Group::new(all);
            return Self { source, near: None, near_share: 0.0, others, ring, turn };
        }
        let is_near = |instance: &Instance| {
            settings.zone.is_some() && instance.zone.as_deref() == settings.zone.as_deref()
        };
        let (near, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|e| is_near(&e.instance));
        let known = snapshot.instances().iter().filter(|instance| is_near(instance)).count();
        let near_share = match (near.is_empty(), others.is_empty()) {
            (true, _) => 0.0,
            (false, true) => 1.0,
            _ => (OVERPROVISIONING * near.len() as f64 / known.max(1) as f64).min(1.0),
        };
        let near = (!near.is_empty()).then(|| Group::new(near));
        Self { source, near, near_share, others: Group::new(others), ring: None, turn }
    }

    /// The list that this was made of.
    pub(super) fn source(&self) -> &Arc<[Arc<Instance>]> {
        &self.source
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        let near = self.near.iter().flat_map(|near| near.members.iter());
        near.chain(self.others.members.iter())
    }

    /// The instance for a call. A zone none of whose instances may be chosen gives its calls to
    /// the others, and the other way round.
    pub(super) fn choose(
        &self,
        settings: &Settings,
        call: &Call<'_>,
        now: Nanos,
        rng: &mut impl Rng,
    ) -> Option<&Arc<Endpoint>> {
        if let Some(ring) = &self.ring {
            let hash = call.key.map_or_else(|| rng.random(), Ring::hash);
            return ring.choose(&self.others, hash, self.others.usable(call, now));
        }
        let mut among = |group| policy::choose(group, settings, &self.turn, call, now, rng);
        let Some(near) = &self.near else { return among(&self.others) };
        let stays = self.near_share >= 1.0 || self.turn.share() < self.near_share;
        let (first, second) = if stays { (near, &self.others) } else { (&self.others, near) };
        among(first).or_else(|| among(second))
    }
}
