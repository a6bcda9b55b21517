//! `addresses.json`: where a running Portolan listens.

use serde::{Deserialize, Serialize};

/// Written to the data directory once everything listens; how other commands
/// find the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// URL of the embedded Kubernetes API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// Path of the kubeconfig.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<String>,
    /// `ip:port` of the DNS server, UDP and TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
    /// `ip:port` of the xDS server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xds: Option<String>,
    /// URL of the HTTP API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// The data directory.
    pub data_dir: String,
    /// The process.
    pub pid: u32,
    /// The version of the program.
    pub version: String,
}

impl Addresses {
    /// Its name inside the data directory.
    pub const FILE_NAME: &'static str = "addresses.json";
}
