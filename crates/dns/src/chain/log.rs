//! `log` and `errors`: what was asked, and what failed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Request, Stage, Step, bearing_of};
use crate::{
    bearing::Bearing,
    config::{LogClass, LogConfig, zone_of},
    message::Question,
    metrics::Proto,
    name::DnsName,
    names::Names,
    wire::Rcode,
};

/// The target of the query log in `RUST_LOG`.
pub(crate) const TARGET: &str = "dns_query";

/// Between two lines about failures.
const ERRORS_PAUSE: Duration = Duration::from_secs(1);

/// The stage: finds the rule of a query; the line is written when the reply is.
#[derive(Debug)]
pub(crate) struct Log(pub(crate) Vec<Arc<LogConfig>>);

impl Stage for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    fn bearing(&self, apex: &DnsName) -> Bearing {
        bearing_of(self.0.iter().flat_map(|rule| &rule.zones), apex)
    }

    fn enter(&self, request: &mut Request, _: &Names) -> Step {
        let of = |rule: &&Arc<LogConfig>| zone_of(&rule.zones, &request.question.name).is_some();
        match self.0.iter().find(of) {
            Some(rule) if rule.sample >= 1.0 || rand::random::<f64>() < rule.sample => {
                request.log = Some((rule.clone(), request.question.clone()));
                Step::Next("the query is logged")
            }
            _ => Step::Next("the query is not logged"),
        }
    }
}

/// Writes the line of a query, where a rule wants it. `reply` is empty when there is
/// none.
pub(crate) fn write(request: &Request, reply: &[u8]) {
    let Some((rule, _)) = &request.log else { return };
    let class = class_of(reply);
    if rule.classes.contains(&LogClass::All) || rule.classes.contains(&class) {
        tracing::info!(target: TARGET, "{}", line(request, reply, request.at.elapsed(), &rule.format));
    }
}

/// What became of a query, by the bytes of its reply.
fn class_of(reply: &[u8]) -> LogClass {
    let rcode = reply.get(3).map_or(Rcode::ServFail as u8, |byte| byte & 0xf);
    let answers = reply.get(6..8).is_some_and(|count| count != [0, 0]);
    match rcode {
        0 if answers => LogClass::Success,
        0 | 3 => LogClass::Denial,
        _ => LogClass::Error,
    }
}

/// A format with CoreDNS' placeholders filled.
fn line(request: &Request, reply: &[u8], took: Duration, format: &str) -> String {
    let (query, asked) = match &request.log {
        Some((_, question)) => (&request.query, question),
        None => (&request.query, &request.question),
    };
    let mut out = String::with_capacity(format.len() + 64);
    let mut rest = format;
    while let Some(end) = rest.find('}') {
        let (head, after) = rest.split_at(end + 1);
        let start = head.rfind('{').unwrap_or(0);
        let (before, label) = head.split_at(start);
        let edns = query.edns;
        let value = match label {
            "{type}" => asked.kind.to_string(),
            "{class}" => asked.class.to_string(),
            "{name}" => crate::name::text(&asked.name).to_ascii_lowercase(),
            "{proto}" => match request.proto {
                Proto::Udp => "udp".to_owned(),
                Proto::Tcp => "tcp".to_owned(),
            },
            "{size}" => request.size.to_string(),
            "{remote}" => match request.client.to_canonical() {
                std::net::IpAddr::V4(v4) => v4.to_string(),
                std::net::IpAddr::V6(v6) => format!("[{v6}]"),
            },
            "{port}" => request.client_port.map_or("-".to_owned(), |port| port.to_string()),
            "{rcode}" if reply.is_empty() => "-".to_owned(),
            "{rcode}" => {
                let rcode = reply.get(3).map_or(0, |byte| u16::from(byte & 0xf));
                crate::wire::rcode_text(rcode).to_owned()
            }
            "{rsize}" => reply.len().to_string(),
            "{duration}" => format!("{}s", took.as_secs_f64()),
            "{>id}" => query.head.id.to_string(),
            "{>opcode}" => query.head.opcode.to_string(),
            "{>do}" => edns.is_some_and(|edns| edns.dnssec_ok).to_string(),
            "{>bufsize}" => edns.map_or(512, |edns| edns.udp_size).to_string(),
            "{>rflags}" => flags(reply),
            other => other.to_owned(),
        };
        out.push_str(before);
        out.push_str(&value);
        rest = after;
    }
    out.push_str(rest);
    out
}

fn flags(reply: &[u8]) -> String {
    const FLAGS: [(usize, u8, &str); 8] = [
        (2, 0x80, "qr"),
        (2, 0x04, "aa"),
        (2, 0x02, "tc"),
        (2, 0x01, "rd"),
        (3, 0x80, "ra"),
        (3, 0x40, "z"),
        (3, 0x20, "ad"),
        (3, 0x10, "cd"),
    ];
    let set = |at: usize, bit: u8| reply.get(at).is_some_and(|byte| byte & bit != 0);
    let names = FLAGS.iter().filter(|(at, bit, _)| set(*at, *bit)).map(|(_, _, name)| *name);
    names.collect::<Vec<_>>().join(",")
}

/// `errors`: failures are logged, once in a while with their number, so that a storm
/// of them does not become a storm of lines.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    failed: AtomicU64,
    last: Mutex<Option<Instant>>,
}

impl Errors {
    pub(crate) fn note(&self, question: &Question, why: &str) {
        let failed = self.failed.fetch_add(1, Ordering::Relaxed) + 1;
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now.saturating_duration_since(last) < ERRORS_PAUSE) {
            return;
        }
        *last = Some(now);
        self.failed.store(0, Ordering::Relaxed);
        let name = crate::name::text(&question.name);
        tracing::warn!(%name, kind = %question.kind, failed, why, "queries fail");
    }
}

#[cfg(test)]
mod tests;
