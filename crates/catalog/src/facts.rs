//! What each source has said.
