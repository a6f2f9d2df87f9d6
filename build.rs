//! Builds the launcher, the small static program that every application image starts with, and names its path to
//! `src/launcher.rs`, which carries it inside the main program. It is built by the same cargo, with what this
//! workspace has locked, in a target folder of its own, because cargo cannot yet make one package's program a
//! dependency of another's (docs/decisions/0004). That takes a while, in which cargo names only this script.
//!
//! Lists what each of the two programs is linked of, for `src/sbom.rs`.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What both programs are made with.
const MANIFESTS: [&str; 8] = [
    "Cargo.lock",
    "Cargo.toml",
    "authorities/Cargo.toml",
    "cnb/Cargo.toml",
    "images/Cargo.toml",
    "lifecycle/Cargo.toml",
    "runtime/Cargo.toml",
    "build.rs",
];

fn main() {
    for path in ["lifecycle/src", "cnb/src"].iter().chain(&MANIFESTS) {
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
    list_linked("lifecycle", &["--package", "coracle"]);
    list_linked("launcher", &["--package", "coracle-lifecycle", "--no-default-features"]);
}

/// Writes a line for each package that a program is linked of: `NAME VERSION ORIGIN LICENCE`, the origin `crate` where it
/// is crates.io's, `own` where it is this workspace's, `toolchain` where it comes with the compiler or the system.
fn list_linked(program: &str, arguments: &[&str]) {
    let variable = |name: &str| env::var(name).unwrap_or_else(|error| panic!("read {name}: {error}"));
    let output = |command: &mut Command| {
        let output = command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    };
    let mut tree = Command::new(variable("CARGO"));
    // What macros are made of is not linked.
    tree.current_dir(variable("CARGO_MANIFEST_DIR")).args([
        "tree",
        "--locked",
        "--edges",
        "normal,no-proc-macro",
    ]);
    tree.args(["--prefix", "none", "--format", "{p}|{l}", "--target", &variable("TARGET")]).args(arguments);
    let packages = output(&mut tree);
    let mut lines: BTreeSet<String> = packages.lines().filter(|line| !line.is_empty()).map(package).collect();
    let version = output(Command::new(variable("RUSTC")).arg("--version"));
    let version = version.split(' ').nth(1).unwrap_or_default();
    lines.insert(format!("rust-std {version} toolchain MIT OR Apache-2.0"));
    // Where the C library is linked into the program, and says of which version it is.
    if let Ok(answer) = Command::new("getconf").arg("GNU_LIBC_VERSION").output()
        && let Some(("glibc", version)) = String::from_utf8_lossy(&answer.stdout).trim_end().split_once(' ')
    {
        lines.insert(format!("glibc {version} toolchain LGPL-2.1-or-later"));
    }
    let path = PathBuf::from(variable("OUT_DIR")).join(format!("{program}.linked"));
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(&path, text).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    println!("cargo::rustc-env=CORACLE_LINKED_{}={}", program.to_uppercase(), path.display());
}

/// `NAME vVERSION (FOLDER)|LICENCE`, the folder where it is one of this workspace, and maybe a mark at the end.
fn package(line: &str) -> String {
    let (package, licence) = line.trim_end_matches(" (*)").split_once('|').unwrap_or((line, ""));
    let mut words = package.split(' ');
    let (name, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (name, origin) = match words.next() {
        None => (name, "crate"),
        // By the name that it has here, where it is known to cargo by that of another.
        Some(_) if name == "rustls-platform-verifier" => ("coracle-authorities", "own"),
        Some(_) => (name, "own"),
    };
    let version = version.trim_start_matches('v');
    format!("{name} {version} {origin} {}", licence.replace('/', " OR "))
}

/// That of `.cargo/config.toml`; no relocation, which is a part of the launcher's time (docs/decisions/0004); and names for the folders of this machine instead of their paths.
fn flags(workspace: &str) -> Vec<String> {
    let home = env::var("CARGO_HOME").or_else(|_| env::var("HOME").map(|home| format!("{home}/.cargo")));
    let folders = [(workspace.to_owned(), "coracle"), (home.unwrap_or_default(), "cargo")];
    let named = folders.iter().filter(|(folder, _)| !folder.is_empty());
    let renamed = named.map(|(folder, name)| format!("--remap-path-prefix={folder}={name}"));
    let fixed = ["-Ctarget-feature=+crt-static", "-Crelocation-model=static"].map(str::to_owned);
    fixed.into_iter().chain(renamed).collect()
}
