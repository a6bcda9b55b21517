//! Serde types of the HTTP API and of addresses.json, shared by servers and clients.
