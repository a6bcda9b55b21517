//! What containers ask for, and what they get at most.

use serde_json::{Value, json};

use super::{report::Report, syntax};
use crate::{
    Cause,
    schema::{
        quantity::Quantity,
        value::{at, entries, list, text},
    },
};

/// Resources without a domain that containers may ask for.
const OF_CONTAINERS: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
/// Resources without a domain that something may ask for.
const STANDARD: [&str; 20] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
];
const HUGE_PAGES: &str = "hugepages-";

/// In Kubernetes' own domain, as names without a domain are.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// A device or the like, with a domain of its own.
fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && syntax::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether more may be asked for in total than there is.
fn may_overcommit(name: &str) -> bool {
    is_native(name) && !name.starts_with(HUGE_PAGES)
}

/// `resources` of a container.
pub(super) fn container(report: &mut Report, base: &str, container: &Value, spec: &Value) {
    for part in ["limits", "requests"] {
        for (name, value) in entries(container, &["resources", part]) {
            let field = format!("{base}.{part}[{name}]");
            resource_name(report, &field, name);
            let Some(quantity) = Quantity::from_value(value) else { continue };
            amount(report, &field, name, quantity);
            if part == "requests" {
                let limit = at(container, &["resources", "limits", name]);
                against(report, base, name, quantity, limit.and_then(Quantity::from_value));
            }
            huge_pages(report, &field, name, quantity);
        }
    }
    let asks = |wanted: &dyn Fn(&str) -> bool| {
        ["limits", "requests"].iter().any(|part| {
            entries(container, &["resources", part]).any(|(name, _)| wanted(name.as_str()))
        })
    };
    if asks(&|name| name.starts_with(HUGE_PAGES))
        && !asks(&|name| ["cpu", "memory"].contains(&name))
    {
        report.forbidden(base, "HugePages require cpu or memory");
    }
    claims(report, &format!("{base}.claims"), container, spec);
}

fn resource_name(report: &mut Report, field: &str, name: &str) {
    let messages = syntax::qualified_name(name);
    let is_valid = messages.is_empty();
    for message in messages {
        report.invalid_shown(field, name, &message);
    }
    if !name.contains('/') {
        if is_valid
            && !STANDARD.contains(&name)
            && !name.trim_start_matches("requests.").starts_with(HUGE_PAGES)
        {
            let detail = "must be a standard resource type or fully qualified";
            report.invalid_shown(field, name, detail);
        }
        if !OF_CONTAINERS.contains(&name) && !name.starts_with(HUGE_PAGES) {
            report.invalid_shown(field, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        report.invalid_shown(field, name, "doesn't follow extended resource name standard");
    }
}

/// An amount is not negative, and that of a device is whole.
pub(super) fn amount(report: &mut Report, field: &str, name: &str, quantity: Quantity) {
    if quantity.is_negative() {
        let shown = json!(quantity.to_string());
        report.invalid(field, &shown, "must be greater than or equal to 0");
    }
    if is_extended(name) && !quantity.is_whole() {
        let shown = format!("resource.Quantity{{{:?}}}", quantity.to_string());
        report.invalid_shown(field, &shown, "must be an integer");
    }
}

fn against(
    report: &mut Report,
    base: &str,
    name: &str,
    request: Quantity,
    limit: Option<Quantity>,
) {
    let Some(limit) = limit else {
        if !may_overcommit(name) {
            let detail = "Limit must be set for non overcommitable resources";
            report.required(format!("{base}.limits"), detail);
        }
        return;
    };
    let relation = if request != limit && !may_overcommit(name) {
        "equal to"
    } else if request > limit {
        "less than or equal to"
    } else {
        return;
    };
    let detail = format!("must be {relation} {name} limit of {limit}");
    report.invalid(format!("{base}.requests"), &json!(request.to_string()), &detail);
}

fn huge_pages(report: &mut Report, field: &str, name: &str, quantity: Quantity) {
    let Some(size) = name.strip_prefix(HUGE_PAGES) else { return };
    let fits = Quantity::parse(size).is_some_and(|size| quantity.is_multiple_of(size));
    if !fits {
        let shown = quantity.to_string();
        let detail = format!("{shown} is not positive integer multiple of {name}");
        report.invalid(field, &json!(shown), &detail);
    }
}

/// Claims that the container takes of those of its Pod.
fn claims(report: &mut Report, base: &str, container: &Value, spec: &Value) {
    let claims = list(container, &["resources", "claims"]);
    let mut known: Vec<&str> =
        list(spec, &["resourceClaims"]).iter().map(|claim| text(claim, &["name"])).collect();
    known.retain(|name| !name.is_empty());
    known.sort_unstable();
    for (index, claim) in claims.iter().enumerate() {
        let (field, name) = (format!("{base}[{index}]"), text(claim, &["name"]));
        if name.is_empty() {
            report.required(field, "");
            continue;
        }
        let request = text(claim, &["request"]);
        report.optional(claim, &field, "request", syntax::dns_label);
        for other in claims[..index].iter().filter(|other| text(other, &["name"]) == name) {
            let before = text(other, &["request"]);
            if before.is_empty() || request.is_empty() {
                report.duplicate(&field, &json!(name));
            } else if before == request {
                report.duplicate(&field, &json!(format!("{name}/{request}")));
            }
        }
        if !known.contains(&name) {
            let among = match known.is_empty() {
                true => " which is empty".to_owned(),
                false => format!(": {}", known.join(", ")),
            };
            let mut cause = Cause::not_found(field, &json!(name));
            let detail = format!(": must be one of the names in pod.spec.resourceClaims{among}");
            cause.message.push_str(&detail);
            report.push(cause);
        }
    }
}

/// `resourceClaims` of a Pod.
pub(super) fn of_pod(report: &mut Report, base: &str, spec: &Value) {
    let claims = list(spec, &["resourceClaims"]);
    for (index, claim) in claims.iter().enumerate() {
        let (field, name) = (format!("{base}.resourceClaims[{index}]"), text(claim, &["name"]));
        if !name.is_empty() && claims[..index].iter().any(|other| text(other, &["name"]) == name) {
            report.duplicate(format!("{field}.name"), &json!(name));
        } else {
            report.name(claim, &field, "name", syntax::dns_label);
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        let given = sources.iter().filter(|key| at(claim, &[key]).is_some()).count();
        let detail = match given {
            0 => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            1 => "",
            _ => {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            }
        };
        if !detail.is_empty() {
            report.invalid(&field, claim, detail);
        }
        for key in sources {
            if let Some(name) = at(claim, &[key]).and_then(Value::as_str) {
                report.syntax(&format!("{field}.{key}"), name, syntax::dns_subdomain(name));
            }
        }
    }
}
