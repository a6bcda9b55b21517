//! Causes as they are found, with the checks that every module needs.

use serde_json::{Value, json};

use super::syntax;
use crate::{
    Cause,
    schema::value::{at, int, text},
};

/// `IsNegativeErrorMsg` of apimachinery.
const NEGATIVE: &str = "must be greater than or equal to 0";
/// `FieldImmutableErrorMsg` of apimachinery.
pub(super) const IMMUTABLE: &str = "field is immutable";
/// Transports that a port may name.
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// What is wrong so far.
#[derive(Default)]
pub(super) struct Report {
    causes: Vec<Cause>,
}

impl Report {
    pub(super) fn into_causes(self) -> Vec<Cause> {
        self.causes
    }

    pub(super) fn len(&self) -> usize {
        self.causes.len()
    }

    pub(super) fn push(&mut self, cause: Cause) {
        self.causes.push(cause);
    }

    pub(super) fn required(&mut self, field: impl Into<String>, detail: &str) {
        self.push(Cause::required(field, detail));
    }

    pub(super) fn invalid(&mut self, field: impl Into<String>, value: &Value, detail: &str) {
        self.push(Cause::invalid(field, value, detail));
    }

    /// As [`Report::invalid`], for values that upstream shows in Go's own notation.
    pub(super) fn invalid_shown(&mut self, field: impl Into<String>, shown: &str, detail: &str) {
        let separator = if detail.is_empty() { "" } else { ": " };
        let message = format!("Invalid value: {shown}{separator}{detail}");
        self.push(Cause { reason: "FieldValueInvalid", message, field: field.into() });
    }

    /// One cause per message of a syntax check.
    pub(super) fn syntax(&mut self, field: &str, value: &str, messages: Vec<String>) {
        for message in messages {
            self.invalid(field, &json!(value), &message);
        }
    }

    pub(super) fn forbidden(&mut self, field: impl Into<String>, detail: &str) {
        self.push(Cause::forbidden(field, detail));
    }

    pub(super) fn duplicate(&mut self, field: impl Into<String>, value: &Value) {
        self.push(Cause::duplicate(field, value));
    }

    /// As [`Report::duplicate`], for values that upstream shows without quotes.
    pub(super) fn duplicate_shown(&mut self, field: impl Into<String>, shown: &str) {
        let message = format!("Duplicate value: {shown}");
        self.push(Cause { reason: "FieldValueDuplicate", message, field: field.into() });
    }

    /// A value outside a closed set that upstream shows without quotes.
    pub(super) fn not_supported_shown(&mut self, field: &str, shown: &str, supported: &[&str]) {
        let listed: Vec<String> = supported.iter().map(|name| format!("{name:?}")).collect();
        let message =
            format!("Unsupported value: {shown}: supported values: {}", listed.join(", "));
        self.push(Cause { reason: "FieldValueNotSupported", message, field: field.to_owned() });
    }

    /// A text out of a closed set; empty is missing.
    pub(super) fn one_of(&mut self, field: &str, value: &str, supported: &[&str]) {
        if value.is_empty() {
            self.required(field, "");
        } else if !supported.contains(&value) {
            self.push(Cause::not_supported(field, &json!(value), supported));
        }
    }

    /// A text out of a closed set, in which empty is just another text.
    pub(super) fn only(&mut self, field: &str, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            self.push(Cause::not_supported(field, &json!(value), supported));
        }
    }

    pub(super) fn positive(&mut self, field: &str, value: i64) {
        if value <= 0 {
            self.invalid(field, &json!(value), "must be greater than zero");
        }
    }

    pub(super) fn protocol(&mut self, field: &str, port: &Value) {
        self.one_of(field, text(port, &["protocol"]), &PROTOCOLS);
    }

    /// As [`Report::protocol`], where an empty one is there and not known.
    pub(super) fn known_protocol(&mut self, field: &str, port: &Value) {
        self.only(field, text(port, &["protocol"]), &PROTOCOLS);
    }

    pub(super) fn not_negative(&mut self, object: &Value, base: &str, key: &str) {
        if let Some(value) = int(object, &[key]).filter(|value| *value < 0) {
            let field = if base.is_empty() { key.to_owned() } else { format!("{base}.{key}") };
            self.invalid(field, &json!(value), NEGATIVE);
        }
    }

    pub(super) fn port_number(&mut self, field: &str, port: i64) {
        if !(1..=65_535).contains(&port) {
            self.invalid(field, &json!(port), &syntax::between(1, 65_535));
        }
    }

    /// A number, or the name of a port of the container.
    pub(super) fn port_or_name(&mut self, field: &str, port: Option<&Value>) {
        match port {
            Some(Value::String(name)) => self.syntax(field, name, syntax::port_name(name)),
            Some(number) => self.port_number(field, number.as_i64().unwrap_or(0)),
            None => self.port_number(field, 0),
        }
    }

    /// An optional text with a syntax.
    pub(super) fn optional(
        &mut self,
        object: &Value,
        base: &str,
        key: &str,
        check: fn(&str) -> Vec<String>,
    ) {
        let value = text(object, &[key]);
        if !value.is_empty() {
            self.syntax(&format!("{base}.{key}"), value, check(value));
        }
    }

    /// A text that must be there, with a syntax.
    pub(super) fn name(
        &mut self,
        object: &Value,
        base: &str,
        key: &str,
        check: fn(&str) -> Vec<String>,
    ) {
        if text(object, &[key]).is_empty() {
            self.required(format!("{base}.{key}"), "");
        } else {
            self.optional(object, base, key, check);
        }
    }

    /// A protocol name of a port: `http`, `example.com/custom`.
    pub(super) fn app_protocol(&mut self, port: &Value, base: &str) {
        if let Some(protocol) = at(port, &["appProtocol"]).and_then(Value::as_str) {
            let messages = syntax::qualified_name(protocol);
            self.syntax(&format!("{base}.appProtocol"), protocol, messages);
        }
    }
}
