//! Endpoints (EDS): where the traffic of a cluster goes. The same for all dialects.

use portolan_envoy_proto::{
    config::{
        core::v3 as core,
        endpoint::v3::{
            ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
            lb_endpoint::HostIdentifier,
        },
    },
    google::protobuf::UInt32Value,
};

use crate::{Backend, Destination, Locality, parts};

/// The endpoints of a backend. One without any is told, too: it says that there is
/// nobody, where silence would say "not yet".
pub fn assignment(backend: &Backend) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name: backend.cluster(),
        endpoints: backend.localities.iter().map(|(at, list)| locality(at, list)).collect(),
        ..ClusterLoadAssignment::default()
    }
}

/// Both locality and weight are set always: gRPC refuses endpoints without the one
/// and passes over those without the other.
fn locality(at: &Locality, destinations: &[Destination]) -> LocalityLbEndpoints {
    LocalityLbEndpoints {
        locality: Some(core::Locality {
            zone: at.zone.as_deref().unwrap_or_default().to_owned(),
            ..core::Locality::default()
        }),
        lb_endpoints: destinations.iter().map(endpoint).collect(),
        // The sum, so that each endpoint gets its share whatever its zone.
        load_balancing_weight: Some(UInt32Value {
            value: destinations.iter().map(|destination| destination.weight).sum(),
        }),
        ..LocalityLbEndpoints::default()
    }
}

fn endpoint(destination: &Destination) -> LbEndpoint {
    LbEndpoint {
        health_status: core::HealthStatus::Healthy.into(),
        load_balancing_weight: Some(UInt32Value { value: destination.weight }),
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(parts::socket(destination.address)),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    }
}
