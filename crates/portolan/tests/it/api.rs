//! An embedded cluster alone, and clients of its API that kubectl is too polite for.

use std::{net::SocketAddr, process::Command};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{PATIENCE, Up, apart, base64_decoded, binary, up_by, without_faces};

/// A `portolan cluster`, and how to call it.
pub(crate) struct Api {
    pub(crate) up: Up,
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    pub(crate) ca_pem: String,
}

/// The flags of a `portolan cluster` that is kept apart from all others.
pub(crate) fn cluster_flags() -> Vec<String> {
    let mut flags = apart();
    flags[0] = "cluster".into();
    without_faces(&mut flags);
    flags
}

/// A cluster in memory.
pub(crate) fn cluster() -> Api {
    cluster_in(tempfile::tempdir().unwrap(), &cluster_flags(), &["--ephemeral"])
}

/// A cluster with a folder of its own as data directory.
pub(crate) fn cluster_in(folder: TempDir, flags: &[String], extra: &[&str]) -> Api {
    let up = up_by(Command::new(binary()), folder, flags, extra);
    let kubeconfig = std::fs::read_to_string(up.addresses.kubeconfig.as_deref().unwrap()).unwrap();
    let kubeconfig: Value = serde_norway::from_str(&kubeconfig).unwrap();
    let text = |pointer: &str| kubeconfig.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let address = text("/clusters/0/cluster/server");
    let authority = base64_decoded(&text("/clusters/0/cluster/certificate-authority-data"));
    Api {
        up,
        address: address.strip_prefix("https://").unwrap().parse().unwrap(),
        token: text("/users/0/user/token"),
        ca_pem: String::from_utf8(authority).unwrap(),
    }
}

impl Api {
    /// A client of the API.
    pub(crate) fn client(&self) -> ApiClient {
        // The second test of a process finds the provider installed.
        rustls::crypto::ring::default_provider().install_default().ok();
        let authority = reqwest::Certificate::from_pem(self.ca_pem.as_bytes()).unwrap();
        let http = Client::builder().tls_certs_only([authority]).timeout(PATIENCE).build().unwrap();
        ApiClient { http, url: format!("https://{}", self.address), token: self.token.clone() }
    }
}

/// An administrator's client.
#[derive(Clone)]
pub(crate) struct ApiClient {
    http: Client,
    url: String,
    token: String,
}

impl ApiClient {
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    /// Status code and body; an error when the connection broke before both had come.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), reqwest::Error> {
        let mut request = self.request(method.clone(), path);
        if let Some(body) = body {
            let patch = method == Method::PATCH;
            let json = if patch { "application/merge-patch+json" } else { "application/json" };
            request = request.header("content-type", json).body(body.to_string());
        }
        let response = request.send().await?;
        let code = response.status().as_u16();
        Ok((code, response.json().await?))
    }
}
