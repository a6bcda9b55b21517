//! How an answer comes about, step by step, for people.
//!
//! It asks the same pure functions as the servers do, so it cannot disagree with them.
//! Which names a resolver tries is the asker's business (`portolan dig --from`).

use domain::base::iana::Rtype;
use portolan_model::ClientView;

use crate::{
    answer::{Answer, Refusal, answer},
    message::Question,
    name::{DnsName, text},
    names::Names,
    place::{Absence, Place, locate},
    settings::ZoneKind,
};

/// Aliases that are told of: as many as are followed.
const ALIASES_TOLD_MAX: usize = 12;

/// One step of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `zone`, `name`, `alias`, `answer`, or the name of a stage of a server block.
    pub stage: &'static str,
    /// What happened there.
    pub text: String,
}

/// Tells how a question comes to its answer, for a client with this view.
pub fn trace(names: &Names, question: &Question, view: &ClientView) -> Vec<Step> {
    let Question { name, kind, .. } = question;
    let mut steps = vec![zone_step(names, name)];
    let mut at = name.clone();
    for _ in 0..ALIASES_TOLD_MAX {
        // Before everything is known no name means anything.
        let Some(located) = locate(names, view, &at).filter(|_| names.snapshot().is_synced())
        else {
            break;
        };
        steps.push(Step {
            stage: "name",
            text: format!("{}: {}", text(&at), meaning(&located.place)),
        });
        let Some(target) = located.place.alias(*kind).filter(|_| *kind != Rtype::CNAME) else {
            break;
        };
        steps.push(Step { stage: "alias", text: format!("go on at {}", text(target)) });
        at = target.clone();
    }
    let answer = answer(names, view, question);
    steps.push(Step { stage: "answer", text: outcome(names, name, &answer, *kind) });
    steps
}

fn zone_step(names: &Names, name: &DnsName) -> Step {
    let text = match names.settings().zone_of(name) {
        None => "in no zone of ours".to_owned(),
        Some(zone) => {
            let kind = match zone.kind {
                ZoneKind::Cluster => "services and Pods",
                ZoneKind::ClusterSet => "services of the cluster set",
                ZoneKind::External => "services as they are reached from outside",
                ZoneKind::Reverse => "addresses, all ours",
                ZoneKind::ReverseKnown => "addresses, ours where known",
            };
            format!("{} ({kind})", text(&zone.apex))
        }
    };
    Step { stage: "zone", text }
}

fn meaning(place: &Place) -> String {
    match place {
        Place::Apex => "the top of the zone".to_owned(),
        Place::Empty => "nothing here, but names below".to_owned(),
        Place::DnsVersion => "the version of the DNS specification".to_owned(),
        Place::NameServer => "this server".to_owned(),
        Place::Service(entry, hits) => {
            let key = &entry.service.key;
            let known = entry.endpoints.len();
            let served = entry.served().count();
            format!("service {key}, {served} of {known} endpoints served, {} hits", hits.len())
        }
        Place::Alias(entry, target) => {
            format!("service {}, an alias of {}", entry.service.key, text(target))
        }
        Place::Outside(entry, hits) => {
            format!("service {}, {} ways in from outside", entry.service.key, hits.len())
        }
        Place::Pod(address) => format!("the Pod address {address}"),
        Place::Address(address) => format!("the known address {address}"),
        Place::Ambiguous(keys) => {
            format!("{} services whose names differ in case only", keys.len())
        }
        Place::Absent(why) => why.to_string(),
    }
}

fn outcome(names: &Names, name: &DnsName, answer: &Answer, kind: Rtype) -> String {
    let forwarding = &names.settings().forwarding;
    match answer {
        Answer::Records { answer, elsewhere: Some(target), .. } if forwarding.covers(target) => {
            format!(
                "{} alias records; upstream servers are asked for {}",
                answer.len(),
                text(target)
            )
        }
        Answer::Refused(Refusal::OutsideZones) if forwarding.covers(name) => {
            "not our name: upstream servers are asked".to_owned()
        }
        Answer::Records { answer, elsewhere: Some(target), .. } => format!(
            "{} alias records; {} is not ours, the client has to ask on",
            answer.len(),
            text(target)
        ),
        Answer::Records { answer, .. } => format!("{} records", answer.len()),
        Answer::NoData { .. } => format!("NODATA: the name exists, without {kind} records"),
        Answer::NxDomain { why, .. } => format!("NXDOMAIN: {why}"),
        Answer::ServFail { failure, .. } => format!("SERVFAIL: {}", failure.text()),
        Answer::Refused(Refusal::OutsideZones) => {
            "REFUSED: not our name, and other servers are not asked".to_owned()
        }
        Answer::Refused(Refusal::Class) => "REFUSED: only class IN is served".to_owned(),
        Answer::Refused(Refusal::Transfer) => "REFUSED: zones are not transferred".to_owned(),
    }
}

impl std::fmt::Display for Absence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoBranch(label) => {
                write!(f, "{label:?} is neither svc nor pod nor an origin that has services")
            }
            Self::NoNamespace(namespace) => {
                write!(f, "there is no namespace {namespace:?}, or it is not exposed")
            }
            Self::NoService(service) => write!(f, "the namespace has no service {service:?}"),
            Self::NoReadyEndpoint(key, 0) => write!(f, "service {key} has no endpoints"),
            Self::NoReadyEndpoint(key, known) => {
                write!(f, "none of the {known} endpoints of service {key} is served")
            }
            Self::NoPort(key) => write!(f, "service {key} has no port of that name and protocol"),
            Self::NoEndpoint(key) => write!(f, "service {key} serves no endpoint of that name"),
            Self::BadAlias(key) => {
                write!(
                    f,
                    "service {key} is an alias: no names below it, and its target must be a name"
                )
            }
            Self::NotOutside(key) => {
                write!(f, "service {key} is not reached from outside, or not that way")
            }
            Self::TooDeep => f.write_str("no name has so many labels"),
            Self::PodsDisabled => f.write_str("names of Pods are switched off"),
            Self::NoPod => f.write_str("the label is no Pod address of this namespace"),
            Self::NoAddress => f.write_str("no service has this address"),
        }
    }
}
