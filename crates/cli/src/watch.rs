//! `portolan watch`: one line per change of the catalog.
//!
//! ```text
//!   reset, upserts, synced --> what is        upsert, remove --> what changes, line by line
//! ```
//!
//! After a reset (the server was started anew, or was out of reach for long) what
//! is is compared with what was, so that no change goes untold.

use std::collections::BTreeMap;

use portolan_wire::{Instance, WatchEvent};

use crate::{
    Failure,
    args::{Connection, Format, WatchArgs},
    client::Client,
    get::{scope_query, to_yaml},
    output::{Exit, Output},
};

/// Origin, namespace and name.
type Key = (String, String, String);

/// Instances of a service by name and address, with the state of each.
type States = BTreeMap<String, String>;

pub(crate) async fn run(
    connection: &Connection,
    args: &WatchArgs,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let client = Client::new(connection)?;
    let mut events = client.watch(scope_query(&args.scope, None)).await?;
    let mut follower = Follower::default();
    loop {
        let event = events.next(output).await?;
        if !wanted(&event, args.name.as_deref()) {
            continue;
        }
        match args.output {
            Format::Json => output.line(&serde_json::to_string(&event)?)?,
            Format::Yaml => output.raw(format!("---\n{}", to_yaml(&event)?).as_bytes())?,
            Format::Table | Format::Wide | Format::Name => {
                let first = !follower.has_begun();
                let synced = matches!(event, WatchEvent::Synced { .. });
                let version = event.version().to_owned();
                let changes = follower.follow(event);
                if first && synced {
                    output.word(&format!("watching from version {version}; Ctrl-C ends"));
                }
                for (key, line) in changes {
                    match args.output {
                        Format::Name => output.line(&label(&key))?,
                        _ => output.line(&format!("{version}  {}  {line}", label(&key)))?,
                    }
                }
            }
        }
    }
}

fn wanted(event: &WatchEvent, name: Option<&str>) -> bool {
    let Some(wanted) = name else { return true };
    match event {
        WatchEvent::Upsert { service, .. } => service.name.contains(wanted),
        WatchEvent::Change { name, .. } | WatchEvent::Remove { name, .. } => name.contains(wanted),
        WatchEvent::Reset { .. } | WatchEvent::Synced { .. } => true,
    }
}

/// What is known, and what is being told anew.
#[derive(Default)]
struct Follower {
    /// `None` until everything was told once.
    known: Option<BTreeMap<Key, States>>,
    /// Between a reset and the `synced` that ends it.
    anew: Option<BTreeMap<Key, States>>,
}

impl Follower {
    fn has_begun(&self) -> bool {
        self.known.is_some()
    }

    /// Takes an event in; returns what changed by it.
    fn follow(&mut self, event: WatchEvent) -> Vec<(Key, String)> {
        match event {
            WatchEvent::Reset { .. } => {
                self.anew = Some(BTreeMap::new());
                Vec::new()
            }
            WatchEvent::Upsert { service, instances, .. } => {
                let key = (service.origin, service.namespace, service.name);
                let states = instances.iter().map(|one| (subject(one), state(one))).collect();
                if let Some(anew) = &mut self.anew {
                    anew.insert(key, states);
                    return Vec::new();
                }
                self.now(key, states)
            }
            WatchEvent::Change { origin, namespace, name, put, gone, .. } => {
                let key = (origin, namespace, name);
                let known = self.known.get_or_insert_default();
                let mut states = known.get(&key).cloned().unwrap_or_default();
                for one in &gone {
                    states.remove(&subject(one));
                }
                states.extend(put.iter().map(|one| (subject(one), state(one))));
                self.now(key, states)
            }
            WatchEvent::Remove { origin, namespace, name, .. } => {
                let key = (origin, namespace, name);
                self.known.get_or_insert_default().remove(&key);
                vec![(key, "- service removed".to_owned())]
            }
            WatchEvent::Synced { .. } => {
                let Some(anew) = self.anew.take() else { return Vec::new() };
                let before = self.known.replace(anew.clone());
                before.map_or_else(Vec::new, |before| between(&before, &anew))
            }
        }
    }

    /// The instances of one service are these from now on.
    fn now(&mut self, key: Key, states: States) -> Vec<(Key, String)> {
        let known = self.known.get_or_insert_default();
        let lines = lines(known.get(&key), &states);
        known.insert(key.clone(), states);
        lines.into_iter().map(|line| (key.clone(), line)).collect()
    }
}

/// What changed while nobody listened.
fn between(before: &BTreeMap<Key, States>, after: &BTreeMap<Key, States>) -> Vec<(Key, String)> {
    let mut changes = Vec::new();
    for (key, states) in after {
        if before.get(key) != Some(states) {
            let lines = lines(before.get(key), states);
            changes.extend(lines.into_iter().map(|line| (key.clone(), line)));
        }
    }
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    changes.extend(gone.map(|key| (key.clone(), "- service removed".to_owned())));
    changes
}

fn label((origin, namespace, name): &Key) -> String {
    if origin == "kubernetes" {
        format!("{namespace}/{name}")
    } else {
        format!("{origin}:{namespace}/{name}")
    }
}

fn subject(instance: &Instance) -> String {
    match (instance.address.parse(), instance.port) {
        (Ok(address), Some(port)) => {
            format!("{} {}", instance.name, std::net::SocketAddr::new(address, port))
        }
        _ => format!("{} {}", instance.name, instance.address),
    }
}

fn state(instance: &Instance) -> String {
    match instance.reasons.first() {
        Some(reason) => format!("{} ({})", instance.state, reason.code),
        None => instance.state.clone(),
    }
}

/// What differs between two states of a service.
fn lines(before: Option<&States>, after: &States) -> Vec<String> {
    let none = States::new();
    let Some(before) = before else {
        let mut lines = vec!["+ service added".to_owned()];
        lines.extend(lines_between(&none, after));
        return lines;
    };
    let lines = lines_between(before, after);
    if lines.is_empty() { vec!["~ service changed".to_owned()] } else { lines }
}

fn lines_between(before: &States, after: &States) -> Vec<String> {
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

    fn states(pairs: &[(&str, &str)]) -> States {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn one_line_per_change() {
        let before = states(&[("a 1:1", "serving"), ("b 2:1", "starting")]);
        let after = states(&[("b 2:1", "serving"), ("c 3:1", "starting")]);
        assert_eq!(
            lines(Some(&before), &after),
            ["~ b 2:1 starting -> serving", "+ c 3:1 starting", "- a 1:1 removed"]
        );
        assert_eq!(lines(None, &states(&[])), ["+ service added"]);
        assert_eq!(lines(Some(&before), &before), ["~ service changed"]);
    }

    #[test]
    fn what_changed_while_nobody_listened_is_told() {
        let key = |name: &str| ("kubernetes".to_owned(), "demo".to_owned(), name.to_owned());
        let before = BTreeMap::from([
            (key("same"), states(&[("a 1:1", "serving")])),
            (key("gone"), states(&[])),
            (key("web"), states(&[("a 1:1", "serving")])),
        ]);
        let after = BTreeMap::from([
            (key("same"), states(&[("a 1:1", "serving")])),
            (key("web"), states(&[("a 1:1", "failing (PTL0202)")])),
            (key("fresh"), states(&[])),
        ]);
        let told: Vec<String> = between(&before, &after)
            .into_iter()
            .map(|(key, line)| format!("{} {line}", label(&key)))
            .collect();
        assert_eq!(
            told,
            [
                "demo/fresh + service added",
                "demo/web ~ a 1:1 serving -> failing (PTL0202)",
                "demo/gone - service removed",
            ]
        );
    }
}
