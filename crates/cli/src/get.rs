//! `portolan get`: lists.

use std::{collections::BTreeSet, time::Duration};

use portolan_wire::{self as wire, Page, WatchEvent};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Failure,
    args::{Connection, Format, GetArgs, Noun, Scope},
    bootstrap,
    client::{Client, Query},
    output::{Exit, Output},
    table::{age, cell, render},
};

/// How often lists are asked for again that no event tells of.
const POLL: Duration = Duration::from_secs(1);

pub(crate) async fn run(
    connection: &Connection,
    args: &GetArgs,
    output: &mut Output,
) -> Result<Exit, Failure> {
    check(args)?;
    let client = Client::new(connection)?;
    if args.noun == Noun::Bootstrap {
        return bootstrap::run(&client, args, output).await;
    }
    let mut printed = String::new();
    let exit = once(&client, args, &mut printed, output).await?;
    if !args.watch {
        return Ok(exit);
    }
    // The watch says when something changed; the list says what is. Nodes,
    // sources and versions have no events: they are asked for again and again.
    let mut events = match is_plain(args.noun) {
        false => Some(client.watch(scope_query(&args.scope, args.name.as_deref())).await?),
        true => None,
    };
    loop {
        match &mut events {
            Some(events) => {
                while !matches!(events.next(output).await?, WatchEvent::Synced { .. }) {}
            }
            None => tokio::time::sleep(POLL).await,
        }
        once(&client, args, &mut printed, output).await?;
    }
}

/// What cannot be asked for: a filter that would be ignored is none.
fn check(args: &GetArgs) -> Result<(), Failure> {
    let noun = noun(args);
    let filters = [("-l", args.scope.labels.is_some()), ("--origin", args.scope.origin.is_some())];
    let plain = is_plain(args.noun);
    match filters.iter().find(|(_, given)| plain && *given) {
        Some((flag, _)) => Err(Failure::Usage(format!(
            "{noun} take no {flag}; it is for services, instances and endpoints"
        ))),
        None => Ok(()),
    }
}

/// Whether a list has neither labels nor origins, nor events.
fn is_plain(noun: Noun) -> bool {
    match noun {
        Noun::Services | Noun::Instances | Noun::Endpoints => false,
        Noun::Nodes
        | Noun::Sources
        | Noun::Versions
        | Noun::Clients
        | Noun::DnsClients
        | Noun::Bootstrap => true,
    }
}

fn noun(args: &GetArgs) -> String {
    let value = clap::ValueEnum::to_possible_value(&args.noun);
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// What a scope means as a query.
pub(crate) fn scope_query(scope: &Scope, name: Option<&str>) -> Query {
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

async fn once(
    client: &Client,
    args: &GetArgs,
    printed: &mut String,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let query = scope_query(&args.scope, args.name.as_deref());
    let mut list = List { client, args, printed, output };
    match args.noun {
        Noun::Services => list.show::<wire::Service>("/v1/services", &query).await,
        Noun::Instances => list.show::<wire::Instance>("/v1/instances", &query).await,
        Noun::Endpoints => list.show::<wire::Endpoint>("/v1/endpoints", &query).await,
        Noun::Nodes => list.show::<wire::Node>("/v1/nodes", &[]).await,
        Noun::Sources => list.show::<wire::Source>("/v1/sources", &[]).await,
        Noun::Versions => list.show::<wire::Version>("/v1/versions", &[]).await,
        Noun::Clients => list.show::<wire::Client>("/v1/clients", &[]).await,
        Noun::DnsClients => list.show::<wire::DnsClient>("/v1/dns-clients", &[]).await,
        // It is no list.
        Noun::Bootstrap => Ok(Exit::Fine),
    }
}

/// One list, asked for and printed.
struct List<'a> {
    client: &'a Client,
    args: &'a GetArgs,
    /// The items as they were printed last.
    printed: &'a mut String,
    output: &'a mut Output,
}

impl List<'_> {
    async fn show<T: Row + Serialize + DeserializeOwned>(
        &mut self,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<Exit, Failure> {
        let mut page: Page<T> = self.client.get(path, query, Duration::ZERO).await?;
        if let Some(name) = &self.args.name {
            page.items.retain(|item| item.answers_to(name));
        }
        // A name that was asked for and is not there is a problem for scripts.
        let missing = self.args.name.is_some() && page.items.is_empty();
        let exit = if missing { Exit::Problem } else { Exit::Fine };
        let items = fingerprint(&page.items)?;
        let again = !self.printed.is_empty();
        if *self.printed == items {
            return Ok(exit);
        }
        *self.printed = items;
        self.print(&page, again)?;
        Ok(exit)
    }

    /// Prints a list; `again`: after an earlier one.
    fn print<T: Row + Serialize>(&mut self, page: &Page<T>, again: bool) -> Result<(), Failure> {
        let output = &mut *self.output;
        match self.args.output {
            Format::Json if self.args.watch => output.line(&serde_json::to_string(page)?)?,
            Format::Json => output.line(&serde_json::to_string_pretty(page)?)?,
            Format::Yaml => {
                let mark = if self.args.watch { "---\n" } else { "" };
                output.raw(format!("{mark}{}", to_yaml(page)?).as_bytes())?;
            }
            Format::Name => {
                let mut told = BTreeSet::new();
                for name in page.items.iter().map(Row::name) {
                    if told.insert(name.clone()) {
                        output.line(&name)?;
                    }
                }
            }
            Format::Table | Format::Wide => {
                if again {
                    output.line("")?;
                }
                let wide = self.args.output == Format::Wide;
                let rows: Vec<Vec<String>> =
                    page.items.iter().map(|item| item.cells(wide)).collect();
                let header = if rows.is_empty() { &[][..] } else { T::header(wide) };
                for line in render(header, &rows).iter().filter(|line| !line.is_empty()) {
                    output.line(line)?;
                }
            }
        }
        // Empty lists teach the next command.
        if page.items.is_empty() && self.args.output != Format::Json {
            self.output.word(&nothing(self.args));
        }
        Ok(())
    }
}

/// Items without what changes by itself: ages.
fn fingerprint<T: Serialize>(items: &[T]) -> Result<String, Failure> {
    let mut items = serde_json::to_value(items)?;
    without_ages(&mut items);
    Ok(items.to_string())
}

fn without_ages(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_ages),
        serde_json::Value::Object(fields) => {
            for age in ["ageMs", "sinceMs"] {
                fields.remove(age);
            }
            fields.values_mut().for_each(without_ages);
        }
        _ => {}
    }
}

/// Why a list is empty, as far as the call tells, and what to ask next.
fn nothing(args: &GetArgs) -> String {
    let noun = noun(args);
    let scope = &args.scope;
    let namespace = scope.namespace.as_deref().filter(|_| !scope.all_namespaces);
    let place = namespace.map(|namespace| format!(" -n {namespace}")).unwrap_or_default();
    match (&args.name, namespace) {
        (Some(name), _) if is_plain(args.noun) => {
            format!("no {noun} of name {name}\nhint: portolan get {noun}")
        }
        (Some(name), _) => format!("no {noun} of {name}\nhint: portolan why {name}{place}"),
        (None, _) if args.noun == Noun::DnsClients => {
            "nobody has asked the DNS server in the last minute".to_owned()
        }
        (None, _) if args.noun == Noun::Clients => {
            "no clients of xDS are connected\nhint: portolan get bootstrap envoy".to_owned()
        }
        (None, _) if scope.labels.is_some() || scope.origin.is_some() => {
            let labels = scope.labels.as_ref().map(|labels| format!(" with labels {labels}"));
            let origin = scope.origin.as_ref().map(|origin| format!(" of origin {origin}"));
            format!(
                "no {noun}{}{}\nhint: portolan get {noun}{place}",
                labels.unwrap_or_default(),
                origin.unwrap_or_default()
            )
        }
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

    /// Whether it is meant by a name; lists that the server narrows hold nothing
    /// else.
    fn answers_to(&self, _name: &str) -> bool {
        true
    }
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
        // Two origins may have one name; what is printed can be asked for.
        match self.origin.as_str() {
            "kubernetes" => format!("{}/{}", self.namespace, self.name),
            origin => format!("{origin}:{}/{}", self.namespace, self.name),
        }
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

impl Row for wire::DnsClient {
    fn header(_: bool) -> &'static [&'static str] {
        &["ADDRESS", "POD", "QUERIES/S", "NXDOMAIN", "FAILED"]
    }

    fn cells(&self, _: bool) -> Vec<String> {
        let percent = |part: f64| format!("{:.0} %", part * 100.0);
        vec![
            cell(&self.address),
            cell(self.pod.as_deref().unwrap_or_default()),
            format!("{:.1}", self.queries_per_second),
            percent(self.denied),
            percent(self.failed),
        ]
    }

    fn name(&self) -> String {
        self.pod.clone().unwrap_or_else(|| self.address.clone())
    }

    fn answers_to(&self, name: &str) -> bool {
        self.address == name || self.pod.as_deref() == Some(name)
    }
}

impl Row for wire::Client {
    fn header(wide: bool) -> &'static [&'static str] {
        match wide {
            true => &["NODE", "POD", "CDS", "EDS", "LDS", "RDS", "AGE", "PEER", "AGENT", "ERROR"],
            false => &["NODE", "POD", "CDS", "EDS", "LDS", "RDS", "AGE", "ERROR"],
        }
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let of = |kind: &str| {
            let own = self.types.iter().find(|own| own.kind == kind);
            own.map_or_else(|| "-".to_owned(), progress)
        };
        let mut cells = vec![cell(&self.node), cell(self.pod.as_deref().unwrap_or_default())];
        cells.extend(["CDS", "EDS", "LDS", "RDS"].map(of));
        cells.push(age(self.age_ms));
        if wide {
            cells.extend([cell(&self.peer), cell(&self.agent)]);
        }
        let errors = self.types.iter().filter_map(|own| own.text.as_deref());
        cells.push(cell(&errors.collect::<Vec<_>>().join("; ")));
        cells
    }

    fn name(&self) -> String {
        self.node.clone()
    }

    fn answers_to(&self, name: &str) -> bool {
        self.node == name || self.pod.as_deref() == Some(name)
    }
}

/// As Istio's `proxy-status` says it.
fn progress(own: &wire::ClientType) -> String {
    match (own.state, own.age_ms) {
        (wire::ClientState::Synced, _) => "SYNCED".to_owned(),
        (wire::ClientState::Stale, Some(ms)) => format!("STALE {}", age(ms)),
        (wire::ClientState::Stale, None) => "STALE".to_owned(),
        (wire::ClientState::Error, _) => "ERROR".to_owned(),
        (wire::ClientState::NotSent, _) => "NOT SENT".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn parsed(words: &str) -> GetArgs {
        let cli = Cli::try_parse_from(format!("portolan get {words}").split(' ')).unwrap();
        match cli.command {
            Command::Get(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn scopes_as_queries() {
        for (words, expected) in [
            ("services", ""),
            ("services -n demo", "namespace=demo"),
            ("services -n demo -A", ""),
            ("services web -l a=b --origin registry", "origin=registry labels=a=b service=web"),
        ] {
            let args = parsed(words);
            let query = scope_query(&args.scope, args.name.as_deref());
            let text: Vec<String> = query.iter().map(|(k, v)| format!("{k}={v}")).collect();
            assert_eq!(text.join(" "), expected, "{words}");
        }
    }

    #[test]
    fn filters_that_would_be_ignored_are_refused() {
        for (words, fine) in [
            ("nodes", true),
            ("nodes -n demo", true),
            ("nodes -l zone=a", false),
            ("sources --origin registry", false),
            ("versions -l a", false),
            ("endpoints -l a --origin registry", true),
        ] {
            assert_eq!(check(&parsed(words)).is_ok(), fine, "{words}");
        }
    }

    #[test]
    fn empty_lists_say_why_and_what_to_ask() {
        for (words, expected) in [
            ("services", "no services yet\nhint: portolan get sources"),
            ("services -n x", "no services in namespace x\nhint: portolan get services -A"),
            ("services -n x -A", "no services yet\nhint: portolan get sources"),
            ("services web -n x", "no services of web\nhint: portolan why web -n x"),
            ("nodes a", "no nodes of name a\nhint: portolan get nodes"),
            (
                "instances -n x -l a=b",
                "no instances with labels a=b\nhint: portolan get instances -n x",
            ),
        ] {
            assert_eq!(nothing(&parsed(words)), expected, "{words}");
        }
    }

    #[test]
    fn ages_alone_are_no_change() {
        let source = |since_ms, state: &str| wire::Source {
            name: "kubernetes".into(),
            state: state.into(),
            since_ms,
            error: None,
            parts: Vec::new(),
        };
        let of = |source| fingerprint(&[source]).unwrap();
        assert_eq!(of(source(1, "synced")), of(source(2, "synced")));
        assert_ne!(of(source(1, "synced")), of(source(1, "lost")));
    }
}
