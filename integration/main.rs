//! The built binary, end to end.

mod architecture;
