//! The embedded cluster: API server, controllers and the runner of Pods.
