//! What no well-behaved client does to the embedded API: broken HTTP, slow
//! senders, HTTP/2 floods, crowds of connections.
//!
//! Each gets the answer that kube-apiserver v1.33 gives, or a closed connection
//! where that closes it; nothing panics, memory stays bounded, and a good client
//! is served meanwhile. What an ordinary client can send is in the scenarios of
//! `conformance/kube-api`.

mod crowd;
mod http1;
mod http2;
mod raw;
mod slow;

use crate::api::Api;

/// A good client is served, now.
async fn assert_served(api: &Api) {
    let (code, list) = api
        .client()
        .ask(reqwest::Method::GET, "/api/v1/namespaces", None)
        .await
        .expect("a good client is served");
    assert_eq!((code, list["kind"].as_str()), (200, Some("NamespaceList")), "{list}");
}

/// Nothing in the server's words speaks of a panic, and it runs.
async fn assert_unharmed(api: &Api) {
    assert_served(api).await;
    let said = api.up.said();
    assert!(!said.contains("panic"), "{said}");
}

/// Memory that the server holds.
fn resident_bytes(api: &Api) -> u64 {
    memory(api, "VmRSS:")
}

/// The most that it ever held.
fn peak_bytes(api: &Api) -> u64 {
    memory(api, "VmHWM:")
}

fn memory(api: &Api, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", api.up.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}
