//! The API's objects, trimmed to what is converted. Everything else is skipped
//! while parsing and never allocated. `null` means absent everywhere: Go writes
//! empty required lists (`endpoints`, `ports`) that way.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// Reads `null` as the default.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// What reads as it was when it is left out.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

type Map = BTreeMap<String, String>;

/// Declares trimmed types: every field may be absent or `null`.
macro_rules! trimmed {
    ($($name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* })*) => {$(
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub(crate) struct $name {
            $($(#[$attribute])*
            #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
            pub(crate) $field: $type,)*
        }
    )*};
}

trimmed! {
    Meta {
        name: String,
        namespace: String,
        uid: String,
        resource_version: String,
        deletion_timestamp: Option<String>,
        labels: Map,
        annotations: Map,
    }

    Namespace { metadata: Meta, }

    Node {
        metadata: Meta,
        status: NodeStatus,
    }
    NodeStatus {
        addresses: Vec<NodeAddress>,
        conditions: Vec<Condition>,
    }
    NodeAddress {
        #[serde(rename = "type")]
        kind: String,
        address: String,
    }
    Condition {
        #[serde(rename = "type")]
        kind: String,
        status: String,
        reason: String,
        message: String,
    }

    Service {
        metadata: Meta,
        spec: ServiceSpec,
        status: ServiceStatus,
    }
    ServiceSpec {
        #[serde(rename = "type")]
        kind: String,
        #[serde(rename = "clusterIP")]
        cluster_ip: String,
        #[serde(rename = "clusterIPs")]
        cluster_ips: Vec<String>,
        external_name: String,
        #[serde(rename = "externalIPs")]
        external_ips: Vec<String>,
        ports: Vec<ServicePort>,
        selector: Map,
        publish_not_ready_addresses: bool,
        internal_traffic_policy: String,
        external_traffic_policy: String,
        session_affinity: String,
        session_affinity_config: AffinityConfig,
        traffic_distribution: String,
    }
    AffinityConfig {
        #[serde(rename = "clientIP")]
        client_ip: ClientIp,
    }
    ServiceStatus { load_balancer: LoadBalancer, }
    LoadBalancer { ingress: Vec<Ingress>, }
    Ingress {
        ip: String,
        hostname: String,
    }
    ClientIp { timeout_seconds: Option<u32>, }
    ServicePort {
        name: String,
        protocol: Option<String>,
        port: i64,
        node_port: i64,
        app_protocol: Option<String>,
    }

    ServiceImport {
        metadata: Meta,
        spec: ImportSpec,
    }
    ImportSpec {
        #[serde(rename = "type")]
        kind: String,
        ips: Vec<String>,
        ports: Vec<ServicePort>,
    }

    EndpointSlice {
        metadata: Meta,
        address_type: String,
        endpoints: Vec<SliceEndpoint>,
        ports: Vec<SlicePort>,
    }
    SliceEndpoint {
        addresses: Vec<String>,
        conditions: SliceConditions,
        hostname: Option<String>,
        node_name: Option<String>,
        zone: Option<String>,
        target_ref: Option<TargetRef>,
        hints: Option<SliceHints>,
    }
    SliceConditions {
        ready: Option<bool>,
        serving: Option<bool>,
        terminating: Option<bool>,
    }
    TargetRef {
        kind: String,
        name: String,
        namespace: String,
    }
    SliceHints {
        for_zones: Vec<Hint>,
        for_nodes: Vec<Hint>,
    }
    Hint { name: String, }
    SlicePort {
        name: String,
        protocol: Option<String>,
        port: Option<i64>,
        app_protocol: Option<String>,
    }

    Pod {
        metadata: Meta,
        spec: PodSpec,
        status: PodStatus,
    }
    PodSpec {
        node_name: Option<String>,
        service_account_name: Option<String>,
    }
    PodStatus {
        phase: String,
        #[serde(rename = "podIP")]
        pod_ip: String,
        #[serde(rename = "podIPs")]
        pod_ips: Vec<PodIp>,
        conditions: Vec<Condition>,
        container_statuses: Vec<ContainerStatus>,
        init_container_statuses: Vec<ContainerStatus>,
    }
    PodIp { ip: String, }
    ContainerStatus {
        name: String,
        state: ContainerState,
    }
    ContainerState {
        waiting: Option<Waiting>,
        running: Option<Running>,
    }
    Running { started_at: String, }
    Waiting {
        reason: String,
        message: String,
    }
}

/// A page of a listing.
#[derive(Deserialize)]
#[serde(bound = "K: Deserialize<'de>")]
pub(crate) struct Page<K> {
    #[serde(default)]
    pub(crate) metadata: PageMeta,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) items: Vec<K>,
}

/// Metadata of a page.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PageMeta {
    #[serde(deserialize_with = "nullable")]
    pub(crate) resource_version: String,
    #[serde(rename = "continue", deserialize_with = "nullable")]
    pub(crate) next: String,
}

/// The kind of a watch event, read first: what `object` is depends on it.
#[derive(Deserialize)]
pub(crate) struct EventKind {
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

/// The object of a watch event.
#[derive(Deserialize)]
pub(crate) struct EventObject<T> {
    pub(crate) object: T,
}

/// An object of which only the metadata can be read.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct MetaOnly {
    pub(crate) metadata: Meta,
}

/// The API's `Status`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    #[serde(deserialize_with = "nullable")]
    pub(crate) code: u16,
    #[serde(deserialize_with = "nullable")]
    pub(crate) reason: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) message: String,
}
