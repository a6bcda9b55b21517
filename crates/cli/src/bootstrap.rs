//! `portolan get bootstrap`: what an Envoy or a gRPC client starts from.
//!
//! Either holds two things: where the xDS server is, and who the client is. In a Pod
//! the latter comes from the environment (POD_NAME, POD_NAMESPACE, POD_IP, by the
//! downward API), elsewhere from `-n`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use portolan_wire::Status;
use serde_json::{Value, json};

use crate::{
    Failure,
    args::{Format, GetArgs},
    client::Client,
    get::to_yaml,
    output::{Exit, Output},
};

/// Where the administration of Envoy listens, as Istio's proxies have it.
const ADMIN_PORT: u16 = 15_000;

pub(crate) async fn run(
    client: &Client,
    args: &GetArgs,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let make = match args.name.as_deref() {
        Some("envoy") => envoy,
        Some("grpc") => grpc,
        other => {
            let other = other.map(|other| format!(", not {other:?}")).unwrap_or_default();
            return Err(Failure::Usage(format!(
                "get bootstrap takes the kind of client, envoy or grpc{other}"
            )));
        }
    };
    let status: Status = client.get("/v1/status", &[], Duration::ZERO).await?;
    let server = status.xds.as_deref().and_then(|text| text.parse().ok());
    let server = server.ok_or_else(|| Failure::Refused {
        message: "this server serves no xDS".to_owned(),
        hint: "start it without `--without xds`, or with `--roles xds`".to_owned(),
    })?;
    let who = Who::from(args.scope.namespace.as_deref(), |key| std::env::var(key).ok());
    let bootstrap = make(server, &who, &status.cluster_domain);
    match args.output {
        Format::Yaml => output.raw(to_yaml(&bootstrap)?.as_bytes())?,
        _ => output.line(&serde_json::to_string_pretty(&bootstrap)?)?,
    }
    Ok(Exit::Fine)
}

/// Who the client is.
#[derive(Debug, PartialEq, Eq)]
struct Who {
    pod: String,
    namespace: String,
    address: IpAddr,
}

impl Who {
    fn from(namespace: Option<&str>, environment: impl Fn(&str) -> Option<String>) -> Self {
        let of = |key| environment(key).filter(|value| !value.is_empty());
        Self {
            pod: of("POD_NAME").or_else(|| of("HOSTNAME")).unwrap_or_else(|| "local".to_owned()),
            namespace: namespace
                .map(str::to_owned)
                .or_else(|| of("POD_NAMESPACE"))
                .unwrap_or_else(|| "default".to_owned()),
            address: of("POD_IP")
                .and_then(|text| text.parse().ok())
                .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        }
    }

    /// In Istio's form, which its users' tools take apart.
    fn node_id(&self, domain: &str) -> String {
        let Self { pod, namespace, address } = self;
        format!("sidecar~{address}~{pod}.{namespace}~{namespace}.svc.{domain}")
    }
}

fn envoy(server: SocketAddr, who: &Who, domain: &str) -> Value {
    let socket = |address: SocketAddr| {
        json!({"socket_address": {
            "address": address.ip().to_string(),
            "port_value": address.port(),
        }})
    };
    // Unlike of other addresses there is one loopback that is nobody else's: its own.
    let admin = if who.address.is_loopback() { who.address } else { Ipv4Addr::LOCALHOST.into() };
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {
            "id": who.node_id(domain),
            "cluster": format!("{}.{}", who.pod, who.namespace),
            "metadata": {"NAMESPACE": who.namespace},
        },
        "admin": {"address": socket(SocketAddr::new(admin, ADMIN_PORT))},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "portolan"}}],
            },
            "lds_config": ads,
            "cds_config": ads,
        },
        "static_resources": {"clusters": [{
            "name": "portolan",
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {
                        // A server that is gone without a word is noticed.
                        "connection_keepalive": {"interval": "30s", "timeout": "10s"},
                    }},
                },
            },
            "load_assignment": {
                "cluster_name": "portolan",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(server)}}]}],
            },
        }]},
    })
}

/// For the environment variables GRPC_XDS_BOOTSTRAP (a file) and
/// GRPC_XDS_BOOTSTRAP_CONFIG (gRFC A27).
fn grpc(server: SocketAddr, who: &Who, domain: &str) -> Value {
    json!({
        "xds_servers": [{
            "server_uri": server.to_string(),
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": {
            "id": who.node_id(domain),
            "cluster": format!("{}.{}", who.pod, who.namespace),
            "metadata": {"NAMESPACE": who.namespace, "GENERATOR": "grpc"},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks() {
        let pod = |key: &str| {
            let value = match key {
                "POD_NAME" => "web-1",
                "POD_NAMESPACE" => "demo",
                "POD_IP" => "127.10.0.5",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let who = Who::from(None, pod);
        let id = "sidecar~127.10.0.5~web-1.demo~demo.svc.cluster.local";
        assert_eq!(who.node_id("cluster.local"), id);
        assert_eq!(Who::from(Some("shop"), pod).namespace, "shop");
        let nobody = Who::from(None, |_| None);
        assert_eq!(nobody.node_id("x.test"), "sidecar~127.0.0.1~local.default~default.svc.x.test");
    }

    #[test]
    fn both_lead_to_the_server() {
        let who = Who::from(Some("demo"), |_| None);
        let server: SocketAddr = "[::1]:15010".parse().unwrap();
        let envoy = envoy(server, &who, "cluster.local");
        let endpoint = envoy
            .pointer("/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/0")
            .unwrap();
        let expected = json!({"address": "::1", "port_value": 15010});
        assert_eq!(endpoint["endpoint"]["address"]["socket_address"], expected);
        let grpc = grpc(server, &who, "cluster.local");
        assert_eq!(grpc["xds_servers"][0]["server_uri"], "[::1]:15010");
        assert_eq!(grpc["node"]["metadata"]["NAMESPACE"], "demo");
    }
}
