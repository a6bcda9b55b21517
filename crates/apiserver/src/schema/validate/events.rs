//! Events.

use serde_json::{Value, json};

use super::{report::Report, syntax};
use crate::{
    registry::object,
    schema::value::{at, text},
};

// Limits of `pkg/apis/core/validation/events.go`.
const SHORT_MAX: usize = 128;
const MESSAGE_MAX: usize = 1024;
const ELSEWHERE: &str = "does not match event.namespace";

/// An Event stands beside what it is about; one with an `eventTime` says who reports.
pub(super) fn event(report: &mut Report, event: &Value) {
    let namespace = object::namespace(event);
    let about = text(event, &["involvedObject", "namespace"]);
    let modern = at(event, &["eventTime"]).is_some();
    let fits = match about {
        "" => namespace == "default" || modern && namespace == "kube-system",
        about => modern || about == namespace,
    };
    if !fits {
        report.invalid("involvedObject.namespace", &json!(about), ELSEWHERE);
    }
    if !modern {
        return;
    }
    let component = text(event, &["reportingComponent"]);
    if component.is_empty() {
        report.required("reportingComponent", "");
    }
    report.syntax("reportingComponent", component, syntax::qualified_name(component));
    for key in ["reportingInstance", "action", "reason"] {
        match text(event, &[key]).len() {
            0 => report.required(key, ""),
            1..=SHORT_MAX => {}
            _ => {
                let detail = format!("can have at most {SHORT_MAX} characters");
                report.invalid(key, &json!(""), &detail);
            }
        }
    }
    if text(event, &["message"]).len() > MESSAGE_MAX {
        let detail = format!("can have at most {MESSAGE_MAX} characters");
        report.invalid("message", &json!(""), &detail);
    }
}
