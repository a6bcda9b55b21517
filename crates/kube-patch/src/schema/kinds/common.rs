//! What many kinds share: metadata, conditions.

use crate::schema::declare::{ANY, ATOMIC, Field, Type, free, keyed, member, set};

pub(super) static OBJECT_META: Type = Type::of(&[
    keyed("ownerReferences", &["uid"], &ATOMIC),
    set("finalizers").merged(),
    free("labels"),
    free("annotations"),
]);

/// Amounts of resources: the part of `ResourceRequirements` that all holders of it share.
pub(super) static AMOUNTS: Type = Type::of(&[free("limits"), free("requests")]);

/// `conditions`, matched by `type`.
pub(super) const CONDITIONS: Field = keyed("conditions", &["type"], &ANY);

/// A status with conditions and nothing else of note.
pub(super) static CONDITIONS_STATUS: Type = Type::of(&[CONDITIONS]);

/// Nothing of note beside metadata.
pub(super) static PLAIN: Type = Type::of(&[member("metadata", &OBJECT_META)]);

/// Metadata and a status with conditions.
pub(super) static WITH_CONDITIONS: Type =
    Type::of(&[member("metadata", &OBJECT_META), member("status", &CONDITIONS_STATUS)]);
