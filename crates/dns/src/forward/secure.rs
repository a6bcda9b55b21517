//! Upstream servers behind TLS (RFC 7858).

use std::{io, net::IpAddr, path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

use crate::config::ForwardTls;

/// Where systems keep the authorities that they believe: Debian and Alpine, Red Hat,
/// SUSE.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// How a server is reached by TLS. Two of them are equal when they were made from
/// equal settings.
#[derive(Clone)]
pub struct TlsServer {
    settings: ForwardTls,
    pub(super) name: ServerName<'static>,
    pub(super) config: Arc<ClientConfig>,
}

impl PartialEq for TlsServer {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings && self.name == other.name
    }
}

impl Eq for TlsServer {}

impl std::fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsServer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl TlsServer {
    /// Reads the files that are named. `name` is that of the certificate; without one
    /// it is the address.
    pub(crate) fn new(
        settings: &ForwardTls,
        address: IpAddr,
        name: Option<&str>,
    ) -> Result<Self, String> {
        let name = name.or(settings.servername.as_deref());
        let name = match name {
            None => ServerName::IpAddress(address.into()),
            Some(text) => ServerName::try_from(text.to_owned())
                .map_err(|_| format!("{text:?} is no name of a TLS server"))?,
        };
        Ok(Self { settings: settings.clone(), name, config: Arc::new(client(settings)?) })
    }
}

fn client(settings: &ForwardTls) -> Result<ClientConfig, String> {
    let roots = match &settings.ca {
        Some(path) => roots(path)?,
        None => {
            let found = SYSTEM_ROOTS.iter().find(|path| Path::new(path).exists());
            let found =
                found.ok_or("this system keeps no list of authorities; name one: tls CA")?;
            roots(found)?
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    match (&settings.cert, &settings.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key =
                PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{key}: {error}"))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())
        }
        _ => Err("a certificate needs its key".to_owned()),
    }
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{path}: {error}");
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| wrong(&error))?;
    if found.is_empty() { Err(wrong(&"there is no certificate in it")) } else { Ok(found) }
}

fn roots(path: &str) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    // Bundles hold some that nobody can read; those are left out.
    store.add_parsable_certificates(certificates(path)?);
    if store.is_empty() {
        return Err(format!("{path}: none of its certificates can be used"));
    }
    Ok(store)
}

/// A connection to a server, encrypted.
pub(super) async fn connect(
    tls: &TlsServer,
    stream: tokio::net::TcpStream,
) -> io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let connector = tokio_rustls::TlsConnector::from(tls.config.clone());
    connector.connect(tls.name.clone(), stream).await
}
