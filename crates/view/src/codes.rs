//! What a reason code means, at length.

use portolan_model::{CODES, Code, CodeInfo};

/// A code, explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// `PTLnnnn`.
    pub code: String,
    /// One CamelCase word.
    pub name: &'static str,
    /// The rung of the ladder at which it stops an instance.
    pub stage: &'static str,
    /// What it means.
    pub text: &'static str,
    /// What to do.
    pub fix: &'static str,
}

impl From<&CodeInfo> for Explanation {
    fn from(info: &CodeInfo) -> Self {
        Self {
            code: info.code.to_string(),
            name: info.name,
            stage: info.stage.as_str(),
            text: info.text,
            fix: info.fix,
        }
    }
}

/// Explains `PTLnnnn`, or the code of that name. `None`: there is no such code.
pub fn explain(text: &str) -> Option<Explanation> {
    let by_number = Code::parse(text).map(Code::info);
    let by_name = || CODES.iter().find(|info| info.name.eq_ignore_ascii_case(text));
    by_number.or_else(by_name).map(Explanation::from)
}

/// Every code, in order.
pub fn all_codes() -> impl Iterator<Item = Explanation> {
    CODES.iter().map(Explanation::from)
}
