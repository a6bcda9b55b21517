//! Pod addresses: which are left, and who has which.
//!
//! The kubelet hands them out in order from a random start, so that an address
//! is not soon used again and an old connection does not find a new Pod behind
//! it. Whatever address any Pod object carries is taken, whoever gave it.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use portolan_apiserver::registry::Cidr;

/// Addresses of one range that are handed out: as many as an IPv4 /16 has. A
/// wider range gives no more, which keeps the arithmetic in 32 bits.
const RANGE_MAX: u32 = 1 << 16;

/// How many addresses of a range are handed out: neither the first nor the last.
pub(crate) fn usable(range: Cidr) -> u32 {
    let width = if range.base().is_ipv4() { 32 } else { 128 };
    let host_bits = width - u32::from(range.prefix());
    let size = if host_bits < RANGE_MAX.ilog2() { 1 << host_bits } else { RANGE_MAX };
    size.saturating_sub(2)
}

/// Who has which address of one network.
#[derive(Debug)]
pub(crate) struct Addresses {
    range: Cidr,
    next: u32,
    taken: HashMap<IpAddr, HashSet<String>>,
    held: HashMap<String, IpAddr>,
}

impl Addresses {
    /// All free; the first is the one numbered `start`, taken modulo the size.
    pub(crate) fn new(range: Cidr, start: u32) -> Self {
        let next = start.checked_rem(usable(range)).unwrap_or(0);
        Self { range, next, taken: HashMap::new(), held: HashMap::new() }
    }

    /// The network.
    pub(crate) fn range(&self) -> Cidr {
        self.range
    }

    /// Notes that a Pod has an address. A second Pod with the same one is noted
    /// too: the address is free again only when both are gone.
    pub(crate) fn note(&mut self, owner: &str, address: IpAddr) {
        if self.held.get(owner) == Some(&address) || !self.range.contains(address) {
            return;
        }
        self.release(owner);
        self.taken.entry(address).or_default().insert(owner.to_owned());
        self.held.insert(owner.to_owned(), address);
    }

    /// The address of a Pod: the one that it has, else the one that it wants if
    /// that is free, else the next free one. `None` when none is left.
    pub(crate) fn take(&mut self, owner: &str, wanted: Option<IpAddr>) -> Option<IpAddr> {
        if let Some(address) = self.held.get(owner) {
            return Some(*address);
        }
        let free = |a: &IpAddr| !self.taken.contains_key(a);
        let size = usable(self.range);
        let address = wanted.filter(|a| self.range.contains(*a) && free(a)).or_else(|| {
            // More Pods than addresses: no need to look at each.
            let steps = if self.taken.len() < size as usize { 0..size } else { 0..0 };
            let (number, address) = steps
                .map(|step| (self.next + step) % size)
                .filter_map(|number| Some((number, self.range.nth(u128::from(number) + 1)?)))
                .find(|(_, address)| free(address))?;
            self.next = number + 1;
            Some(address)
        })?;
        self.note(owner, address);
        Some(address)
    }

    /// The Pod is gone.
    pub(crate) fn release(&mut self, owner: &str) {
        let Some(address) = self.held.remove(owner) else { return };
        if let Some(owners) = self.taken.get_mut(&address) {
            owners.remove(owner);
            if owners.is_empty() {
                self.taken.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn sizes() {
        for (range, expected) in [
            ("127.10.0.0/16", 65_534),
            ("10.0.0.0/30", 2),
            ("10.0.0.0/31", 0),
            ("10.0.0.0/32", 0),
            ("10.0.0.0/8", 65_534),
            ("0.0.0.0/0", 65_534),
            ("fd00:10::/64", 65_534),
            ("::/0", 65_534),
        ] {
            assert_eq!(usable(range.parse().unwrap()), expected, "{range}");
        }
    }

    #[test]
    fn hands_out_each_once_and_again_after_release() {
        let mut addresses = Addresses::new("10.0.0.0/29".parse().unwrap(), 4);
        let given: Vec<_> =
            (0..6).map(|n| addresses.take(&n.to_string(), None).unwrap().to_string()).collect();
        assert_eq!(given, ["10.0.0.5", "10.0.0.6", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]);
        assert_eq!(addresses.take("0", None), Some(ip("10.0.0.5")), "keeps what it has");
        assert_eq!(addresses.take("more", None), None);
        addresses.release("3");
        assert_eq!(addresses.take("more", None), Some(ip("10.0.0.2")));
    }

    #[test]
    fn what_a_pod_object_carries_is_taken() {
        let mut addresses = Addresses::new("10.0.0.0/29".parse().unwrap(), 0);
        addresses.note("foreign", ip("10.0.0.1"));
        addresses.note("outside", ip("10.9.0.1"));
        assert_eq!(addresses.take("a", Some(ip("10.0.0.1"))), Some(ip("10.0.0.2")));
        assert_eq!(addresses.take("b", Some(ip("10.0.0.4"))), Some(ip("10.0.0.4")));
        assert_eq!(addresses.take("c", Some(ip("10.9.0.1"))), Some(ip("10.0.0.3")));
        addresses.note("a", ip("10.0.0.1"));
        addresses.release("foreign");
        assert_eq!(addresses.take("d", Some(ip("10.0.0.1"))), Some(ip("10.0.0.5")));
        assert_eq!(addresses.take("e", Some(ip("10.0.0.2"))), Some(ip("10.0.0.2")));
    }
}
