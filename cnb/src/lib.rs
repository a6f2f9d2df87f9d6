//! the documents of the Cloud Native Buildpacks specification, as types
