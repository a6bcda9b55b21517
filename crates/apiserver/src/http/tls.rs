//! A certificate authority of our own, and the server certificate it signs.
//!
//! The authority is made once per data directory and kept (clients pin it in
//! their kubeconfig); the server certificate is made at every start, and again
//! while running before it gets old, so that there is nothing to renew by hand.

use std::{
    fs, io,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::registry::object;

const DAY: u64 = 86_400;
/// Life of the authority; kubeadm's too.
const CA_LIFE_SECONDS: u64 = 3_650 * DAY;
/// A new authority is made at a start within this time of the old one's end.
const CA_RENEW_BEFORE_SECONDS: u64 = 90 * DAY;
/// Life of the server certificate; kubeadm's too.
const SERVER_LIFE_SECONDS: u64 = 365 * DAY;
/// A new server certificate is made after this time.
const SERVER_RENEW_AFTER_SECONDS: u64 = 180 * DAY;
/// Clocks differ: certificates hold from a day before they were made.
const SKEW_SECONDS: u64 = DAY;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The files cannot be read or written.
    #[error("cannot use {path}: {source}")]
    File {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error(
        "{path} holds no usable key or certificate ({reason}); move it away to have a new one made"
    )]
    Damaged {
        /// Which file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The library refuses.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The library refuses.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// The authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// What clients trust.
    pub(crate) pem: String,
}

/// `(year, month, day)` of a time, for rcgen.
fn date(unix_seconds: u64) -> (i32, u8, u8) {
    let text = object::timestamp(unix_seconds);
    let number = |range: std::ops::Range<usize>| text.get(range).and_then(|t| t.parse().ok());
    (
        text.get(0..4).and_then(|t| t.parse().ok()).unwrap_or(1970),
        number(5..7).unwrap_or(1),
        number(8..10).unwrap_or(1),
    )
}

fn set_validity(params: &mut CertificateParams, from: u64, life: u64) {
    let (year, month, day) = date(from.saturating_sub(SKEW_SECONDS));
    params.not_before = rcgen::date_time_ymd(year, month, day);
    let (year, month, day) = date(from + life);
    params.not_after = rcgen::date_time_ymd(year, month, day);
}

fn authority_params(made: u64) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    // The time in the name keeps two authorities apart, as with client-go's self-signed ones.
    params.distinguished_name.push(DnType::CommonName, format!("portolan-ca@{made}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    set_validity(&mut params, made, CA_LIFE_SECONDS);
    Ok(params)
}

impl Authority {
    /// Makes one that lives as long as the process.
    pub(crate) fn make(now: u64) -> Result<Authority, TlsError> {
        Ok(Self::with_key(KeyPair::generate()?, now)?)
    }

    fn with_key(key: KeyPair, made: u64) -> Result<Authority, rcgen::Error> {
        let params = authority_params(made)?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Authority { issuer: Issuer::new(params, key), pem })
    }

    /// Reads the one of a directory, or makes it there. The certificate is kept as it was first
    /// written, because clients hold copies of it.
    pub(crate) fn open(folder: &Path, now: u64) -> Result<Authority, TlsError> {
        let (key_path, cert_path) = (folder.join("ca.key"), folder.join("ca.crt"));
        let shown = key_path.display().to_string();
        let file = |path: &Path| {
            let path = path.display().to_string();
            move |source| TlsError::File { path, source }
        };
        if key_path.exists() && cert_path.exists() {
            let text = fs::read_to_string(&key_path).map_err(file(&key_path))?;
            let pem = fs::read_to_string(&cert_path).map_err(file(&cert_path))?;
            let damaged =
                |reason: &str| TlsError::Damaged { path: shown, reason: reason.to_owned() };
            let Some((first, key_pem)) = text.split_once('\n') else {
                return Err(damaged("it is empty"));
            };
            let Some(made) = first.strip_prefix("made: ").and_then(|t| t.trim().parse().ok())
            else {
                return Err(damaged("its first line does not say when it was made"));
            };
            let key = KeyPair::from_pem(key_pem).map_err(|e| damaged(&e.to_string()))?;
            if now + CA_RENEW_BEFORE_SECONDS < made + CA_LIFE_SECONDS {
                return Ok(Authority { issuer: Issuer::new(authority_params(made)?, key), pem });
            }
            tracing::warn!("the certificate authority has nearly expired; a new one is made");
        }
        let key = KeyPair::generate()?;
        let text = format!("made: {now}\n{}", key.serialize_pem());
        let authority = Self::with_key(key, now)?;
        super::files::write_private(&key_path, text.as_bytes()).map_err(file(&key_path))?;
        super::files::write_private(&cert_path, authority.pem.as_bytes())
            .map_err(file(&cert_path))?;
        Ok(authority)
    }

    fn sign_server(&self, names: &[String], now: u64) -> Result<CertifiedKey, TlsError> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, "portolan-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, SERVER_LIFE_SECONDS);
        let key = KeyPair::generate()?;
        let signed = params.signed_by(&key, &self.issuer)?;
        let authority = CertificateDer::from_pem_slice(self.pem.as_bytes())
            .map_err(|e| TlsError::Damaged { path: "ca.crt".into(), reason: e.to_string() })?;
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let signer = ring::sign::any_supported_type(&private)?;
        Ok(CertifiedKey::new(vec![signed.der().clone(), authority], signer))
    }
}

/// Hands out the server certificate, and replaces it in time.
struct Rotating {
    authority: Authority,
    names: Vec<String>,
    current: Mutex<(Arc<CertifiedKey>, u64)>,
}

impl std::fmt::Debug for Rotating {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rotating").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Rotating {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = object::now_unix_seconds();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now > current.1 + SERVER_RENEW_AFTER_SECONDS {
            match self.authority.sign_server(&self.names, now) {
                Ok(key) => *current = (Arc::new(key), now),
                Err(error) => tracing::error!(%error, "the server certificate was not renewed"),
            }
        }
        Some(current.0.clone())
    }
}

/// TLS for a server under these names, and what clients must trust.
pub(crate) fn server_config(
    authority: Authority,
    names: Vec<String>,
) -> Result<(Arc<ServerConfig>, String), TlsError> {
    let now = object::now_unix_seconds();
    let pem = authority.pem.clone();
    let first = Arc::new(authority.sign_server(&names, now)?);
    let resolver = Rotating { authority, names, current: Mutex::new((first, now)) };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(config), pem))
}

/// The names of an API server: where it listens, and how Pods call it.
pub(crate) fn server_names(listen: IpAddr, service: &[IpAddr], extra: &[String]) -> Vec<String> {
    let mut names: Vec<String> = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "127.0.0.1",
        "::1",
    ]
    .map(str::to_owned)
    .into();
    names.extend(service.iter().map(IpAddr::to_string));
    if !listen.is_unspecified() {
        names.push(listen.to_string());
    }
    names.extend(extra.iter().cloned());
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let now = 1_800_000_000;
        let first = Authority::open(folder.path(), now).unwrap();
        let again = Authority::open(folder.path(), now + 1_000).unwrap();
        assert_eq!(first.pem, again.pem);
        let late = Authority::open(folder.path(), now + CA_LIFE_SECONDS - DAY).unwrap();
        assert_ne!(first.pem, late.pem, "a new one before the old one ends");
        fs::write(folder.path().join("ca.key"), "made: 5\nnonsense").unwrap();
        assert!(matches!(Authority::open(folder.path(), now), Err(TlsError::Damaged { .. })));
    }

    #[test]
    fn names() {
        let names = server_names("127.0.0.1".parse().unwrap(), &[], &["x".into()]);
        assert!(names.contains(&"kubernetes.default.svc".to_owned()));
        assert_eq!(names.iter().filter(|n| *n == "127.0.0.1").count(), 1);
        server_config(Authority::make(1_800_000_000).unwrap(), names).unwrap();
    }
}
