//! Finding the API: an explicit kubeconfig, else the Pod's own ServiceAccount,
//! else the user's kubeconfig.

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};

/// A connection to a Kubernetes API.
pub use kube::Client;

/// Why the API cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig that was named.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// Nothing was named and nothing was found.
    #[error("no kubeconfig was given, and none was found: {0}")]
    NoneFound(#[source] Box<kube::config::InferConfigError>),
    /// What was found makes no client (certificates, proxies).
    #[error("the connection cannot be set up: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// Prepares a client. No connection is made yet.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let config = match kubeconfig {
        Some(path) => {
            let failed = |source| ConnectError::Kubeconfig {
                path: path.to_owned(),
                source: Box::new(source),
            };
            let parsed = Kubeconfig::read_from(path).map_err(failed)?;
            kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
                .await
                .map_err(failed)?
        }
        None => match kube::Config::incluster() {
            Ok(config) => config,
            Err(_) => kube::Config::infer()
                .await
                .map_err(|source| ConnectError::NoneFound(Box::new(source)))?,
        },
    };
    Client::try_from(config).map_err(|source| ConnectError::Client(Box::new(source)))
}
