//! Who has an address: the index behind PTR and NS.
//!
//! A snapshot finds services by name. Reverse names ask the other way round, and
//! also whether anything at all lies below a part of an address (then the
//! shorter reverse name exists). The book keeps addresses in order, in a map that
//! versions share: a change costs the same in a cluster of any size.

mod owners;

use std::{net::IpAddr, ops::RangeInclusive, sync::Arc};

use portolan_catalog::{ServiceEntry, SharedMap};
use portolan_model::{Code, Exposure, Origin, ServiceKey};

use self::owners::{Owner, Owners, Role};

/// Finds the owners of addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressBook {
    owners: SharedMap<IpAddr, Owners>,
}

impl AddressBook {
    /// The services whose virtual IP an address is.
    pub(crate) fn virtual_of(&self, address: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        self.owners(address, Role::Virtual)
    }

    /// The services that hand an address out as one of an endpoint.
    pub(crate) fn endpoint_of(&self, address: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        self.owners(address, Role::Endpoint)
    }

    /// The services that are reached from outside at an address.
    pub(crate) fn outside_of(&self, address: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        self.owners(address, Role::Outside)
    }

    fn owners(&self, address: IpAddr, role: Role) -> impl Iterator<Item = &ServiceKey> {
        self.owners.get(&address).into_iter().flat_map(move |owners| owners.with(role))
    }

    /// Whether any address of a range has an owner. Both ends are of one family.
    pub(crate) fn any_in(&self, range: RangeInclusive<IpAddr>) -> bool {
        self.owners.from(range.start()).next().is_some_and(|(found, _)| range.contains(found))
    }

    /// Takes a service out and puts it back in as it is now.
    pub(crate) fn replace(&mut self, before: Option<&ServiceEntry>, after: Option<&ServiceEntry>) {
        let (had, has) =
            (before.map_or_else(Vec::new, claims), after.map_or_else(Vec::new, claims));
        // Nearly always one endpoint of many: the others' blocks stay shared.
        let same_words = before
            .zip(after)
            .is_some_and(|(before, after)| Arc::ptr_eq(&before.service, &after.service));
        if let Some(before) = before {
            for (address, role) in &had {
                if has.binary_search(&(*address, *role)).is_err() {
                    self.remove(*address, *role, &before.service.key);
                }
            }
        }
        if let Some(after) = after {
            for (address, role) in has {
                if !same_words || had.binary_search(&(address, role)).is_err() {
                    self.put(address, Owner { role, service: after.service.clone() });
                }
            }
        }
    }

    fn put(&mut self, address: IpAddr, owner: Owner) {
        let owners = match self.owners.get(&address) {
            Some(others) => others.with_one(owner),
            None => Owners::One(owner),
        };
        self.owners.insert(address, owners);
    }

    fn remove(&mut self, address: IpAddr, role: Role, key: &ServiceKey) {
        match self.owners.get(&address).map(|owners| owners.without(role, key)) {
            Some(Some(others)) => self.owners.insert(address, others),
            Some(None) => self.owners.remove(&address),
            None => 0,
        };
    }
}

/// The addresses of a service and as what it has them, in order and each once.
fn claims(entry: &ServiceEntry) -> Vec<(IpAddr, Role)> {
    let service = &entry.service;
    // What other clusters export has no reverse names (the schema asks for none).
    if !is_declared(entry) || service.key.origin.as_str() == Origin::CLUSTERSET {
        return Vec::new();
    }
    let is_virtual = service.exposure == Exposure::ClusterIp;
    let virtuals = service.addresses.iter().filter(|_| is_virtual);
    let outside = service.outside.iter().flat_map(|o| o.addresses.iter().chain(&o.balancers));
    let endpoints = entry.served().map(|placed| &placed.endpoint.address);
    let mut claims: Vec<(IpAddr, Role)> = virtuals
        .map(|address| (*address, Role::Virtual))
        .chain(outside.map(|address| (*address, Role::Outside)))
        .chain(endpoints.map(|address| (*address, Role::Endpoint)))
        .collect();
    claims.sort_unstable();
    claims.dedup();
    claims
}

/// Whether a service exists for DNS: EndpointSlices that outlive their Service
/// make no name.
pub(crate) fn is_declared(entry: &ServiceEntry) -> bool {
    !entry.service.key.origin.is_declarative()
        || entry.reasons.iter().all(|reason| reason.code != Code::SERVICE_MISSING)
}

#[cfg(test)]
mod tests {
    use portolan_model::Transport;
    use portolan_testkit::{World, cluster_ip, endpoint, headless};

    use super::*;

    fn book(world: &World) -> AddressBook {
        let mut book = AddressBook::default();
        for entry in world.snapshot().services() {
            book.replace(None, Some(entry));
        }
        book
    }

    #[test]
    fn finds_owners_and_forgets_them() {
        let vip: IpAddr = "10.0.0.1".parse().unwrap();
        let pod: IpAddr = "10.2.0.7".parse().unwrap();
        let a = ServiceKey::kubernetes("ns", "a");
        let b = ServiceKey::kubernetes("ns", "b");
        let world = World::new()
            .service(cluster_ip("ns", "a", &[vip], vec![]))
            .service(headless("ns", "b", vec![]))
            .endpoints("a-1", &a, vec![endpoint(pod, &[("x", Transport::Tcp, 1)])])
            .endpoints("b-1", &b, vec![endpoint(pod, &[])]);
        let mut book = book(&world);
        assert!(book.virtual_of(vip).eq([&a]) && book.endpoint_of(vip).eq([&a; 0]));
        assert!(book.endpoint_of(pod).eq([&a, &b]));

        let snapshot = world.snapshot();
        for entry in snapshot.services() {
            book.replace(Some(entry), None);
        }
        assert!(book.owners.is_empty());
    }

    #[test]
    fn a_change_leaves_earlier_versions_as_they_were() {
        let at = |name: &str, last: u8| cluster_ip("ns", name, &[[10, 0, 0, last].into()], vec![]);
        let before = book(&World::new().service(at("a", 1)).service(at("b", 2)));
        let mut after = before.clone();
        let more = World::new().service(at("d", 2));
        after.replace(None, more.snapshot().services().next().map(|entry| &**entry));
        let names = |book: &AddressBook| -> Vec<String> {
            book.virtual_of([10, 0, 0, 2].into()).map(|key| key.name.to_string()).collect()
        };
        assert_eq!(
            (names(&before), names(&after)),
            (vec!["b".into()], vec!["b".into(), "d".into()])
        );
    }

    #[test]
    fn ranges_find_what_lies_below() {
        let world = World::new().service(cluster_ip(
            "ns",
            "a",
            &["10.0.7.1".parse().unwrap(), "fd00::9".parse().unwrap()],
            vec![],
        ));
        let book = book(&world);
        for (first, last, expected) in [
            ("10.0.0.0", "10.0.255.255", true),
            ("10.0.7.0", "10.0.7.255", true),
            ("10.0.7.2", "10.0.7.255", false),
            ("10.1.0.0", "10.255.255.255", false),
            ("fd00::", "fd00::ffff", true),
            ("fd00::10", "fd00::1f", false),
        ] {
            let range = first.parse().unwrap()..=last.parse().unwrap();
            assert_eq!(book.any_in(range), expected, "{first} to {last}");
        }
    }
}
