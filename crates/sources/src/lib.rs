//! Adapters that watch the world and report sightings: Kubernetes, the registry on Pods, files.
