//! The built binary, end to end.

mod architecture;
mod harness;
mod run;
