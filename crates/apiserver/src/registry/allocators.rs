//! Addresses and ports that Services hold.
//!
//! The truth is the Services themselves; the maps here are derived from them
//! once at start and kept in step by [`Allocation`], a guard that gives back
//! what it took unless the write that needed it went through. Bands keep
//! static requests and dynamic picks apart: dynamic picks start at random in
//! the upper band and use the lower one only when the upper is full (KEP-3070
//! for addresses, KEP-3668 for ports).

use std::{
    collections::HashSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand::Rng;

/// Smallest static band of addresses and ports (KEP-3070, KEP-3668).
const BAND_MIN: u128 = 16;
/// Largest static band of addresses (KEP-3070).
const ADDRESS_BAND_MAX: u128 = 256;
/// A static band takes one address in so many (KEP-3070).
const ADDRESS_BAND_STEP: u128 = 16;
/// Largest static band of ports (KEP-3668).
const PORT_BAND_MAX: u128 = 128;
/// A static band takes one port in so many (KEP-3668).
const PORT_BAND_STEP: u128 = 32;

/// An address range, written `10.96.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

/// What is wrong with the text of a range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address range such as 10.96.0.0/16")]
pub struct CidrError(String);

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || CidrError(text.to_owned());
        let (address, prefix) = text.trim().split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let width = width(address);
        if prefix > width {
            return Err(bad());
        }
        let base = from_number(number(address) & !low_bits(width - prefix), address.is_ipv4());
        Ok(Cidr { base, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn low_bits(count: u8) -> u128 {
    if count >= 128 { u128::MAX } else { (1 << count) - 1 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn from_number(number: u128, v4: bool) -> IpAddr {
    if v4 {
        IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)))
    } else {
        IpAddr::V6(Ipv6Addr::from(number))
    }
}

impl Cidr {
    /// The first address: the network itself.
    pub fn base(&self) -> IpAddr {
        self.base
    }

    /// Bits of the network.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// `IPv4` or `IPv6`, as Services write it.
    pub fn family(&self) -> &'static str {
        family(self.base)
    }

    /// Whether an address lies inside.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.base.is_ipv4()
            && number(address) & !low_bits(width(self.base) - self.prefix) == number(self.base)
    }

    /// The address at a distance from the base, if inside.
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        (offset <= low_bits(width(self.base) - self.prefix))
            .then(|| from_number(number(self.base) + offset, self.base.is_ipv4()))
    }

    /// Addresses inside, network and broadcast included.
    fn size(&self) -> u128 {
        low_bits(width(self.base) - self.prefix).saturating_add(1)
    }
}

/// `IPv4` or `IPv6`, as Services write it.
pub(crate) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Something that a Service holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holding {
    /// A cluster IP.
    Address(IpAddr),
    /// A node port (or health check node port).
    Port(u16),
}

/// Why a static request cannot be met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// Another Service has it.
    #[error("provided {0} is already allocated")]
    Taken(&'static str),
    /// Not ours to give.
    #[error("the provided {0} is not in the valid range. The range of valid {1} is {2}")]
    OutOfRange(String, &'static str, String),
    /// Nothing left.
    #[error("range is full")]
    Full,
}

/// Numbers `first..first + count`, of which the lowest `lower` are for static requests.
#[derive(Debug)]
struct Pool {
    first: u128,
    count: u128,
    lower: u128,
    used: HashSet<u128>,
}

impl Pool {
    fn has(&self, number: u128) -> bool {
        number >= self.first && number - self.first < self.count
    }

    /// A free number: random start in the upper band, then the lower band.
    fn find_free(&self) -> Option<u128> {
        let bands = [(self.lower, self.count - self.lower), (0, self.lower)];
        bands.into_iter().filter(|(_, length)| *length > 0).find_map(|(start, length)| {
            let from = rand::rng().random_range(0..length);
            // As many steps as numbers are taken, at most: then one must be free.
            let steps = length.min(self.used.len() as u128 + 1);
            (0..steps)
                .map(|step| self.first + start + (from + step) % length)
                .find(|number| !self.used.contains(number))
        })
    }
}

#[derive(Debug)]
struct Addresses {
    cidr: Cidr,
    pool: Pool,
}

#[derive(Debug)]
struct State {
    addresses: Vec<Addresses>,
    ports: Pool,
}

/// Everything that Services hold in this cluster.
#[derive(Debug)]
pub struct Allocators {
    state: Mutex<State>,
    cidrs: Vec<Cidr>,
    node_ports: RangeInclusive<u16>,
}

fn band(size: u128, step: u128, max: u128) -> u128 {
    (size / step).max(BAND_MIN).min(max)
}

fn address_pool(cidr: &Cidr) -> Pool {
    let size = cidr.size();
    // IPv4 has a network and a broadcast address; IPv6 only the former.
    let excluded = if cidr.base.is_ipv4() { 2 } else { 1 };
    let count = size.saturating_sub(excluded);
    let lower = if size <= BAND_MIN {
        0
    } else {
        band(size, ADDRESS_BAND_STEP, ADDRESS_BAND_MAX).min(count)
    };
    Pool { first: number(cidr.base) + 1, count, lower, used: HashSet::new() }
}

fn port_pool(range: &RangeInclusive<u16>) -> Pool {
    let first = u128::from(*range.start());
    let count = (u128::from(*range.end()) + 1).saturating_sub(first);
    let lower = if count < BAND_MIN { 0 } else { band(count, PORT_BAND_STEP, PORT_BAND_MAX) };
    Pool { first, count, lower, used: HashSet::new() }
}

impl Allocators {
    /// Empty pools over these ranges.
    pub fn new(service_cidrs: &[Cidr], node_ports: RangeInclusive<u16>) -> Allocators {
        let addresses =
            service_cidrs.iter().map(|cidr| Addresses { cidr: *cidr, pool: address_pool(cidr) });
        Allocators {
            state: Mutex::new(State {
                addresses: addresses.collect(),
                ports: port_pool(&node_ports),
            }),
            cidrs: service_cidrs.to_vec(),
            node_ports,
        }
    }

    /// The ranges of addresses, the default family first.
    pub fn cidrs(&self) -> &[Cidr] {
        &self.cidrs
    }

    /// How many addresses and ports are held.
    pub fn held(&self) -> (usize, usize) {
        let state = self.lock();
        (state.addresses.iter().map(|a| a.pool.used.len()).sum(), state.ports.used.len())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; a poisoned pool is still a whole pool.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks what a stored Service holds, in range or not.
    pub(crate) fn adopt(&self, holdings: &[Holding]) {
        let mut state = self.lock();
        for holding in holdings {
            state.mark(*holding);
        }
    }

    pub(crate) fn release(&self, holdings: &[Holding]) {
        let mut state = self.lock();
        for holding in holdings {
            match holding {
                Holding::Port(port) => {
                    state.ports.used.remove(&u128::from(*port));
                }
                Holding::Address(address) => {
                    if let Some(range) = state.range(*address) {
                        range.pool.used.remove(&number(*address));
                    }
                }
            }
        }
    }
}

impl State {
    fn range(&mut self, address: IpAddr) -> Option<&mut Addresses> {
        self.addresses.iter_mut().find(|a| a.cidr.contains(address))
    }

    /// Marks, and says whether it was free.
    fn mark(&mut self, holding: Holding) -> bool {
        match holding {
            Holding::Port(port) => self.ports.used.insert(u128::from(port)),
            Holding::Address(address) => {
                self.range(address).is_some_and(|range| range.pool.used.insert(number(address)))
            }
        }
    }
}

/// Dry runs count on from here (`portallocator.PortAllocationOperation`).
const DRY_PORT_BEFORE: u16 = 32_768;

/// What one write has taken; given back on drop unless [`Allocation::keep`] was called.
/// A dry run finds out what it would get and takes nothing.
#[derive(Debug)]
pub(crate) struct Allocation {
    allocators: Arc<Allocators>,
    taken: Vec<Holding>,
    dry_run: bool,
    /// The highest port of a dry run so far.
    dry_port: u16,
}

impl Allocation {
    pub(crate) fn begin(allocators: &Arc<Allocators>, dry_run: bool) -> Allocation {
        Allocation { allocators: allocators.clone(), taken: Vec::new(), dry_run, dry_port: 0 }
    }

    /// Whether it has taken anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// The write went through: what was taken stays taken.
    pub(crate) fn keep(mut self) {
        self.taken.clear();
    }

    fn take(&mut self, state: &mut State, holding: Holding) {
        if self.dry_run || state.mark(holding) {
            self.taken.push(holding);
        }
    }

    /// Takes the address that a Service asks for.
    pub(crate) fn address(&mut self, address: IpAddr) -> Result<(), AllocationError> {
        let allocators = self.allocators.clone();
        let mut state = allocators.lock();
        let wanted = number(address);
        let Some(range) = state.range(address).filter(|r| r.pool.has(wanted)) else {
            let ranges: Vec<_> = allocators
                .cidrs
                .iter()
                .filter(|c| c.family() == family(address))
                .map(Cidr::to_string)
                .collect();
            return Err(AllocationError::OutOfRange(
                format!("IP ({address})"),
                "IPs",
                ranges.join(","),
            ));
        };
        // As upstream, a dry run does not ask whose it is.
        if !self.dry_run && range.pool.used.contains(&wanted) {
            return Err(AllocationError::Taken("IP"));
        }
        self.take(&mut state, Holding::Address(address));
        Ok(())
    }

    /// Takes any address of a family.
    pub(crate) fn any_address(&mut self, wanted: &str) -> Result<IpAddr, AllocationError> {
        let allocators = self.allocators.clone();
        let mut state = allocators.lock();
        if self.dry_run {
            // As upstream: an address of the range that no Service ever gets.
            let mut ranges = allocators.cidrs.iter().filter(|c| c.family() == wanted);
            return ranges.next().map(|c| c.base).ok_or(AllocationError::Full);
        }
        let found = state
            .addresses
            .iter()
            .filter(|a| a.cidr.family() == wanted)
            .find_map(|a| Some(from_number(a.pool.find_free()?, a.cidr.base.is_ipv4())))
            .ok_or(AllocationError::Full)?;
        self.take(&mut state, Holding::Address(found));
        Ok(found)
    }

    /// Takes the port that a Service asks for.
    pub(crate) fn port(&mut self, port: u16) -> Result<(), AllocationError> {
        let allocators = self.allocators.clone();
        let mut state = allocators.lock();
        // As upstream, a dry run asks only whose it is.
        if !self.dry_run && !state.ports.has(u128::from(port)) {
            return Err(AllocationError::OutOfRange(
                format!("port ({port})"),
                "ports",
                format!("{}-{}", allocators.node_ports.start(), allocators.node_ports.end()),
            ));
        }
        let is_own = self.taken.contains(&Holding::Port(port));
        if is_own || state.ports.used.contains(&u128::from(port)) {
            return Err(AllocationError::Taken("port"));
        }
        self.dry_port = self.dry_port.max(port);
        self.take(&mut state, Holding::Port(port));
        Ok(())
    }

    /// Takes any port.
    pub(crate) fn any_port(&mut self) -> Result<u16, AllocationError> {
        let allocators = self.allocators.clone();
        let mut state = allocators.lock();
        if self.dry_run {
            // As upstream, which makes numbers up beyond those that it has.
            let last = if self.dry_port == 0 { DRY_PORT_BEFORE } else { self.dry_port };
            self.dry_port = last.saturating_add(1);
            return Ok(self.dry_port);
        }
        let found = state.ports.find_free().and_then(|p| u16::try_from(p).ok());
        let port = found.ok_or(AllocationError::Full)?;
        self.take(&mut state, Holding::Port(port));
        Ok(port)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if !self.taken.is_empty() && !self.dry_run {
            self.allocators.release(&self.taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    /// KEP-3070's and KEP-3668's tables.
    #[test]
    fn bands() {
        for (text, lower) in [
            ("10.96.0.0/12", 256),
            ("10.0.0.0/16", 256),
            ("10.0.0.0/20", 256),
            ("10.0.0.0/22", 64),
            ("10.0.0.0/24", 16),
            ("10.0.0.0/26", 16),
            ("10.0.0.0/28", 0),
        ] {
            assert_eq!(address_pool(&cidr(text)).lower, lower, "{text}");
        }
        for (range, lower) in [(30_000..=32_767, 86), (20_000..=32_767, 128), (32_567..=32_767, 16)]
        {
            assert_eq!(port_pool(&range).lower, lower);
        }
    }

    #[test]
    fn ranges_read_and_write() {
        assert_eq!(cidr("10.1.2.3/16").to_string(), "10.1.0.0/16");
        assert_eq!(cidr("fd00:96::1/112").to_string(), "fd00:96::/112");
        assert_eq!(cidr("10.0.0.0/24").nth(10), Some("10.0.0.10".parse().unwrap()));
        assert_eq!(cidr("10.0.0.0/24").nth(256), None);
        assert!(cidr("::/0").contains("fd00::1".parse().unwrap()));
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/-1", "::/129"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_full_range_is_used_up_and_comes_back() {
        let all = Arc::new(Allocators::new(&[cidr("10.0.0.0/29")], 30_000..=30_001));
        let mut taken = Allocation::begin(&all, false);
        let mut seen = HashSet::new();
        for _ in 0..6 {
            assert!(seen.insert(taken.any_address("IPv4").unwrap()));
        }
        assert!(!seen.contains(&"10.0.0.0".parse().unwrap()));
        assert!(!seen.contains(&"10.0.0.7".parse().unwrap()));
        assert_eq!(taken.any_address("IPv4"), Err(AllocationError::Full));
        assert_eq!(taken.any_address("IPv6"), Err(AllocationError::Full));
        taken.any_port().unwrap();
        taken.any_port().unwrap();
        assert_eq!(taken.any_port(), Err(AllocationError::Full));
        assert_eq!(all.held(), (6, 2));
        drop(taken);
        assert_eq!(all.held(), (0, 0), "a failed write leaks nothing");
    }

    #[test]
    fn static_requests() {
        let all = Arc::new(Allocators::new(&[cidr("10.0.0.0/24")], 30_000..=30_100));
        let mut first = Allocation::begin(&all, false);
        first.address("10.0.0.10".parse().unwrap()).unwrap();
        first.keep();
        let mut second = Allocation::begin(&all, false);
        assert_eq!(second.address("10.0.0.10".parse().unwrap()), Err(AllocationError::Taken("IP")));
        for outside in ["10.0.0.0", "10.0.0.255", "10.0.1.1", "fd00::1"] {
            assert!(matches!(
                second.address(outside.parse().unwrap()),
                Err(AllocationError::OutOfRange(..))
            ));
        }
        assert_eq!(
            second.port(29_999).unwrap_err().to_string(),
            "the provided port (29999) is not in the valid range. The range of valid ports is 30000-30100"
        );
        let mut dry = Allocation::begin(&all, true);
        dry.any_address("IPv4").unwrap();
        dry.port(30_000).unwrap();
        assert_eq!(all.held(), (1, 0), "a dry run takes nothing");
    }

    #[test]
    fn dynamic_picks_stay_in_the_upper_band() {
        let all = Arc::new(Allocators::new(&[cidr("10.0.0.0/24")], 30_000..=32_767));
        let mut taken = Allocation::begin(&all, false);
        for _ in 0..200 {
            let address = taken.any_address("IPv4").unwrap();
            assert!(number(address) - number("10.0.0.1".parse().unwrap()) >= 16, "{address}");
            assert!(taken.any_port().unwrap() >= 30_086);
        }
    }
}
