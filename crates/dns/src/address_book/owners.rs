//! The services that have one address.

use std::{slice, sync::Arc};

use portolan_model::{Service, ServiceKey};

/// As what a service has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// As its virtual IP.
    Virtual,
    /// As that of an endpoint which is handed out.
    Endpoint,
    /// As one at which it is reached from outside the cluster.
    Outside,
}

/// A service in its role. The declaration is the catalog's own: an address costs a
/// pointer, not a name.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) role: Role,
    pub(super) service: Arc<Service>,
}

impl Owner {
    fn order(&self) -> (Role, &ServiceKey) {
        (self.role, &self.service.key)
    }
}

/// All owners of an address, in order, so that equal worlds give equal answers. Nearly
/// every address has one.
#[derive(Clone, Debug)]
pub(super) enum Owners {
    One(Owner),
    Many(Arc<Vec<Owner>>),
}

impl Owners {
    /// Services in a role.
    pub(super) fn with(&self, role: Role) -> impl Iterator<Item = &ServiceKey> {
        let owners = self.as_slice().iter().filter(move |owner| owner.role == role);
        owners.map(|owner| &owner.service.key)
    }

    /// With one more, or with another declaration of one.
    pub(super) fn with_one(&self, owner: Owner) -> Self {
        let mut owners = self.as_slice().to_vec();
        match owners.binary_search_by(|other| other.order().cmp(&owner.order())) {
            Ok(place) => {
                if let Some(own) = owners.get_mut(place) {
                    *own = owner;
                }
            }
            Err(place) => owners.insert(place, owner),
        }
        Self::of(owners)
    }

    /// Without a service in a role. `None`: nobody has the address any more.
    pub(super) fn without(&self, role: Role, key: &ServiceKey) -> Option<Self> {
        let others = self.as_slice().iter().filter(|other| other.order() != (role, key));
        let others: Vec<Owner> = others.cloned().collect();
        (!others.is_empty()).then(|| Self::of(others))
    }

    fn of(owners: Vec<Owner>) -> Self {
        match <[Owner; 1]>::try_from(owners) {
            Ok([owner]) => Self::One(owner),
            Err(owners) => Self::Many(Arc::new(owners)),
        }
    }

    fn as_slice(&self) -> &[Owner] {
        match self {
            Self::One(owner) => slice::from_ref(owner),
            Self::Many(owners) => owners,
        }
    }
}
