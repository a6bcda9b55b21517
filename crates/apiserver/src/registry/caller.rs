//! Who asks: the identity that authentication found.

use std::{collections::BTreeMap, sync::Arc};

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

/// An authenticated user.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Caller {
    /// User name.
    pub user: Arc<str>,
    /// User id; often empty.
    pub uid: String,
    /// Groups.
    pub groups: Vec<Arc<str>>,
    /// Anything else that authentication knows, such as the Pod that a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
    /// The program that asks, for parts of this process: what upstream's User-Agent says of them,
    /// and so the name under which they own fields. Empty for everybody else.
    pub program: Arc<str>,
}

/// Key of [`Caller::extra`]: the Pod that the token is bound to (KEP-1205).
pub const EXTRA_POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// Key of [`Caller::extra`]: that Pod's uid.
pub const EXTRA_POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Key of [`Caller::extra`]: the Node that the token, or its Pod, is bound to (KEP-4193).
pub(super) const EXTRA_NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// Key of [`Caller::extra`]: that Node's uid.
pub(super) const EXTRA_NODE_UID: &str = "authentication.kubernetes.io/node-uid";
/// Key of [`Caller::extra`]: which token it is (KEP-4193).
pub(super) const EXTRA_CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

/// The Pod behind a Pod-bound token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundPod<'a> {
    /// Namespace of the Pod, from its ServiceAccount's user name.
    pub namespace: &'a str,
    /// `metadata.name`.
    pub name: &'a str,
    /// `metadata.uid`.
    pub uid: &'a str,
}

impl Caller {
    /// A part of this process, which may do everything.
    pub fn system(component: &str) -> Caller {
        Caller {
            user: format!("system:{component}").into(),
            groups: vec![MASTERS.into(), "system:authenticated".into()],
            ..Caller::default()
        }
    }

    /// The same caller as a part of this program of upstream.
    #[must_use]
    pub fn within(mut self, program: &str) -> Caller {
        self.program = program.into();
        self
    }

    /// Whether the caller may do everything.
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|g| &**g == MASTERS)
    }

    /// `(namespace, name)` when the caller is a ServiceAccount.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        self.user.strip_prefix("system:serviceaccount:")?.split_once(':')
    }

    /// The Pod that the caller's token is bound to.
    pub fn bound_pod(&self) -> Option<BoundPod<'_>> {
        let one = |key: &str| self.extra.get(key)?.first().map(String::as_str);
        Some(BoundPod {
            namespace: self.service_account()?.0,
            name: one(EXTRA_POD_NAME)?,
            uid: one(EXTRA_POD_UID)?,
        })
    }
}
