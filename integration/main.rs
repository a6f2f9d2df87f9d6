//! The built binary, end to end.

mod architecture;
mod builder;
mod harness;
mod import;
mod isolation;
mod run;
