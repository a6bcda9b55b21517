//! What server-side apply can refuse, worded as the API server words it.

use std::collections::BTreeMap;
use std::fmt;

use super::managers::Manager;
use super::path::{PathElement, display_path};
use crate::error::Cause;

/// A field that another manager owns and the applied configuration would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The owner.
    pub manager: Manager,
    /// The field.
    pub path: Vec<PathElement>,
}

/// All conflicts of one apply; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Conflict>);

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            let path = display_path(&only.path);
            let manager = &only.manager;
            return write!(f, "Apply failed with 1 conflict: conflict with {manager}: {path}");
        }
        let mut of_manager: BTreeMap<&Manager, Vec<String>> = BTreeMap::new();
        for conflict in &self.0 {
            of_manager.entry(&conflict.manager).or_default().push(display_path(&conflict.path));
        }
        let lines = of_manager.into_iter().flat_map(|(manager, paths)| {
            let head = format!("conflicts with {manager}:");
            std::iter::once(head).chain(paths.into_iter().map(|path| format!("- {path}")))
        });
        let lines: Vec<String> = lines.collect();
        write!(f, "Apply failed with {} conflicts: {}", self.0.len(), lines.join("\n"))
    }
}

/// Why an apply was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Other managers own fields that would change. Answered with 409.
    #[error("{0}")]
    Conflict(Conflicts),
    /// The applied configuration carries managed fields.
    #[error("metadata.managedFields must be nil")]
    ManagedFieldsSet,
    /// The applied configuration is of another version than the live object.
    #[error(
        "Incorrect version specified in apply patch. Specified patch version: {applied}, \
         expected: {expected}"
    )]
    Version {
        /// `apiVersion` of the applied configuration.
        applied: String,
        /// `apiVersion` of the request.
        expected: String,
    },
    /// The applied configuration is no object.
    #[error("error decoding patch: expected a map, found {found}")]
    WrongType {
        /// The JSON type that was found.
        found: &'static str,
    },
    /// A list of the applied configuration has elements that cannot be told apart.
    #[error("failed to create typed patch object ({object}): {reason}")]
    List {
        /// Namespace, name and kind.
        object: String,
        /// Place and fault.
        reason: String,
    },
    /// The stored managed fields cannot be read.
    #[error("failed to decode managed fields: {reason}")]
    Stored {
        /// What is wrong with them.
        reason: String,
    },
}

impl ApplyError {
    /// The HTTP status: 409 for conflicts, 500 for unreadable stored fields and for what the API
    /// server does not foresee (lists that are none), else 400.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::Conflict(_) => 409,
            Self::Stored { .. } | Self::List { .. } => 500,
            _ => 400,
        }
    }

    /// The `reason` word of the `Status`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Conflict(_) => "Conflict",
            Self::Stored { .. } => "InternalError",
            Self::List { .. } => "",
            _ => "BadRequest",
        }
    }

    /// The `details.causes` of the `Status`: one `FieldManagerConflict` per field.
    #[must_use]
    pub fn causes(&self) -> Vec<Cause> {
        let Self::Conflict(Conflicts(conflicts)) = self else {
            return Vec::new();
        };
        let cause = |conflict: &Conflict| Cause {
            reason: "FieldManagerConflict",
            field: display_path(&conflict.path),
            message: format!("conflict with {}", conflict.manager),
        };
        conflicts.iter().map(cause).collect()
    }
}
