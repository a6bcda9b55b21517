//! Kubernetes patches as pure functions over JSON: JSON patch, merge patch, strategic merge patch, server-side apply.
