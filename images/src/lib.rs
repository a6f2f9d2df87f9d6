//! OCI images
