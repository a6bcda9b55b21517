//! Tokens of ServiceAccounts and Pods: signed here, checked here.
//!
//! The form is a JWT with the claims of KEP-1205 (HS256: nobody else needs to
//! check them, so there is no public key). A token says whom it was made for;
//! whether that ServiceAccount and that Pod still exist is looked up at every
//! use, so deleting them ends the token at once.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::hmac;
use serde_json::{Value, json};

use super::{
    Caller, EXTRA_POD_NAME, EXTRA_POD_UID, Registry,
    caller::{EXTRA_CREDENTIAL, EXTRA_NODE_NAME, EXTRA_NODE_UID},
    object,
};
use crate::{Status, kinds};

/// Who signs, and for whom unless somebody else is named.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Life of a Pod's token. It ends with the Pod; this only bounds a Pod that never ends
/// (kube-apiserver `--service-account-extend-token-expiration`).
const POD_TOKEN_SECONDS: u64 = 365 * 86_400;
/// Shortest life that a TokenRequest may ask for (authentication/v1 validation).
pub const TOKEN_SECONDS_MIN: u64 = 600;
/// Longest life that a TokenRequest may ask for (authentication/v1 validation: 2^32 seconds).
pub const TOKEN_SECONDS_MAX: u64 = 1 << 32;

/// Signs and checks.
pub struct Tokens {
    key: hmac::Key,
}

/// Whom a token is for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenSubject {
    /// Namespace of the ServiceAccount (and of the Pod).
    pub namespace: String,
    /// ServiceAccount.
    pub service_account: String,
    /// Its uid, when it exists.
    pub service_account_uid: String,
    /// Name and uid of the Pod that the token is bound to.
    pub pod: Option<(String, String)>,
    /// Name and uid of the Node that the token, or its Pod, is bound to; a Pod's Node may have no
    /// uid, for nothing says that it exists.
    pub node: Option<(String, String)>,
    /// Name and uid of the Secret that the token is bound to.
    pub secret: Option<(String, String)>,
    /// For whom; empty means the API server itself.
    pub audiences: Vec<String>,
}

impl Tokens {
    /// With a secret key.
    pub fn new(key: &[u8]) -> Tokens {
        Tokens { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    fn sign(&self, claims: &Value) -> String {
        let header = BASE64.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let body = format!("{header}.{}", BASE64.encode(claims.to_string()));
        let tag = hmac::sign(&self.key, body.as_bytes());
        format!("{body}.{}", BASE64.encode(tag.as_ref()))
    }

    fn open(&self, token: &str) -> Option<Value> {
        let (body, tag) = token.rsplit_once('.')?;
        let tag = BASE64.decode(tag).ok()?;
        hmac::verify(&self.key, body.as_bytes(), &tag).ok()?;
        let (_, claims) = body.split_once('.')?;
        serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()
    }
}

impl Registry {
    /// A token for a ServiceAccount, and when it ends (seconds since 1970).
    pub fn mint_token(&self, subject: &TokenSubject, seconds: u64) -> (String, u64) {
        let now = self.now_unix_seconds();
        let ends = now.saturating_add(seconds);
        let audiences = if subject.audiences.is_empty() {
            vec![ISSUER.to_owned()]
        } else {
            subject.audiences.clone()
        };
        let mut bound = json!({
            "namespace": subject.namespace,
            "serviceaccount": {
                "name": subject.service_account,
                "uid": subject.service_account_uid,
            },
        });
        let objects = [("pod", &subject.pod), ("node", &subject.node), ("secret", &subject.secret)];
        for (what, found) in objects {
            let Some((name, uid)) = found else { continue };
            bound[what] = json!({"name": name});
            if !uid.is_empty() {
                bound[what]["uid"] = uid.as_str().into();
            }
        }
        let claims = json!({
            "aud": audiences,
            "exp": ends,
            "iat": now,
            "iss": ISSUER,
            "jti": object::new_uid(),
            "kubernetes.io": bound,
            "nbf": now,
            "sub": format!("system:serviceaccount:{}:{}", subject.namespace, subject.service_account),
        });
        (self.inner.tokens.sign(&claims), ends)
    }

    /// The token that a Pod finds in its environment; it ends with the Pod.
    pub fn mint_pod_token(&self, namespace: &str, pod_name: &str, pod_uid: &str) -> String {
        let account = self
            .get(&kinds::PODS, namespace, pod_name)
            .ok()
            .and_then(|pod| {
                pod.pointer("/spec/serviceAccountName").and_then(Value::as_str).map(str::to_owned)
            })
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".to_owned());
        let uid = self
            .get(&kinds::SERVICE_ACCOUNTS, namespace, &account)
            .map(|a| object::uid(&a).to_owned())
            .unwrap_or_default();
        let subject = TokenSubject {
            namespace: namespace.to_owned(),
            service_account: account,
            service_account_uid: uid,
            pod: Some((pod_name.to_owned(), pod_uid.to_owned())),
            ..TokenSubject::default()
        };
        self.mint_token(&subject, POD_TOKEN_SECONDS).0
    }

    /// Who a token is, if it is ours, in time, meant for `audience`, and what it is bound to
    /// still exists.
    pub fn check_token(&self, token: &str, audience: &str) -> Result<Caller, Status> {
        let claims = self.inner.tokens.open(token).ok_or_else(Status::unauthorized)?;
        let number = |key: &str| claims.get(key).and_then(Value::as_u64);
        let now = self.now_unix_seconds();
        let audiences = claims.get("aud").and_then(Value::as_array);
        let meant = audiences.is_some_and(|l| l.iter().any(|a| a == audience));
        if !meant || number("exp").is_none_or(|end| end <= now) {
            return Err(Status::unauthorized());
        }
        let text = |path: &str| claims.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let namespace = text("/kubernetes.io/namespace");
        let account = text("/kubernetes.io/serviceaccount/name");
        let account_uid = text("/kubernetes.io/serviceaccount/uid");
        let mut caller = Caller {
            user: text("/sub").into(),
            uid: account_uid.to_owned(),
            groups: vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{namespace}").into(),
                "system:authenticated".into(),
            ],
            ..Caller::default()
        };
        let mut note = |key: &str, value: String| caller.extra.insert(key.into(), vec![value]);
        if !text("/jti").is_empty() {
            note(EXTRA_CREDENTIAL, format!("JTI={}", text("/jti")));
        }
        let (node, node_uid) = (text("/kubernetes.io/node/name"), text("/kubernetes.io/node/uid"));
        if !node.is_empty() {
            note(EXTRA_NODE_NAME, node.to_owned());
        }
        if !node_uid.is_empty() {
            note(EXTRA_NODE_UID, node_uid.to_owned());
        }
        let stored = |kind, name: &str| self.get(kind, namespace, name).ok();
        for (kind, what) in [(&kinds::NODES, "node"), (&kinds::SECRETS, "secret")] {
            let name = text(&format!("/kubernetes.io/{what}/name"));
            let uid = text(&format!("/kubernetes.io/{what}/uid"));
            // A Pod's token ends with its Pod, not with its Node.
            let is_bound = !name.is_empty() && text("/kubernetes.io/pod/name").is_empty();
            if is_bound && stored(kind, name).is_none_or(|o| object::uid(&o) != uid) {
                return Err(Status::unauthorized());
            }
        }
        let (pod, pod_uid) = (text("/kubernetes.io/pod/name"), text("/kubernetes.io/pod/uid"));
        if pod.is_empty() {
            let found = stored(&kinds::SERVICE_ACCOUNTS, account);
            if found.is_none_or(|a| object::uid(&a) != account_uid) {
                return Err(Status::unauthorized());
            }
        } else {
            if stored(&kinds::PODS, pod).is_none_or(|p| object::uid(&p) != pod_uid) {
                return Err(Status::unauthorized());
            }
            caller.extra.insert(EXTRA_POD_NAME.into(), vec![pod.to_owned()]);
            caller.extra.insert(EXTRA_POD_UID.into(), vec![pod_uid.to_owned()]);
        }
        Ok(caller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_signature_counts() {
        let tokens = Tokens::new(b"key");
        let token = tokens.sign(&json!({"sub": "a"}));
        assert_eq!(tokens.open(&token), Some(json!({"sub": "a"})));
        assert_eq!(Tokens::new(b"other").open(&token), None);
        let forged = token.replacen('.', ".x", 1);
        for bad in ["", ".", "..", "a.b.c", forged.as_str(), &token[..token.len() - 2]] {
            assert_eq!(tokens.open(bad), None, "{bad}");
        }
    }
}
