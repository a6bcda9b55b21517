//! Names of things: origins, objects and services.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

/// The built-in origins stand in every key: one string each.
static KUBERNETES: LazyLock<Name> = LazyLock::new(|| name(Origin::KUBERNETES));
static REGISTRY: LazyLock<Name> = LazyLock::new(|| name(Origin::REGISTRY));
static CLUSTERSET: LazyLock<Name> = LazyLock::new(|| name(Origin::CLUSTERSET));

/// A shared, immutable string. Names repeat in thousands of endpoints; sharing
/// them is what keeps 100,000 endpoints within the memory budget.
pub type Name = Arc<str>;

/// Makes a [`Name`].
pub fn name(text: &str) -> Name {
    Arc::from(text)
}

/// Where a service is known from. Origins are never merged: two services of
/// different origins are two services, even under one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(Name);

impl Origin {
    /// Kubernetes Services.
    pub const KUBERNETES: &'static str = "kubernetes";
    /// Processes that registered themselves on their Pods.
    pub const REGISTRY: &'static str = "registry";
    /// Services that other clusters of the set export (ServiceImports).
    pub const CLUSTERSET: &'static str = "clusterset";
    /// Names that no configured source may take: they have a meaning in DNS
    /// names or belong to the built-in origins.
    pub const RESERVED: [&'static str; 5] =
        ["svc", "pod", Self::KUBERNETES, Self::REGISTRY, Self::CLUSTERSET];

    /// The origin of Kubernetes Services.
    pub fn kubernetes() -> Self {
        Self(KUBERNETES.clone())
    }

    /// The origin of the registry on Pods.
    pub fn registry() -> Self {
        Self(REGISTRY.clone())
    }

    /// The origin of services that other clusters of the set export.
    pub fn clusterset() -> Self {
        Self(CLUSTERSET.clone())
    }

    /// An origin that the configuration names. `Err` carries what is wrong:
    /// the name must be a DNS label and not one of [`Origin::RESERVED`].
    pub fn configured(text: &str) -> Result<Self, String> {
        let label = !text.is_empty()
            && text.len() <= 63
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if !label {
            return Err(format!(
                "{text:?} is no DNS label: use lower-case letters, digits and '-', at most 63"
            ));
        }
        if Self::RESERVED.contains(&text) {
            return Err(format!("{text:?} is reserved; choose another name for the source"));
        }
        Ok(Self(name(text)))
    }

    /// Whether services of this origin exist by declaration only: endpoints that
    /// outlive it make no service.
    pub fn is_declarative(&self) -> bool {
        matches!(&*self.0, Self::KUBERNETES | Self::CLUSTERSET)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, shared.
    pub fn shared(&self) -> Name {
        self.0.clone()
    }

    /// An origin read back from text that a program wrote (a URL, a flag). Any
    /// text is taken: an unknown origin simply has no services.
    pub fn from_text(text: &str) -> Self {
        Self(name(text))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A namespaced object: Pod, EndpointSlice, ...
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Empty for cluster-scoped objects.
    pub namespace: Name,
    /// `metadata.name`.
    pub name: Name,
}

impl ObjectName {
    /// Names an object.
    pub fn new(namespace: &str, object: &str) -> Self {
        Self { namespace: name(namespace), name: name(object) }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The one identity of a service. For the registry on Pods the name is the
/// interface; group and version are attributes of its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Where it is known from.
    pub origin: Origin,
    /// The namespace it lives in.
    pub namespace: Name,
    /// Its name; may hold dots for origins other than Kubernetes.
    pub name: Name,
}

impl ServiceKey {
    /// Names a service of any origin.
    pub fn new(origin: Origin, namespace: &str, service: &str) -> Self {
        Self { origin, namespace: name(namespace), name: name(service) }
    }

    /// Names a Kubernetes Service.
    pub fn kubernetes(namespace: &str, service: &str) -> Self {
        Self::new(Origin::kubernetes(), namespace, service)
    }

    /// Names a service of the registry on Pods.
    pub fn registry(namespace: &str, service: &str) -> Self {
        Self::new(Origin::registry(), namespace, service)
    }
}

impl fmt::Display for ServiceKey {
    /// `namespace/name` for Kubernetes, `origin:namespace/name` otherwise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin.as_str() != Origin::KUBERNETES {
            write!(f, "{}:", self.origin)?;
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_origins_are_labels_and_not_reserved() {
        for (text, fine) in [
            ("consul", true),
            ("dc-1", true),
            ("", false),
            ("svc", false),
            ("registry", false),
            ("clusterset", false),
            ("Upper", false),
            ("-a", false),
            ("a.b", false),
        ] {
            assert_eq!(Origin::configured(text).is_ok(), fine, "{text:?}");
        }
    }
}
