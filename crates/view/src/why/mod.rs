//! Why is it (not) there? For every instance, the rung of the ladder at which
//! it stopped, and how to mend that.
//!
//! ```text
//!   Target --find--> instances, Pods, refused objects --ladder--> steps with reasons
//!      '--(nothing there)--> nearest names
//! ```

mod find;
mod ladder;
mod nearest;

use std::collections::{BTreeMap, BTreeSet};

use portolan_catalog::{
    Board, ServiceEntry, Snapshot,
    choose::{self, Traffic},
};
use portolan_model::{
    ClientView, Code, Exposure, Face, ObjectName, Placed, Problem, Reason, ServiceKey,
};
use portolan_wire::{self as wire, StepState};

use crate::{convergence, list, target::Target, target::twins};
use find::Found;

/// What is asked, beyond the target.
#[derive(Clone, Debug, Default)]
pub struct Aspect<'a> {
    /// What faces cannot show.
    pub problems: &'a [Problem],
    /// Narrows the last rung to these faces; empty means all.
    pub faces: &'a [Face],
    /// As this Pod sees it.
    pub from: Option<&'a ObjectName>,
}

/// What an answer is made from.
struct Question<'a> {
    snapshot: &'a Snapshot,
    board: &'a Board,
    aspect: &'a Aspect<'a>,
    /// The place of the Pod that asks, and its name.
    place: Option<(ClientView, &'a ObjectName)>,
    now_ms: u64,
}

/// Answers `why TARGET`.
pub fn why(
    snapshot: &Snapshot,
    board: &Board,
    target: &Target,
    aspect: &Aspect<'_>,
    now_ms: u64,
) -> wire::Why {
    let place = aspect.from.map(|pod| (view_of(snapshot, pod), pod));
    Question { snapshot, board, aspect, place, now_ms }.answer(target)
}

/// What is known of a Pod as a client.
fn view_of(snapshot: &Snapshot, pod: &ObjectName) -> ClientView {
    let node = snapshot.workload(pod).and_then(|workload| workload.node.clone());
    let zone = node.as_ref().and_then(|node| snapshot.nodes().get(node)?.zone.clone());
    ClientView { namespace: Some(pod.namespace.clone()), zone, node, ..ClientView::default() }
}

impl Question<'_> {
    fn answer(&self, target: &Target) -> wire::Why {
        let found = Found::of(self.snapshot, target);
        let ladders = self.ladders(&found);
        let reasons = self.reasons(&found);
        let nothing = found.is_empty();
        let stopped = ladders
            .iter()
            .filter(|ladder| ladder.steps.iter().any(|step| step.state == StepState::Stopped))
            .count();
        wire::Why {
            version: self.snapshot.version().to_string(),
            age_ms: self.now_ms.saturating_sub(self.snapshot.at_ms()),
            target: target.text(),
            summary: self.summary(target, nothing, ladders.len(), stopped, reasons.len()),
            fine: !nothing && stopped == 0 && reasons.is_empty(),
            ladders,
            reasons,
            nearest: match nothing {
                true => nearest::nearest(self.snapshot, target),
                false => Vec::new(),
            },
            resolution: None,
        }
    }

    fn ladders(&self, found: &Found<'_>) -> Vec<wire::Ladder> {
        // Who is behind is the same for all instances of a service.
        let mut missing: BTreeMap<&ServiceKey, Vec<String>> = BTreeMap::new();
        let instances = found.instances.iter().map(|(entry, placed)| {
            let missing = missing
                .entry(&entry.service.key)
                .or_insert_with(|| ladder::missing(self.board, entry, self.aspect.faces));
            ladder::instance(self.snapshot, entry, placed, missing, &self.note(entry, placed))
        });
        let mut ladders: Vec<wire::Ladder> = instances.collect();
        ladders.extend(found.unplaced.iter().map(|pod| ladder::unplaced(pod, &found.rejections)));
        ladders.extend(found.waiting.iter().map(|(pod, key)| ladder::waiting(pod, key)));
        ladders
    }

    /// Everything that is wrong beyond single instances.
    fn reasons(&self, found: &Found<'_>) -> Vec<wire::Reason> {
        let services = found.services.iter().flat_map(|entry| entry.reasons.iter());
        let mut reasons: Vec<Reason> = found.reasons.iter().chain(services).cloned().collect();
        reasons.extend(found.services.iter().filter_map(|entry| self.folds(entry)));
        reasons.extend(found.services.iter().filter_map(|entry| self.no_local(entry)));
        reasons.extend(convergence::absent(self.board, self.aspect.faces));
        let mut reasons: Vec<wire::Reason> = reasons.iter().map(list::reason).collect();
        for rejection in &found.rejections {
            reasons.extend(rejection.reasons.iter().map(|reason| {
                let plain = list::reason(reason);
                wire::Reason {
                    text: format!("{} {}: {}", rejection.kind, rejection.object, plain.text),
                    ..plain
                }
            }));
        }
        let keys: BTreeSet<&ServiceKey> = found.keys().collect();
        let problems = self.aspect.problems.iter();
        reasons.extend(
            problems
                .filter(|problem| self.asks_of(problem.face) && keys.contains(&problem.service))
                .map(list::problem),
        );
        reasons
    }

    fn asks_of(&self, face: Face) -> bool {
        self.aspect.faces.is_empty() || self.aspect.faces.contains(&face)
    }

    /// Names that DNS cannot tell apart do not answer.
    fn folds(&self, entry: &ServiceEntry) -> Option<Reason> {
        let key = &entry.service.key;
        let twins = twins(self.snapshot, key);
        if twins.is_empty() || !self.asks_of(Face::Dns) {
            return None;
        }
        let names: Vec<String> = twins.iter().chain([key]).map(ToString::to_string).collect();
        Some(Reason::new(Code::NAME_FOLDS, names.join(", ")))
    }

    /// A policy that leaves the Pod that asks without an endpoint.
    fn no_local(&self, entry: &ServiceEntry) -> Option<Reason> {
        let (view, pod) = self.place.as_ref()?;
        // Without a virtual IP no traffic policy is applied.
        if entry.service.exposure != Exposure::ClusterIp
            || !choose::choose(entry, view, Traffic::Internal).any_elsewhere
        {
            return None;
        }
        let nodes: BTreeSet<&str> = choose::candidates(entry)
            .iter()
            .filter_map(|placed| placed.endpoint.node.as_deref())
            .collect();
        let nodes: Vec<&str> = nodes.into_iter().collect();
        let here = view.node.as_deref().unwrap_or("no node");
        let detail = format!("Pod {pod} is on {here}, endpoints are on {}.", nodes.join(", "));
        Some(Reason::new(Code::NO_LOCAL_ENDPOINT, detail))
    }

    /// What the Pod that asks gets of an instance.
    fn note(&self, entry: &ServiceEntry, placed: &Placed) -> String {
        let Some((view, pod)) = &self.place else { return String::new() };
        if entry.service.exposure != Exposure::ClusterIp {
            return String::new();
        }
        let chosen = choose::choose(entry, view, Traffic::Internal).endpoints;
        match chosen.iter().any(|one| std::ptr::eq(*one, placed)) {
            true => format!("; takes traffic from {pod}"),
            false => format!("; traffic from {pod} goes to others, by traffic policy or hints"),
        }
    }

    fn summary(
        &self,
        target: &Target,
        nothing: bool,
        ladders: usize,
        stopped: usize,
        reasons: usize,
    ) -> String {
        let subject = target.text();
        match (nothing, ladders, stopped, reasons) {
            (true, ..) => self.unknown(&subject),
            (_, 0, _, 0) => format!("{subject} is served; it needs no endpoints"),
            (_, 0, _, _) => format!("{subject} has no instance that could be served"),
            (_, all, 0, 0) => format!("{subject}: all {all} served, on every face asked"),
            (_, all, 0, _) => format!("{subject}: all {all} served, but see the reasons"),
            (_, all, stopped, _) => format!("{subject}: {} of {all} served", all - stopped),
        }
    }

    /// Absence proves something only where everybody has been heard.
    fn unknown(&self, subject: &str) -> String {
        if !self.snapshot.is_synced() {
            return format!(
                "{subject} is not known, but not every source has told all it knows yet"
            );
        }
        let lost = self.snapshot.sources().iter().find(|(_, status)| !status.lost.is_empty());
        match lost {
            Some((id, status)) => format!(
                "{subject} was not known when source {id} was lost, {} s ago",
                self.now_ms.saturating_sub(status.since_ms) / 1000
            ),
            None => format!("no source has told of {subject}"),
        }
    }
}
