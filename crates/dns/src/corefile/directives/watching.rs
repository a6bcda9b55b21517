//! The small ones: ports, logs, flags of the whole block.

use std::net::IpAddr;

use super::{Args, Directive, Fault, Translation, no_body, once, unknown_option};
use crate::config::{
    HealthConfig, LogClass, LogConfig, MetricsConfig, Pattern, ReadyConfig, ReloadConfig,
    ServerTls, Span, ZoneName,
};

/// The shortest pause between two looks at the file (CoreDNS).
const RELOAD_SECONDS_MIN: u64 = 2;

/// The reply size that `bufsize` means when it says none (CoreDNS).
const BUFSIZE: u16 = 1232;

/// CoreDNS' `{combined}` format.
const LOG_COMBINED_END: &str = " \"{>opcode}\"";

pub(super) fn errors(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    into.server.errors = true;
    let mut args = Args::of(&directive.head);
    if let Some(word) = args.next().filter(|word| word.text != "stdout") {
        let text = format!("expected stdout or nothing, found {:?}", word.text);
        return Err(Fault::new(&word.spot, text));
    }
    args.end()?;
    for line in &directive.body {
        match line.name.text.as_str() {
            "stacktrace" => into.note(&line.name, "a panic is logged with its place always"),
            "consolidate" => {
                let mut args = Args::of(line);
                args.value::<Span>("a time span")?;
                args.value::<Pattern>("a pattern")?;
                into.note(&line.name, "failures are counted and logged once in a while always");
            }
            _ => return Err(unknown_option(directive, line, "consolidate, stacktrace")),
        }
    }
    Ok(())
}

pub(super) fn loops(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    into.server.r#loop = true;
    nothing(directive)
}

pub(super) fn local(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    into.server.local = true;
    nothing(directive)
}

pub(super) fn any(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    into.server.any = true;
    nothing(directive)
}

pub(super) fn minimal(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    into.server.minimal = true;
    nothing(directive)
}

fn nothing(directive: &Directive) -> Result<(), Fault> {
    Args::of(&directive.head).end()?;
    no_body(directive)
}

pub(super) fn loadbalance(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    let mut args = Args::of(&directive.head);
    if let Some(word) = args.next().filter(|word| word.text != "round_robin") {
        let text = format!("the policy {:?} is not supported; there is round_robin", word.text);
        return Err(Fault::new(&word.spot, text));
    }
    args.end()?;
    no_body(directive)?;
    into.server.loadbalance = true;
    Ok(())
}

pub(super) fn bufsize(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    let mut args = Args::of(&directive.head);
    let size = if args.len() == 0 { BUFSIZE } else { args.number(512..=4096)? };
    args.end()?;
    no_body(directive)?;
    into.server.bufsize = Some(size);
    Ok(())
}

pub(super) fn nsid(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    once(directive, into.server.nsid.is_some())?;
    no_body(directive)?;
    let words: Vec<&str> = directive.head.args.iter().map(|word| word.text.as_str()).collect();
    // Without words it is the host's name, which is empty here and found out later.
    into.server.nsid = Some(words.join(" "));
    Ok(())
}

pub(super) fn bind(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    no_body(directive)?;
    let mut args = Args::of(&directive.head);
    loop {
        let word = args.word("an address")?;
        let address: IpAddr = word.text.parse().map_err(|_| {
            let text =
                format!("expected an address, found {:?}; interfaces are not looked up", word.text);
            Fault::new(&word.spot, text)
        })?;
        into.server.bind.push(address);
        if args.peek().is_none() {
            return Ok(());
        }
    }
}

pub(super) fn tls(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    once(directive, into.server.tls.is_some())?;
    no_body(directive)?;
    let mut args = Args::of(&directive.head);
    let cert = args.word("the file of the certificate")?.text.clone();
    let key = args.word("the file of the key")?.text.clone();
    if let Some(word) = args.next() {
        let text = "certificates of clients are not asked for: give CERT and KEY only";
        return Err(Fault::new(&word.spot, text));
    }
    into.server.tls = Some(ServerTls { cert, key });
    Ok(())
}

pub(super) fn reload(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    no_body(directive)?;
    let mut args = Args::of(&directive.head);
    let mut config = ReloadConfig::default();
    if let Some(word) = args.peek() {
        config.interval = args.value("a time span")?;
        if config.interval.0.as_secs() < RELOAD_SECONDS_MIN {
            let text = format!("expected at least {RELOAD_SECONDS_MIN}s, found {:?}", word.text);
            return Err(Fault::new(&word.spot, text));
        }
    }
    // The jitter keeps replicas from reading at one moment; reading costs nothing here.
    if args.peek().is_some() {
        args.value::<Span>("a time span")?;
    }
    args.end()?;
    into.config.reload = Some(config);
    Ok(())
}

/// Keeps a setting that is the process's, wherever a block names it.
fn shared<T: PartialEq>(
    directive: &Directive,
    place: &mut Option<T>,
    value: T,
) -> Result<(), Fault> {
    match place {
        Some(other) if *other != value => {
            let name = &directive.head.name;
            let text = format!("{} differs from that of a block above", name.text);
            Err(Fault::new(&name.spot, text))
        }
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

pub(super) fn health(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    let mut config = HealthConfig::default();
    let mut args = Args::of(&directive.head);
    if args.len() > 0 {
        config.listen = args.value("an address")?;
    }
    args.end()?;
    for line in &directive.body {
        let mut args = Args::of(line);
        match line.name.text.as_str() {
            "lameduck" => config.lameduck = args.value("a time span")?,
            _ => return Err(unknown_option(directive, line, "lameduck")),
        }
        args.end()?;
    }
    shared(directive, &mut into.config.health, config)
}

pub(super) fn ready(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    let mut config = ReadyConfig::default();
    let mut args = Args::of(&directive.head);
    if args.len() > 0 {
        config.listen = args.value("an address")?;
    }
    args.end()?;
    for line in &directive.body {
        let mut args = Args::of(line);
        match line.name.text.as_str() {
            "monitor" => {
                let mode = args.word("until-ready or continuously")?;
                if !matches!(mode.text.as_str(), "until-ready" | "continuously") {
                    let text =
                        format!("expected until-ready or continuously, found {:?}", mode.text);
                    return Err(Fault::new(&mode.spot, text));
                }
                into.note(&line.name, "readiness is told as it is, continuously");
            }
            _ => return Err(unknown_option(directive, line, "monitor")),
        }
        args.end()?;
    }
    shared(directive, &mut into.config.ready, config)
}

pub(super) fn prometheus(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    let mut config = MetricsConfig::default();
    let mut args = Args::of(&directive.head);
    if args.len() > 0 {
        config.listen = args.value("an address")?;
    }
    args.end()?;
    for line in &directive.body {
        match line.name.text.as_str() {
            "runtime_metrics" => into.note(&line.name, "there is no Go runtime to look into"),
            "tls" => {
                let text = "tls: metrics are served in plain text; let a proxy add TLS";
                return Err(Fault::new(&line.name.spot, text));
            }
            _ => return Err(unknown_option(directive, line, "runtime_metrics")),
        }
    }
    shared(directive, &mut into.config.prometheus, config)
}

pub(super) fn log(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    let mut config = LogConfig::default();
    let mut args = Args::of(&directive.head);
    let mut words = args.rest();
    if words.len() > 1
        && let Some((last, names)) = words.split_last()
        && last.text.contains('{')
    {
        let combined = format!("{{common}}{LOG_COMBINED_END}");
        let format = last.text.replace("{combined}", &combined);
        config.format = format.replace("{common}", crate::config::LOG_COMMON);
        words = names;
    }
    let names = super::args::zones(words)?;
    config.zones = if names.is_empty() { vec![ZoneName::root()] } else { names };
    for line in &directive.body {
        if line.name.text != "class" {
            return Err(unknown_option(directive, line, "class"));
        }
        let mut args = Args::of(line);
        config.classes.clear();
        loop {
            let word = args.word("all, success, denial or error")?;
            config.classes.push(match word.text.as_str() {
                "all" => LogClass::All,
                "success" => LogClass::Success,
                "denial" => LogClass::Denial,
                "error" => LogClass::Error,
                other => {
                    let text = format!("expected all, success, denial or error, found {other:?}");
                    return Err(Fault::new(&word.spot, text));
                }
            });
            if args.peek().is_none() {
                break;
            }
        }
    }
    into.server.log.push(config);
    Ok(())
}
