//! The built binary, end to end.

mod again;
mod architecture;
mod attack;
mod build;
mod builder;
mod harness;
mod import;
mod isolation;
mod kill;
mod no_range;
mod phases;
mod rebase;
mod run;
mod site;
