//! Why is it (not) there? For every instance, the rung of the ladder at which
//! it stopped, and how to mend that.

use std::sync::Arc;

use portolan_catalog::{Board, ServiceEntry, Snapshot};
use portolan_model::{
    Code, Face, ObjectName, Placed, Problem, Reason, Rejection, ServiceKey, Stage, Workload,
};
use portolan_wire::{self as wire, StepState};

use crate::{
    list,
    target::{Target, find_services},
};

/// Names offered when nothing was found under the one asked for.
const NEAREST_MAX: usize = 5;

/// What an answer is made from.
struct Question<'a> {
    snapshot: &'a Snapshot,
    board: &'a Board,
    problems: &'a [Problem],
    faces: &'a [Face],
    now_ms: u64,
}

/// What was found for a target.
#[derive(Default)]
struct Found<'a> {
    instances: Vec<(&'a Arc<ServiceEntry>, &'a Placed)>,
    services: Vec<&'a Arc<ServiceEntry>>,
    rejections: Vec<&'a Arc<Rejection>>,
    /// Pods that no service lists.
    unplaced: Vec<&'a Arc<Workload>>,
    /// Pods that a service's selector matches and that are no endpoint of it yet.
    waiting: Vec<(&'a Arc<Workload>, &'a ServiceKey)>,
}

/// Answers `why TARGET`. `faces` narrows the last rung; empty means all.
pub fn why(
    snapshot: &Snapshot,
    board: &Board,
    problems: &[Problem],
    target: &Target,
    faces: &[Face],
    now_ms: u64,
) -> wire::Why {
    let question = Question { snapshot, board, problems, faces, now_ms };
    question.answer(target)
}

impl Question<'_> {
    fn answer(&self, target: &Target) -> wire::Why {
        let mut found = self.find(target);
        self.add_waiting(&mut found);
        let mut ladders: Vec<wire::Ladder> =
            found.instances.iter().map(|(entry, placed)| self.ladder(entry, placed)).collect();
        ladders.extend(found.unplaced.iter().map(|pod| self.unplaced(pod)));
        ladders.extend(found.waiting.iter().map(|(pod, service)| self.waiting(pod, service)));
        let mut reasons: Vec<wire::Reason> = found
            .services
            .iter()
            .flat_map(|entry| entry.reasons.iter())
            .map(list::reason)
            .collect();
        for rejection in &found.rejections {
            reasons.extend(rejection.reasons.iter().map(|reason| {
                let plain = list::reason(reason);
                wire::Reason {
                    text: format!("{} {}: {}", rejection.kind, rejection.object, plain.text),
                    ..plain
                }
            }));
        }
        reasons.extend(
            self.problems
                .iter()
                .filter(|problem| self.faces.is_empty() || self.faces.contains(&problem.face))
                .filter(|problem| {
                    found.services.iter().any(|entry| entry.service.key == problem.service)
                })
                .map(list::problem),
        );
        let nothing = ladders.is_empty() && found.services.is_empty() && reasons.is_empty();
        let stopped = ladders
            .iter()
            .filter(|ladder| ladder.steps.iter().any(|step| step.state == StepState::Stopped))
            .count();
        let fine = !nothing && stopped == 0 && reasons.is_empty();
        wire::Why {
            version: self.snapshot.version().to_string(),
            age_ms: self.now_ms.saturating_sub(self.snapshot.at_ms()),
            target: target.text(),
            summary: self.summary(target, nothing, ladders.len(), stopped, reasons.len()),
            fine,
            ladders,
            reasons,
            nearest: if nothing { self.nearest(target) } else { Vec::new() },
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
            (true, ..) if !self.snapshot.is_synced() => {
                format!("{subject} is not known, but not every source has told all it knows yet")
            }
            (true, ..) => format!("no source has told of {subject}"),
            (_, 0, _, 0) => format!("{subject} is served; it needs no endpoints"),
            (_, 0, _, _) => format!("{subject} has no instance that could be served"),
            (_, all, 0, 0) => format!("{subject}: all {all} served, on every face asked"),
            (_, all, 0, _) => format!("{subject}: all {all} served, but see the reasons"),
            (_, all, stopped, _) => format!("{subject}: {} of {all} served", all - stopped),
        }
    }

    fn find(&self, target: &Target) -> Found<'_> {
        let mut found = Found::default();
        match target {
            Target::Service { namespace, name } => self.add_services(&mut found, namespace, name),
            Target::DnsName(key) => {
                if let Some(entry) = self.snapshot.service(key) {
                    found.add_service(entry);
                }
                self.add_rejections(&mut found, |object| {
                    object.namespace == key.namespace && object.name == key.name
                });
            }
            Target::Pod(pod) => self.add_pod(&mut found, pod),
            Target::Address(address, port) => {
                for entry in self.snapshot.services() {
                    if entry.service.addresses.contains(address) {
                        found.add_service(entry);
                        continue;
                    }
                    for placed in entry.endpoints.iter() {
                        let endpoint = &placed.endpoint;
                        let on_port = port
                            .is_none_or(|port| endpoint.ports.iter().any(|p| p.port == Some(port)));
                        if endpoint.address == *address && on_port {
                            found.instances.push((entry, placed));
                        }
                    }
                }
                if found.instances.is_empty()
                    && found.services.is_empty()
                    && let Some(pod) = self.snapshot.workload_at(*address)
                {
                    found.unplaced.push(pod);
                }
            }
            Target::Bare { namespace, name } => {
                self.add_services(&mut found, namespace, name);
                if found.services.is_empty() {
                    self.add_pod(&mut found, &ObjectName::new(namespace, name));
                }
            }
        }
        found
    }

    fn add_services<'a>(&'a self, found: &mut Found<'a>, namespace: &str, name: &str) {
        for entry in find_services(self.snapshot, namespace, name) {
            found.add_service(entry);
        }
        self.add_rejections(found, |object| {
            *object.namespace == *namespace && *object.name == *name
        });
        // A Pod of the service may have been refused before it became an
        // instance (its annotation does not decode): show it with the service.
        let selectors: Vec<_> = found
            .services
            .iter()
            .map(|entry| &entry.service)
            .filter(|service| !service.selector.is_empty())
            .cloned()
            .collect();
        self.add_rejections(found, |object| {
            *object.namespace == *namespace
                && self.snapshot.workload(object).is_some_and(|pod| {
                    selectors.iter().any(|service| {
                        service.selector.iter().all(|(k, v)| pod.labels.get(k) == Some(v))
                    })
                })
        });
    }

    /// Pods that match and are no endpoint: without an address, or ended.
    fn add_waiting<'a>(&'a self, found: &mut Found<'a>) {
        for entry in &found.services {
            let service = &entry.service;
            if service.selector.is_empty() {
                continue;
            }
            let matching = self.snapshot.workloads().filter(|pod| {
                pod.name.namespace == service.key.namespace
                    && service.selector.iter().all(|(k, v)| pod.labels.get(k) == Some(v))
            });
            let absent = matching.filter(|pod| {
                let here = |placed: &Placed| placed.endpoint.target.as_ref() == Some(&pod.name);
                !entry.endpoints.iter().any(here)
            });
            found.waiting.extend(absent.map(|pod| (pod, &service.key)));
        }
    }

    fn add_pod<'a>(&'a self, found: &mut Found<'a>, pod: &ObjectName) {
        for entry in self.snapshot.services() {
            for placed in entry.endpoints.iter() {
                if placed.endpoint.target.as_ref() == Some(pod) {
                    found.instances.push((entry, placed));
                }
            }
        }
        self.add_rejections(found, |object| object == pod);
        if let Some(workload) = self.snapshot.workload(pod)
            && found.instances.is_empty()
        {
            found.unplaced.push(workload);
        }
    }

    fn add_rejections<'a>(&'a self, found: &mut Found<'a>, accepts: impl Fn(&ObjectName) -> bool) {
        for rejection in self.snapshot.rejections() {
            let known = found.rejections.iter().any(|known| Arc::ptr_eq(known, rejection));
            if !known && accepts(&rejection.object) {
                found.rejections.push(rejection);
            }
        }
    }

    fn ladder(&self, entry: &ServiceEntry, placed: &Placed) -> wire::Ladder {
        let key = &entry.service.key;
        let endpoint = &placed.endpoint;
        let reason = placed.verdict.reasons().first();
        let missing = self.missing(entry);
        let stop = match reason {
            Some(reason) => Some(reason.code.info().stage),
            None => (!missing.is_empty()).then_some(Stage::Acknowledged),
        };
        let detail = |stage: Stage| match stage {
            Stage::Seen => format!("origin {}", key.origin),
            Stage::Parsed => endpoint
                .metadata
                .as_ref()
                .map(|metadata| {
                    metadata.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
                })
                .unwrap_or_default(),
            Stage::Matched => format!("service {key}"),
            Stage::Ready => {
                match endpoint.target.as_ref().and_then(|p| self.snapshot.workload(p)) {
                    Some(pod) if pod.hollow => "hollow Pod: it only pretends to run".to_owned(),
                    Some(pod) => format!("pod {} is {}", pod.name, pod.phase),
                    None => String::new(),
                }
            }
            Stage::Published => format!("since version {}", entry.changed),
            Stage::Acknowledged => missing.join(", "),
        };
        wire::Ladder {
            subject: format!("{} of {key}", endpoint.display_name()),
            address: match endpoint.ports.iter().find_map(|port| port.port) {
                Some(port) => std::net::SocketAddr::new(endpoint.address, port).to_string(),
                None => endpoint.address.to_string(),
            },
            steps: steps(stop, reason, detail),
        }
    }

    /// Members that do not serve the entry's present content yet.
    fn missing(&self, entry: &ServiceEntry) -> Vec<String> {
        self.board
            .convergence(entry.changed, self.faces)
            .missing
            .iter()
            .map(|member| match member.ack {
                Some(ack) => format!("{} still serves {}", member.id, ack.version),
                None => format!("{} serves nothing yet", member.id),
            })
            .collect()
    }

    fn unplaced(&self, pod: &Workload) -> wire::Ladder {
        let reason = Reason::plain(Code::NO_SERVICE);
        wire::Ladder {
            subject: format!("pod {}", pod.name),
            address: pod.addresses.first().map(ToString::to_string).unwrap_or_default(),
            steps: steps(Some(Stage::Matched), Some(&reason), |stage| match stage {
                Stage::Seen => format!("phase {}", pod.phase),
                Stage::Matched if pod.labels.is_empty() => "the Pod has no labels".to_owned(),
                Stage::Matched => {
                    let labels: Vec<String> =
                        pod.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
                    format!("labels {}", labels.join(","))
                }
                _ => String::new(),
            }),
        }
    }

    fn waiting(&self, pod: &Workload, service: &ServiceKey) -> wire::Ladder {
        let ended = matches!(&*pod.phase, "Succeeded" | "Failed");
        let code = if ended { Code::PHASE_ENDED } else { Code::NOT_READY };
        let detail = match pod.not_ready.as_deref() {
            Some((reason, message)) => format!("Phase {}; {reason}: {message}", pod.phase),
            None => format!("Phase {}.", pod.phase),
        };
        let reason = Reason::new(code, detail);
        wire::Ladder {
            subject: format!("{} of {service}", pod.name.name),
            address: pod.addresses.first().map(ToString::to_string).unwrap_or_default(),
            steps: steps(Some(Stage::Ready), Some(&reason), |stage| match stage {
                Stage::Matched => format!("selector of {service}"),
                _ => String::new(),
            }),
        }
    }

    /// Names like the one asked for.
    fn nearest(&self, target: &Target) -> Vec<String> {
        let wanted = match target {
            Target::Service { name, .. } | Target::Bare { name, .. } => name.clone(),
            Target::Pod(pod) => pod.name.to_string(),
            Target::DnsName(key) => key.name.to_string(),
            Target::Address(..) => return Vec::new(),
        };
        let services = self.snapshot.services().map(|entry| ("svc", &entry.service.key)).map(
            |(kind, ServiceKey { namespace, name, .. })| {
                (distance(&wanted, name), format!("{kind}/{namespace}/{name}"))
            },
        );
        let pods = self
            .snapshot
            .workloads()
            .map(|pod| (distance(&wanted, &pod.name.name), format!("pod/{}", pod.name)));
        let mut near: Vec<(usize, String)> =
            services.chain(pods).filter(|(far, _)| *far <= wanted.len().div_ceil(3)).collect();
        near.sort();
        near.dedup();
        near.into_iter().take(NEAREST_MAX).map(|(_, name)| name).collect()
    }
}

impl<'a> Found<'a> {
    fn add_service(&mut self, entry: &'a Arc<ServiceEntry>) {
        self.services.push(entry);
        self.instances.extend(entry.endpoints.iter().map(|placed| (entry, placed)));
    }
}

/// The rungs, up to the one that stopped the climb.
fn steps(
    stop: Option<Stage>,
    reason: Option<&Reason>,
    detail: impl Fn(Stage) -> String,
) -> Vec<wire::Step> {
    Stage::LADDER
        .into_iter()
        .map(|stage| {
            let state = match stop {
                Some(stop) if stage == stop => StepState::Stopped,
                Some(stop) if stage > stop => StepState::NotReached,
                _ => StepState::Passed,
            };
            wire::Step {
                stage: stage.as_str().to_owned(),
                state,
                detail: if state == StepState::NotReached { String::new() } else { detail(stage) },
                reason: reason.filter(|_| state == StepState::Stopped).map(list::reason),
            }
        })
        .collect()
}

/// How many letters differ (Levenshtein), or 1 where one name begins with the
/// other: Pods carry their owner's name and a suffix.
fn distance(wanted: &str, name: &str) -> usize {
    if wanted.len() >= 3 && (name.starts_with(wanted) || wanted.starts_with(name)) {
        return usize::from(wanted != name);
    }
    let name: Vec<char> = name.chars().collect();
    let mut row: Vec<usize> = (0..=name.len()).collect();
    for (i, a) in wanted.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&name) {
            let best = (diagonal + usize::from(a != *b)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn letters_that_differ() {
        for (a, b, expected) in [
            ("checkout", "checkout", 0),
            ("chekout", "checkout", 1),
            ("reviews", "reviews-v1-abc", 1),
            ("abc", "xyz", 3),
            ("kitten", "sitting", 3),
            ("", "ab", 2),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
