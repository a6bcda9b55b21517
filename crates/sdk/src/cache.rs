//! The Pods' offers by interface. Pure: what changed is returned, not told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::Arc,
};

use portolan_dialects::Dialect;
use portolan_model::Reason;

use crate::{
    Instance,
    instance::Key,
    kept::Lists,
    pod::{Offer, Pod},
};

type Instances = BTreeMap<Key, Arc<Instance>>;

/// What is known of the Pods.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    dialects: Vec<Dialect>,
    pods: HashMap<String, Known>,
    interfaces: HashMap<String, Instances>,
    /// Interfaces that are as another life of this process left them.
    preloaded: BTreeSet<String>,
}

/// What is kept of one Pod.
#[derive(Debug, Default)]
struct Known {
    /// Where its instances are.
    places: Vec<(String, Key)>,
    /// What of its words could not be used; kept so that it is told once.
    reasons: Vec<Reason>,
}

/// The interfaces whose instances are others than before.
pub(crate) type Changed = BTreeSet<String>;

impl Cache {
    pub(crate) fn new(dialects: Vec<Dialect>) -> Self {
        Self { dialects, ..Self::default() }
    }

    /// A Pod as it is now.
    pub(crate) fn put(&mut self, pod: &Pod) -> Changed {
        let Offer { instances, reasons } = pod.offer(&self.dialects);
        let name = &pod.metadata.name;
        // Two dialects may tell the same; then the later one counts.
        let offered: BTreeMap<(String, Key), Instance> = instances
            .into_iter()
            .map(|instance| ((instance.interface.clone(), instance.key()), instance))
            .collect();
        let mut next = Known { places: Vec::with_capacity(offered.len()), reasons };
        let mut changed = Changed::new();
        for ((interface, key), instance) in offered {
            let all = self.interfaces.entry(interface.clone()).or_default();
            if all.get(&key).is_none_or(|old| **old != instance) {
                all.insert(key.clone(), Arc::new(instance));
                changed.insert(interface.clone());
            }
            next.places.push((interface, key));
        }
        let before = self.pods.remove(name).unwrap_or_default();
        for (interface, key) in before.places {
            if !next.places.iter().any(|(i, k)| *i == interface && *k == key) {
                self.take_out(&interface, &key);
                changed.insert(interface);
            }
        }
        for reason in &next.reasons {
            if !before.reasons.contains(reason) {
                tracing::warn!(pod = name, code = %reason.code, "not usable: {}", reason.detail);
            }
        }
        // A Pod that says nothing needs no room.
        if !next.places.is_empty() || !next.reasons.is_empty() {
            self.pods.insert(name.clone(), next);
        }
        changed
    }

    /// A Pod that is gone.
    pub(crate) fn remove(&mut self, pod: &str) -> Changed {
        let known = self.pods.remove(pod).unwrap_or_default();
        let mut changed = Changed::new();
        for (interface, key) in known.places {
            self.take_out(&interface, &key);
            changed.insert(interface);
        }
        changed
    }

    /// All Pods that there are: others are gone.
    pub(crate) fn replace(&mut self, pods: &[Pod]) -> Changed {
        if !self.preloaded.is_empty() {
            return self.replace_preloaded(pods);
        }
        let there: BTreeSet<&str> = pods.iter().map(|pod| pod.metadata.name.as_str()).collect();
        let gone: Vec<String> =
            self.pods.keys().filter(|pod| !there.contains(pod.as_str())).cloned().collect();
        let mut changed: Changed = pods.iter().flat_map(|pod| self.put(pod)).collect();
        changed.extend(gone.iter().flat_map(|pod| self.remove(pod)));
        changed
    }

    /// The same, where some is known of no Pod.
    fn replace_preloaded(&mut self, pods: &[Pod]) -> Changed {
        self.preloaded.clear();
        let before = mem::take(&mut self.interfaces);
        self.pods.clear();
        for pod in pods {
            self.put(pod);
        }
        let names: BTreeSet<&String> = before.keys().chain(self.interfaces.keys()).collect();
        let is_other = |name: &&String| before.get(*name) != self.interfaces.get(*name);
        names.into_iter().filter(is_other).cloned().collect()
    }

    /// What another life of this process knew.
    pub(crate) fn preload(&mut self, lists: Lists) {
        for (interface, instances) in lists {
            let all = instances.into_iter().map(|one| (one.key(), one)).collect();
            self.interfaces.insert(interface.clone(), all);
            self.preloaded.insert(interface);
        }
    }

    pub(crate) fn is_preloaded(&self, interface: &str) -> bool {
        self.preloaded.contains(interface)
    }

    pub(crate) fn preloaded(&self) -> impl Iterator<Item = &String> {
        self.preloaded.iter()
    }

    /// The instances of an interface are these. Tells whether they were others.
    pub(crate) fn set(&mut self, interface: &str, instances: Vec<Instance>) -> bool {
        self.preloaded.remove(interface);
        let now: Instances = by_key(instances).collect();
        let is_other = match self.interfaces.get(interface) {
            Some(before) => *before != now,
            None => !now.is_empty(),
        };
        if now.is_empty() {
            self.interfaces.remove(interface);
        } else if is_other {
            self.interfaces.insert(interface.to_owned(), now);
        }
        is_other
    }

    /// Some instances of an interface are gone, and some are these from now on.
    pub(crate) fn change(
        &mut self,
        interface: &str,
        put: Vec<Instance>,
        gone: &[Instance],
    ) -> bool {
        let mut is_other = false;
        let all = self.interfaces.entry(interface.to_owned()).or_default();
        for one in gone {
            is_other |= all.remove(&one.key()).is_some();
        }
        for (key, one) in by_key(put) {
            is_other |= all.get(&key) != Some(&one);
            all.insert(key, one);
        }
        if all.is_empty() {
            self.interfaces.remove(interface);
        }
        is_other
    }

    /// The instances of an interface, in a stable order.
    pub(crate) fn instances(&self, interface: &str) -> Vec<Arc<Instance>> {
        self.interfaces
            .get(interface)
            .map(|all| all.values().cloned().collect())
            .unwrap_or_default()
    }

    /// The interfaces that anybody offers, in order.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let mut names: Vec<String> = self.interfaces.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    fn take_out(&mut self, interface: &str, key: &Key) {
        if let Some(all) = self.interfaces.get_mut(interface) {
            all.remove(key);
            if all.is_empty() {
                self.interfaces.remove(interface);
            }
        }
    }
}

fn by_key(instances: Vec<Instance>) -> impl Iterator<Item = (Key, Arc<Instance>)> {
    instances.into_iter().map(|one| (one.key(), Arc::new(one)))
}

#[cfg(test)]
mod tests {
    use portolan_dialects::{Registration, app};
    use portolan_model::State;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A Pod named by number, ready or not, that offers interfaces.
    fn pod(number: u8, ready: bool, interfaces: &[&str]) -> Pod {
        let address = format!("10.0.0.{number}:80").parse().unwrap();
        let offered: Vec<Registration> =
            interfaces.iter().map(|name| Registration::new(name, "http", address)).collect();
        serde_json::from_value(json!({
            "metadata": {
                "name": format!("p{number}"),
                "labels": {"app.io/label": "app.io-value"},
                "annotations": {"app.io/annotation": app::encode(&offered).unwrap()},
            },
            "status": {
                "phase": "Running",
                "podIP": format!("10.0.0.{number}"),
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            },
        }))
        .unwrap()
    }

    fn cache() -> Cache {
        Cache::new(vec![Dialect::App(app::App::default())])
    }

    fn names(changed: &Changed) -> Vec<&str> {
        changed.iter().map(String::as_str).collect()
    }

    #[test]
    fn tells_which_interfaces_changed() {
        let mut cache = cache();
        let put = |cache: &mut Cache, ready, offers: &[&str], expected: &[&str]| {
            assert_eq!(names(&cache.put(&pod(1, ready, offers))), expected, "{ready} {offers:?}");
        };
        put(&mut cache, false, &["a", "b"], &["a", "b"]);
        put(&mut cache, false, &["a", "b"], &[]);
        put(&mut cache, true, &["a", "b"], &["a", "b"]);
        put(&mut cache, true, &["b"], &["a"]);
        put(&mut cache, true, &["b", "c"], &["c"]);
        assert!(cache.instances("a").is_empty());
        assert_eq!(cache.instances("b")[0].state, State::Serving);
        assert_eq!(names(&cache.remove("p1")), ["b", "c"]);
        assert_eq!(names(&cache.remove("p1")), [] as [&str; 0]);
        assert!(cache.interfaces.is_empty() && cache.pods.is_empty());
    }

    #[test]
    fn a_listing_removes_what_it_lacks() {
        let mut cache = cache();
        cache.replace(&[pod(1, true, &["a"]), pod(2, true, &["a", "b"]), pod(3, true, &["c"])]);
        let changed = cache.replace(&[pod(1, true, &["a"]), pod(3, false, &["c"])]);
        assert_eq!(names(&changed), ["a", "b", "c"]);
        assert_eq!(cache.instances("a").len(), 1);
        assert!(!cache.instances("c")[0].is_available());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, bool, Vec<&'static str>),
        Remove(u8),
        Replace(Vec<(u8, bool, Vec<&'static str>)>),
    }

    fn offers() -> impl Strategy<Value = Vec<&'static str>> {
        proptest::sample::subsequence(vec!["a", "b", "c"], 0..=3)
    }

    fn step() -> impl Strategy<Value = Step> {
        let one = || (1..5_u8, any::<bool>(), offers());
        prop_oneof![
            4 => one().prop_map(|(n, r, o)| Step::Put(n, r, o)),
            2 => (1..5_u8).prop_map(Step::Remove),
            1 => proptest::collection::vec(one(), 0..4).prop_map(|mut all| {
                all.sort_by_key(|(n, ..)| *n);
                all.dedup_by_key(|(n, ..)| *n);
                Step::Replace(all)
            }),
        ]
    }

    proptest! {
        /// Whatever happened before, the cache holds what the Pods that are
        /// there say, and it names exactly the interfaces that differ.
        #[test]
        fn equals_a_model(steps in proptest::collection::vec(step(), 1..40)) {
            let mut cache = cache();
            let mut model: BTreeMap<u8, (bool, Vec<&str>)> = BTreeMap::new();
            for step in steps {
                let before: Vec<_> = ["a", "b", "c"].map(|name| cache.instances(name)).into();
                let changed = match step {
                    Step::Put(n, ready, offers) => {
                        model.insert(n, (ready, offers.clone()));
                        cache.put(&pod(n, ready, &offers))
                    }
                    Step::Remove(n) => {
                        model.remove(&n);
                        cache.remove(&format!("p{n}"))
                    }
                    Step::Replace(all) => {
                        model = all.iter().map(|(n, r, o)| (*n, (*r, o.clone()))).collect();
                        let pods: Vec<Pod> = all.iter().map(|(n, r, o)| pod(*n, *r, o)).collect();
                        cache.replace(&pods)
                    }
                };
                for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
                    let now = cache.instances(name);
                    prop_assert_eq!(changed.contains(name), now != before[at]);
                    let found: Vec<_> =
                        now.iter().map(|i| (i.pod.clone(), i.is_available())).collect();
                    let expected: Vec<_> = model
                        .iter()
                        .filter(|(_, (_, offers))| offers.contains(&name))
                        .map(|(n, (ready, _))| (format!("p{n}"), *ready))
                        .collect();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
