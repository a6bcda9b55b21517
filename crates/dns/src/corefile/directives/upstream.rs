//! `forward` and `cache`.

use std::time::Duration;

use super::{Args, Directive, Fault, Line, Translation, once, unknown_option};
use crate::config::{
    CacheConfig, CachePart, ForwardConfig, Policy, Span, StaleConfig, Target, ZoneName,
};

/// What one entry of CoreDNS' cache costs here: it counts entries, we count bytes.
const ENTRY_BYTES: usize = 512;

/// Longest that a failure may be kept (RFC 2308, 7.1).
const SERVFAIL_MAX: Duration = Duration::from_secs(300);

const FORWARD_OPTIONS: &str = "except, force_tcp, max_concurrent, policy, prefer_udp, \
                               source_address, tls, tls_servername";

pub(super) fn forward(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    let mut head = Args::of(&directive.head);
    let from = head.word("a zone")?;
    let from = super::args::zones(std::slice::from_ref(from))?;
    let mut config = ForwardConfig { from: from[0].clone(), ..ForwardConfig::default() };
    config.to.push(head.value("an address")?);
    while head.peek().is_some() {
        config.to.push(head.value::<Target>("an address")?);
    }
    for line in &directive.body {
        forward_option(into, directive, line, &mut config)?;
    }
    into.server.forward.push(config);
    Ok(())
}

fn forward_option(
    into: &mut Translation,
    directive: &Directive,
    line: &Line,
    config: &mut ForwardConfig,
) -> Result<(), Fault> {
    let mut args = Args::of(line);
    match line.name.text.as_str() {
        "except" => config.except.extend(args.zones()?),
        "force_tcp" => config.force_tcp = true,
        "prefer_udp" => config.prefer_udp = true,
        "max_concurrent" => config.max_concurrent = args.number(0..=u32::MAX)?,
        "tls_servername" => {
            config.tls.servername = Some(args.word("a name")?.text.clone());
        }
        "tls" => forward_tls(&mut args, config)?,
        "source_address" => {
            let word = args.word("an address")?;
            let address = word.text.parse().map_err(|_| {
                Fault::new(&word.spot, format!("expected an address, found {:?}", word.text))
            })?;
            config.source_address = Some(address);
        }
        "policy" => {
            let word = args.word("random, round_robin or sequential")?;
            config.policy = match word.text.as_str() {
                "random" => Policy::Random,
                "round_robin" => Policy::RoundRobin,
                "sequential" => Policy::Sequential,
                other => {
                    let text =
                        format!("expected random, round_robin or sequential, found {other:?}");
                    return Err(Fault::new(&word.spot, text));
                }
            };
        }
        "health_check" => {
            args.value::<Span>("a time span")?;
            args.rest();
            into.note(
                &line.name,
                "every query is a check here; a server that is late is passed by",
            );
        }
        "expire"
        | "max_age"
        | "max_idle_conns"
        | "max_fails"
        | "max_connect_attempts"
        | "read_timeout"
        | "failfast_all_unhealthy_upstreams"
        | "failover" => {
            args.rest();
            into.note(&line.name, "servers are chosen by what they did, in 4.5 s in all");
        }
        "next" | "next_on_nodata" | "resolver" | "doh_method" => {
            let text = format!("{} is not supported", line.name.text);
            return Err(Fault::new(&line.name.spot, text));
        }
        _ => return Err(unknown_option(directive, line, FORWARD_OPTIONS)),
    }
    args.end()
}

/// `tls`, `tls CA`, `tls CERT KEY`, `tls CERT KEY CA`.
fn forward_tls(args: &mut Args<'_>, config: &mut ForwardConfig) -> Result<(), Fault> {
    let text = |word: &super::Word| Some(word.text.clone());
    match args.rest() {
        [] => {}
        [ca] => config.tls.ca = text(ca),
        [cert, key] => (config.tls.cert, config.tls.key) = (text(cert), text(key)),
        [cert, key, ca] => {
            (config.tls.cert, config.tls.key, config.tls.ca) = (text(cert), text(key), text(ca));
        }
        [_, _, _, more, ..] => {
            return Err(Fault::new(&more.spot, "tls takes CERT, KEY and CA at most"));
        }
    }
    Ok(())
}

pub(super) fn cache(into: &mut Translation, directive: &Directive) -> Result<(), Fault> {
    once(directive, into.server.cache.is_some())?;
    // CoreDNS fetches ahead and serves what is stale only where it is told to.
    let mut config = CacheConfig { prefetch: false, serve_stale: None, ..CacheConfig::default() };
    let mut head = Args::of(&directive.head);
    if head.peek().is_some_and(|word| word.text.parse::<i64>().is_ok()) {
        let ttl = head.number(1..=u32::MAX)?;
        config.success.ttl_max = ttl;
        config.denial.ttl_max = ttl;
    }
    config.zones = head.zones()?;
    let mut entries = None;
    for line in &directive.body {
        let mut args = Args::of(line);
        match line.name.text.as_str() {
            "success" => *entries.get_or_insert(0) += cache_part(&mut args, &mut config.success)?,
            "denial" => *entries.get_or_insert(0) += cache_part(&mut args, &mut config.denial)?,
            "prefetch" => {
                config.prefetch = args.number(0..=u32::MAX)? > 0;
                if args.len() > 0 {
                    args.rest();
                    into.note(
                        &line.name,
                        "names in use are fetched in the last tenth of their TTL",
                    );
                }
            }
            "serve_stale" => config.serve_stale = Some(stale(into, line, &mut args)?),
            "serve_stale_policy" => {
                args.rest();
                into.note(&line.name, "denials are never served past their TTL");
            }
            "servfail" => {
                let spot = args.peek().map(|word| word.spot.clone());
                config.servfail = args.value("a time span")?;
                if let Some(spot) = spot.filter(|_| config.servfail.0 > SERVFAIL_MAX) {
                    let text = "a failure may be kept for 5m at most (RFC 2308)";
                    return Err(Fault::new(&spot, text));
                }
            }
            "disable" => {
                let word = args.word("success or denial")?;
                let zones = args.zones()?;
                let zones = if zones.is_empty() { vec![ZoneName::root()] } else { zones };
                match word.text.as_str() {
                    "success" => config.success.except = zones,
                    "denial" => config.denial.except = zones,
                    other => {
                        let text = format!("expected success or denial, found {other:?}");
                        return Err(Fault::new(&word.spot, text));
                    }
                }
            }
            "keepttl" => config.keepttl = true,
            _ => {
                let options = "denial, disable, keepttl, prefetch, serve_stale, servfail, success";
                return Err(unknown_option(directive, line, options));
            }
        }
        args.end()?;
    }
    if let Some(entries) = entries.filter(|entries| *entries > 0) {
        config.bytes_max = entries * ENTRY_BYTES;
    }
    into.server.cache = Some(config);
    Ok(())
}

/// `CAPACITY [TTL [MINTTL]]`; the capacity.
fn cache_part(args: &mut Args<'_>, part: &mut CachePart) -> Result<usize, Fault> {
    let capacity: u32 = args.number(0..=u32::MAX)?;
    if args.len() > 0 {
        part.ttl_max = args.number(1..=u32::MAX)?;
    }
    if args.len() > 0 {
        part.ttl_min = args.number(0..=u32::MAX)?;
    }
    Ok(usize::try_from(capacity).unwrap_or(usize::MAX / ENTRY_BYTES))
}

/// `[DURATION [immediate|verify [TIMES...]]]`
fn stale(into: &mut Translation, line: &Line, args: &mut Args<'_>) -> Result<StaleConfig, Fault> {
    let mut config = StaleConfig { immediate: true, ..StaleConfig::default() };
    if args.len() > 0 {
        config.duration = args.value("a time span")?;
    }
    if let Some(word) = args.next() {
        config.immediate = match word.text.to_ascii_lowercase().as_str() {
            "immediate" => true,
            "verify" => false,
            other => {
                let text = format!("expected immediate or verify, found {other:?}");
                return Err(Fault::new(&word.spot, text));
            }
        };
    }
    if args.len() > 0 {
        while args.peek().is_some() {
            args.value::<Span>("a time span")?;
        }
        into.note(
            &line.name,
            "servers have 1.8 s before what is stale is told, with a TTL of 30 s",
        );
    }
    Ok(config)
}
