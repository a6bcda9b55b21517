//! `forward`: everybody else's names.

use super::{Refused, Request, Stage, Step};
use crate::{
    bearing::Bearing,
    forward::{Ask, Forwarder},
    name::DnsName,
    names::Names,
    wire::Rcode,
};

/// The stage of one block; the forwarder holds all its groups of servers.
#[derive(Debug)]
pub(crate) struct Forward(pub(crate) Forwarder);

impl Stage for Forward {
    fn name(&self) -> &'static str {
        "forward"
    }

    fn bearing(&self, _: &DnsName) -> Bearing {
        // Names of ours do not come so far, or they fell through.
        Bearing::NOTHING
    }

    fn enter(&self, request: &mut Request, _: &Names) -> Step {
        let question = &request.question;
        if !self.0.covers(&question.name) {
            return Step::Next("no server is there for this name");
        }
        if self.0.came_back(&question.name) {
            return Step::Refuse(Refused {
                rcode: Rcode::Refused as u16,
                error: None,
                why: "our own probe for loops has come back",
            });
        }
        let edns = request.query.edns;
        let ask = Ask {
            name: question.name.clone(),
            kind: question.kind,
            dnssec_ok: edns.is_some_and(|edns| edns.dnssec_ok),
            checking_disabled: request.query.head.checking_disabled,
        };
        Step::Ask(self.0.clone(), ask)
    }
}
