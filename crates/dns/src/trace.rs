//! How an answer comes about, step by step, for people.
//!
//! [`trace`] walks the search path as a Pod's resolver would and tells at each
//! name what was found there and why the answer is what it is. It asks the same
//! pure functions as the servers do, so it cannot disagree with them.

use domain::base::iana::{Class, Rtype};
use portolan_model::{ClientView, Version};

use crate::{
    answer::{Answer, Refusal, answer},
    message::Question,
    name::{DnsName, line, parse, text},
    names::Names,
    place::{Absence, Place, locate},
    settings::ZoneKind,
    wire::Rcode,
};

/// Dots from which a name is tried as it is before the search path: what the
/// kubelet writes into a Pod's resolv.conf.
const NDOTS: usize = 5;

/// How a name is resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The catalog that was asked.
    pub version: Version,
    /// The names that a resolver asks for, in order, up to the one that answers.
    pub lookups: Vec<Lookup>,
    /// The text is no domain name; then there are no lookups.
    pub error: Option<String>,
}

impl Trace {
    /// The lookup that a program gets its answer from: the one with records, or
    /// else the last.
    pub fn outcome(&self) -> Option<&Lookup> {
        self.lookups.last()
    }
}

/// One name that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Lookup {
    /// The full name.
    pub name: String,
    /// The type.
    pub kind: Rtype,
    /// How the answer came about.
    pub steps: Vec<Step>,
    /// `NOERROR`, `NXDOMAIN`, ...
    pub rcode: &'static str,
    /// The answer itself.
    pub answer: Answer,
}

impl Lookup {
    /// The records of the answer as text, in `dig`'s order of fields.
    pub fn records(&self) -> Vec<String> {
        match &self.answer {
            Answer::Records { answer, .. } => answer.iter().map(line).collect(),
            Answer::NoData { aliases, .. } | Answer::NxDomain { aliases, .. } => {
                aliases.iter().map(line).collect()
            }
            Answer::ServFail { .. } | Answer::Refused(_) => Vec::new(),
        }
    }

    /// The further records of the answer as text: authority and additional.
    pub fn extras(&self) -> Vec<String> {
        match &self.answer {
            Answer::Records { additional, .. } => additional.iter().map(line).collect(),
            Answer::NoData { authority, .. }
            | Answer::NxDomain { authority, .. }
            | Answer::ServFail { authority, .. } => authority.iter().map(line).collect(),
            Answer::Refused(_) => Vec::new(),
        }
    }

    fn has_records(&self) -> bool {
        matches!(self.answer, Answer::Records { .. })
    }
}

/// One step of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `search`, `zone`, `name`, `alias` or `answer`.
    pub stage: &'static str,
    /// What happened there.
    pub text: String,
}

/// Resolves a name as a Pod would see it. A name that ends in a dot, or a view
/// without a namespace, is asked for as it is.
pub fn trace(names: &Names, name: &str, kind: Rtype, view: &ClientView) -> Trace {
    let mut trace = Trace { version: names.snapshot().version(), lookups: Vec::new(), error: None };
    for (candidate, how) in candidates(names, name, view) {
        let Some(full) = parse(&candidate) else {
            trace.error = Some(format!("{candidate:?} is no domain name"));
            continue;
        };
        let lookup = lookup(names, &full, kind, view, how);
        let found = lookup.has_records();
        trace.lookups.push(lookup);
        if found {
            break;
        }
    }
    if !trace.lookups.is_empty() {
        trace.error = None;
    }
    trace
}

/// The names that a resolver tries, in order, each with the reason.
fn candidates(names: &Names, name: &str, view: &ClientView) -> Vec<(String, String)> {
    let as_is = |how: &str| (name.to_owned(), how.to_owned());
    let zone = names.settings().primary().map(text);
    let (Some(namespace), Some(zone), false) = (&view.namespace, zone, name.ends_with('.')) else {
        return vec![as_is("asked as it is")];
    };
    let suffixes = [format!("{namespace}.svc.{zone}"), format!("svc.{zone}"), zone];
    let mut list: Vec<(String, String)> = suffixes
        .into_iter()
        .map(|suffix| (format!("{name}.{suffix}"), format!("search path: {suffix}")))
        .collect();
    let dots = name.matches('.').count();
    if dots >= NDOTS {
        list.insert(0, as_is(&format!("{dots} dots, so asked as it is first")));
    } else {
        list.push(as_is("as it is, after the search path"));
    }
    list
}

fn lookup(names: &Names, name: &DnsName, kind: Rtype, view: &ClientView, how: String) -> Lookup {
    let question = Question { name: name.clone(), kind, class: Class::IN };
    let answer = answer(names, view, &question);
    let mut steps = vec![Step { stage: "search", text: how }];
    steps.push(zone_step(names, name));
    let mut at = name.clone();
    // The answer above has ended, so the chain is at most as long as its own limit.
    while let Some(located) = locate(names, view, &at).filter(|_| names.snapshot().is_synced()) {
        steps.push(Step {
            stage: "name",
            text: format!("{}: {}", text(&at), meaning(&located.place)),
        });
        let Some(target) = located.place.alias(kind) else { break };
        steps.push(Step { stage: "alias", text: format!("go on at {}", text(target)) });
        if steps.len() > 2 * 12 || kind == Rtype::CNAME {
            break;
        }
        at = target.clone();
    }
    steps.push(Step { stage: "answer", text: outcome(names, name, &answer, kind) });
    let rcode = Rcode::of(&answer).as_str();
    Lookup { name: text(name), kind, steps, rcode, answer }
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
