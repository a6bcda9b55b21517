//! The Pod network: where Pod addresses come from and what a Pod sees of the machine.
//!
//! `loopback` is the only one so far: every Pod has an address of its own in
//! 127.0.0.0/8, needs no privilege, and shares everything else with the machine;
//! a process has to listen on its Pod's address by itself. A network that gives
//! each Pod its own namespaces is another arm of [`PodNetwork`]: what it
//! prepares before a Pod's first container, and removes after its last, goes
//! through [`PodNetwork::attach`] and [`PodNetwork::detach`], and where
//! listeners are looked for through [`PodNetwork::shares_sockets`].

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use portolan_apiserver::registry::Cidr;

/// Which network Pods are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodNetwork {
    /// Each Pod has its own loopback address.
    #[default]
    Loopback,
}

impl PodNetwork {
    /// The address of the node, as Pods are told.
    pub(crate) fn host_ip(self) -> IpAddr {
        match self {
            PodNetwork::Loopback => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Those of the configured ranges whose addresses can be used here. Linux
    /// answers on all of 127.0.0.0/8, and on no IPv6 address that nobody has
    /// set up; macOS on 127.0.0.1 only. A range of a family that cannot be
    /// bound is left out, but the IPv4 range always stays: hollow Pods then say
    /// what is wrong, which is better than a kubelet that does not start.
    pub(crate) fn usable(self, ranges: &[Cidr]) -> Vec<Cidr> {
        let bindable = |range: &Cidr| {
            let first = range.nth(1).unwrap_or_else(|| range.base());
            TcpListener::bind((first, 0)).is_ok()
        };
        match self {
            PodNetwork::Loopback => {
                ranges.iter().filter(|r| r.base().is_ipv4() || bindable(r)).copied().collect()
            }
        }
    }

    /// Makes ready what a Pod with these addresses needs.
    pub(crate) fn attach(self, _pod: &str, _addresses: &[IpAddr]) -> std::io::Result<()> {
        match self {
            PodNetwork::Loopback => Ok(()),
        }
    }

    /// Takes it away again.
    pub(crate) fn detach(self, _pod: &str) {
        match self {
            PodNetwork::Loopback => {}
        }
    }

    /// Whether the sockets of Pods are in the machine's own tables, so that a
    /// process may listen where it should not.
    pub(crate) fn shares_sockets(self) -> bool {
        match self {
            PodNetwork::Loopback => true,
        }
    }
}
