//! Where built programs and data are, also when the tests were built elsewhere.

use std::env;
use std::path::{Path, PathBuf};

/// The static program that reports what the process it runs in can see and do.
///
/// It lies beside the tests, where `cargo test --workspace` and `cargo nextest` put it.
pub fn probe() -> PathBuf {
    let test = env::current_exe().expect("the path of this test program");
    let beside = test.parent().and_then(Path::parent).expect("a test program lies in target/PROFILE/deps");
    let path = beside.join("probe");
    assert!(path.is_file(), "{} is missing: run the tests of the whole workspace", path.display());
    path
}

/// The program `name` of the package under test; `built` is `env!("CARGO_BIN_EXE_NAME")`, which is right only
/// where the tests were built. The test runner's variable is right everywhere.
pub fn built_program(name: &str, built: &str) -> PathBuf {
    env::var_os(format!("NEXTEST_BIN_EXE_{name}")).map_or_else(|| PathBuf::from(built), PathBuf::from)
}

/// A file or folder of the demo's sources, also where they were moved after the build.
pub fn demo(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let moved = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let roots = moved.iter().flat_map(|package| {
        // The package under test is the root or one of its members.
        [package.clone(), package.join("..")]
    });
    let mut candidates = roots.chain([here.join("..")]).map(|root| root.join("demo").join(name));
    candidates.find(|path| path.exists()).unwrap_or_else(|| panic!("no {name} in the demo"))
}

/// A buildpack of the demo as a builder has it: what is compiled of it, scripts/demo-builder compiled.
pub fn demo_buildpack(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the path of this test program");
    // TARGET/TRIPLE/PROFILE/deps/TEST
    let target = test.ancestors().nth(4).expect("a test program lies in target/TRIPLE/PROFILE/deps");
    let path = target.join("demo/buildpacks").join(name);
    assert!(path.is_dir(), "{} is missing: run scripts/demo-builder (scripts/test does)", path.display());
    path
}
