//! Answers to `why` and `wait`.

use serde::{Deserialize, Serialize};

use crate::Reason;

/// The answer to `why TARGET`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// Catalog version.
    pub version: String,
    /// Milliseconds since it was committed.
    pub age_ms: u64,
    /// What was asked for, as it was understood.
    pub target: String,
    /// One sentence.
    pub summary: String,
    /// Nothing is wrong with it.
    pub fine: bool,
    /// One ladder per instance.
    pub ladders: Vec<Ladder>,
    /// What is wrong beyond single instances.
    pub reasons: Vec<Reason>,
    /// Names that were perhaps meant, when nothing was found.
    pub nearest: Vec<String>,
    /// How the DNS server comes to its answer, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
}

/// How the DNS server comes to an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resolution {
    /// The full name.
    pub name: String,
    /// `A`, `SRV`, ...
    #[serde(rename = "type")]
    pub record_type: String,
    /// From the zone, or the first stage of a server block, to the answer.
    pub steps: Vec<ResolutionStep>,
}

/// One step on the way to an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolutionStep {
    /// `zone`, `name`, `alias`, `answer`, or a stage of a server block.
    pub stage: String,
    /// What happened there.
    pub text: String,
}

/// How far one instance has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ladder {
    /// `reviews-v1-... of demo/reviews`, or `pod demo/reviews-v1-...`.
    pub subject: String,
    /// `address:port`.
    pub address: String,
    /// From `seen` to `acknowledged`.
    pub steps: Vec<Step>,
}

/// One rung.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// `seen`, `parsed`, `matched`, `ready`, `published`, `acknowledged`.
    pub stage: String,
    /// Passed or not.
    pub state: StepState,
    /// What is known about it.
    pub detail: String,
    /// Why it stopped here, or would stop here, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// Whether a rung was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StepState {
    /// Yes.
    Passed,
    /// No: the instance stopped here.
    Stopped,
    /// An earlier rung stopped it.
    NotReached,
}

/// Whether a target is live (or gone) everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Convergence {
    /// What was asked for, as it was understood.
    pub target: String,
    /// The version that faces must include.
    pub version: String,
    /// The target is in the catalog as asked for: there, or with `gone`, not
    /// there.
    pub present: bool,
    /// Every live member serves that version.
    pub converged: bool,
    /// How long clients may go on with the old answer.
    pub residue: Residue,
    /// What is in the way beyond single members: a face that was asked for and
    /// is not at work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// Every member that was asked.
    pub members: Vec<Member>,
}

/// What is left to wait for after the last acknowledgement of a removal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Residue {
    /// Milliseconds.
    pub ms: u64,
    /// Where it comes from.
    pub because: String,
}

/// A member of a face.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// `dns/udp-0`.
    pub id: String,
    /// The version it serves; absent: none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Milliseconds since it said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// It serves what was asked for.
    pub reached: bool,
}

/// A request that could not be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// HTTP status.
    pub status: u16,
    /// One sentence.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}
