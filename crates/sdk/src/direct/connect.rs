//! A client for the API that was named or found.

use std::path::Path;

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::settings::Target;
use crate::{Error, error::chain};

/// Prepares a client, with the namespace that a kubeconfig names. No connection
/// is made yet.
pub(super) async fn connect(target: &Target) -> Result<(Client, Option<String>), Error> {
    install_crypto();
    let (mut config, namespace) = match target {
        Target::Url { api, token_file, ca_file } => {
            (url_config(api, token_file.as_deref(), ca_file.as_deref())?, None)
        }
        Target::Kubeconfig(path) => {
            let wrong = |error: kube::config::KubeconfigError| Error::NoApi {
                detail: format!("kubeconfig {}: {}", path.display(), chain(&error)),
            };
            let parsed = Kubeconfig::read_from(path).map_err(wrong)?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(parsed, &options).await.map_err(wrong)?;
            let namespace = config.default_namespace.clone();
            (config, Some(namespace))
        }
        Target::Infer => match Config::incluster() {
            Ok(config) => (config, None),
            Err(in_cluster) => {
                let config = Config::from_kubeconfig(&KubeConfigOptions::default()).await;
                let config = config.map_err(|error| Error::NoApi {
                    detail: format!(
                        "in a Pod: {}; kubeconfig: {}",
                        chain(&in_cluster),
                        chain(&error)
                    ),
                })?;
                let namespace = config.default_namespace.clone();
                (config, Some(namespace))
            }
        },
    };
    // Writer and follower have their own pauses, and report what a retry would hide.
    config.default_retry = false;
    let client =
        Client::try_from(config).map_err(|error| Error::NoApi { detail: chain(&error) })?;
    Ok((client, namespace))
}

fn url_config(
    api: &http::Uri,
    token_file: Option<&Path>,
    ca_file: Option<&Path>,
) -> Result<Config, Error> {
    let mut config = Config::new(api.clone());
    if let Some(path) = token_file {
        // Read here too, so that the error names the variable.
        let unreadable = |error: std::io::Error| Error::Setting {
            name: "PORTOLAN_TOKEN_FILE",
            problem: format!("{}: {error}", path.display()),
            fix: "name a file that this process may read",
        };
        std::fs::read_to_string(path).map_err(unreadable)?;
        config.auth_info.token_file = Some(path.display().to_string());
    }
    if let Some(path) = ca_file {
        let unreadable = |problem: String| Error::Setting {
            name: "PORTOLAN_CA_FILE",
            problem: format!("{}: {problem}", path.display()),
            fix: "name a file with certificates in PEM that this process may read",
        };
        let certificates: Vec<Vec<u8>> = CertificateDer::pem_file_iter(path)
            .and_then(|all| all.map(|one| one.map(|der| der.to_vec())).collect())
            .map_err(|error| unreadable(chain(&error)))?;
        if certificates.is_empty() {
            return Err(unreadable("holds no certificate".into()));
        }
        config.root_cert = Some(certificates);
        // Read anew now and then, so that a new CA needs no restart.
        config.root_cert_file = Some(path.to_owned());
    }
    Ok(config)
}

/// In a program that links several crypto providers, rustls cannot choose by
/// itself and would panic at the first connection.
fn install_crypto() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error says that another thread was faster.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_do_not_serve() {
        let api = "https://127.0.0.1:1".parse().unwrap();
        let empty = tempfile::NamedTempFile::new().unwrap();
        let none = Path::new("/nonexistent/file");
        for (token, ca, expected) in [
            (Some(none), None, "PORTOLAN_TOKEN_FILE: /nonexistent/file: "),
            (None, Some(none), "PORTOLAN_CA_FILE: /nonexistent/file: "),
            (Some(empty.path()), Some(empty.path()), "holds no certificate"),
        ] {
            let error = url_config(&api, token, ca).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
