//! Pure codecs of what processes write on their Pods.
