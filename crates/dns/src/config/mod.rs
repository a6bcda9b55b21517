//! The configuration of the DNS face: plain values, read whole and checked before
//! any socket opens.
//!
//! ```text
//!   TOML ------native----> FaceConfig --check--> the chain of stages that runs
//!   Corefile --corefile-----^
//! ```
//!
//! One running form, two spellings. A key that is not known, or a value that cannot
//! be, is refused with its place.

mod check;
mod native;
mod serving;
mod shaping;
mod upstream;
mod values;
mod watching;

use std::net::IpAddr;

use serde::Deserialize;

pub use self::{
    native::read as read_native,
    serving::{
        AutopathConfig, ExternalConfig, Fallthrough, HostsConfig, KubernetesConfig, PodMode,
        TransferConfig,
    },
    shaping::{
        AclAction, AclConfig, AclRule, Flag, HeaderConfig, MatchKind, NameMatch, RewriteConfig,
        RewriteRule, TemplateConfig,
    },
    upstream::{CacheConfig, CachePart, ForwardConfig, ForwardTls, Policy, StaleConfig},
    values::{Labels, Listen, Network, Pattern, RecordType, ResultCode, Span, Target, ZoneName},
    watching::{
        HealthConfig, LimitConfig, LogClass, LogConfig, MetricsConfig, ReadyConfig, ReloadConfig,
    },
};
pub(crate) use self::{values::zone_of, watching::LOG_COMMON};

/// The port of DNS (RFC 1035, 4.2).
pub(crate) const PORT: u16 = 53;

/// The port of DNS over TLS (RFC 7858, 3.1).
pub(crate) const TLS_PORT: u16 = 853;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaceConfig {
    /// Server blocks: which names are answered, and how.
    #[serde(rename = "server")]
    pub servers: Vec<ServerConfig>,
    /// Whether, and how often, this file is looked at for changes.
    pub reload: Option<ReloadConfig>,
    /// `/health` on a port of its own.
    pub health: Option<HealthConfig>,
    /// `/ready` on a port of its own.
    pub ready: Option<ReadyConfig>,
    /// `/metrics` on a port of its own.
    pub prometheus: Option<MetricsConfig>,
}

/// How queries arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// UDP and TCP.
    #[default]
    Dns,
    /// TLS (RFC 7858).
    Tls,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// File of the certificate chain.
    pub cert: String,
    /// File of the private key.
    pub key: String,
}

/// One server block.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// The zones that are answered here. The deepest zone of all blocks counts.
    pub zones: Vec<ZoneName>,
    /// Where it listens; `--dns-listen` replaces it.
    pub port: u16,
    /// How queries arrive.
    pub transport: Transport,
    /// Addresses that it listens on; `--dns-listen` replaces them.
    pub bind: Vec<IpAddr>,
    /// The certificate, for `transport = "tls"`.
    pub tls: Option<ServerTls>,
    /// Whether failures are logged.
    pub errors: bool,
    /// Whether upstream servers that lead back to us are looked for.
    pub r#loop: bool,
    /// The query log.
    pub log: Vec<LogConfig>,
    /// What this server calls itself to who asks (RFC 5001).
    pub nsid: Option<String>,
    /// The longest reply over UDP.
    pub bufsize: Option<u16>,
    /// Whether `localhost` and the like are answered here (RFC 6761).
    pub local: bool,
    /// Whether ANY is answered with next to nothing (RFC 8482).
    pub any: bool,
    /// Whether addresses are told in a random order.
    pub loadbalance: bool,
    /// How much one client may ask.
    pub limit: Option<LimitConfig>,
    /// Changes of questions and of their answers.
    pub rewrite: Vec<RewriteConfig>,
    /// The search path of Pods, walked here.
    pub autopath: Option<AutopathConfig>,
    /// Who may ask for what.
    pub acl: Vec<AclConfig>,
    /// What is kept of upstream replies.
    pub cache: Option<CacheConfig>,
    /// Flags of queries and replies.
    pub header: Option<HeaderConfig>,
    /// Whether replies hold only what was asked for.
    pub minimal: bool,
    /// Answers made from the question.
    pub template: Vec<TemplateConfig>,
    /// Who may have whole zones.
    pub transfer: Vec<TransferConfig>,
    /// Names from a list.
    pub hosts: Option<HostsConfig>,
    /// Names of Services by the addresses that are reached from outside.
    pub k8s_external: Option<ExternalConfig>,
    /// Names of Services and Pods.
    pub kubernetes: Option<KubernetesConfig>,
    /// Who is asked for the rest.
    pub forward: Vec<ForwardConfig>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            zones: vec![ZoneName::root()],
            port: PORT,
            transport: Transport::Dns,
            bind: Vec::new(),
            tls: None,
            errors: true,
            r#loop: true,
            log: Vec::new(),
            nsid: None,
            bufsize: None,
            local: false,
            any: false,
            loadbalance: true,
            limit: None,
            rewrite: Vec::new(),
            autopath: None,
            acl: Vec::new(),
            cache: None,
            header: None,
            minimal: false,
            template: Vec::new(),
            transfer: Vec::new(),
            hosts: None,
            k8s_external: None,
            kubernetes: None,
            forward: Vec::new(),
        }
    }
}
