//! Events do not live for ever: they go an hour after they were last seen, as
//! with kube-apiserver's `--event-ttl`. Upstream leaves that to etcd leases;
//! here a sweep looks at them from time to time.

use std::time::Duration;

use portolan_runtime::Shutdown;
use serde_json::Value;

use super::{Caller, DeleteOptions, Preconditions, Registry, object};
use crate::kinds;

/// kube-apiserver `--event-ttl`.
const EVENT_TTL_SECONDS: u64 = 3_600;
/// A sixtieth of the lifetime: late by little, and cheap.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

impl Registry {
    /// Removes Events that have outlived their hour, until shutdown.
    pub async fn sweep_events(self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(SWEEP_EVERY) => self.remove_old_events().await,
            }
        }
    }

    pub(crate) async fn remove_old_events(&self) {
        let caller = Caller::system("apiserver").within("kube-apiserver");
        let oldest = self.now_unix_seconds().saturating_sub(EVENT_TTL_SECONDS);
        for event in self.list(&kinds::EVENTS, None).1 {
            if last_seen(&event) >= oldest {
                continue;
            }
            let options = DeleteOptions {
                preconditions: Preconditions {
                    uid: None,
                    resource_version: Some(object::meta_str(&event, "resourceVersion").to_owned()),
                },
                ..DeleteOptions::default()
            };
            let (namespace, name) = (object::namespace(&event), object::name(&event));
            if let Err(status) =
                self.delete(&caller, &kinds::EVENTS, namespace, name, &options).await
            {
                // It was seen again in this moment, or is gone.
                tracing::debug!(namespace, name, %status, "an old event stays");
            }
        }
    }
}

fn last_seen(event: &Value) -> u64 {
    let times =
        ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    times
        .into_iter()
        .filter_map(|path| event.pointer(path).and_then(Value::as_str))
        .filter_map(object::parse_timestamp)
        .max()
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portolan_runtime::ManualClock;
    use serde_json::json;

    use super::*;
    use crate::{
        registry::{Options, WriteOptions},
        store::{self, Backend, Store},
    };

    #[tokio::test]
    async fn events_go_an_hour_after_they_were_last_seen() {
        let clock = ManualClock::at(1_800_000_000_000);
        let options = Options { clock: Arc::new(clock.clone()), ..Options::default() };
        let store = Store::open(Backend::Memory, store::Options::default()).unwrap();
        let (registry, caller) = (Registry::new(store, options), Caller::system("test"));
        let create = async |kind, namespace, object| {
            let options = WriteOptions::default();
            registry.create(&caller, kind, namespace, object, &options).await.unwrap();
        };
        create(&kinds::NAMESPACES, "", json!({"metadata": {"name": "default"}})).await;
        let event = |name: &str, last: &str| {
            json!({
                "metadata": {"name": name},
                "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
                "lastTimestamp": last,
            })
        };
        create(&kinds::EVENTS, "default", event("old", "2027-01-15T08:00:00Z")).await;
        clock.advance(1_800_000);
        create(&kinds::EVENTS, "default", event("new", "2027-01-15T08:30:00Z")).await;
        let left = |registry: &Registry| registry.store().count("events");
        registry.remove_old_events().await;
        assert_eq!(left(&registry), 2);
        clock.advance(1_801_000);
        registry.remove_old_events().await;
        assert_eq!(left(&registry), 1);
        assert!(registry.get(&kinds::EVENTS, "default", "new").is_ok());
    }
}
