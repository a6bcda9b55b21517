//! Clusters (CDS): how to talk to the endpoints of a backend.

use std::collections::HashMap;

use portolan_envoy_proto::{
    config::{
        cluster::v3::{
            CircuitBreakers, Cluster,
            circuit_breakers::Thresholds,
            cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy},
        },
        core::v3::{Http1ProtocolOptions, Http2ProtocolOptions},
    },
    extensions::upstreams::http::v3::{
        HttpProtocolOptions,
        http_protocol_options::{
            ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
            explicit_http_config::ProtocolConfig,
        },
    },
    google::protobuf::{Duration, UInt32Value},
    pack,
};

use crate::{Backend, Protocol, parts};

/// How long a connection to an endpoint may take to come about (Istio's default).
const CONNECT_TIMEOUT_S: i64 = 10;

/// The extension under which Envoy looks for the protocol of a cluster.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The cluster of a backend.
pub fn cluster(backend: &Backend) -> Cluster {
    Cluster {
        name: backend.cluster(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(parts::ads()),
            ..EdsClusterConfig::default()
        }),
        connect_timeout: Some(Duration { seconds: CONNECT_TIMEOUT_S, nanos: 0 }),
        lb_policy: LbPolicy::LeastRequest.into(),
        circuit_breakers: Some(unlimited()),
        // One entry at most: a map of two has no fixed encoding.
        typed_extension_protocol_options: http_options(backend.protocol)
            .map(|options| (HTTP_OPTIONS.to_owned(), pack(&options)))
            .into_iter()
            .collect::<HashMap<_, _>>(),
        ..Cluster::default()
    }
}

/// Envoy stops at 1,024 requests by default, which nobody asked for; Istio lifts it,
/// too.
fn unlimited() -> CircuitBreakers {
    let most = Some(UInt32Value { value: u32::MAX });
    CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: most,
            max_pending_requests: most,
            max_requests: most,
            max_retries: most,
            ..Thresholds::default()
        }],
        ..CircuitBreakers::default()
    }
}

fn http_options(protocol: Protocol) -> Option<HttpProtocolOptions> {
    let upstream = match protocol {
        // HTTP/1.1 is what Envoy speaks unless told otherwise.
        Protocol::Http | Protocol::Tls | Protocol::Tcp => return None,
        Protocol::Http2 => UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(
                Http2ProtocolOptions::default(),
            )),
        }),
        Protocol::Sniffed => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(Http1ProtocolOptions::default()),
                http2_protocol_options: Some(Http2ProtocolOptions::default()),
                ..UseDownstreamHttpConfig::default()
            })
        }
    };
    Some(HttpProtocolOptions {
        upstream_protocol_options: Some(upstream),
        ..HttpProtocolOptions::default()
    })
}
