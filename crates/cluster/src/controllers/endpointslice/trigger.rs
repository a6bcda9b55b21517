//! When the change happened that the next write of slices follows from.
//!
//! Node proxies turn it into `network_programming_duration_seconds`
//! (kubernetes/endpointslice `trigger_time_tracker.go`).

use std::collections::HashMap;

use portolan_apiserver::registry::object::parse_timestamp;
use serde_json::Value;

use crate::{
    informer::{Object, ObjectKey},
    object,
};

/// What was seen of a Service and its Pods at the last look, in Unix seconds.
#[derive(Default)]
struct Seen {
    service: u64,
    pods: HashMap<String, u64>,
}

/// The times of all Services.
#[derive(Default)]
pub(crate) struct TriggerTimes {
    seen: HashMap<ObjectKey, Seen>,
}

impl TriggerTimes {
    /// The earliest change since the last call, if there was one that has a time.
    pub(crate) fn next(
        &mut self,
        key: &ObjectKey,
        service: &Value,
        selected: &[Object],
    ) -> Option<u64> {
        let now = Seen {
            service: parse_timestamp(object::text(service, "/metadata/creationTimestamp"))
                .unwrap_or_default(),
            pods: selected
                .iter()
                .filter_map(|pod| Some((object::name(pod).to_owned(), ready_since(pod)?)))
                .collect(),
        };
        let before = self.seen.remove(key);
        let known = |name: &String| before.as_ref().and_then(|b| b.pods.get(name)).copied();
        let pods = now.pods.iter().filter(|(name, time)| known(name) != Some(**time));
        let of_service = (before.as_ref().map(|b| b.service) != Some(now.service))
            .then_some(now.service)
            .filter(|time| *time > 0);
        let earliest = pods.map(|(_, time)| *time).chain(of_service).min();
        self.seen.insert(key.clone(), now);
        earliest
    }

    /// The Service is gone.
    pub(crate) fn forget(&mut self, key: &ObjectKey) {
        self.seen.remove(key);
    }
}

fn ready_since(pod: &Value) -> Option<u64> {
    parse_timestamp(object::text(object::condition(pod, "Ready")?, "/lastTransitionTime"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn tells_the_earliest_of_what_is_new() {
        let service = json!({"metadata": {"creationTimestamp": "1970-01-01T00:00:50Z"}});
        let pod = |name: &str, seconds: u64| -> Object {
            let since = format!("1970-01-01T00:00:{seconds:02}Z");
            Arc::new(json!({
                "metadata": {"name": name},
                "status": {"conditions": [{"type": "Ready", "lastTransitionTime": since}]},
            }))
        };
        let key = ObjectKey::new("default", "web");
        let mut times = TriggerTimes::default();
        for (pods, expected) in [
            (vec![], Some(50)),
            (vec![], None),
            (vec![pod("a", 20), pod("b", 10)], Some(10)),
            (vec![pod("a", 30), pod("b", 10)], Some(30)),
            (vec![pod("b", 10)], None),
        ] {
            assert_eq!(times.next(&key, &service, &pods), expected);
        }
    }
}
