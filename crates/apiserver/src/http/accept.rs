//! In which form the client wants its answer.
//!
//! JSON always; a `Table`, `PartialObjectMetadata` or an aggregated discovery
//! document when the client asks for it before plain JSON. Protobuf is never
//! produced: every client that offers it offers JSON too.

use http::{HeaderMap, header};

use crate::Status;

/// Longest `Accept` that is looked at; kubectl's longest has some 300 bytes.
const ACCEPT_BYTES_MAX: usize = 4 << 10;

/// The media type of everything that is answered.
const MEDIA_TYPE: &str = "application/json";

/// A form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Object,
    /// `as=Table;v=v1;g=meta.k8s.io`
    Table,
    /// `as=PartialObjectMetadata;...`: the metadata of one object, or of each event of a watch.
    Metadata,
    /// `as=PartialObjectMetadataList;...`
    MetadataList,
    /// `as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io` (1.33 has no other version)
    Aggregated,
}

/// The form that the client likes best of those that we have.
pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Form, Status> {
    choose(headers, |_| true)
}

/// As [`negotiate`], of what has no rows.
pub(crate) fn negotiate_without_table(headers: &HeaderMap) -> Result<Form, Status> {
    choose(headers, |form| form != Form::Table)
}

fn choose(headers: &HeaderMap, is_served: impl Fn(Form) -> bool) -> Result<Form, Status> {
    let mut ranges = Vec::new();
    for value in headers.get_all(header::ACCEPT) {
        let text = value.to_str().unwrap_or_default();
        if text.len() > ACCEPT_BYTES_MAX {
            return Err(Status::bad_request("the Accept header is too long"));
        }
        ranges.extend(text.split(',').map(str::trim).filter(|r| !r.is_empty()).map(Range::read));
    }
    if ranges.is_empty() {
        return Ok(Form::Object);
    }
    // Two refusals, as upstream: the dispatcher looks at media types, the handler at forms.
    if !ranges.iter().any(|r| matches!(r.media, "*/*" | MEDIA_TYPE)) {
        return Err(Status::not_acceptable(format!(
            "406: Not Acceptable\n\nAvailable representations: {MEDIA_TYPE}"
        )));
    }
    // Among equals the client's order stands.
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality).then(a.stars().cmp(&b.stars())));
    ranges.iter().filter_map(Range::form).find(|form| is_served(*form)).ok_or_else(|| {
        let message = format!("only the following media types are accepted: {MEDIA_TYPE}");
        Status { details: None, ..Status::not_acceptable(message) }
    })
}

/// One of the things that a client accepts.
struct Range<'h> {
    media: &'h str,
    kind: &'h str,
    version: &'h str,
    group: &'h str,
    quality: f64,
}

impl Range<'_> {
    fn read(text: &str) -> Range<'_> {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let mut range = Range { media, kind: "", version: "", group: "", quality: 1.0 };
        for (key, value) in parts.filter_map(|p| p.split_once('=')) {
            match key {
                "as" => range.kind = value,
                "v" => range.version = value,
                "g" => range.group = value,
                "q" => range.quality = value.parse().unwrap_or(1.0),
                _ => {}
            }
        }
        range
    }

    /// How little it says: what is named goes before what is not.
    fn stars(&self) -> usize {
        self.media.matches('*').count()
    }

    fn form(&self) -> Option<Form> {
        if !matches!(self.media, MEDIA_TYPE | "application/*" | "*/*") {
            return None;
        }
        match (self.kind, self.version, self.group) {
            ("", "", "") => Some(Form::Object),
            ("Table", "v1", "meta.k8s.io") => Some(Form::Table),
            ("PartialObjectMetadata", "v1", "meta.k8s.io") => Some(Form::Metadata),
            ("PartialObjectMetadataList", "v1", "meta.k8s.io") => Some(Form::MetadataList),
            ("APIGroupDiscoveryList", "v2", "apidiscovery.k8s.io") => Some(Form::Aggregated),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_known_form_wins() {
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
                Some(Form::MetadataList),
            ),
            (
                Some(
                    "*/*, application/json;q=0.5, application/json;as=Table;v=v1;g=meta.k8s.io;q=0.9",
                ),
                Some(Form::Object),
            ),
            (
                Some("application/json;q=0.5, application/json;as=Table;v=v1;g=meta.k8s.io;q=0.9"),
                Some(Form::Table),
            ),
            (Some("application/*"), None),
            (Some("text/html;q=0.9, */*;q=0.1"), Some(Form::Object)),
            (Some(";;;"), None),
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

    #[test]
    fn what_has_no_rows_is_shown_in_the_next_form() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        for (accept, expected) in
            [(table.to_owned(), None), (format!("{table},application/json"), Some(Form::Object))]
        {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(negotiate_without_table(&headers).ok(), expected, "{accept}");
        }
    }
}
