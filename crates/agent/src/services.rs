//! Names, and the instances of one: at once, or when something has changed.
//!
//! A blocking query is Consul's: with `index` it is answered when the index is another, at the
//! latest after `wait`. Whoever keeps the answer asks with `If-None-Match`, and gets 304 when the
//! instances are the same, also from an agent that was started again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use portolan_sdk::Instance;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    Shared,
    names::{Followed, View},
    problem::Problem,
    read::{Checked, query},
};

/// How long a blocking query waits unless it says.
const WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// The longest wait, as Consul has it.
const WAIT_MAX: Duration = Duration::from_secs(600);

const INDEX: HeaderName = HeaderName::from_static("x-portolan-index");
const AGE: HeaderName = HeaderName::from_static("x-portolan-age-ms");
const DEGRADED: HeaderName = HeaderName::from_static("x-portolan-degraded");

/// An instance as the agent tells it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown<'a> {
    name: &'a str,
    service: &'a str,
    address: std::net::IpAddr,
    port: u16,
    protocol: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: &'a str,
    methods: &'a [String],
    weight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'a str>,
    metadata: &'a BTreeMap<String, String>,
    state: &'static str,
}

impl<'a> Shown<'a> {
    pub(crate) fn of(instance: &'a Instance) -> Self {
        Self {
            name: &instance.pod,
            service: &instance.interface,
            address: instance.address,
            port: instance.port,
            protocol: &instance.protocol,
            group: instance.group.as_deref(),
            version: instance.version.as_deref(),
            path: &instance.path,
            methods: &instance.methods,
            weight: instance.weight,
            zone: instance.zone.as_deref(),
            metadata: &instance.metadata,
            state: instance.state.as_str(),
        }
    }

    pub(crate) fn all(instances: &'a [Arc<Instance>]) -> Vec<Self> {
        instances.iter().map(|one| Self::of(one)).collect()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamesQuery {
    namespace: Option<String>,
}

/// `GET /agent/v1/services`
pub(crate) async fn names(
    State(shared): State<Arc<Shared>>,
    checked: Checked<NamesQuery>,
) -> Result<Json<Value>, Problem> {
    let NamesQuery { namespace } = query(checked)?;
    // The check of a name is also that of its namespace.
    let namespace = shared.names.named("any", namespace.as_deref())?.namespace;
    let names = shared.names.list(&namespace).await?;
    Ok(Json(json!({"namespace": namespace, "items": names})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServiceQuery {
    namespace: Option<String>,
    index: Option<u64>,
    wait: Option<String>,
}

/// `GET /agent/v1/services/{name}`
pub(crate) async fn service(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    checked: Checked<ServiceQuery>,
) -> Result<Response, Problem> {
    let ServiceQuery { namespace, index, wait } = query(checked)?;
    let wait = wait.as_deref().map(|text| duration("wait", text, WAIT_MAX)).transpose()?;
    let name = shared.names.named(&name, namespace.as_deref())?;
    let followed = shared.names.follow(&name).await?;
    let view = match index {
        None => followed.view(),
        Some(index) => {
            let permit = shared.waits.clone().try_acquire_owned();
            let _permit = permit.map_err(|_| too_many())?;
            let wait = wait.unwrap_or(WAIT_DEFAULT);
            let other = shared.shutdown.run_until_cancelled(other_than(&followed, index));
            // Not in time, or the agent ends: what there is.
            timeout(wait, other).await.ok().flatten().unwrap_or_else(|| followed.view())
        }
    };
    let tag = format!("W/\"{:016x}\"", view.tag);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let mut answer = if known.is_some_and(|known| is_known(known, &tag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let snapshot = &view.snapshot;
        Json(json!({
            "service": name.name,
            "namespace": name.namespace,
            "index": view.index,
            "ageMs": age_ms(&view),
            "degraded": snapshot.trouble(),
            "items": Shown::all(snapshot.instances()),
        }))
        .into_response()
    };
    let headers = answer.headers_mut();
    headers.insert(INDEX, view.index.into());
    headers.insert(AGE, age_ms(&view).into());
    headers.insert(
        DEGRADED,
        HeaderValue::from_static(if view.snapshot.is_degraded() { "true" } else { "false" }),
    );
    if let Ok(tag) = tag.try_into() {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

pub(crate) fn too_many() -> Problem {
    Problem::unavailable(format!("{} requests wait already", crate::WAITS_MAX))
        .fix("close some, or keep one open for each service")
}

fn age_ms(view: &View) -> u64 {
    u64::try_from(view.snapshot.age().as_millis()).unwrap_or(u64::MAX)
}

/// Waits until the index is another.
async fn other_than(followed: &Followed, index: u64) -> View {
    let mut changes = followed.subscription.clone();
    loop {
        let view = followed.view();
        if view.index != index {
            return view;
        }
        if changes.changed().await.is_none() {
            // Nothing will come any more; whoever waits learns it in time.
            std::future::pending::<()>().await;
        }
    }
}

/// Weak comparison (RFC 9110, section 13.1.2).
fn is_known(known: &str, tag: &str) -> bool {
    let plain = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    known.trim() == "*" || known.split(',').any(|one| plain(one) == plain(tag))
}

/// Reads `500ms`, `30s` or `5m`.
pub(crate) fn duration(field: &str, text: &str, max: Duration) -> Result<Duration, Problem> {
    let wrong = |detail: String| Err(Problem::field(field, detail).fix("write 500ms, 30s or 5m"));
    let (number, unit) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let ms_each = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return wrong(format!("{text:?} is no duration")),
    };
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(ms_each));
    match ms.map(Duration::from_millis) {
        Some(duration) if duration <= max => Ok(duration),
        Some(_) => wrong(format!("{text:?} is more than {} s", max.as_secs())),
        None => wrong(format!("{text:?} is no duration")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("500ms", Some(500)),
            ("30s", Some(30_000)),
            ("10m", Some(600_000)),
            ("11m", None),
            ("0s", Some(0)),
            ("30", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("99999999999999999999s", None),
        ] {
            let read = duration("wait", text, WAIT_MAX);
            assert_eq!(read.ok().map(|d| d.as_millis()), ms, "{text}");
        }
    }

    #[test]
    fn tags() {
        for (known, is) in [
            ("W/\"a\"", true),
            ("\"a\"", true),
            ("\"b\", W/\"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("", false),
        ] {
            assert_eq!(is_known(known, "W/\"a\""), is, "{known}");
        }
    }
}
