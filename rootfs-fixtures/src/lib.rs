//! Root filesystems, builders, buildpacks and registries for tests.
