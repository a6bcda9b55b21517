//! `acl`: who may ask for what.

use std::net::IpAddr;

use domain::base::iana::Rtype;

use super::{Refused, Request, Response, Stage, Step, bearing_of};
use crate::{
    bearing::Bearing,
    config::{AclAction, AclConfig, AclRule, zone_of},
    name::DnsName,
    names::Names,
    wire::Rcode,
};

/// Extended errors (RFC 8914, 4.16 and 4.18).
const EDE_BLOCKED: u16 = 15;
const EDE_FILTERED: u16 = 17;

/// The stage. The zones of every rule set are filled in.
#[derive(Debug)]
pub(crate) struct Acl(pub(crate) Vec<AclConfig>);

impl Stage for Acl {
    fn name(&self) -> &'static str {
        "acl"
    }

    fn bearing(&self, apex: &DnsName) -> Bearing {
        bearing_of(self.0.iter().flat_map(|set| &set.zones), apex)
    }

    fn enter(&self, request: &mut Request, _: &Names) -> Step {
        let client = request.client.to_canonical();
        for set in &self.0 {
            if zone_of(&set.zones, &request.question.name).is_none() {
                continue;
            }
            let fits = |rule: &&AclRule| fits(rule, request.question.kind, client);
            match set.rules.iter().find(fits).map(|rule| rule.action) {
                None => {}
                Some(AclAction::Allow) => return Step::Next("allowed"),
                Some(AclAction::Drop) => return Step::Drop("acl"),
                Some(AclAction::Block) => {
                    return Step::Refuse(Refused {
                        rcode: Rcode::Refused as u16,
                        error: Some((EDE_BLOCKED, String::new())),
                        why: "a rule blocks the query",
                    });
                }
                Some(AclAction::Filter) => {
                    let error = Some((EDE_FILTERED, String::new()));
                    return Step::Answer(Response::bare("acl", Rcode::NoError as u16, error));
                }
            }
        }
        Step::Next("no rule is against it")
    }
}

fn fits(rule: &AclRule, kind: Rtype, client: IpAddr) -> bool {
    (rule.types.is_empty() || rule.types.iter().any(|known| known.0 == kind))
        && (rule.networks.is_empty()
            || rule.networks.iter().any(|network| network.contains(client)))
}
