//! In which form the client wants its answer.
//!
//! JSON always; a `Table`, `PartialObjectMetadata` or an aggregated discovery
//! document when the client asks for it before plain JSON. Protobuf is never
//! produced: every client that offers it offers JSON too.

use http::{HeaderMap, header};

use crate::Status;

/// Longest `Accept` that is looked at; kubectl's longest has some 300 bytes.
const ACCEPT_BYTES_MAX: usize = 4 << 10;

/// A form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Object,
    /// `as=Table;v=v1;g=meta.k8s.io`
    Table,
    /// `as=PartialObjectMetadata;...` or `as=PartialObjectMetadataList;...`
    Metadata,
    /// `as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io` (1.33 has no other version)
    Aggregated,
}

/// The first form that we have, in the client's order.
pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Form, Status> {
    let mut asked = false;
    for value in headers.get_all(header::ACCEPT) {
        let text = value.to_str().unwrap_or_default();
        if text.len() > ACCEPT_BYTES_MAX {
            return Err(Status::bad_request("the Accept header is too long"));
        }
        for range in text.split(',').map(str::trim).filter(|r| !r.is_empty()) {
            asked = true;
            if let Some(form) = form_of(range) {
                return Ok(form);
            }
        }
    }
    if asked {
        return Err(Status::not_acceptable(
            "only the following media types are accepted: application/json",
        ));
    }
    Ok(Form::Object)
}

fn form_of(range: &str) -> Option<Form> {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next()?;
    if !matches!(media, "application/json" | "*/*") {
        return None;
    }
    let (mut kind, mut version, mut group) = ("", "", "");
    for (key, value) in parts.filter_map(|p| p.split_once('=')) {
        match key {
            "as" => kind = value,
            "v" => version = value,
            "g" => group = value,
            _ => {}
        }
    }
    match (kind, version, group) {
        ("", _, _) => Some(Form::Object),
        ("Table", "v1", "meta.k8s.io") => Some(Form::Table),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "v1", "meta.k8s.io") => {
            Some(Form::Metadata)
        }
        ("APIGroupDiscoveryList", "v2", "apidiscovery.k8s.io") => Some(Form::Aggregated),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_known_form_wins() {
        for (accept, expected) in [
            (None, Some(Form::Object)),
            (Some("*/*"), Some(Form::Object)),
            (Some("application/json"), Some(Form::Object)),
            (Some("application/vnd.kubernetes.protobuf,application/json"), Some(Form::Object)),
            (Some("application/vnd.kubernetes.protobuf"), None),
            (
                Some(
                    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                ),
                Some(Form::Table),
            ),
            (
                Some("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"),
                Some(Form::Object),
            ),
            (
                Some("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
                Some(Form::Metadata),
            ),
            (
                Some(
                    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;profile=nopeer,application/json",
                ),
                Some(Form::Aggregated),
            ),
            (Some("text/html"), None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(negotiate(&headers).ok(), expected, "{accept:?}");
        }
    }
}
