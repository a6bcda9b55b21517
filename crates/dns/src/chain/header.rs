//! `header`: flags that are set or cleared.

use super::{Request, Response, Stage, Step};
use crate::{
    config::{Flag, HeaderConfig},
    names::Names,
};

/// The stage.
#[derive(Debug)]
pub(crate) struct Header(pub(crate) HeaderConfig);

impl Stage for Header {
    fn name(&self) -> &'static str {
        "header"
    }

    fn enter(&self, request: &mut Request, _: &Names) -> Step {
        let rules = |flags: &[Flag]| flags.contains(&Flag::Rd);
        // The other flags mean nothing in a query.
        if rules(&self.0.query_set) {
            request.query.head.recursion_desired = true;
        }
        if rules(&self.0.query_clear) {
            request.query.head.recursion_desired = false;
        }
        Step::Next("flags are changed")
    }

    fn leave(&self, _: &Request, response: &mut Response) {
        let set = self.0.response_set.iter().map(|flag| (*flag, true));
        let clear = self.0.response_clear.iter().map(|flag| (*flag, false));
        response.flags.extend(set.chain(clear));
    }
}
