//! The built binary, end to end.
