//! Questions people ask, answered from a snapshot: list, why, sync status.
