//! Who is calling: bearer tokens.
//!
//! One token is the administrator's, made per data directory; all others are
//! ServiceAccount tokens that the registry signed. Nobody is anonymous, except
//! for asking after health and version.

use std::sync::Arc;

use http::{HeaderMap, header};
use ring::hmac;

use crate::{
    Status,
    registry::{Action, Caller, ISSUER, MASTERS, Registry},
};

/// Longest token that is looked at; ours have some 600 bytes.
const TOKEN_BYTES_MAX: usize = 8 << 10;
/// The administrator's user name, as kubeadm's admin.conf has it.
const ADMIN: &str = "kubernetes-admin";
/// The group of everybody who has a name.
const AUTHENTICATED: &str = "system:authenticated";
const IMPERSONATE_USER: &str = "impersonate-user";
const IMPERSONATE_GROUP: &str = "impersonate-group";

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
        let token = text.and_then(bearer).ok_or_else(Status::unauthorized)?;
        self.token(token, ISSUER)
    }

    /// The caller that the headers ask to be treated as, if the real one may do so
    /// (`kubectl --as`).
    pub(crate) fn impersonated(
        &self,
        caller: Caller,
        headers: &HeaderMap,
    ) -> Result<Caller, Status> {
        let texts = |name: &str| -> Vec<&str> {
            headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect()
        };
        let (user, groups) = (texts(IMPERSONATE_USER), texts(IMPERSONATE_GROUP));
        let Some(user) = user.first().copied().filter(|u| !u.is_empty()) else {
            if groups.is_empty() {
                return Ok(caller);
            }
            return Err(Status::bad_request("requested groups without impersonating a user"));
        };
        let asked = std::iter::once(("users", user)).chain(groups.iter().map(|g| ("groups", *g)));
        for (resource, name) in asked {
            let action = Action { verb: "impersonate", resource, name, ..Action::default() };
            self.registry.authorize(&caller, &action)?;
        }
        let mut groups: Vec<Arc<str>> = groups.into_iter().map(Into::into).collect();
        if let Some((namespace, _)) =
            user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'))
            && groups.is_empty()
        {
            groups.push("system:serviceaccounts".into());
            groups.push(format!("system:serviceaccounts:{namespace}").into());
        }
        if !groups.iter().any(|g| &**g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        // Extras are not taken over: here they bind a caller to a Pod, which no header may do.
        Ok(Caller { user: user.into(), groups, ..Caller::default() })
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
                groups: vec![MASTERS.into(), AUTHENTICATED.into()],
                ..Caller::default()
            });
        }
        self.registry.check_token(token, audience)
    }
}

/// The token in an `Authorization` header: the second word of it, whatever follows (upstream
/// `bearertoken`).
fn bearer(text: &str) -> Option<&str> {
    let mut words = text.trim().split(' ');
    let scheme = words.next()?;
    words.next().filter(|_| scheme.eq_ignore_ascii_case("bearer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_word_is_the_token() {
        for (text, expected) in [
            ("Bearer a", Some("a")),
            ("bearer a b", Some("a")),
            (" BEARER a ", Some("a")),
            ("Bearer  a", Some("")),
            ("Bearer", None),
            ("Basic a", None),
        ] {
            assert_eq!(bearer(text), expected, "{text}");
        }
    }
}
