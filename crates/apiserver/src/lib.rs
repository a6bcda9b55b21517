//! An embedded Kubernetes API: machinery and store.
