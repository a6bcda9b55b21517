//! What is wrong in a configuration file, and where.

use std::{fmt, sync::Arc};

/// A place in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Why a configuration is not used: where, and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{spot}: {text}")]
pub struct Fault {
    /// Where.
    pub spot: Spot,
    /// What was expected, and what stands there.
    pub text: String,
}

impl Fault {
    pub(crate) fn new(spot: &Spot, text: impl Into<String>) -> Self {
        Self { spot: spot.clone(), text: text.into() }
    }
}
