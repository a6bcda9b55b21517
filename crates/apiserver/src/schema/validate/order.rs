//! In which order a changed object of each kind is looked at.
//!
//! Upstream has no one order: some kinds tell of the change first, some of the new state, and some
//! look at the same thing twice. All causes are reported, in the order in which they are found,
//! so the order is part of the answer. Each list is that of the kind's `ValidateUpdate`.

use crate::Kind;

/// One look at a changed object.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// Its metadata, by the rules for new objects.
    Meta,
    /// The change of its metadata.
    MetaChange,
    /// What holds for every state of it.
    Body,
    /// What of it may not change.
    Change,
}

/// The order of a kind.
pub(super) fn of(kind: &Kind) -> &'static [Step] {
    use Step::{Body, Change, Meta, MetaChange};
    match (kind.group, kind.plural) {
        ("", "services" | "configmaps" | "secrets") => &[MetaChange, Change, Meta, Body],
        ("", "nodes") => &[Meta, Body, MetaChange, Change],
        ("", "namespaces") => &[Meta, Body, MetaChange],
        ("", "events") => &[Body],
        ("", _) | ("apps", "controllerrevisions") => &[MetaChange, Meta, Body, Change],
        ("apps", "deployments" | "statefulsets") => &[MetaChange, Body, Change],
        ("apps", _) => &[Meta, Body, MetaChange, Body, Change],
        ("discovery.k8s.io", _) => &[Meta, Body, Change],
        ("networking.k8s.io", "ipaddresses") => &[Meta, Body, MetaChange, Change],
        ("networking.k8s.io", _) => &[MetaChange, Change],
        ("rbac.authorization.k8s.io", _) => &[Meta, Body, Meta, Body, MetaChange, Change],
        _ => &[MetaChange, Body, Change],
    }
}
