//! The small stages: how replies look.

use super::{Request, Response, Stage, Step};
use crate::{bearing::Bearing, metrics::Proto, name::DnsName, names::Names, wire::Rcode};

/// `bufsize`: the longest reply over UDP.
#[derive(Debug)]
pub(crate) struct Bufsize(pub(crate) u16);

impl Stage for Bufsize {
    fn name(&self) -> &'static str {
        "bufsize"
    }

    fn enter(&self, request: &mut Request, _: &Names) -> Step {
        // A client without EDNS takes 512 bytes whatever is set here.
        if request.proto == Proto::Udp && request.query.edns.is_some() {
            request.limit = request.limit.min(self.0.into());
        }
        Step::Next("replies over UDP are bounded")
    }
}

/// `loadbalance`: addresses in a random order.
#[derive(Debug)]
pub(crate) struct Loadbalance;

impl Stage for Loadbalance {
    fn name(&self) -> &'static str {
        "loadbalance"
    }

    fn bearing(&self, _: &DnsName) -> Bearing {
        Bearing::NOTHING
    }

    fn enter(&self, _: &mut Request, _: &Names) -> Step {
        Step::Next("addresses will be shuffled")
    }

    fn leave(&self, _: &Request, response: &mut Response) {
        response.shuffled = true;
    }
}

/// `minimal`: answers without what was not asked for.
#[derive(Debug)]
pub(crate) struct Minimal;

impl Stage for Minimal {
    fn name(&self) -> &'static str {
        "minimal"
    }

    fn bearing(&self, _: &DnsName) -> Bearing {
        // Addresses have nothing beside them.
        Bearing::ADDITIONAL
    }

    fn enter(&self, _: &mut Request, _: &Names) -> Step {
        Step::Next("only what is asked for will be told")
    }

    fn leave(&self, _: &Request, response: &mut Response) {
        // Denials need their SOA, and delegations their servers.
        if response.rcode == Rcode::NoError as u16
            && response.has_answer()
            && let Some([_, authority, additional]) = response.parts()
        {
            authority.clear();
            additional.clear();
        }
    }
}
