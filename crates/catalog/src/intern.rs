//! Shares names that repeat.
//!
//! 100,000 endpoints name a few hundred namespaces, nodes and zones. Sources
//! make a string for each; here all equal ones become one.

use std::{collections::HashSet, sync::Arc};

use portolan_model::{Endpoint, EndpointSlice, FactKey, Name, ServiceKey};

/// The set is swept when it has grown to twice what survived the last sweep,
/// and never below this size.
const SWEEP_MIN: usize = 4096;

/// The names that are in use.
#[derive(Debug)]
pub(crate) struct Interner {
    known: HashSet<Name>,
    sweep_at: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Self { known: HashSet::new(), sweep_at: SWEEP_MIN }
    }
}

impl Interner {
    /// Shares the namespace that a key names.
    pub(crate) fn key(&mut self, key: &mut FactKey) {
        match key {
            FactKey::Service(key) => self.service_key(key),
            FactKey::Workload(object)
            | FactKey::EndpointSlice(_, object)
            | FactKey::Rejection(_, object) => self.share(&mut object.namespace),
            FactKey::Namespace(_) | FactKey::Node(_) => {}
        }
    }

    /// Shares the namespace that a service lives in.
    pub(crate) fn service_key(&mut self, key: &mut ServiceKey) {
        self.share(&mut key.namespace);
    }

    /// Makes the names of a slice's endpoints the shared ones. An endpoint that
    /// somebody else holds already is left as it is: it is shared itself.
    pub(crate) fn slice(&mut self, slice: &mut EndpointSlice) {
        self.service_key(&mut slice.service);
        for endpoint in slice.endpoints.iter_mut().filter_map(Arc::get_mut) {
            self.endpoint(endpoint);
        }
        slice.endpoints.shrink_to_fit();
        self.sweep();
    }

    fn endpoint(&mut self, endpoint: &mut Endpoint) {
        if let Some(target) = &mut endpoint.target {
            self.share(&mut target.namespace);
        }
        for name in [&mut endpoint.node, &mut endpoint.zone].into_iter().flatten() {
            self.share(name);
        }
    }

    fn share(&mut self, name: &mut Name) {
        match self.known.get(name) {
            Some(known) => *name = known.clone(),
            None => {
                self.known.insert(name.clone());
            }
        }
    }

    /// Lets go of names that only this set holds.
    fn sweep(&mut self) {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = (self.known.len() * 2).max(SWEEP_MIN);
        }
    }
}
