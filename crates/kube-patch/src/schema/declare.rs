//! The words in which schema tables are written.
//!
//! A table tells only exceptions. A field that is not mentioned behaves by its JSON type: a scalar
//! is a leaf, an object merges member by member, a list is atomic (replaced and owned as a whole).
//! So a table names the lists that merge, the objects that do not, the maps
//! whose keys are data, and whatever leads to them.
//!
//! ```
//! use portolan_kube_patch::schema::declare::{keyed, member, Type, ANY};
//! use portolan_kube_patch::Schema;
//!
//! static SPEC: Type = Type::of(&[keyed("ports", &["port", "protocol"], &ANY).default_key("protocol", "TCP")]);
//! static SERVICE: Type = Type::of(&[member("spec", &SPEC)]);
//! let schema = Schema::declared(&SERVICE);
//! assert!(schema.root().field("spec").field("ports").list().is_map());
//! ```
//!
//! Everything is `const`, so tables are `static` and may refer to each other, and to themselves.

/// The shape of an object: the fields that need a word.
#[derive(Debug)]
pub struct Type {
    pub(super) fields: &'static [Field],
    pub(super) atomic: bool,
    pub(super) free: bool,
}

impl Type {
    /// An object that merges member by member, with these notable fields.
    #[must_use]
    pub const fn of(fields: &'static [Field]) -> Self {
        Self { fields, atomic: false, free: false }
    }

    /// An object that one manager owns as a whole (`structType=atomic` or `mapType=atomic`).
    #[must_use]
    pub const fn atomic(fields: &'static [Field]) -> Self {
        Self { fields, atomic: true, free: false }
    }
}

/// No notable fields: everything by its JSON type.
pub static ANY: Type = Type::of(&[]);

/// An object owned as a whole.
pub static ATOMIC: Type = Type::atomic(&[]);

/// A map whose keys are data, not field names (labels, resource amounts), to any depth. When its
/// last entry leaves, server-side apply does not take the map for an abandoned struct.
pub static FREE: Type = Type { fields: &[], atomic: false, free: true };

/// One notable field of a [`Type`].
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub(super) name: &'static str,
    pub(super) value: &'static Type,
    pub(super) list: Option<List>,
    pub(super) merge: Merge,
    pub(super) retain_keys: bool,
}

/// `listType` of a field that is a list.
#[derive(Clone, Copy, Debug)]
pub(super) enum List {
    Atomic,
    Set,
    Map {
        keys: &'static [&'static str],
        default: Option<(&'static str, &'static str)>,
        number: Option<&'static str>,
        optional: bool,
    },
}

/// `patchStrategy` and `patchMergeKey` of a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Merge {
    /// None given: objects merge, lists are replaced.
    ByType,
    /// `replace`.
    Replace,
    /// `merge` on a list of scalars.
    Scalars,
    /// `merge` on a list of objects.
    By(&'static str),
}

/// A field that holds an object.
#[must_use]
pub const fn member(name: &'static str, value: &'static Type) -> Field {
    Field { name, value, list: None, merge: Merge::ByType, retain_keys: false }
}

/// A field that holds an object (or map) owned as a whole by server-side apply. Patches still
/// merge it member by member.
#[must_use]
pub const fn atomic(name: &'static str) -> Field {
    member(name, &ATOMIC)
}

/// A field that holds a map whose keys are data, each owned by itself.
#[must_use]
pub const fn free(name: &'static str) -> Field {
    member(name, &FREE)
}

/// A list of objects with identity: `listType=map` with these keys, and `patchStrategy=merge` by
/// the first of them. Keys are texts that every element has, if only an empty one, unless another
/// word is said: Go's zero value is the default of what is no pointer.
#[must_use]
pub const fn keyed(
    name: &'static str,
    keys: &'static [&'static str],
    item: &'static Type,
) -> Field {
    let merge = match keys {
        [first, ..] => Merge::By(first),
        [] => Merge::ByType,
    };
    let list = Some(List::Map { keys, default: None, number: None, optional: false });
    Field { name, value: item, list, merge, retain_keys: false }
}

/// A list of distinct scalars: `listType=set`. Strategic merge replaces it unless
/// [`Field::merged`].
#[must_use]
pub const fn set(name: &'static str) -> Field {
    let list = Some(List::Set);
    Field { name, value: &ANY, list, merge: Merge::ByType, retain_keys: false }
}

/// A list owned as a whole whose elements have notable fields; or one that strategic merge treats
/// otherwise than server-side apply (see [`Field::merged_by`]).
#[must_use]
pub const fn list(name: &'static str, item: &'static Type) -> Field {
    let list = Some(List::Atomic);
    Field { name, value: item, list, merge: Merge::ByType, retain_keys: false }
}

impl Field {
    /// Strategic merge replaces the whole field (`patchStrategy=replace`, or a keyed list without
    /// any patch strategy).
    #[must_use]
    pub const fn replaced(mut self) -> Self {
        self.merge = Merge::Replace;
        self
    }

    /// Strategic merge unites the scalars of the list (`patchStrategy=merge` without a key).
    #[must_use]
    pub const fn merged(mut self) -> Self {
        self.merge = Merge::Scalars;
        self
    }

    /// Strategic merge matches the list's objects by `key` (`patchMergeKey`).
    #[must_use]
    pub const fn merged_by(mut self, key: &'static str) -> Self {
        self.merge = Merge::By(key);
        self
    }

    /// `patchStrategy=retainKeys`: a client that changes the field names the keys to be kept. The
    /// server acts on the `$retainKeys` directive wherever it comes; this mark is for clients that
    /// compute patches.
    #[must_use]
    pub const fn retain_keys(mut self) -> Self {
        self.retain_keys = true;
        self
    }

    /// An element of the keyed list that lacks `key` counts as having this text there.
    #[must_use]
    pub const fn default_key(mut self, key: &'static str, value: &'static str) -> Self {
        if let Some(List::Map { keys, number, optional, .. }) = self.list {
            self.list = Some(List::Map { keys, default: Some((key, value)), number, optional });
        }
        self
    }

    /// This key of the keyed list is a number, 0 where it is missing.
    #[must_use]
    pub const fn number_key(mut self, key: &'static str) -> Self {
        if let Some(List::Map { keys, default, optional, .. }) = self.list {
            self.list = Some(List::Map { keys, default, number: Some(key), optional });
        }
        self
    }

    /// Elements of the keyed list may be without keys, and cannot be told apart then.
    #[must_use]
    pub const fn optional_keys(mut self) -> Self {
        if let Some(List::Map { keys, default, number, .. }) = self.list {
            self.list = Some(List::Map { keys, default, number, optional: true });
        }
        self
    }
}
