//! Nodes and Namespaces.

use portolan_model::{Fact, FactKey, Namespace, Node};

use super::{Facts, ZONE_LABEL, parse_addresses, some};
use crate::{kubernetes::objects, names::Names};

/// A Namespace.
pub(crate) fn namespace(object: &objects::Namespace, names: &mut Names) -> Facts {
    let name = names.get(&object.metadata.name);
    let labels = names.map(&object.metadata.labels);
    vec![(FactKey::Namespace(name.clone()), Fact::Namespace(Namespace { name, labels }))]
}

/// A Node.
pub(crate) fn node(object: &objects::Node, names: &mut Names) -> Facts {
    let name = names.get(&object.metadata.name);
    let (addresses, _) = parse_addresses(
        object
            .status
            .addresses
            .iter()
            .filter(|address| address.kind == "InternalIP")
            .map(|address| address.address.as_str()),
    );
    let zone = object.metadata.labels.get(ZONE_LABEL).and_then(|text| some(text));
    let ready = object.status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "True");
    let node =
        Node { name: name.clone(), zone: zone.map(|zone| names.get(zone)), addresses, ready };
    vec![(FactKey::Node(name), Fact::Node(node))]
}
