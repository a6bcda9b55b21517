//! `portolan watch`: one line per change of the catalog.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use portolan_wire::{Instance, WatchEvent};

use crate::{
    Failure,
    args::{Connection, Format, WatchArgs},
    client::Client,
    get::scope_query,
    output::{Exit, Output},
};

/// A service, and its instances by address with the state of each.
type Known = BTreeMap<(String, String, String), BTreeMap<String, String>>;

pub(crate) async fn run(
    connection: &Connection,
    args: &WatchArgs,
    output: &mut Output,
) -> Result<Exit, Failure> {
    if args.scope.labels.is_some() {
        return Err(Failure::Usage("watch takes no -l; use NAME, -n or --origin".to_owned()));
    }
    let client = Client::new(connection)?;
    let mut events = client.watch(&scope_query(&args.scope, None)).await?;
    let mut known = Known::new();
    // Until the first `synced`, events tell what is, not what changes.
    let mut synced = false;
    while let Some(event) = events.next().await {
        let event = event?;
        if !wanted(&event, args.name.as_deref()) {
            continue;
        }
        if args.output == Format::Json {
            output.line(&serde_json::to_string(&event)?)?;
            continue;
        }
        match event {
            WatchEvent::Reset { .. } => {
                known.clear();
                synced = false;
            }
            WatchEvent::Synced { version } => {
                if !synced {
                    output.word(&format!("watching from version {version}; Ctrl-C ends"));
                }
                synced = true;
            }
            WatchEvent::Upsert { version, service, instances } => {
                let key = (service.origin, service.namespace, service.name);
                let after: BTreeMap<String, String> =
                    instances.iter().map(|one| (subject(one), state(one))).collect();
                let before = known.insert(key.clone(), after.clone());
                if synced {
                    for line in lines(before.as_ref(), &after) {
                        output.line(&format!("{version}  {}  {line}", label(&key)))?;
                    }
                }
            }
            WatchEvent::Remove { version, origin, namespace, name } => {
                let key = (origin, namespace, name);
                known.remove(&key);
                output.line(&format!("{version}  {}  - service removed", label(&key)))?;
            }
        }
    }
    Ok(Exit::Fine)
}

fn wanted(event: &WatchEvent, name: Option<&str>) -> bool {
    let Some(wanted) = name else { return true };
    match event {
        WatchEvent::Upsert { service, .. } => service.name.contains(wanted),
        WatchEvent::Remove { name, .. } => name.contains(wanted),
        WatchEvent::Reset { .. } | WatchEvent::Synced { .. } => true,
    }
}

fn label((origin, namespace, name): &(String, String, String)) -> String {
    if origin == "kubernetes" {
        format!("{namespace}/{name}")
    } else {
        format!("{origin}:{namespace}/{name}")
    }
}

fn subject(instance: &Instance) -> String {
    match instance.port {
        Some(port) => format!("{} {}:{port}", instance.name, instance.address),
        None => format!("{} {}", instance.name, instance.address),
    }
}

fn state(instance: &Instance) -> String {
    match instance.reasons.first() {
        Some(reason) => format!("{} ({})", instance.state, reason.code),
        None => instance.state.clone(),
    }
}

/// What differs between two states of a service.
fn lines(
    before: Option<&BTreeMap<String, String>>,
    after: &BTreeMap<String, String>,
) -> Vec<String> {
    let none = BTreeMap::new();
    let Some(before) = before else {
        let mut lines = vec!["+ service added".to_owned()];
        lines.extend(lines_between(&none, after));
        return lines;
    };
    let lines = lines_between(before, after);
    if lines.is_empty() { vec!["~ service changed".to_owned()] } else { lines }
}

fn lines_between(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<String> {
    let added = after.iter().filter_map(|(subject, state)| match before.get(subject) {
        None => Some(format!("+ {subject} {state}")),
        Some(old) if old != state => Some(format!("~ {subject} {old} -> {state}")),
        Some(_) => None,
    });
    let removed = before
        .keys()
        .filter(|subject| !after.contains_key(*subject))
        .map(|subject| format!("- {subject} removed"));
    added.chain(removed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_change() {
        let state = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let before = state(&[("a 1:1", "serving"), ("b 2:1", "starting")]);
        let after = state(&[("b 2:1", "serving"), ("c 3:1", "starting")]);
        assert_eq!(
            lines(Some(&before), &after),
            ["~ b 2:1 starting -> serving", "+ c 3:1 starting", "- a 1:1 removed"]
        );
        assert_eq!(lines(None, &state(&[])), ["+ service added"]);
        assert_eq!(lines(Some(&before), &before), ["~ service changed"]);
    }
}
