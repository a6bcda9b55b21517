//! Requests of both variants, in one form.

use std::collections::{BTreeMap, HashMap};

use portolan_envoy_proto::{
    Message,
    config::core::v3::Node,
    google::rpc,
    service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
};
use portolan_model::{Name, name};

use crate::stream::{Names, Variant};

/// A request as it came.
pub(super) struct Asked {
    /// Who asks; in the first request of a stream at least.
    pub(super) node: Option<Node>,
    /// For what.
    pub(super) type_url: String,
    /// The response that it answers.
    pub(super) nonce: Option<u64>,
    /// Why that was refused.
    pub(super) error: Option<String>,
    /// Which ones.
    pub(super) names: Names,
}

/// A request of one variant.
pub(super) trait DiscoveryMessage: Message + Default + Send + 'static {
    const VARIANT: Variant;

    fn into_asked(self) -> Asked;
}

impl DiscoveryMessage for DiscoveryRequest {
    const VARIANT: Variant = Variant::StateOfTheWorld;

    fn into_asked(self) -> Asked {
        Asked {
            node: self.node,
            type_url: self.type_url,
            nonce: nonce(&self.response_nonce),
            error: self.error_detail.map(refusal),
            names: Names::Only(self.resource_names.iter().map(|text| name(text)).collect()),
        }
    }
}

impl DiscoveryMessage for DeltaDiscoveryRequest {
    const VARIANT: Variant = Variant::Delta;

    fn into_asked(self) -> Asked {
        let all = |list: &[String]| list.iter().map(|text| name(text)).collect();
        Asked {
            node: self.node,
            type_url: self.type_url,
            nonce: nonce(&self.response_nonce),
            error: self.error_detail.map(refusal),
            names: Names::Differently {
                subscribe: all(&self.resource_names_subscribe),
                unsubscribe: all(&self.resource_names_unsubscribe),
                known: known(&self.initial_resource_versions),
            },
        }
    }
}

/// Ours are numbers from 1; what is no such number answers nothing of ours.
fn nonce(text: &str) -> Option<u64> {
    (!text.is_empty()).then(|| text.parse().unwrap_or(0))
}

/// What was accepted from another server has a version that is none of ours: it counts
/// as held, and as different.
fn known(versions: &HashMap<String, String>) -> BTreeMap<Name, u64> {
    let version = |text: &str| u64::from_str_radix(text, 16).unwrap_or(0);
    versions.iter().map(|(text, held)| (name(text), version(held))).collect()
}

/// Characters of a client's words that are kept.
const REFUSAL_CHARS_MAX: usize = 2_048;

fn refusal(status: rpc::Status) -> String {
    match status.message.is_empty() {
        true => format!("refused with code {} and without a word", status.code),
        false => status.message.chars().take(REFUSAL_CHARS_MAX).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_both_variants() {
        let plain = DiscoveryRequest {
            resource_names: vec!["a".into()],
            response_nonce: "7".into(),
            ..DiscoveryRequest::default()
        };
        let asked = plain.into_asked();
        assert_eq!((asked.nonce, asked.error), (Some(7), None));
        assert_eq!(asked.names, Names::Only(vec![name("a")]));
        let delta = DeltaDiscoveryRequest {
            resource_names_subscribe: vec!["a".into()],
            resource_names_unsubscribe: vec!["b".into()],
            initial_resource_versions: [
                ("a".to_owned(), "00000000000000ff".to_owned()),
                ("c".to_owned(), "theirs".to_owned()),
            ]
            .into(),
            error_detail: Some(rpc::Status { code: 3, ..rpc::Status::default() }),
            response_nonce: "theirs".into(),
            ..DeltaDiscoveryRequest::default()
        };
        let asked = delta.into_asked();
        assert_eq!(asked.nonce, Some(0), "answers nothing of ours");
        assert_eq!(asked.error.as_deref(), Some("refused with code 3 and without a word"));
        let expected = Names::Differently {
            subscribe: vec![name("a")],
            unsubscribe: vec![name("b")],
            known: [(name("a"), 255), (name("c"), 0)].into(),
        };
        assert_eq!(asked.names, expected);
    }
}
