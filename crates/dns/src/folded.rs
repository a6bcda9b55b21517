//! Names of services of other origins, the way DNS sees them.
//!
//! `NAME.NS.ORIGIN.cluster.local` is asked for without regard to case, while the
//! catalog keeps `com.example.UserService` as it was registered; and a NAME may
//! hold dots, so that the names between (`example.userservice`) exist without
//! being services. This index holds both, per origin and namespace in lower
//! case; each namespace is shared between versions, so a change copies one.

use std::{collections::BTreeMap, sync::Arc};

use portolan_catalog::ServiceEntry;
use portolan_model::{Name, ServiceKey};

/// What stands at one name in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Folded {
    /// The services of that name. More than one: they differ in case only, and
    /// none of them can answer.
    pub(crate) keys: Vec<ServiceKey>,
    /// How many services lie below it.
    pub(crate) below: usize,
}

type Namespace = Arc<BTreeMap<Name, Folded>>;

/// Finds services of other origins by their names in lower case.
#[derive(Clone, Debug, Default)]
pub(crate) struct FoldedNames {
    origins: Arc<BTreeMap<Name, BTreeMap<Name, Namespace>>>,
}

impl FoldedNames {
    /// Whether an origin has any service.
    pub(crate) fn has_origin(&self, origin: &str) -> bool {
        self.origins.contains_key(origin)
    }

    /// Origins that have services, in lower case.
    pub(crate) fn origins(&self) -> impl Iterator<Item = &str> {
        self.origins.keys().map(|origin| &**origin)
    }

    /// Whether a namespace of an origin has any service.
    pub(crate) fn has_namespace(&self, origin: &str, namespace: &str) -> bool {
        self.origins.get(origin).is_some_and(|namespaces| namespaces.contains_key(namespace))
    }

    /// What stands at a name. All parts are in lower case.
    pub(crate) fn get(&self, origin: &str, namespace: &str, service: &str) -> Option<&Folded> {
        self.origins.get(origin)?.get(namespace)?.get(service)
    }

    /// Takes a service out and puts it back in as it is now.
    pub(crate) fn replace(&mut self, before: Option<&ServiceEntry>, after: Option<&ServiceEntry>) {
        let key_of = |entry: &ServiceEntry| entry.service.key.clone();
        let (before, after) = (before.map(key_of), after.map(key_of));
        if before == after {
            return;
        }
        if let Some(key) = before {
            self.edit(&key, |folded, own| {
                if own {
                    folded.keys.retain(|other| *other != key);
                } else {
                    folded.below = folded.below.saturating_sub(1);
                }
            });
        }
        if let Some(key) = after {
            self.edit(&key, |folded, own| {
                if !own {
                    folded.below += 1;
                } else if let Err(place) = folded.keys.binary_search(&key) {
                    folded.keys.insert(place, key.clone());
                }
            });
        }
    }

    /// Visits the name of a service and each name above it.
    fn edit(&mut self, key: &ServiceKey, edit: impl Fn(&mut Folded, bool)) {
        // These have zones of their own.
        if key.origin.is_declarative() {
            return;
        }
        let [origin, namespace, service] =
            [key.origin.as_str(), &key.namespace, &key.name].map(str::to_ascii_lowercase);
        let origins = Arc::make_mut(&mut self.origins);
        let namespaces = origins.entry(origin.as_str().into()).or_default();
        let names = Arc::make_mut(namespaces.entry(namespace.as_str().into()).or_default());
        let mut rest = service.as_str();
        let mut own = true;
        loop {
            let folded = names.entry(rest.into()).or_default();
            edit(folded, own);
            if *folded == Folded::default() {
                names.remove(rest);
            }
            match rest.split_once('.') {
                Some((_, above)) => rest = above,
                None => break,
            }
            own = false;
        }
        if names.is_empty() {
            namespaces.remove(namespace.as_str());
            if namespaces.is_empty() {
                origins.remove(origin.as_str());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use portolan_testkit::{World, endpoint};

    use super::*;

    #[test]
    fn folds_case_and_knows_what_lies_between() {
        let ep = || vec![endpoint("10.0.0.1".parse().unwrap(), &[])];
        let world = World::new()
            .registered("registry", "Demo", "com.example.Api", ep())
            .registered("registry", "demo", "twin", ep())
            .registered("registry", "demo", "Twin", ep());
        let mut names = FoldedNames::default();
        let snapshot = world.snapshot();
        for entry in snapshot.services() {
            names.replace(None, Some(entry));
        }
        for (service, keys, below) in
            [("com.example.api", 1, 0), ("example.api", 0, 1), ("api", 0, 1), ("twin", 2, 0)]
        {
            let folded = names.get("registry", "demo", service).unwrap();
            assert_eq!((folded.keys.len(), folded.below), (keys, below), "{service}");
        }
        assert_eq!(names.get("registry", "demo", "com"), None);
        assert!(names.has_namespace("registry", "demo") && !names.has_origin("other"));

        for entry in snapshot.services() {
            names.replace(Some(entry), None);
        }
        assert!(names.origins.is_empty());
    }
}
