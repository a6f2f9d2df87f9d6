//! Builds the launcher, the small static program that every application image starts with, and names its path to
//! `src/launcher.rs`, which carries it inside the main program. It is built by the same cargo, with what this
//! workspace has locked, in a target folder of its own, because cargo cannot yet make one package's program a
//! dependency of another's (docs/decisions/0004).

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    for path in ["lifecycle/src", "lifecycle/Cargo.toml", "cnb/src", "cnb/Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let variable = |name: &str| env::var(name).unwrap_or_else(|error| panic!("read {name}: {error}"));
    let target_dir = PathBuf::from(variable("OUT_DIR")).join("launcher");
    let target = variable("TARGET");
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .current_dir(variable("CARGO_MANIFEST_DIR"))
        .args(["build", "--locked", "--package", "coracle-lifecycle", "--bin", "launcher"])
        .args(["--no-default-features", "--profile", "launcher", "--target", &target, "--target-dir"])
        .arg(&target_dir)
        // No folder of this machine may be in it: its digest is part of every image.
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&variable("CARGO_MANIFEST_DIR")).join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        // Lints and coverage of the outer build are not for this one.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER");
    let status = cargo.status().unwrap_or_else(|error| panic!("start cargo for the launcher: {error}"));
    assert!(status.success(), "the launcher could not be built (cargo's messages are above)");
    let program = target_dir.join(target).join("launcher/launcher");
    println!("cargo::rustc-env=CORACLE_LAUNCHER={}", program.display());
}

/// Those of `.cargo/config.toml`, and names for the folders of this machine instead of their paths.
fn flags(workspace: &str) -> Vec<String> {
    let home = env::var("CARGO_HOME").or_else(|_| env::var("HOME").map(|home| format!("{home}/.cargo")));
    let folders = [(workspace.to_owned(), "coracle"), (home.unwrap_or_default(), "cargo")];
    let named = folders.iter().filter(|(folder, _)| !folder.is_empty());
    let renamed = named.map(|(folder, name)| format!("--remap-path-prefix={folder}={name}"));
    std::iter::once("-Ctarget-feature=+crt-static".to_owned()).chain(renamed).collect()
}
