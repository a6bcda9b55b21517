//! `kubernetes`, `k8s_external`, `hosts`, `autopath`, `transfer`.

use std::net::IpAddr;

use super::{Args, Directive, Fault, Translation, no_body, once, unknown_option};
use crate::config::{
    AutopathConfig, ExternalConfig, HostsConfig, KubernetesConfig, Labels, Network, PodMode,
    TransferConfig, ZoneName,
};

/// The list that `hosts` reads when it names none.
const HOSTS_FILE: &str = "/etc/hosts";

const KUBERNETES_OPTIONS: &str = "endpoint_pod_names, fallthrough, ignore empty_service, labels, \
                                  multicluster, namespace_labels, namespaces, noendpoints, pods, \
                                  ttl, zonal";

const TTL: std::ops::RangeInclusive<u32> = 0..=3600;

pub(super) fn kubernetes(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    once(directive, into.server.kubernetes.is_some())?;
    let mut config = KubernetesConfig {
        zones: Args::of(&directive.head).zones()?,
        pods: PodMode::Disabled,
        negative_ttl: KubernetesConfig::default().ttl,
        ..KubernetesConfig::default()
    };
    if config.zones.is_empty() {
        config.zones = into.server.zones.clone();
    }
    for line in &directive.body {
        let mut args = Args::of(line);
        match line.name.text.as_str() {
            "endpoint_pod_names" => config.endpoint_pod_names = true,
            "noendpoints" => config.endpoints = false,
            "zonal" => config.zonal = true,
            "pods" => config.pods = pod_mode(&mut args)?,
            "namespaces" => {
                args.word_ahead("a namespace")?;
                config.namespaces = args.rest().iter().map(|word| word.text.clone()).collect();
            }
            "namespace_labels" => config.namespace_labels = Some(selector(&mut args)?),
            "labels" => config.labels = Some(selector(&mut args)?),
            "fallthrough" => config.fallthrough = args.fallthrough()?,
            "ttl" => {
                config.ttl = args.number(TTL)?;
                config.negative_ttl = config.ttl;
            }
            "ignore" => {
                let word = args.word("empty_service")?;
                if word.text != "empty_service" {
                    let text = format!("expected empty_service, found {:?}", word.text);
                    return Err(Fault::new(&word.spot, text));
                }
                config.empty_services = false;
            }
            "multicluster" => config.multicluster = args.zones()?,
            "startup_timeout" => {
                into.note(
                    &line.name,
                    "answers wait for the whole list here, however long it takes",
                );
                args.rest();
            }
            "apiserver_qps" | "apiserver_burst" | "apiserver_max_inflight" => {
                into.note(&line.name, "one watch for each kind is all that is asked of the API");
                args.rest();
            }
            "endpoint" | "tls" | "kubeconfig" => {
                let text = "the connection to the API is given by --kubeconfig, not here";
                return Err(Fault::new(&line.name.spot, format!("{}: {text}", line.name.text)));
            }
            _ => return Err(unknown_option(directive, line, KUBERNETES_OPTIONS)),
        }
        args.end()?;
    }
    into.server.kubernetes = Some(config);
    Ok(())
}

fn pod_mode(args: &mut Args<'_>) -> Result<PodMode, Fault> {
    let word = args.word("disabled, insecure or verified")?;
    match word.text.as_str() {
        "disabled" => Ok(PodMode::Disabled),
        "insecure" => Ok(PodMode::Insecure),
        "verified" => Ok(PodMode::Verified),
        other => {
            let text = format!("expected disabled, insecure or verified, found {other:?}");
            Err(Fault::new(&word.spot, text))
        }
    }
}

fn selector(args: &mut Args<'_>) -> Result<Labels, Fault> {
    args.word_ahead("a label selector")?;
    let words = args.rest();
    let text: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    text.join(" ").parse().map_err(|why: String| Fault::new(&words[0].spot, why))
}

impl Args<'_> {
    /// Makes sure that a word follows.
    fn word_ahead(&self, what: &str) -> Result<(), Fault> {
        let mut ahead = *self;
        ahead.word(what).map(drop)
    }
}

pub(super) fn k8s_external(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    once(directive, into.server.k8s_external.is_some())?;
    let mut config =
        ExternalConfig { zones: Args::of(&directive.head).zones()?, ..ExternalConfig::default() };
    for line in &directive.body {
        let mut args = Args::of(line);
        match line.name.text.as_str() {
            "ttl" => config.ttl = args.number(TTL)?,
            "apex" => config.apex = args.word("a label")?.text.clone(),
            "headless" => config.headless = true,
            "fallthrough" => config.fallthrough = args.fallthrough()?,
            _ => {
                return Err(unknown_option(directive, line, "apex, fallthrough, headless, ttl"));
            }
        }
        args.end()?;
    }
    into.server.k8s_external = Some(config);
    Ok(())
}

pub(super) fn hosts(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    once(directive, into.server.hosts.is_some())?;
    let mut head = Args::of(&directive.head);
    let file = head.next().map_or(HOSTS_FILE, |word| word.text.as_str());
    let mut config =
        HostsConfig { file: Some(file.to_owned()), zones: head.zones()?, ..HostsConfig::default() };
    for line in &directive.body {
        let mut args = Args::of(line);
        match line.name.text.as_str() {
            "fallthrough" => config.fallthrough = args.fallthrough()?,
            "no_reverse" => config.reverse = false,
            "ttl" => config.ttl = args.number(1..=65_535)?,
            "reload" => config.reload = args.value("a time span")?,
            "fallthrough_unsupported" => {
                let text = "fallthrough_unsupported is not supported; without it a type that a \
                            list has no records of is answered with NODATA";
                return Err(Fault::new(&line.name.spot, text));
            }
            address => {
                let plain = address.split('%').next().unwrap_or_default();
                if plain.parse::<IpAddr>().is_err() {
                    let options = "an address with its names, fallthrough, no_reverse, reload, ttl";
                    return Err(unknown_option(directive, line, options));
                }
                args.word_ahead("a name")?;
                let names = args.rest().iter().map(|word| word.text.as_str());
                let words: Vec<&str> = [address].into_iter().chain(names).collect();
                config.entries.push(words.join(" "));
            }
        }
        args.end()?;
    }
    into.server.hosts = Some(config);
    Ok(())
}

pub(super) fn autopath(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    once(directive, into.server.autopath.is_some())?;
    no_body(directive)?;
    let mut args = Args::of(&directive.head);
    args.word_ahead("@kubernetes")?;
    let words = args.rest();
    let Some((last, zones)) = words.split_last() else { return Ok(()) };
    if last.text != "@kubernetes" {
        let text = "autopath takes the search path of Pods: write @kubernetes as the last word";
        return Err(Fault::new(&last.spot, text));
    }
    let zones: Vec<ZoneName> = super::args::zones(zones)?;
    into.server.autopath = Some(AutopathConfig { zones, search: Vec::new() });
    Ok(())
}

pub(super) fn transfer(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    let mut config = TransferConfig { zones: Args::of(&directive.head).zones()?, to: Vec::new() };
    for line in &directive.body {
        let mut args = Args::of(line);
        match line.name.text.as_str() {
            "to" => {
                args.word_ahead("an address or *")?;
                while let Some(word) = args.next() {
                    if word.text == "*" {
                        let all = ["0.0.0.0/0", "::/0"].into_iter();
                        config.to.extend(all.filter_map(|range| range.parse::<Network>().ok()));
                        continue;
                    }
                    let address = word
                        .text
                        .parse()
                        .map(|socket: std::net::SocketAddr| socket.ip().to_string());
                    let text = address.unwrap_or_else(|_| word.text.clone());
                    let network: Network =
                        text.parse().map_err(|why: String| Fault::new(&word.spot, why))?;
                    config.to.push(network);
                }
            }
            "source" => {
                into.note(&line.name, "nobody is notified of changes, so nothing is sent from it");
                args.rest();
            }
            _ => return Err(unknown_option(directive, line, "to")),
        }
        args.end()?;
    }
    if config.to.is_empty() {
        let text = "transfer needs to: who may have the zone";
        return Err(Fault::new(&directive.head.name.spot, text));
    }
    into.server.transfer.push(config);
    Ok(())
}
