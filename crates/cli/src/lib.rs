//! The command tree as a library, and the reading verbs.
