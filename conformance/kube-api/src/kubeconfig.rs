//! What the suite needs of a kubeconfig: one address, one authority, one token.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

/// How to reach a server.
#[derive(Clone)]
pub struct Access {
    /// `host:port`.
    pub authority: String,
    /// Certificates to trust, PEM.
    pub ca_pem: Vec<u8>,
    /// Bearer token.
    pub token: String,
}

/// Reads one; files that it names are relative to it.
pub fn read(path: &Path) -> Result<Access> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let config: Value = serde_norway::from_str(&text).context("kubeconfig")?;
    let text_at = |pointer: &str| config.pointer(pointer).and_then(Value::as_str);
    let server = text_at("/clusters/0/cluster/server").context("no server in the kubeconfig")?;
    let Some(authority) = server.strip_prefix("https://") else {
        bail!("{server} is not https");
    };
    let ca_pem = match text_at("/clusters/0/cluster/certificate-authority-data") {
        Some(data) => STANDARD.decode(data)?,
        None => {
            let file = text_at("/clusters/0/cluster/certificate-authority").context("no CA")?;
            fs::read(folder.join(file))?
        }
    };
    let token = text_at("/users/0/user/token").context("no token in the kubeconfig")?.to_owned();
    Ok(Access { authority: authority.trim_end_matches('/').to_owned(), ca_pem, token })
}
