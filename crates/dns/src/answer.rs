//! What a question is answered with. Pure: no sockets, no wire, no clock.
//!
//! [`answer`] finds the [`Place`] of the name and takes from it what the type
//! asks for; an alias is followed inside our zones. The difference between
//! NODATA (the name exists, not with this type) and NXDOMAIN (nothing of that
//! name and nothing below it) is kept exact, as resolvers that cache NXDOMAIN
//! apply it to every type.

use domain::{
    base::iana::{Class, Rtype},
    rdata::Cname,
};
use portolan_model::{ClientView, Code, Reason, ServiceKey};

use crate::{
    message::Question,
    name::{DnsName, Rr, record},
    names::Names,
    place::{Absence, Located, OutsideHit, Place, locate},
    records::{self, Family, Naming},
};

/// Aliases that are followed for one answer; CoreDNS follows as many.
const ALIASES_MAX: usize = 10;

/// What a question is answered with.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// There are records. Aliases come first.
    Records {
        /// Of the name, or of what it is an alias of.
        answer: Vec<Rr>,
        /// Addresses of the targets.
        additional: Vec<Rr>,
        /// The last alias leads out of our zones, to this name.
        elsewhere: Option<DnsName>,
    },
    /// The name exists, without records of this type.
    NoData {
        /// Aliases that led to it.
        aliases: Vec<Rr>,
        /// SOA of the zone.
        authority: Option<Rr>,
    },
    /// The name does not exist.
    NxDomain {
        /// Aliases that led to it.
        aliases: Vec<Rr>,
        /// SOA of the zone.
        authority: Option<Rr>,
        /// Why not.
        why: Absence,
    },
    /// We should know, and cannot say.
    ServFail {
        /// What is the matter.
        failure: Failure,
        /// SOA of the zone.
        authority: Option<Rr>,
    },
    /// We do not answer such questions.
    Refused(Refusal),
}

/// Why we cannot say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Not every source has told all it knows, so absence proves nothing.
    NotSynced,
    /// The names of these services differ in case only.
    NamesFold(Vec<ServiceKey>),
    /// Aliases lead in a circle, or through too many names.
    AliasLoop,
}

impl Failure {
    /// The reason as people read it.
    pub fn text(&self) -> String {
        match self {
            Self::NotSynced => "the sources have not told all they know yet".to_owned(),
            Self::NamesFold(keys) => {
                let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
                Reason::new(Code::NAME_FOLDS, keys.join(", ")).to_string()
            }
            Self::AliasLoop => {
                format!("aliases lead in a circle or through more than {ALIASES_MAX} names")
            }
        }
    }
}

/// Why we do not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The name is in no zone of ours.
    OutsideZones,
    /// A class other than IN.
    Class,
    /// Transfers of zones are not offered.
    Transfer,
}

/// Answers a question for a client. The client's node and zone choose among the
/// endpoints of headless services that ask for nearness.
pub fn answer(names: &Names, view: &ClientView, question: &Question) -> Answer {
    if question.class != Class::IN {
        return Answer::Refused(Refusal::Class);
    }
    if matches!(question.kind, Rtype::AXFR | Rtype::IXFR) {
        return Answer::Refused(Refusal::Transfer);
    }
    if let Some(failure) = not_synced(names, &question.name) {
        return failure;
    }
    let mut name = question.name.clone();
    let mut aliases: Vec<Rr> = Vec::new();
    let mut passed: Vec<DnsName> = Vec::new();
    loop {
        let Some(located) = locate(names, view, &name) else {
            if aliases.is_empty() {
                return Answer::Refused(Refusal::OutsideZones);
            }
            return Answer::Records {
                answer: aliases,
                additional: Vec::new(),
                elsewhere: Some(name),
            };
        };
        let Some(target) = located.place.alias(question.kind) else {
            return here(names, &name, question.kind, &located, aliases);
        };
        let target = target.clone();
        let ttl = names.settings.ttl_in(located.zone.kind);
        aliases.push(record(&name, ttl, Cname::new(target.clone())));
        if question.kind == Rtype::CNAME {
            return Answer::Records { answer: aliases, additional: Vec::new(), elsewhere: None };
        }
        passed.push(name);
        if passed.len() > ALIASES_MAX || passed.contains(&target) {
            return failed(names, &located, Failure::AliasLoop);
        }
        name = target;
    }
}

/// Before the first full picture nothing in our zones can be denied, and what
/// is found may be old: it is a failure, whatever we know already. A reverse
/// zone of which we own only what we know counts as well: the address may be
/// ours, and sending it elsewhere would get it denied there.
fn not_synced(names: &Names, name: &DnsName) -> Option<Answer> {
    if names.snapshot.is_synced() {
        return None;
    }
    let zone = names.settings.zone_of(name)?;
    let suffix = crate::name::suffix(name, crate::name::depth(&zone.apex));
    Some(Answer::ServFail {
        failure: Failure::NotSynced,
        authority: records::authority(names, Naming { kind: zone.kind, suffix: &suffix }, true),
    })
}

fn failed(names: &Names, located: &Located<'_>, failure: Failure) -> Answer {
    Answer::ServFail { failure, authority: records::authority(names, located.naming(), true) }
}

/// Answers from the place where a name ends up.
fn here(
    names: &Names,
    name: &DnsName,
    kind: Rtype,
    located: &Located<'_>,
    aliases: Vec<Rr>,
) -> Answer {
    let found = match &located.place {
        Place::Absent(why) => {
            let authority = records::authority(names, located.naming(), true);
            return Answer::NxDomain { aliases, authority, why: why.clone() };
        }
        Place::Ambiguous(keys) => {
            return failed(names, located, Failure::NamesFold(keys.clone()));
        }
        place => records_at(names, name, kind, place, located),
    };
    let (records, additional) = found;
    if records.is_empty() {
        let authority = records::authority(names, located.naming(), true);
        return Answer::NoData { aliases, authority };
    }
    let answer = aliases.into_iter().chain(records).collect();
    Answer::Records { answer, additional, elsewhere: None }
}

fn records_at(
    names: &Names,
    name: &DnsName,
    kind: Rtype,
    place: &Place,
    located: &Located<'_>,
) -> (Vec<Rr>, Vec<Rr>) {
    let kind_of_zone = located.zone.kind;
    let ttl = names.settings.ttl_in(kind_of_zone);
    let family = match kind {
        Rtype::A => Some(Family::V4),
        Rtype::AAAA => Some(Family::V6),
        _ => None,
    };
    let alone = |records: Vec<Rr>| (records, Vec::new());
    match (place, kind, family) {
        (Place::Apex, Rtype::SOA, _) => {
            alone(records::authority(names, located.naming(), false).into_iter().collect())
        }
        (Place::Apex, Rtype::NS, _) => records::delegation(names, located.naming()),
        (Place::DnsVersion, Rtype::TXT, _) => alone(records::dns_version(name, kind_of_zone)),
        (Place::NameServer, _, Some(family)) => {
            let servers = records::name_servers(names, located.naming());
            let found = servers.into_iter().flat_map(|(_, addresses)| addresses);
            alone(records::addresses(name, ttl, family, found))
        }
        (Place::Service(_, hits), _, Some(family)) => {
            let found = hits.iter().map(|hit| hit.address);
            alone(records::addresses(name, ttl, family, found))
        }
        (Place::Service(entry, hits), Rtype::SRV, _) => {
            records::services(name, located.naming(), ttl, &entry.service.key, hits)
        }
        (Place::Outside(_, hits), _, Some(family)) => {
            let found = hits.iter().filter_map(|hit| match hit {
                OutsideHit::Address(hit) => Some(hit.address),
                OutsideHit::Balancer(..) => None,
            });
            alone(records::addresses(name, ttl, family, found))
        }
        (Place::Outside(entry, hits), Rtype::SRV, _) => {
            records::outside_services(name, located.naming(), ttl, &entry.service.key, hits)
        }
        (Place::Pod(address), _, Some(family)) => {
            alone(records::addresses(name, ttl, family, [*address]))
        }
        (Place::Address(address), Rtype::PTR, _) => alone(records::pointers(names, name, *address)),
        _ => alone(Vec::new()),
    }
}
