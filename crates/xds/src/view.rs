//! Views: everything about a client that its resources depend on, and nothing else.
//!
//! ```text
//!   View { dialect, namespace, place }
//!     |-- clusters:  of the dialect
//!     |-- endpoints: of all clients, but for services that look at the client's place
//!     |-- listeners: of its own address (Envoy), of its namespace (gRPC)
//!     +-- routes:    of its namespace (Envoy), of the dialect (gRPC)
//! ```
//!
//! What clients have in common is made once, in a [`Shelf`] that they share. Only bare
//! names depend on a namespace; only services with hints or a Local policy depend on a
//! place.

use std::net::IpAddr;

use portolan_model::{ClientView, Flavour, Name};

use crate::store::Kind;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// Envoy as a sidecar, whose listeners bind this address.
    Envoy(IpAddr),
    /// A gRPC client without a proxy.
    Grpc,
}

/// Where a client is, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Its zone.
    pub zone: Option<Name>,
    /// Its node.
    pub node: Option<Name>,
}

/// What a client is shown depends on this.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// What it speaks.
    pub dialect: Dialect,
    /// The namespace in which it may use bare names.
    pub namespace: Option<Name>,
    /// Where it is.
    pub place: Place,
}

/// Resources of one type that all clients of some views have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shelf {
    /// Clusters of Envoys.
    EnvoyClusters,
    /// Clusters of gRPC clients.
    GrpcClusters,
    /// Endpoints, as seen from nowhere in particular.
    Endpoints,
    /// Endpoints of those services that look at where the client is.
    EndpointsAt(Place),
    /// Listeners that bind an address.
    EnvoyListeners(IpAddr),
    /// Listeners by the names that clients of a namespace use.
    GrpcListeners(Option<Name>),
    /// Routes with the names that clients of a namespace use.
    EnvoyRoutes(Option<Name>),
    /// Routes of gRPC clients.
    GrpcRoutes,
}

impl View {
    /// Where the resources of a type are.
    pub fn shelf(&self, kind: Kind) -> Shelf {
        match (kind, self.dialect) {
            (Kind::Cluster, Dialect::Envoy(_)) => Shelf::EnvoyClusters,
            (Kind::Cluster, Dialect::Grpc) => Shelf::GrpcClusters,
            (Kind::Endpoints, _) => Shelf::Endpoints,
            (Kind::Listener, Dialect::Envoy(own)) => Shelf::EnvoyListeners(own),
            (Kind::Listener, Dialect::Grpc) => Shelf::GrpcListeners(self.namespace.clone()),
            (Kind::Routes, Dialect::Envoy(_)) => Shelf::EnvoyRoutes(self.namespace.clone()),
            (Kind::Routes, Dialect::Grpc) => Shelf::GrpcRoutes,
        }
    }

    /// What stands before the resources that all have in common.
    pub fn overlay(&self, kind: Kind) -> Option<Shelf> {
        let placed = self.place != Place::default();
        (kind == Kind::Endpoints && placed).then(|| Shelf::EndpointsAt(self.place.clone()))
    }

    /// All shelves.
    pub fn shelves(&self) -> Vec<Shelf> {
        let own = Kind::ALL.into_iter().map(|kind| self.shelf(kind));
        own.chain(Kind::ALL.into_iter().filter_map(|kind| self.overlay(kind))).collect()
    }
}

impl Shelf {
    /// The type of what is on it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::EnvoyClusters | Self::GrpcClusters => Kind::Cluster,
            Self::Endpoints | Self::EndpointsAt(_) => Kind::Endpoints,
            Self::EnvoyListeners(_) | Self::GrpcListeners(_) => Kind::Listener,
            Self::EnvoyRoutes(_) | Self::GrpcRoutes => Kind::Routes,
        }
    }
}

impl Place {
    /// In the words of the catalog.
    pub fn client_view(&self) -> ClientView {
        ClientView {
            zone: self.zone.clone(),
            node: self.node.clone(),
            namespace: None,
            flavour: Flavour::Plain,
        }
    }
}
