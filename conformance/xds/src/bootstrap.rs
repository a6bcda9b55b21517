//! All resources of a catalog in one file.
//!
//! On a stream a listener names its routes and a cluster its endpoints. A file has no
//! place for those by name, so routes stand inside the listeners that name them, and
//! each assignment of endpoints in a cluster of its own beside the real one.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use portolan_envoy_proto::{
    Message,
    config::{
        bootstrap::v3::{
            Bootstrap,
            bootstrap::{DynamicResources, StaticResources},
        },
        cluster::v3::{
            Cluster,
            cluster::{ClusterDiscoveryType, DiscoveryType},
        },
        core::v3::{
            ApiConfigSource, ApiVersion, GrpcService, Node,
            api_config_source::ApiType,
            grpc_service::{EnvoyGrpc, TargetSpecifier},
        },
        endpoint::v3::ClusterLoadAssignment,
        listener::v3::{Filter, Listener, filter},
        route::v3::RouteConfiguration,
    },
    extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager, http_connection_manager::RouteSpecifier,
    },
    pack,
};

/// The filter that holds routes.
const HTTP_FILTER: &str = "envoy.filters.network.http_connection_manager";

/// The cluster that stands for the server: nobody connects to it here.
const SERVER: &str = "xds";

/// What the generators make of a catalog.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resources {
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) assignments: Vec<ClusterLoadAssignment>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) routes: Vec<RouteConfiguration>,
}

impl Resources {
    /// The file. Fails where a listener names routes that do not exist: on a stream
    /// Envoy would wait for them for ever.
    pub(crate) fn bootstrap(self) -> Result<Bootstrap> {
        let routes: BTreeMap<String, RouteConfiguration> =
            self.routes.into_iter().map(|routes| (routes.name.clone(), routes)).collect();
        let listeners = self.listeners.into_iter().map(|listener| inline(listener, &routes));
        let mut clusters = self.clusters;
        let with_endpoints = self.assignments.into_iter().map(|assignment| Cluster {
            cluster_discovery_type: static_cluster(),
            load_assignment: Some(ClusterLoadAssignment {
                cluster_name: format!("{} (endpoints)", assignment.cluster_name),
                ..assignment.clone()
            }),
            name: format!("{} (endpoints)", assignment.cluster_name),
            ..Cluster::default()
        });
        clusters.extend(with_endpoints);
        clusters.push(Cluster {
            name: SERVER.to_owned(),
            cluster_discovery_type: static_cluster(),
            ..Cluster::default()
        });
        Ok(Bootstrap {
            node: Some(Node { id: "judge".into(), cluster: "judge".into(), ..Node::default() }),
            static_resources: Some(StaticResources {
                listeners: listeners.collect::<Result<_>>()?,
                clusters,
                ..StaticResources::default()
            }),
            dynamic_resources: Some(DynamicResources {
                ads_config: Some(ads()),
                ..DynamicResources::default()
            }),
            ..Bootstrap::default()
        })
    }
}

fn static_cluster() -> Option<ClusterDiscoveryType> {
    Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()))
}

fn ads() -> ApiConfigSource {
    let server = EnvoyGrpc { cluster_name: SERVER.to_owned(), ..EnvoyGrpc::default() };
    ApiConfigSource {
        api_type: ApiType::Grpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(server)),
            ..GrpcService::default()
        }],
        ..ApiConfigSource::default()
    }
}

/// A listener with its routes inside.
fn inline(
    mut listener: Listener,
    routes: &BTreeMap<String, RouteConfiguration>,
) -> Result<Listener> {
    let chains = listener.filter_chains.iter_mut().chain(listener.default_filter_chain.as_mut());
    for filter in chains.flat_map(|chain| &mut chain.filters) {
        if filter.name == HTTP_FILTER {
            *filter = with_routes(filter, routes)
                .with_context(|| format!("listener {}", listener.name))?;
        }
    }
    Ok(listener)
}

fn with_routes(filter: &Filter, routes: &BTreeMap<String, RouteConfiguration>) -> Result<Filter> {
    let Some(filter::ConfigType::TypedConfig(config)) = &filter.config_type else {
        bail!("{} has no configuration", filter.name);
    };
    let mut manager = HttpConnectionManager::decode(&*config.value)?;
    let Some(RouteSpecifier::Rds(rds)) = &manager.route_specifier else {
        bail!("{} asks for no routes", filter.name);
    };
    let found = routes.get(&rds.route_config_name);
    let found = found.with_context(|| format!("no routes {:?}", rds.route_config_name))?;
    manager.route_specifier = Some(RouteSpecifier::RouteConfig(found.clone()));
    let config_type = Some(filter::ConfigType::TypedConfig(pack(&manager)));
    Ok(Filter { config_type, ..filter.clone() })
}
