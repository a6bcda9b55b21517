//! What can go wrong, each with what to do about it.

use portolan_dialects::EncodeError;

/// Why a call to the registry failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing tells which namespace the process runs in.
    #[error(
        "the namespace is not known: neither NAMESPACE nor POD_NAMESPACE is set, and there is no \
         ServiceAccount; fix: give the container an env entry NAMESPACE with \
         valueFrom.fieldRef.fieldPath: metadata.namespace"
    )]
    NamespaceUnknown,
    /// Nothing tells which Pod the process runs in, so it cannot register.
    #[error(
        "the own Pod is not known: neither POD_NAME nor HOSTNAME is set; fix: give the container \
         an env entry POD_NAME with valueFrom.fieldRef.fieldPath: metadata.name"
    )]
    PodUnknown,
    /// There is no such Pod.
    #[error(
        "there is no Pod {pod} in namespace {namespace}; fix: set POD_NAME from the Downward API \
         (metadata.name): HOSTNAME is another name with hostNetwork, spec.hostname or a long Pod name"
    )]
    PodNotFound {
        /// Where it was looked for.
        namespace: String,
        /// Its name.
        pod: String,
    },
    /// Another Pod has taken the name since: this process is not in it.
    #[error(
        "Pod {pod} in namespace {namespace} was replaced by another of the same name; this process \
         belongs to the earlier one and may not register any more"
    )]
    PodReplaced {
        /// Where.
        namespace: String,
        /// Its name.
        pod: String,
    },
    /// A setting is missing or makes no sense.
    #[error("{name}: {problem}; fix: {fix}")]
    Setting {
        /// The environment variable, or the builder's word.
        name: &'static str,
        /// What is wrong.
        problem: String,
        /// What to do.
        fix: &'static str,
    },
    /// No way to the API was given or found.
    #[error(
        "no Kubernetes API was found: {detail}; fix: set PORTOLAN_API, PORTOLAN_TOKEN_FILE and \
         PORTOLAN_CA_FILE, run in a Pod with a ServiceAccount token, or set KUBECONFIG"
    )]
    NoApi {
        /// What was tried.
        detail: String,
    },
    /// A registration cannot be written. Nothing was.
    #[error(transparent)]
    Invalid(#[from] EncodeError),
    /// The API refused.
    #[error("the API refused to {action}: {code} {reason}: {message}{}", permission(*code))]
    Refused {
        /// What was tried.
        action: String,
        /// HTTP status.
        code: u16,
        /// The API's word for it.
        reason: String,
        /// The API's explanation.
        message: String,
    },
    /// The API did not answer, or not in time, in all tries.
    #[error("cannot {action}: {detail}")]
    Unreachable {
        /// What was tried.
        action: String,
        /// What went wrong, to the innermost cause.
        detail: String,
    },
    /// Others changed the Pod between each reading and writing.
    #[error(
        "Pod {pod} was changed by others in all of {tries} tries; fix: try again, and look for a \
         controller that rewrites the Pod in a circle"
    )]
    Contended {
        /// Which.
        pod: String,
        /// How often it was tried.
        tries: u32,
    },
}

impl Error {
    /// Trying on will not help, and nothing that was known before makes up for it.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Refused { code: 400 | 401 | 403 | 404, .. })
    }
}

fn permission(code: u16) -> &'static str {
    match code {
        401 => "; fix: check that the token is of this cluster and has not expired",
        403 => {
            "; fix: allow the Pod's ServiceAccount to get, list, watch and patch pods in its namespace"
        }
        _ => "",
    }
}

/// An error with what caused it: "connection refused" is at the far end.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_fix() {
        for (code, expected) in [(401, "token"), (403, "ServiceAccount"), (422, "")] {
            let error = Error::Refused {
                action: "list Pods".into(),
                code,
                reason: "R".into(),
                message: "m".into(),
            };
            let text = error.to_string();
            assert!(text.starts_with(&format!("the API refused to list Pods: {code} R: m")));
            assert!(text.contains(expected), "{text}");
            assert_eq!(text.contains("fix:"), !expected.is_empty(), "{text}");
        }
    }
}
