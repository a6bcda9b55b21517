//! The HTTP face: JSON, server-sent events, health and metrics.
