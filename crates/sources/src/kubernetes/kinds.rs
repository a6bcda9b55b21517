//! The table of watched kinds: where each lives, and what its objects say.

use portolan_dialects::Dialect;
use portolan_model::{Fact, FactKey, ObjectName, Origin, ServiceKey};
use serde::{Serialize, de::DeserializeOwned};

use super::{convert, objects};
use crate::names::Names;

/// Two sources listen to one watch of Pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Voice {
    /// Source `kubernetes`: what the API's objects say.
    Objects,
    /// Source `pods`: what processes wrote on their Pods.
    Registrations,
}

/// What conversion depends on beside the object.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) workloads: bool,
    pub(super) registrations: bool,
    pub(super) dialects: Vec<Dialect>,
}

/// One thing that an object says.
pub(super) type Said = (Voice, FactKey, Fact);

/// A watched kind.
pub(super) trait Kind: DeserializeOwned + Serialize + Send + Sync + 'static {
    const KIND: &'static str;
    const PLURAL: &'static str;
    /// `api/v1` or `apis/GROUP/VERSION`.
    const API: &'static str = "api/v1";
    const VOICES: &'static [Voice] = &[Voice::Objects];

    fn meta(&self) -> &objects::Meta;
    fn convert(&self, context: &Context, names: &mut Names) -> Vec<Said>;
    /// The key of the one thing that most objects of the kind say. Objects that
    /// say exactly this need no memory of what they said.
    fn primary(object: &ObjectName) -> FactKey;

    fn path(namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) => format!("/{}/namespaces/{namespace}/{}", Self::API, Self::PLURAL),
            None => format!("/{}/{}", Self::API, Self::PLURAL),
        }
    }
}

fn objects(facts: convert::Facts) -> Vec<Said> {
    facts.into_iter().map(|(key, fact)| (Voice::Objects, key, fact)).collect()
}

impl Kind for objects::Namespace {
    const KIND: &'static str = "Namespace";
    const PLURAL: &'static str = "namespaces";

    fn meta(&self) -> &objects::Meta {
        &self.metadata
    }
    fn convert(&self, _: &Context, names: &mut Names) -> Vec<Said> {
        objects(convert::namespace(self, names))
    }
    fn primary(object: &ObjectName) -> FactKey {
        FactKey::Namespace(object.name.clone())
    }
}

impl Kind for objects::Node {
    const KIND: &'static str = "Node";
    const PLURAL: &'static str = "nodes";

    fn meta(&self) -> &objects::Meta {
        &self.metadata
    }
    fn convert(&self, _: &Context, names: &mut Names) -> Vec<Said> {
        objects(convert::node(self, names))
    }
    fn primary(object: &ObjectName) -> FactKey {
        FactKey::Node(object.name.clone())
    }
}

impl Kind for objects::Service {
    const KIND: &'static str = "Service";
    const PLURAL: &'static str = "services";

    fn meta(&self) -> &objects::Meta {
        &self.metadata
    }
    fn convert(&self, _: &Context, names: &mut Names) -> Vec<Said> {
        objects(convert::service(self, names))
    }
    fn primary(object: &ObjectName) -> FactKey {
        FactKey::Service(ServiceKey {
            origin: Origin::kubernetes(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        })
    }
}

impl Kind for objects::ServiceImport {
    const KIND: &'static str = "ServiceImport";
    const PLURAL: &'static str = "serviceimports";
    const API: &'static str = "apis/multicluster.x-k8s.io/v1alpha1";

    fn meta(&self) -> &objects::Meta {
        &self.metadata
    }
    fn convert(&self, _: &Context, names: &mut Names) -> Vec<Said> {
        objects(convert::service_import(self, names))
    }
    fn primary(object: &ObjectName) -> FactKey {
        FactKey::Service(ServiceKey {
            origin: Origin::clusterset(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        })
    }
}

impl Kind for objects::EndpointSlice {
    const KIND: &'static str = "EndpointSlice";
    const PLURAL: &'static str = "endpointslices";
    const API: &'static str = "apis/discovery.k8s.io/v1";

    fn meta(&self) -> &objects::Meta {
        &self.metadata
    }
    fn convert(&self, _: &Context, names: &mut Names) -> Vec<Said> {
        objects(convert::endpoint_slice(self, names))
    }
    fn primary(object: &ObjectName) -> FactKey {
        FactKey::EndpointSlice(Origin::kubernetes(), object.clone())
    }
}

impl Kind for objects::Pod {
    const KIND: &'static str = "Pod";
    const PLURAL: &'static str = "pods";
    const VOICES: &'static [Voice] = &[Voice::Objects, Voice::Registrations];

    fn meta(&self) -> &objects::Meta {
        &self.metadata
    }
    fn convert(&self, context: &Context, names: &mut Names) -> Vec<Said> {
        let mut said = Vec::new();
        if context.workloads {
            said.extend(objects(convert::workload(self, names)));
        }
        if context.registrations {
            let facts = convert::registrations(self, &context.dialects, names);
            said.extend(facts.into_iter().map(|(key, fact)| (Voice::Registrations, key, fact)));
        }
        said
    }
    fn primary(object: &ObjectName) -> FactKey {
        FactKey::Workload(object.clone())
    }
}
