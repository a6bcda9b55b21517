//! `any`: next to nothing for who asks for everything (RFC 8482, 4.2).

use bytes::Bytes;
use domain::{
    base::{CharStr, iana::Rtype},
    rdata::Hinfo,
};

use super::{Request, Response, Stage, Step};
use crate::{
    bearing::Bearing,
    name::{DnsName, record},
    names::Names,
};

/// TTL of the answer, in seconds (CoreDNS).
const TTL_SECONDS: u32 = 8482;

/// The stage.
#[derive(Debug)]
pub(crate) struct Any;

impl Stage for Any {
    fn name(&self) -> &'static str {
        "any"
    }

    fn bearing(&self, _: &DnsName) -> Bearing {
        Bearing::ANY
    }

    fn enter(&self, request: &mut Request, _: &Names) -> Step {
        if request.question.kind != Rtype::ANY {
            return Step::Next("not asked for ANY");
        }
        let text = |text: &'static str| CharStr::from_octets(Bytes::from_static(text.as_bytes()));
        let (Ok(cpu), Ok(os)) = (text("ANY obsoleted"), text("See RFC 8482")) else {
            return Step::Next("not asked for ANY");
        };
        let answer = record(&request.question.name, TTL_SECONDS, Hinfo::new(cpu, os));
        Step::Answer(Response { authoritative: false, ..Response::records("any", vec![answer]) })
    }
}
