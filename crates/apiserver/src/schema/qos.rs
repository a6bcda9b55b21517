//! The quality-of-service class of a Pod: Guaranteed, Burstable or BestEffort.

use serde_json::Value;

use super::quantity::Quantity;
use super::value::{entries, list};

/// The class by upstream's rule: every container limits both cpu and memory and requests as much
/// (Guaranteed), no container says anything (BestEffort), else Burstable.
pub fn class(pod: &Value) -> &'static str {
    let containers =
        list(pod, &["spec", "containers"]).iter().chain(list(pod, &["spec", "initContainers"]));
    let mut guaranteed = true;
    let mut silent = true;
    for container in containers {
        for name in ["cpu", "memory"] {
            let limit = compute(container, "limits", name);
            let request = compute(container, "requests", name).or(limit);
            silent &= limit.is_none() && request.is_none();
            guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (silent, guaranteed) {
        (true, _) => "BestEffort",
        (false, true) => "Guaranteed",
        (false, false) => "Burstable",
    }
}

/// A resource that is named with more than zero.
fn compute(container: &Value, side: &str, name: &str) -> Option<Quantity> {
    entries(container, &["resources", side])
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| Quantity::from_value(value))
        .filter(|quantity| !quantity.is_zero())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::class;

    #[test]
    fn classes() {
        for (resources, expected) in [
            (json!([{}]), "BestEffort"),
            (json!([{"limits": {"cpu": "1", "memory": "1Gi"}}]), "Guaranteed"),
            (
                json!([{"limits": {"cpu": "1", "memory": "1Gi"},
                        "requests": {"cpu": "1000m", "memory": "1024Mi"}}]),
                "Guaranteed",
            ),
            (json!([{"limits": {"cpu": "1", "memory": "1Gi"}}, {}]), "Burstable"),
            (json!([{"requests": {"cpu": "1"}}]), "Burstable"),
            (json!([{"requests": {"cpu": "0"}}]), "BestEffort"),
        ] {
            let containers: Vec<_> =
                resources.as_array().unwrap().iter().map(|r| json!({"resources": r})).collect();
            assert_eq!(
                class(&json!({"spec": {"containers": containers}})),
                expected,
                "{resources}"
            );
        }
    }
}
