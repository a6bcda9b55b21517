//! Who is calling: bearer tokens.
//!
//! One token is the administrator's, made per data directory; all others are
//! ServiceAccount tokens that the registry signed. Nobody is anonymous, except
//! for asking after health and version.

use http::{HeaderMap, header};
use ring::hmac;

use crate::{
    Status,
    registry::{Caller, ISSUER, MASTERS, Registry},
};

/// Longest token that is looked at; ours have some 600 bytes.
const TOKEN_BYTES_MAX: usize = 8 << 10;
/// The administrator's user name, as kubeadm's admin.conf has it.
const ADMIN: &str = "kubernetes-admin";

/// Checks tokens.
pub(crate) struct Authenticator {
    registry: Registry,
    key: hmac::Key,
    admin: hmac::Tag,
}

impl Authenticator {
    pub(crate) fn new(registry: Registry, admin_token: &str) -> Authenticator {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        let admin = hmac::sign(&key, admin_token.as_bytes());
        Authenticator { registry, key, admin }
    }

    /// The caller behind the headers of a request.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Status> {
        let text = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let token = text
            .and_then(|t| t.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(Status::unauthorized)?;
        self.token(token, ISSUER)
    }

    /// The caller behind a token.
    pub(crate) fn token(&self, token: &str, audience: &str) -> Result<Caller, Status> {
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Err(Status::unauthorized());
        }
        // Comparing tags compares in constant time whatever the lengths.
        if hmac::verify(&self.key, token.as_bytes(), self.admin.as_ref()).is_ok() {
            return Ok(Caller {
                user: ADMIN.into(),
                groups: vec![MASTERS.into(), "system:authenticated".into()],
                ..Caller::default()
            });
        }
        self.registry.check_token(token, audience)
    }
}
