//! Logs of Pods: which container is meant, and how much of what it said.

use std::time::Duration;

use serde_json::Value;

use super::{
    query::Query,
    respond::{self, Answer},
    verbs::Request,
};
use crate::{
    Cause, Status, kinds,
    registry::{LogOptions, Registry, object},
    schema::types,
    status::Details,
};

/// Answers a request for a log.
pub(super) async fn answer(request: Request<'_>) -> Result<Answer, Status> {
    let (target, query) = (request.target, request.query);
    let registry = &request.service.registry;
    let mut options = log_options(query, &target.name)?;
    let pod = registry.get(target.kind, target.namespace(), &target.name)?;
    let asked = query.get("container").unwrap_or_default();
    options.container = Some(chosen_container(&pod, asked)?);
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if node.is_empty() {
        // Nobody has begun to run it.
        return Ok(respond::nothing());
    }
    let Some(logs) = registry.pod_logs() else {
        check_node(registry, node)?;
        return Err(Status::not_implemented("nothing here keeps the logs of Pods"));
    };
    let stream = logs.open(pod, options).await?;
    Ok(respond::live("text/plain", stream))
}

/// Whether the Node of a Pod is there. Upstream's store names the resource of the request
/// whatever it looks for, so that a Node that is missing is a Pod in its words.
pub(super) fn check_node(registry: &Registry, node: &str) -> Result<(), Status> {
    match registry.get(&kinds::NODES, "", node) {
        Err(status) if status.is_not_found() => Err(Status::not_found(&kinds::PODS, node)),
        other => other.map(drop),
    }
}

/// The options in a query, for the log of a Pod of this name; which container is not looked at
/// (upstream `ValidatePodLogOptions`).
fn log_options(query: &Query, name: &str) -> Result<LogOptions, Status> {
    let seconds = query.integer("sinceSeconds")?;
    let since = query.get("sinceTime").filter(|text| !matches!(*text, "" | "null"));
    if let Some(text) = since {
        types::check_time(text).map_err(Status::bad_request)?;
    }
    let (tail, limit) = (query.integer("tailLines")?, query.integer("limitBytes")?);
    let mut causes = Vec::new();
    let mut refuse = |field: &str, number: i64, why: &str| {
        causes.push(Cause::invalid(field, &number.into(), why));
    };
    if let Some(lines) = tail.filter(|lines| *lines < 0) {
        refuse("tailLines", lines, "must be greater than or equal to 0");
    }
    if let Some(bytes) = limit.filter(|bytes| *bytes < 1) {
        refuse("limitBytes", bytes, "must be greater than 0");
    }
    match seconds {
        Some(_) if query.get("sinceTime").is_some() => {
            let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            causes.push(Cause::forbidden("", why));
        }
        Some(seconds) if seconds < 1 => refuse("sinceSeconds", seconds, "must be greater than 0"),
        _ => {}
    }
    if query.get("stream").is_some() {
        causes.push(Cause::forbidden("stream", "may not be specified"));
    }
    if !causes.is_empty() {
        const KIND: &str = "PodLogOptions";
        let details =
            Details { name: name.to_owned(), kind: KIND.to_owned(), ..Details::default() };
        return Err(Status::invalid_as(KIND, name, details, causes));
    }
    let number = |asked: Option<i64>| asked.and_then(|number| u64::try_from(number).ok());
    Ok(LogOptions {
        container: None,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        since: number(seconds).map(Duration::from_secs),
        since_unix_seconds: since.and_then(object::parse_timestamp),
        tail_lines: number(tail),
        limit_bytes: number(limit),
    })
}

/// The container that is meant (upstream `validateContainer`).
pub(super) fn chosen_container(pod: &Value, asked: &str) -> Result<String, Status> {
    let names: Vec<&str> = ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .filter_map(|list| pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array))
        .flatten()
        .filter_map(|c| c.get("name").and_then(Value::as_str))
        .collect();
    let name = object::name(pod);
    if !asked.is_empty() {
        return match names.contains(&asked) {
            true => Ok(asked.to_owned()),
            false => {
                Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")))
            }
        };
    }
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    match containers.map(Vec::as_slice) {
        Some([only]) => Ok(only.get("name").and_then(Value::as_str).unwrap_or_default().to_owned()),
        _ => Err(Status::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            names.join(" ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_chosen() {
        let pod = |main: &[&str]| {
            let named = |names: &[&str]| -> Vec<Value> {
                names.iter().map(|name| json!({"name": name})).collect()
            };
            let spec = json!({"initContainers": named(&["first"]), "containers": named(main)});
            json!({"metadata": {"name": "p"}, "spec": spec})
        };
        for (main, asked, expected) in [
            // One container is meant, whatever ran before it.
            (&["a"][..], "", Ok("a")),
            (&["a"], "first", Ok("first")),
            (&["a"], "b", Err("container b is not valid for pod p")),
            (
                &["a", "b"],
                "",
                Err("a container name must be specified for pod p, choose one of: [first a b]"),
            ),
        ] {
            let found = chosen_container(&pod(main), asked).map_err(|status| status.message);
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(found, expected, "{main:?} {asked:?}");
        }
    }

    #[test]
    fn options_are_read_as_upstream_reads_them() {
        let read = |query: &str| log_options(&Query::parse(query), "p");
        let options =
            read("tailLines=0&limitBytes=1&sinceSeconds=5&follow&previous=false").unwrap();
        assert_eq!((options.tail_lines, options.limit_bytes), (Some(0), Some(1)));
        assert_eq!(options.since, Some(Duration::from_secs(5)));
        assert!(options.follow && !options.previous);
        for (query, code, message) in [
            ("tailLines=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax"),
            ("sinceTime=soon", 400, {
                "parsing time \"soon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"soon\" as \"2006\""
            }),
            ("tailLines=-1&limitBytes=0&sinceSeconds=0", 422, {
                "PodLogOptions \"p\" is invalid: [tailLines: Invalid value: -1: must be greater than \
                 or equal to 0, limitBytes: Invalid value: 0: must be greater than 0, sinceSeconds: \
                 Invalid value: 0: must be greater than 0]"
            }),
        ] {
            let refused = read(query).unwrap_err();
            assert_eq!((refused.code, refused.message.as_str()), (code, message), "{query}");
        }
        assert_eq!(read("sinceTime=2024-01-02T03:04:05Z&sinceSeconds=1").unwrap_err().code, 422);
    }
}
