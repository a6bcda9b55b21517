//! What clients were sent, and what they made of it, for tools that speak CSDS.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use portolan_envoy_proto::{
    config::core::v3::Node,
    service::status::v3::{
        ClientConfig, ClientStatusRequest, ClientStatusResponse, ConfigStatus,
        client_config::GenericXdsConfig,
        client_status_discovery_service_server::ClientStatusDiscoveryService,
    },
};
use tonic::{Request, Response, Status, Streaming};

use std::sync::Arc;

use super::{clients::Client, session::Parts};
use crate::{
    store::{Kind, version_text},
    stream::Progress,
};

/// Clients in one answer: more would be more than anybody reads, and than a message
/// holds.
const CLIENTS_MAX: usize = 1_000;

pub(super) struct StatusOf(pub(super) Arc<Parts>);

#[tonic::async_trait]
impl ClientStatusDiscoveryService for StatusOf {
    type StreamClientStatusStream =
        Pin<Box<dyn Stream<Item = Result<ClientStatusResponse, Status>> + Send>>;

    async fn stream_client_status(
        &self,
        request: Request<Streaming<ClientStatusRequest>>,
    ) -> Result<Response<Self::StreamClientStatusStream>, Status> {
        let parts = self.0.clone();
        let answers = request
            .into_inner()
            .map(move |request| request.and_then(|request| answer(&parts, &request)));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch_client_status(
        &self,
        request: Request<ClientStatusRequest>,
    ) -> Result<Response<ClientStatusResponse>, Status> {
        answer(&self.0, request.get_ref()).map(Response::new)
    }
}

/// Clients are chosen by the exact id of their node, if one is given.
fn answer(parts: &Parts, request: &ClientStatusRequest) -> Result<ClientStatusResponse, Status> {
    if !request.node_matchers.is_empty() {
        return Err(Status::unimplemented(
            "node_matchers: give the id of a node in `node` instead",
        ));
    }
    let wanted = request.node.as_ref().map(|node| &*node.id).filter(|id| !id.is_empty());
    let clients: Vec<_> = parts
        .clients
        .all()
        .into_iter()
        .filter(|client| wanted.is_none_or(|id| id == &*client.node))
        .collect();
    if clients.len() > CLIENTS_MAX {
        return Err(Status::resource_exhausted(format!(
            "{} clients; more than {CLIENTS_MAX} are not told at once: give the id of one in `node`",
            clients.len()
        )));
    }
    let config = clients.iter().map(|client| config(client, request.exclude_resource_contents));
    Ok(ClientStatusResponse { config: config.collect() })
}

fn config(client: &Client, without_contents: bool) -> ClientConfig {
    let progress = client.progress();
    let state = client.state();
    let of = |kind: Kind, progress: &Progress| {
        let status = match progress {
            Progress::Synced => ConfigStatus::Synced,
            Progress::Stale => ConfigStatus::Stale,
            Progress::Refused(_) => ConfigStatus::Error,
        };
        let held = state.stream.holds(kind).into_iter();
        held.map(move |resource| GenericXdsConfig {
            type_url: kind.type_url().to_owned(),
            name: resource.name.to_string(),
            version_info: version_text(resource.version),
            xds_config: (!without_contents).then(|| resource.body()),
            config_status: status.into(),
            ..GenericXdsConfig::default()
        })
        .collect::<Vec<_>>()
    };
    ClientConfig {
        node: Some(Node {
            id: client.node.to_string(),
            user_agent_name: client.agent.to_string(),
            ..Node::default()
        }),
        generic_xds_configs: progress.iter().flat_map(|(kind, own)| of(*kind, own)).collect(),
        ..ClientConfig::default()
    }
}
