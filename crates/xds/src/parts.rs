//! Small messages that resources are put together from.

use std::net::{IpAddr, SocketAddr};

use portolan_envoy_proto::{
    config::{
        core::v3::{
            Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress, address,
            config_source::ConfigSourceSpecifier, socket_address::PortSpecifier,
        },
        route::v3::{
            Route, RouteAction, RouteMatch, route::Action, route_action::ClusterSpecifier,
            route_match::PathSpecifier,
        },
    },
    extensions::filters::{
        http::router::v3::Router,
        network::http_connection_manager::v3::{HttpFilter, Rds, http_filter},
    },
    pack,
};

/// "Ask for it on this stream."
pub(crate) fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

pub(crate) fn rds(routes: String) -> Rds {
    Rds { config_source: Some(ads()), route_config_name: routes }
}

pub(crate) fn socket(address: SocketAddr) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
            ..SocketAddress::default()
        })),
    }
}

/// The filter that sends requests on. The last of every chain; gRPC refuses a
/// listener without it.
pub(crate) fn router() -> HttpFilter {
    HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack(&Router::default()))),
        ..HttpFilter::default()
    }
}

/// A route for every request.
pub(crate) fn every_request(action: Action) -> Route {
    Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(action),
        ..Route::default()
    }
}

/// Sends requests to one cluster.
pub(crate) fn to_cluster(cluster: String) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        ..RouteAction::default()
    }
}

/// An address as it stands in a URL.
pub(crate) fn url_host(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Reads an extension back: what tests look at.
#[cfg(test)]
pub(crate) fn unpack<M>(any: &portolan_envoy_proto::google::protobuf::Any) -> M
where
    M: portolan_envoy_proto::Message + portolan_envoy_proto::Name + Default,
{
    assert_eq!(any.type_url, M::type_url());
    M::decode(&*any.value).unwrap()
}
