//! A cluster to measure beside, and thousands of services for it.

use std::{
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
};

use kube::{
    Api, Client, Config,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use portolan_wire::Addresses;
use serde_json::{Value, json};

/// Services are spread over so many namespaces.
pub(crate) const NAMESPACES: usize = 20;

/// Endpoints of each service.
pub(crate) const ENDPOINTS: usize = 10;

/// Writes on their way at once.
pub(crate) const WRITERS: usize = 32;

/// One service that was made.
pub(crate) struct Made {
    /// `NAME.NAMESPACE`.
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
}

/// Starts a Portolan that prints its addresses once it is ready.
pub(crate) fn spawn(args: &[&str], folder: &Path) -> (Child, Addresses) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(args)
        .arg("--data-dir")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, serde_json::from_str(&line).expect("addresses"))
}

/// Loopback ranges that neither tests nor a running Portolan use.
pub(crate) const RANGES: [&str; 2] = ["--service-cidr=127.90.0.0/16", "--pod-cidr=127.91.0.0/16"];

/// Starts a cluster in memory; its kubeconfig.
pub(crate) fn start(more: &[&str], folder: &Path) -> (Child, String) {
    let args = ["cluster", "--ephemeral", "-o=json", "--api-listen=127.0.0.1:0"];
    let (cluster, addresses) = spawn(&[&args[..], &RANGES, more].concat(), folder);
    (cluster, addresses.kubeconfig.unwrap())
}

pub(crate) async fn connect(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap()).unwrap()
}

pub(crate) fn api(
    client: &Client,
    group: &str,
    kind: &str,
    plural: &str,
    namespace: &str,
) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk(group, "v1", kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
    Api::namespaced_with(client.clone(), namespace, &resource)
}

pub(crate) fn services(client: &Client, namespace: &str) -> Api<DynamicObject> {
    api(client, "", "Service", "services", namespace)
}

pub(crate) fn slices(client: &Client, namespace: &str) -> Api<DynamicObject> {
    api(client, "discovery.k8s.io", "EndpointSlice", "endpointslices", namespace)
}

pub(crate) async fn create(api: &Api<DynamicObject>, object: Value) -> DynamicObject {
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

/// Makes namespaces `n0`, `n1`, ... and so many services `s0`, `s1`, ... in them by
/// turns, each with a port `http` and a slice of its endpoints.
pub(crate) async fn fill(client: &Client, count: usize) -> Vec<Made> {
    let gvk = GroupVersionKind::gvk("", "v1", "Namespace");
    let namespaces: Api<DynamicObject> =
        Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&gvk, "namespaces"));
    for namespace in 0..NAMESPACES {
        let meta = json!({"name": format!("n{namespace}")});
        create(&namespaces, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": meta}))
            .await;
    }
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = client.clone();
        writers.spawn(async move {
            let mut made = Vec::new();
            for number in (writer..count).step_by(WRITERS) {
                made.push(service(&client, number).await);
            }
            made
        });
    }
    let mut all: Vec<Made> = writers.join_all().await.into_iter().flatten().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

async fn service(client: &Client, number: usize) -> Made {
    let (namespace, name) = (format!("n{}", number % NAMESPACES), format!("s{number}"));
    let spec = json!({"ports": [{"name": "http", "port": 80}]});
    let object =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let created = create(&services(client, &namespace), object).await;
    let address = created.data["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
    let endpoints: Vec<String> =
        (0..ENDPOINTS).map(|place| endpoint(number, place).to_string()).collect();
    slice(client, &namespace, &name, &endpoints).await;
    Made { name: format!("{name}.{namespace}"), address }
}

/// The address of an endpoint of a service. Of the range of a service, they have the first.
pub(crate) fn endpoint(number: usize, place: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, (number / 256) as u8, (number % 256) as u8, place as u8)
}

/// Makes the slice `SERVICE-x`.
pub(crate) async fn slice(client: &Client, namespace: &str, service: &str, addresses: &[String]) {
    let endpoints = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}));
    slice_of(client, namespace, service, endpoints.collect()).await;
}

pub(crate) async fn slice_of(
    client: &Client,
    namespace: &str,
    service: &str,
    endpoints: Vec<Value>,
) {
    let meta = json!({
        "name": format!("{service}-x"), "labels": {"kubernetes.io/service-name": service},
    });
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta,
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints,
    });
    create(&slices(client, namespace), object).await;
}

/// Gives a slice other endpoints.
pub(crate) async fn put(slices: &Api<DynamicObject>, name: &str, addresses: &[Ipv4Addr]) {
    let endpoints = addresses.iter().map(|address| json!({"addresses": [address.to_string()]}));
    let patch = Patch::Merge(json!({"endpoints": endpoints.collect::<Vec<_>>()}));
    slices.patch(name, &PatchParams::default(), &patch).await.unwrap();
}
