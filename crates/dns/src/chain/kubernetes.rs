//! `kubernetes` and `k8s_external`: what the catalog says.

use super::{Chase, Request, Response, Stage, Step};
use crate::{
    answer::{Answer, Refusal, answer},
    config::{Fallthrough, ZoneName, zone_of},
    names::Names,
};

/// The stage of one block.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    pub(crate) name: &'static str,
    pub(crate) zones: Vec<ZoneName>,
    pub(crate) fallthrough: Fallthrough,
}

impl Stage for Kubernetes {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_plain(&self) -> bool {
        // The short way denies what it does not know; addresses have a kind of zone of
        // their own for that.
        let arpa = |zone: &ZoneName| zone.to_string().ends_with(".arpa.");
        self.fallthrough.zones.iter().all(arpa)
    }

    fn enter(&self, request: &mut Request, names: &Names) -> Step {
        let name = &request.question.name;
        if zone_of(&self.zones, name).is_none() {
            return Step::Next("in no zone of Services");
        }
        match answer(names, &names.view_of(request.client), &request.question) {
            Answer::Refused(Refusal::OutsideZones) => Step::Next("an address that is not ours"),
            Answer::NxDomain { aliases, .. }
                if aliases.is_empty() && self.fallthrough.passes(name) =>
            {
                Step::Next("does not exist here, and falls through")
            }
            Answer::Records { answer, elsewhere: Some(target), .. } => {
                Step::Chase(Chase { aliases: answer, target, follows_rcode: true })
            }
            answer => Step::Answer(Response::of(self.name, answer)),
        }
    }
}
