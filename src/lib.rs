//! The conductor of one build.
