//! Who has an address: the index behind PTR and NS.
//!
//! A snapshot finds services by name. Reverse names ask the other way round, and
//! also whether anything at all lies below a part of an address (then the
//! shorter reverse name exists). The book keeps addresses in order, in blocks of
//! the last byte and regions of the byte before it, each shared between versions: a
//! change copies one block and the lists of blocks and regions on the way to it, some
//! hundred pointers whatever the size of the cluster.

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive, sync::Arc};

use portolan_catalog::ServiceEntry;
use portolan_model::{Code, Exposure, Origin, ServiceKey};

/// The services that have one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owners {
    /// As a virtual IP.
    pub(crate) virtual_of: Vec<ServiceKey>,
    /// As an endpoint that is handed out.
    pub(crate) endpoint_of: Vec<ServiceKey>,
}

/// All addresses but for their last byte, or their last two; the flag keeps the families
/// apart.
type Block = (bool, u128);

type Addresses = Arc<BTreeMap<IpAddr, Arc<Owners>>>;
type Blocks = Arc<BTreeMap<Block, Addresses>>;

/// Finds the owners of addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressBook {
    regions: Arc<BTreeMap<Block, Blocks>>,
    /// Services by the addresses at which they are reached from outside: few.
    outside: Arc<BTreeMap<IpAddr, Vec<ServiceKey>>>,
}

impl AddressBook {
    /// Who has the address.
    pub(crate) fn owners(&self, address: IpAddr) -> Option<&Owners> {
        let blocks = self.regions.get(&region(address))?;
        blocks.get(&block(address))?.get(&address).map(|owners| &**owners)
    }

    /// The services that are reached from outside at an address.
    pub(crate) fn outside_of(&self, address: IpAddr) -> &[ServiceKey] {
        self.outside.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Whether any address of a range has an owner. Both ends are of one family.
    pub(crate) fn any_in(&self, range: RangeInclusive<IpAddr>) -> bool {
        let (first, last) = (*range.start(), *range.end());
        let regions = self.regions.range(region(first)..=region(last));
        regions
            .flat_map(|(_, blocks)| blocks.range(block(first)..=block(last)))
            .any(|(_, addresses)| addresses.range(first..=last).next().is_some())
            || self.outside.range(first..=last).next().is_some()
    }

    /// Takes a service out and puts it back in as it is now.
    pub(crate) fn replace(&mut self, before: Option<&ServiceEntry>, after: Option<&ServiceEntry>) {
        if let Some(before) = before {
            self.edit(before, |list, key| list.retain(|other| other != key));
        }
        if let Some(after) = after {
            self.edit(after, |list, key| {
                // In order, so that equal worlds give equal answers.
                if let Err(place) = list.binary_search(key) {
                    list.insert(place, key.clone());
                }
            });
        }
    }

    fn edit(&mut self, entry: &ServiceEntry, edit: impl Fn(&mut Vec<ServiceKey>, &ServiceKey)) {
        let service = &entry.service;
        // What other clusters export has no reverse names (the schema asks for none).
        if !is_declared(entry) || service.key.origin.as_str() == Origin::CLUSTERSET {
            return;
        }
        if service.exposure == Exposure::ClusterIp {
            for address in &service.addresses {
                self.change(*address, |owners| edit(&mut owners.virtual_of, &service.key));
            }
        }
        for address in service.outside.iter().flat_map(|o| o.addresses.iter().chain(&o.balancers)) {
            let outside = Arc::make_mut(&mut self.outside);
            let owners = outside.entry(*address).or_default();
            edit(owners, &service.key);
            if owners.is_empty() {
                outside.remove(address);
            }
        }
        for placed in entry.served() {
            let address = placed.endpoint.address;
            self.change(address, |owners| edit(&mut owners.endpoint_of, &service.key));
        }
    }

    fn change(&mut self, address: IpAddr, change: impl FnOnce(&mut Owners)) {
        let regions = Arc::make_mut(&mut self.regions);
        let blocks = Arc::make_mut(regions.entry(region(address)).or_default());
        let addresses = Arc::make_mut(blocks.entry(block(address)).or_default());
        let owners = Arc::make_mut(addresses.entry(address).or_default());
        change(owners);
        if *owners == Owners::default() {
            addresses.remove(&address);
            if addresses.is_empty() {
                blocks.remove(&block(address));
            }
            if blocks.is_empty() {
                regions.remove(&region(address));
            }
        }
    }
}

/// Whether a service exists for DNS: EndpointSlices that outlive their Service
/// make no name.
pub(crate) fn is_declared(entry: &ServiceEntry) -> bool {
    !entry.service.key.origin.is_declarative()
        || entry.reasons.iter().all(|reason| reason.code != Code::SERVICE_MISSING)
}

fn without(bits: u32, address: IpAddr) -> Block {
    match address {
        IpAddr::V4(v4) => (false, u128::from(u32::from(v4) >> bits)),
        IpAddr::V6(v6) => (true, u128::from(v6) >> bits),
    }
}

fn block(address: IpAddr) -> Block {
    without(8, address)
}

fn region(address: IpAddr) -> Block {
    without(16, address)
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
        assert_eq!(book.owners(vip).unwrap().virtual_of, std::slice::from_ref(&a));
        assert_eq!(book.owners(pod).unwrap().endpoint_of, [a, b]);

        let snapshot = world.snapshot();
        for entry in snapshot.services() {
            book.replace(Some(entry), None);
        }
        assert_eq!(book.owners(vip), None);
        assert!(book.regions.is_empty());
    }

    #[test]
    fn a_change_shares_what_it_does_not_touch() {
        let at = |name: &str, address: [u8; 4]| cluster_ip("ns", name, &[address.into()], vec![]);
        let world = World::new()
            .service(at("a", [10, 0, 0, 1]))
            .service(at("b", [10, 1, 0, 1]))
            .service(at("c", [10, 1, 1, 1]));
        let before = book(&world);
        let more = World::new().service(at("d", [10, 1, 1, 2]));
        let mut after = before.clone();
        after.replace(None, more.snapshot().services().next().map(|entry| &**entry));
        let shared = |address: [u8; 4]| {
            let address = IpAddr::from(address);
            let find = |book: &AddressBook| {
                let blocks = book.regions[&region(address)].clone();
                (blocks[&block(address)].clone(), blocks)
            };
            let ((block, blocks), (new_block, new_blocks)) = (find(&before), find(&after));
            (Arc::ptr_eq(&blocks, &new_blocks), Arc::ptr_eq(&block, &new_block))
        };
        assert_eq!(shared([10, 0, 0, 1]), (true, true));
        assert_eq!(shared([10, 1, 0, 1]), (false, true));
        assert_eq!(shared([10, 1, 1, 1]), (false, false));
        assert!(before.owners([10, 1, 1, 2].into()).is_none());
        assert!(after.owners([10, 1, 1, 2].into()).is_some());
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
