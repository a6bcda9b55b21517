//! From facts to service entries.
