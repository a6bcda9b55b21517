//! `portolan get`: lists.

use std::time::Duration;

use futures_util::StreamExt;
use portolan_wire::{self as wire, Page, WatchEvent};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Failure,
    args::{Connection, Format, GetArgs, Noun, Scope},
    client::Client,
    output::{Exit, Output},
    table::{age, cell, render},
};

pub(crate) async fn run(
    connection: &Connection,
    args: &GetArgs,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let client = Client::new(connection)?;
    let exit = once(&client, args, output).await?;
    if !args.watch {
        return Ok(exit);
    }
    // The watch says when something changed; the list says what is.
    let mut events = client.watch(&scope_query(&args.scope, None)).await?;
    let mut first = true;
    while let Some(event) = events.next().await {
        if let WatchEvent::Synced { .. } = event? {
            if !first {
                once(&client, args, output).await?;
            }
            first = false;
        }
    }
    Ok(Exit::Fine)
}

/// What a scope means as a query.
pub(crate) fn scope_query<'a>(scope: &Scope, name: Option<&str>) -> Vec<(&'a str, String)> {
    let mut query = Vec::new();
    if let Some(namespace) = &scope.namespace
        && !scope.all_namespaces
    {
        query.push(("namespace", namespace.clone()));
    }
    if let Some(origin) = &scope.origin {
        query.push(("origin", origin.clone()));
    }
    if let Some(labels) = &scope.labels {
        query.push(("labels", labels.clone()));
    }
    if let Some(name) = name {
        query.push(("service", name.to_owned()));
    }
    query
}

async fn once(client: &Client, args: &GetArgs, output: &mut Output) -> Result<Exit, Failure> {
    let name = args.name.as_deref();
    let query = scope_query(&args.scope, name);
    match args.noun {
        Noun::Services => list::<wire::Service>(client, "/v1/services", &query, args, output).await,
        Noun::Instances => {
            list::<wire::Instance>(client, "/v1/instances", &query, args, output).await
        }
        Noun::Endpoints => {
            list::<wire::Endpoint>(client, "/v1/endpoints", &query, args, output).await
        }
        Noun::Nodes => list::<wire::Node>(client, "/v1/nodes", &[], args, output).await,
        Noun::Sources => list::<wire::Source>(client, "/v1/sources", &[], args, output).await,
        Noun::Versions => list::<wire::Version>(client, "/v1/versions", &[], args, output).await,
    }
}

async fn list<T: Row + Serialize + DeserializeOwned>(
    client: &Client,
    path: &str,
    query: &[(&str, String)],
    args: &GetArgs,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let mut page: Page<T> = client.get(path, query, Duration::ZERO).await?;
    if let Some(name) = &args.name {
        page.items.retain(|item| item.answers_to(name));
    }
    match args.output {
        Format::Json => output.line(&serde_json::to_string_pretty(&page)?)?,
        Format::Yaml => output.raw(to_yaml(&page)?.as_bytes())?,
        Format::Name => {
            let mut names: Vec<String> = page.items.iter().map(Row::name).collect();
            names.dedup();
            for name in names {
                output.line(&name)?;
            }
        }
        Format::Table | Format::Wide => {
            if page.items.is_empty() {
                output.word(&nothing(args));
            } else {
                let wide = args.output == Format::Wide;
                let rows: Vec<Vec<String>> =
                    page.items.iter().map(|item| item.cells(wide)).collect();
                for line in render(T::header(wide), &rows) {
                    output.line(&line)?;
                }
            }
        }
    }
    // A name that was asked for and is not there is a problem for scripts.
    let missing = args.name.is_some() && page.items.is_empty();
    Ok(if missing { Exit::Problem } else { Exit::Fine })
}

/// Empty lists teach the next command.
fn nothing(args: &GetArgs) -> String {
    let noun = format!("{:?}", args.noun).to_lowercase();
    match (&args.name, &args.scope.namespace) {
        (Some(name), _) => format!("no {noun} of {name}\nhint: portolan why {name}"),
        (None, Some(namespace)) => {
            format!("no {noun} in namespace {namespace}\nhint: portolan get {noun} -A")
        }
        (None, None) => format!("no {noun} yet\nhint: portolan get sources"),
    }
}

/// YAML of anything that serialises.
pub(crate) fn to_yaml(value: &impl Serialize) -> Result<String, Failure> {
    serde_norway::to_string(value)
        .map_err(|error| Failure::Write(std::io::Error::other(error.to_string())))
}

/// How an item stands in a table.
trait Row {
    fn header(wide: bool) -> &'static [&'static str];
    fn cells(&self, wide: bool) -> Vec<String>;
    fn name(&self) -> String;
    fn answers_to(&self, name: &str) -> bool;
}

fn reasons(reasons: &[wire::Reason]) -> String {
    let codes: Vec<&str> = reasons.iter().map(|reason| reason.code.as_str()).collect();
    cell(&codes.join(","))
}

impl Row for wire::Service {
    fn header(wide: bool) -> &'static [&'static str] {
        if wide {
            &[
                "NAMESPACE",
                "NAME",
                "ORIGIN",
                "TYPE",
                "ADDRESSES",
                "PORTS",
                "CONFIGURED",
                "SERVING",
                "REASONS",
                "ETAG",
                "CHANGED",
            ]
        } else {
            &[
                "NAMESPACE",
                "NAME",
                "ORIGIN",
                "TYPE",
                "ADDRESSES",
                "PORTS",
                "CONFIGURED",
                "SERVING",
                "REASONS",
            ]
        }
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let ports: Vec<String> = self
            .ports
            .iter()
            .map(|port| match port.node_port {
                Some(node_port) => format!("{}:{node_port}/{}", port.port, port.protocol),
                None => format!("{}/{}", port.port, port.protocol),
            })
            .collect();
        let mut cells = vec![
            self.namespace.clone(),
            self.name.clone(),
            self.origin.clone(),
            self.exposure.clone(),
            cell(&self.addresses.join(",")),
            cell(&ports.join(",")),
            self.configured.to_string(),
            self.serving.to_string(),
            reasons(&self.reasons),
        ];
        if wide {
            cells.extend([self.etag.clone(), self.changed.clone()]);
        }
        cells
    }

    fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn answers_to(&self, name: &str) -> bool {
        self.name == name
    }
}

impl Row for wire::Instance {
    fn header(wide: bool) -> &'static [&'static str] {
        if wide {
            &[
                "NAMESPACE",
                "SERVICE",
                "NAME",
                "ADDRESS",
                "PORT",
                "STATE",
                "ORIGIN",
                "PROTOCOL",
                "NODE",
                "ZONE",
                "WEIGHT",
                "METADATA",
                "REASONS",
            ]
        } else {
            &["NAMESPACE", "SERVICE", "NAME", "ADDRESS", "PORT", "STATE", "ORIGIN", "REASONS"]
        }
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let state =
            if self.hollow { format!("{} (hollow)", self.state) } else { self.state.clone() };
        let port = self.port.map_or_else(|| "-".to_owned(), |port| port.to_string());
        let mut cells = vec![
            self.namespace.clone(),
            self.service.clone(),
            self.name.clone(),
            self.address.clone(),
            port,
            state,
            self.origin.clone(),
        ];
        if wide {
            let metadata: Vec<String> =
                self.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
            cells.extend([
                cell(&self.protocol),
                cell(self.node.as_deref().unwrap_or_default()),
                cell(self.zone.as_deref().unwrap_or_default()),
                self.weight.to_string(),
                cell(&metadata.join(",")),
            ]);
        }
        cells.push(reasons(&self.reasons));
        cells
    }

    fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn answers_to(&self, name: &str) -> bool {
        self.service == name
    }
}

impl Row for wire::Endpoint {
    fn header(wide: bool) -> &'static [&'static str] {
        if wide {
            &[
                "NAMESPACE",
                "SERVICE",
                "NAME",
                "ADDRESS",
                "PORTS",
                "READY",
                "SERVING",
                "TERMINATING",
                "ORIGIN",
                "HOSTNAME",
                "NODE",
                "ZONE",
                "REASONS",
            ]
        } else {
            &[
                "NAMESPACE",
                "SERVICE",
                "NAME",
                "ADDRESS",
                "PORTS",
                "READY",
                "SERVING",
                "TERMINATING",
                "REASONS",
            ]
        }
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let ports: Vec<String> = self
            .ports
            .iter()
            .map(|port| port.port.map_or_else(|| "*".to_owned(), |number| number.to_string()))
            .collect();
        let mut cells = vec![
            self.namespace.clone(),
            self.service.clone(),
            self.name.clone(),
            self.address.clone(),
            cell(&ports.join(",")),
            self.ready.to_string(),
            self.serving.to_string(),
            self.terminating.to_string(),
        ];
        if wide {
            cells.push(self.origin.clone());
            for part in [&self.hostname, &self.node, &self.zone] {
                cells.push(cell(part.as_deref().unwrap_or_default()));
            }
        }
        cells.push(reasons(&self.reasons));
        cells
    }

    fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn answers_to(&self, name: &str) -> bool {
        self.service == name
    }
}

impl Row for wire::Node {
    fn header(_: bool) -> &'static [&'static str] {
        &["NAME", "READY", "ZONE", "ADDRESSES", "PODS"]
    }

    fn cells(&self, _: bool) -> Vec<String> {
        vec![
            self.name.clone(),
            self.ready.to_string(),
            cell(self.zone.as_deref().unwrap_or_default()),
            cell(&self.addresses.join(",")),
            self.workloads.to_string(),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn answers_to(&self, name: &str) -> bool {
        self.name == name
    }
}

impl Row for wire::Source {
    fn header(wide: bool) -> &'static [&'static str] {
        if wide {
            &["NAME", "STATE", "SINCE", "FACTS", "PARTS", "ERROR"]
        } else {
            &["NAME", "STATE", "SINCE", "FACTS", "ERROR"]
        }
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let facts: usize = self.parts.iter().map(|part| part.facts).sum();
        let mut cells =
            vec![self.name.clone(), self.state.clone(), age(self.since_ms), facts.to_string()];
        if wide {
            let parts: Vec<String> =
                self.parts.iter().map(|part| format!("{}={}", part.name, part.facts)).collect();
            cells.push(cell(&parts.join(",")));
        }
        cells.push(cell(self.error.as_deref().unwrap_or_default()));
        cells
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn answers_to(&self, name: &str) -> bool {
        self.name == name
    }
}

impl Row for wire::Version {
    fn header(_: bool) -> &'static [&'static str] {
        &["VERSION", "AGE", "SERVICES", "OTHERS"]
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        /// Names of services that fit a narrow table.
        const SHOWN: usize = 3;
        let mut services = self.services.clone();
        if !wide && services.len() > SHOWN {
            let more = services.len() - SHOWN;
            services.truncate(SHOWN);
            services.push(format!("+{more} more"));
        }
        vec![
            self.version.clone(),
            age(self.age_ms),
            cell(&services.join(",")),
            self.others.to_string(),
        ]
    }

    fn name(&self) -> String {
        self.version.clone()
    }

    fn answers_to(&self, name: &str) -> bool {
        self.version == name
    }
}
