//! About the DNS server of this process: `/v1/resolve`, how it comes to an answer, and
//! `/v1/dns-clients`, who asks it most.
//!
//! Faces do not know each other: the process that runs both hands the DNS server over as
//! a [`DnsServer`].

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use axum::{Json, extract::State};
use portolan_catalog::Snapshot;
use portolan_model::{Asker, ObjectName};
use portolan_view::Target;
use portolan_wire as wire;

use crate::{
    Shared,
    problem::Refusal,
    query::{Checked, NoQuery, ResolveQuery, query},
};

/// What a DNS server tells about itself.
pub trait DnsServer: Send + Sync {
    /// The steps to the answer of a client. Nobody else is asked. `Err` says what is wrong
    /// with the name or the type.
    fn explain(
        &self,
        name: &str,
        record_type: &str,
        client: IpAddr,
    ) -> Result<Vec<wire::ResolutionStep>, String>;

    /// The clients that ask most, the loudest first.
    fn loudest(&self, count: usize) -> Vec<Asker>;
}

/// Clients of the DNS server that are shown.
const ASKERS_MAX: usize = 100;

/// Who asks, where no Pod is named.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The address by which the DNS server knows a Pod.
fn client_of(snapshot: &Snapshot, from: Option<&ObjectName>) -> IpAddr {
    let pod = from.and_then(|pod| snapshot.workload(pod));
    pod.and_then(|pod| pod.addresses.first().copied()).unwrap_or(NOBODY)
}

pub(crate) async fn resolve(
    State(shared): State<Arc<Shared>>,
    checked: Checked<ResolveQuery>,
) -> Result<Json<wire::Page<wire::Resolution>>, Refusal> {
    let query = query(checked)?;
    let from = query.from(&shared)?;
    let dns = server(&shared)?;
    let snapshot = shared.hub.snapshot();
    let client = client_of(&snapshot, from.as_ref());
    let steps = dns.explain(&query.name, &query.record_type, client);
    Ok(Json(wire::Page {
        version: snapshot.version().to_string(),
        age_ms: shared.now_ms().saturating_sub(snapshot.at_ms()),
        items: vec![wire::Resolution {
            name: query.name,
            record_type: query.record_type,
            steps: steps.map_err(Refusal::bad_request)?,
        }],
    }))
}

fn server(shared: &Shared) -> Result<&Arc<dyn DnsServer>, Refusal> {
    shared.dns.as_ref().ok_or_else(|| {
        Refusal::not_found("this process serves no DNS".to_owned())
            .hint("ask one that runs `serve --roles dns,api`, or `up`")
    })
}

pub(crate) async fn clients(
    State(shared): State<Arc<Shared>>,
    checked: Checked<NoQuery>,
) -> Result<Json<wire::Page<wire::DnsClient>>, Refusal> {
    query(checked)?;
    let snapshot = shared.hub.snapshot();
    let item = |asker: Asker| {
        let pod = asker.client.and_then(|client| snapshot.workload_at(client));
        wire::DnsClient {
            address: asker.client.map_or_else(|| "others".to_owned(), |client| client.to_string()),
            pod: pod.map(|pod| pod.name.to_string()),
            queries_per_second: asker.queries_per_second,
            denied: asker.denied,
            failed: asker.failed,
        }
    };
    let items = server(&shared)?.loudest(ASKERS_MAX).into_iter().map(item).collect();
    Ok(Json(wire::Page {
        version: snapshot.version().to_string(),
        age_ms: shared.now_ms().saturating_sub(snapshot.at_ms()),
        items,
    }))
}

/// How the name of a target is answered; `None`: it has none, or no DNS is served here.
pub(crate) fn of_target(
    shared: &Shared,
    target: &Target,
    text: &str,
    from: Option<&ObjectName>,
) -> Option<wire::Resolution> {
    let dns = shared.dns.as_ref()?;
    let (name, record_type) = target.dns_name(text, &shared.config.cluster_domain)?;
    let client = client_of(&shared.hub.snapshot(), from);
    let steps = dns.explain(&name, record_type, client).ok()?;
    Some(wire::Resolution { name, record_type: record_type.to_owned(), steps })
}
