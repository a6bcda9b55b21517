//! The Pod network: where Pod addresses come from and what a Pod sees of the machine.
//!
//! `loopback`: every Pod has an address of its own in 127.0.0.0/8, needs no
//! privilege, and shares everything else with the machine; a process has to
//! listen on its Pod's address by itself. `netns`: every Pod has namespaces of
//! its own, on a bridge in a namespace that the whole process is in
//! ([`super::netns`]). What is prepared before a Pod's first container, and
//! removed after its last, goes through [`PodNetwork::attach`] and
//! [`PodNetwork::detach`]; [`PodNetwork::node`] tells whether containers run
//! apart from the machine.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
};

use portolan_apiserver::registry::Cidr;

use super::{
    netns::{Node, Wanted},
    process::Shim,
};
use crate::fixed::API_PORT;

/// Which network Pods are on.
#[derive(Clone, Debug, Default)]
pub enum PodNetwork {
    /// Each Pod has its own loopback address.
    #[default]
    Loopback,
    /// Each Pod has its own namespaces; the process is on the node's network.
    Netns(Arc<Node>),
}

impl PodNetwork {
    /// The node's network, when Pods have namespaces of their own.
    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        match self {
            PodNetwork::Loopback => None,
            PodNetwork::Netns(node) => Some(node),
        }
    }

    /// The address of the node, as Pods are told.
    pub(crate) fn host_ip(&self) -> IpAddr {
        match self {
            PodNetwork::Loopback => Ipv4Addr::LOCALHOST.into(),
            PodNetwork::Netns(node) => node.address(),
        }
    }

    /// Where Pods find the API, which listens at `api`.
    pub(crate) fn api_door(&self, api: SocketAddr) -> SocketAddr {
        match self {
            PodNetwork::Loopback => api,
            PodNetwork::Netns(node) => SocketAddr::new(node.api(), API_PORT),
        }
    }

    /// Addresses of the Pods' ranges that no Pod may have.
    pub(crate) fn reserved(&self) -> Vec<IpAddr> {
        self.node().map(|node| node.own_addresses().collect()).unwrap_or_default()
    }

    /// Those of the configured ranges whose addresses can be used here. Linux
    /// answers on all of 127.0.0.0/8, and on no IPv6 address that nobody has
    /// set up; macOS on 127.0.0.1 only. A range of a family that cannot be
    /// bound is left out, but the IPv4 range always stays: hollow Pods then say
    /// what is wrong, which is better than a kubelet that does not start.
    pub(crate) fn usable(&self, ranges: &[Cidr]) -> Vec<Cidr> {
        let bindable = |range: &Cidr| {
            let first = range.nth(1).unwrap_or_else(|| range.base());
            TcpListener::bind((first, 0)).is_ok()
        };
        // The first address of each range is the node's own on `netns`.
        ranges.iter().filter(|r| r.base().is_ipv4() || bindable(r)).copied().collect()
    }

    /// Makes ready what a Pod needs. May take some milliseconds.
    pub(crate) fn attach(&self, wanted: &Wanted, shim: &Shim) -> std::io::Result<()> {
        match self {
            PodNetwork::Loopback => Ok(()),
            PodNetwork::Netns(node) => node.attach(wanted, shim),
        }
    }

    /// Takes it away again.
    pub(crate) fn detach(&self, pod: &str) {
        match self {
            PodNetwork::Loopback => {}
            PodNetwork::Netns(node) => node.detach(pod),
        }
    }

    /// Whether the sockets of Pods are in the machine's own tables, so that a
    /// process may listen where it should not.
    pub(crate) fn shares_sockets(&self) -> bool {
        matches!(self, PodNetwork::Loopback)
    }
}
