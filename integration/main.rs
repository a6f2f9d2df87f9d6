//! The built binary, end to end.

mod architecture;
mod build;
mod builder;
mod harness;
mod import;
mod isolation;
mod kill;
mod no_range;
mod run;
mod site;
