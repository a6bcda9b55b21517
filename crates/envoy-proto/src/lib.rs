//! The generated types of the xDS APIs, alone: this crate is compiled once and left alone.
//!
//! They come from `envoy-types`, which carries the protobuf definitions of Envoy compiled
//! by prost, so that no build needs protoc. That is four megabytes of source, which is why
//! nothing of ours that changes lives beside it, and why only `portolan-xds` may name it.
//!
//! The types are named under their protobuf packages (`config::cluster::v3::Cluster`).
//! Maps of protobuf are `HashMap`s here, whose encoding differs from run to run: whoever
//! compares encoded resources (xDS versions are hashes of them) must put at most one
//! entry into each.

#![forbid(unsafe_code)]

pub use envoy_types::pb::{
    envoy::{config, extensions, service, r#type},
    google,
};
pub use prost::{Message, Name};

/// A message with the URL of its type, as resources and extensions travel.
pub fn pack<M: Message + Name>(message: &M) -> google::protobuf::Any {
    google::protobuf::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_urls_that_clients_ask_for() {
        use config::{
            cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
            route::v3::RouteConfiguration,
        };
        for (url, expected) in [
            (Cluster::type_url(), "envoy.config.cluster.v3.Cluster"),
            (ClusterLoadAssignment::type_url(), "envoy.config.endpoint.v3.ClusterLoadAssignment"),
            (Listener::type_url(), "envoy.config.listener.v3.Listener"),
            (RouteConfiguration::type_url(), "envoy.config.route.v3.RouteConfiguration"),
        ] {
            assert_eq!(url, format!("type.googleapis.com/{expected}"));
        }
    }

    #[test]
    fn what_is_packed_unpacks() {
        let cluster = config::cluster::v3::Cluster { name: "web".into(), ..Default::default() };
        let packed = pack(&cluster);
        let read = config::cluster::v3::Cluster::decode(&*packed.value).expect("decodes");
        assert_eq!(read, cluster);
    }
}
