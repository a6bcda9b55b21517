//! Everything that writes to the world: the registrar of Pods.
