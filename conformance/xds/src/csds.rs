//! What the server says it has sent (CSDS).

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use portolan_envoy_proto::{
    Message,
    config::{
        core::v3::{address::Address, socket_address::PortSpecifier},
        endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier},
    },
    service::status::v3::{
        ClientStatusRequest, client_config::GenericXdsConfig,
        client_status_discovery_service_client::ClientStatusDiscoveryServiceClient,
    },
};
use portolan_xds::store::Kind;

/// Of the one client that is connected: version by name, by type; of endpoints, their
/// addresses.
pub(crate) fn sent(server: &str) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let url = format!("http://{server}");
    let answer = runtime.block_on(async {
        let client = ClientStatusDiscoveryServiceClient::connect(url).await?;
        let mut client = client.max_decoding_message_size(usize::MAX);
        let answer = client.fetch_client_status(ClientStatusRequest::default()).await?;
        anyhow::Ok(answer.into_inner())
    })?;
    let [client] = &*answer.config else { bail!("{} clients", answer.config.len()) };
    let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for own in &client.generic_xds_configs {
        let kind = Kind::of_type_url(&own.type_url).context("a type that is not ours")?;
        let what = match kind {
            Kind::Endpoints => addresses(own)?,
            _ => own.version_info.clone(),
        };
        all.entry(kind.short().to_owned()).or_default().insert(own.name.clone(), what);
    }
    Ok(all)
}

fn addresses(own: &GenericXdsConfig) -> Result<String> {
    let body = own.xds_config.as_ref().context("no content")?;
    let assignment = ClusterLoadAssignment::decode(&*body.value)?;
    let endpoints = assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
    let mut addresses = Vec::new();
    for endpoint in endpoints {
        let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { continue };
        let address = endpoint.address.as_ref().and_then(|own| own.address.as_ref());
        let Some(Address::SocketAddress(socket)) = address else { continue };
        let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { continue };
        addresses.push(format!("{}:{port}", socket.address));
    }
    addresses.sort();
    Ok(addresses.join(" "))
}
