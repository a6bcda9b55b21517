//! Certificates and keys in Secrets that nobody could serve with.
//!
//! Looked at: whether there is any PEM block of the right sort. Not looked at: whether key and
//! certificate belong together.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::schema::value::text;

/// What Go's `tls.X509KeyPair` says first.
pub(super) fn fault(secret: &Value) -> Option<String> {
    let labels = |key: &str| -> Vec<String> {
        let bytes = STANDARD.decode(text(secret, &["data", key])).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let begin = |line: &str| {
            let label = line.trim_end().strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
            let end = format!("-----END {label}-----");
            text.contains(&end).then(|| label.to_owned())
        };
        text.lines().filter_map(begin).collect()
    };
    let certificates = labels("tls.crt");
    if !certificates.iter().any(|label| label == "CERTIFICATE") {
        return Some(none_of("certificate", &certificates, "certificate"));
    }
    let keys = labels("tls.key");
    let is_key = |label: &String| label == "PRIVATE KEY" || label.ends_with(" PRIVATE KEY");
    if keys.iter().any(is_key) {
        return None;
    }
    if keys == ["CERTIFICATE"] {
        return Some(
            "tls: found a certificate rather than a key in the PEM for the private key".to_owned(),
        );
    }
    Some(none_of("key", &keys, "key"))
}

fn none_of(what: &str, labels: &[String], input: &str) -> String {
    if labels.is_empty() {
        return format!("tls: failed to find any PEM data in {input} input");
    }
    if what == "certificate" && labels.len() == 1 && labels[0].ends_with("PRIVATE KEY") {
        return "tls: failed to find certificate PEM data in certificate input, but did find a \
                private key; PEM inputs may have been switched"
            .to_owned();
    }
    if what == "certificate" {
        return format!(
            "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM \
             blocks of the following types: [{}]",
            labels.join(" ")
        );
    }
    format!(
        "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after \
         skipping PEM blocks of the following types: [{}]",
        labels.join(" ")
    )
}
