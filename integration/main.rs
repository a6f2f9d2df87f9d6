//! The built binary, end to end.

mod again;
mod applications;
mod architecture;
mod attack;
mod build;
mod builder;
mod detect;
mod features;
mod foreign_platform;
mod generate;
mod golden;
mod harness;
mod import;
mod isolation;
mod kill;
mod layers;
mod libcnb;
mod messages;
mod no_range;
mod options;
mod phases;
mod rebase;
mod registries;
mod release;
mod run;
mod site;
