//! Sightings in, immutable snapshots and diffs out: the one versioned truth behind every face.
