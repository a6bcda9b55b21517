//! Shares the strings that repeat from object to object: namespaces, nodes,
//! zones, port names, label keys. Unshared they would be most of the memory of
//! a large cluster.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use portolan_model::{Name, ObjectName};

/// Strings that one table shares. At the limit it starts anew: what was shared
/// stays shared, later strings are shared among themselves.
const SHARED_MAX: usize = 65_536;

/// A table of shared strings; each watched kind has its own, so it needs no lock.
#[derive(Debug, Default)]
pub(crate) struct Names {
    shared: HashSet<Name>,
}

impl Names {
    /// The shared form of a string.
    pub(crate) fn get(&mut self, text: &str) -> Name {
        if let Some(name) = self.shared.get(text) {
            return name.clone();
        }
        if self.shared.len() >= SHARED_MAX {
            self.shared.clear();
        }
        let name = portolan_model::name(text);
        self.shared.insert(name.clone());
        name
    }

    /// An object's name: the namespace repeats, the name does not.
    pub(crate) fn object(&mut self, namespace: &str, name: &str) -> ObjectName {
        ObjectName { namespace: self.get(namespace), name: portolan_model::name(name) }
    }

    /// A map of labels.
    pub(crate) fn map(&mut self, map: &BTreeMap<String, String>) -> Arc<BTreeMap<Name, Name>> {
        Arc::new(map.iter().map(|(key, value)| (self.get(key), self.get(value))).collect())
    }
}
