//! What an earlier build left in a layers' folder that a platform keeps.

use std::fs;

use super::restored::{Builds, GROUP};

const TYPES: &str = "[types]\ncache = true\nlaunch = true\n";

/// As the reference: a cached layer whose metadata do not come back with the cache's digest is not there, whatever of it is.
#[test]
fn a_cached_layer_that_does_not_come_back_does_not_stay_either() {
    let at = |name: &str, sha: &str| {
        format!("[metadata.buildpacks.layers.{name}]\nsha = \"{sha}\"\nlaunch = true\ncache = true\n")
    };
    let other = format!("sha256:{}", "0".repeat(64));
    for (layers, more, stays) in [
        (at("x", &other), &[][..], false),
        (String::new(), &[], false),
        (at("x", &other), &["-skip-layers"], false),
        (at("x", "SHA"), &[], true),
    ] {
        let builds = Builds::new(GROUP);
        builds.write("a_one/x/file", "cached");
        builds.write("a_one/x.toml", TYPES);
        builds.end();
        let sha = builds.archives()[0].0.trim_end_matches(".tar").to_owned();
        let analyzed = format!(
            "[[metadata.buildpacks]]\nkey = \"a/one\"\nversion = \"1\"\n{}",
            layers.replace("SHA", &sha)
        );
        builds.write("a_one/x/stale", "of another build");
        builds.write("a_one/x.toml", TYPES);
        builds.write("a_one/uncached/file", "not the cache's");
        builds.restore_after(&analyzed, more).unwrap();
        let tree = builds.tree();
        assert!(!tree.iter().any(|path| path.contains("stale")), "{layers} {more:?}: {tree:?}");
        assert_eq!(builds.layers().join("a_one/x").exists(), stays, "{layers} {more:?}: {tree:?}");
        assert_eq!(builds.layers().join("a_one/x.toml").exists(), stays, "{layers} {more:?}: {tree:?}");
        assert_eq!(
            fs::read_to_string(builds.layers().join("a_one/uncached/file")).unwrap(),
            "not the cache's"
        );
    }
}
