//! What lets people and machines watch the server: the query log, limits, and the
//! ports for health, readiness and metrics.

use serde::Deserialize;

use super::values::{Listen, Network, Span, ZoneName};

/// How often the file is looked at (CoreDNS: 30 s).
const RELOAD_INTERVAL: &str = "30s";

/// Where CoreDNS listens for these, on all addresses.
const HEALTH_LISTEN: &str = ":8080";
const READY_LISTEN: &str = ":8181";

/// CoreDNS' default; kubeadm's Corefile says `:9153`.
const METRICS_LISTEN: &str = "localhost:9153";

/// A constant of this module as a value.
fn constant<T: std::str::FromStr<Err = String>>(text: &str) -> T {
    match text.parse() {
        Ok(value) => value,
        Err(why) => unreachable!("{why}"),
    }
}

/// Looking at the file for changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReloadConfig {
    /// Between two looks.
    pub interval: Span,
}

impl Default for ReloadConfig {
    fn default() -> Self {
        Self { interval: constant(RELOAD_INTERVAL) }
    }
}

/// `/health`: 200 while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// Where.
    pub listen: Listen,
    /// How long queries are still answered after the process was asked to end, while
    /// `/ready` says no.
    pub lameduck: Span,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self { listen: constant(HEALTH_LISTEN), lameduck: Span::default() }
    }
}

/// `/ready`: 200 while nothing blocks readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadyConfig {
    /// Where.
    pub listen: Listen,
}

impl Default for ReadyConfig {
    fn default() -> Self {
        Self { listen: constant(READY_LISTEN) }
    }
}

/// `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Where.
    pub listen: Listen,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { listen: constant(METRICS_LISTEN) }
    }
}

/// What became of a query, as the log tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogClass {
    /// Any of them.
    All,
    /// Records.
    Success,
    /// The name or the type does not exist.
    Denial,
    /// Anything else.
    Error,
}

/// One rule of the query log.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Names that it is about.
    pub zones: Vec<ZoneName>,
    /// The line, with CoreDNS' placeholders.
    pub format: String,
    /// Which outcomes are logged.
    pub classes: Vec<LogClass>,
    /// The part of queries that is logged, from 0 to 1.
    pub sample: f64,
}

/// CoreDNS' common log format.
pub(crate) const LOG_COMMON: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} \
                                     {size} {>do} {>bufsize}\" {rcode} {>rflags} {rsize} \
                                     {duration}";

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            zones: vec![ZoneName::root()],
            format: LOG_COMMON.to_owned(),
            classes: vec![LogClass::All],
            sample: 1.0,
        }
    }
}

/// Queries that one client may send.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitConfig {
    /// In the long run.
    pub queries_per_second: u32,
    /// At once, after a pause.
    pub burst: u32,
    /// Clients without a limit: node-local caches, monitoring.
    pub except: Vec<Network>,
}

/// More than a busy Pod sends, less than a flood: with `ndots:5` one name costs ten
/// queries, so this is a hundred names a second.
const QUERIES_PER_SECOND: u32 = 1000;

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            queries_per_second: QUERIES_PER_SECOND,
            burst: 2 * QUERIES_PER_SECOND,
            except: Vec::new(),
        }
    }
}
