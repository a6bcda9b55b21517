//! The grammars of names, and what is wrong with a text that breaks one.
//!
//! Counterpart of apimachinery's `pkg/util/validation`: each check returns
//! every message that applies, in its order and words; none means valid.

/// DNS labels, port-independent names, label values.
const LABEL_MAX: usize = 63;
/// DNS subdomains, and the keys of ConfigMaps.
const SUBDOMAIN_MAX: usize = 253;
/// RFC 6335 service names.
const PORT_NAME_MAX: usize = 15;

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// The message for a number out of range.
pub(super) fn between(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Not empty, every byte of `inner`, the first and last of `edge`.
fn is_word(text: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => edge(*first) && edge(*last) && bytes.iter().all(|b| inner(*b)),
        _ => false,
    }
}

fn is_label(text: &str) -> bool {
    is_word(text, lower, |b| lower(b) || b == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_qualified(text: &str) -> bool {
    is_word(
        text,
        |b| b.is_ascii_alphanumeric(),
        |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'),
    )
}

/// RFC 1123 label: names of Namespaces, containers, volumes.
pub(in crate::schema) fn dns_label(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if text.len() > LABEL_MAX {
        found.push(too_long(LABEL_MAX));
    }
    if !is_label(text) {
        found.push(if is_subdomain(text) {
            "must not contain dots".to_owned()
        } else {
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or \
             '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
             '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
                .to_owned()
        });
    }
    found
}

/// RFC 1123 subdomain: names of most objects.
pub(super) fn dns_subdomain(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        found.push(too_long(SUBDOMAIN_MAX));
    }
    if !is_subdomain(text) {
        found.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
             '-' or '.', and must start and end with an alphanumeric character (e.g. \
             'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        );
    }
    found
}

/// RFC 1035 label: names of Services.
pub(super) fn dns_1035_label(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if text.len() > LABEL_MAX {
        found.push(too_long(LABEL_MAX));
    }
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        found.push(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start \
             with an alphabetic character, and end with an alphanumeric character (e.g. \
             'my-name',  or 'abc-123', regex used for validation is \
             '[a-z]([-a-z0-9]*[a-z0-9])?')"
                .to_owned(),
        );
    }
    found
}

/// A name that goes into a URL as it is: names of roles and their bindings.
pub(super) fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    let illegal = ["/", "%"].into_iter().filter(|part| text.contains(part));
    illegal.map(|part| format!("may not contain '{part}'")).collect()
}

/// What `generateName` must keep to: a dash at the end will not stay there.
pub(super) fn mask_trailing_dash(text: &str) -> String {
    match text.char_indices().rev().nth(1) {
        Some((index, _)) if text.ends_with('-') => format!("{}a", &text[..index]),
        _ => text.to_owned(),
    }
}

/// `name` or `example.com/name`: keys of labels and annotations.
pub(super) fn qualified_name(text: &str) -> Vec<String> {
    const WORDS: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start \
        and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', \
        regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let mut found = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                found.push("prefix part must be non-empty".to_owned());
            } else {
                found.extend(dns_subdomain(prefix).iter().map(|m| format!("prefix part {m}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {WORDS} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        found.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        found.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !is_qualified(name) {
        found.push(format!("name part {WORDS}"));
    }
    found
}

/// The value of a label.
pub(in crate::schema) fn label_value(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if text.len() > LABEL_MAX {
        found.push(too_long(LABEL_MAX));
    }
    if !text.is_empty() && !is_qualified(text) {
        found.push(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', \
             '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  \
             or 'my_value',  or '12345', regex used for validation is \
             '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                .to_owned(),
        );
    }
    found
}

/// The name of a port (RFC 6335).
pub(super) fn port_name(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if text.len() > PORT_NAME_MAX {
        found.push(too_long(PORT_NAME_MAX));
    }
    if text.is_empty() || !text.bytes().all(|b| lower(b) || b == b'-') {
        found.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        found.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        found.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        found.push("must not begin or end with a hyphen".to_owned());
    }
    found
}

/// The name of an environment variable, as upstream takes it since 1.32.
pub(super) fn env_name(text: &str) -> Vec<String> {
    let printable = |b: u8| (b.is_ascii_graphic() || b == b' ') && b != b'=';
    if text.bytes().all(printable) {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other \
         than '='"
            .to_owned(),
    ]
}

/// What is said of a sysctl that does not keep to [`is_sysctl`].
pub(super) const SYSCTL: &str = "must have at most 253 characters and match regex \
    ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// The name of a kernel parameter: `net.core.somaxconn`, or with slashes.
pub(super) fn is_sysctl(text: &str) -> bool {
    let inner = |b: u8| lower(b) || matches!(b, b'-' | b'_');
    text.len() <= SUBDOMAIN_MAX && text.split(['.', '/']).all(|part| is_word(part, lower, inner))
}

/// A search domain, without the dot at its end: a subdomain whose labels may begin with an
/// underscore and hold more of them.
pub(super) fn search_domain(text: &str) -> Vec<String> {
    let inner = |b: u8| lower(b) || matches!(b, b'-' | b'_');
    let is_part = |part: &str| is_word(part.strip_prefix('_').unwrap_or(part), lower, inner);
    let mut found = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        found.push(too_long(SUBDOMAIN_MAX));
    }
    if !text.split('.').all(is_part) {
        found.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
             '_', '-' or '.', and must start and end with an alphanumeric character (e.g. \
             'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        );
    }
    found
}

/// A key of a ConfigMap or Secret, which may become a file name.
pub(super) fn config_key(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        found.push(too_long(SUBDOMAIN_MAX));
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(legal) {
        found.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
             'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
             '[-._a-zA-Z0-9]+')"
                .to_owned(),
        );
    }
    match text {
        "." | ".." => found.push(format!("must not be '{text}'")),
        _ if text.starts_with("..") => found.push("must not start with '..'".to_owned()),
        _ => {}
    }
    found
}

/// The name of an HTTP header of a probe.
pub(super) fn header_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. \
         'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')"
            .to_owned(),
    ]
}

/// `25%`.
pub(super) fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    vec![
        "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  \
         or '93%', regex used for validation is '[0-9]+%')"
            .to_owned(),
    ]
}
