//! Folders that root gives to the build's user: what strangers put in them, or on the way to them, gives nothing else away.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use coracle_fixtures::RegistryAccess;

use super::container::{Container, Who};
use super::{buildpack, create};

#[test]
fn a_folder_that_a_stranger_filled_gives_nothing_away_to_the_build_s_user() {
    let container = Container::new(RegistryAccess::Password, &[buildpack()]);
    container.write("root/secret", "for root alone", 0o600);
    container.as_root("cd layers && mkdir -p deep/er && touch deep/er/file && ln -s /root/secret link && ln -s /root folder");
    assert_eq!(create(&container, Who::Root, "stranger").code, Some(0));
    let listing = container.owned(&["layers", "root"]);
    for line in [
        "layers/deep 1001:1002",
        "layers/deep/er/file 1001:1002",
        "layers/link 1001:1002",
        "root/secret 0:0",
        "root 0:0",
    ] {
        assert!(listing.lines().any(|found| found == line), "{line} in {listing}");
    }
    let mode =
        fs::symlink_metadata(container.path("root/secret")).expect("look at a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_link_in_somebody_s_sources_makes_no_folder_the_build_s_user_s() {
    let marks = buildpack().detect("touch /workspace/ran");
    let container = Container::new(RegistryAccess::Password, &[marks]);
    container.as_root(
        "mkdir -p etc/kept && touch etc/kept/file && ln -s ../etc/kept workspace/cache && ln -s /etc workspace/up
        chown -h 1001:1002 workspace/cache workspace/up; ln -s workspace by-root; mkdir workspace/own",
    );
    let image = container.registry.reference("linked");
    let auth = container.header();
    let create = |cache: &str| {
        let variable = [("CNB_REGISTRY_AUTH", auth.as_str())];
        container.ran(Who::Root, "creator", &["-cache-dir", cache, &image], &variable)
    };
    for (cache, link) in [("/workspace/cache", "/workspace/cache"), ("workspace/up/kept", "/workspace/up")] {
        let ran = create(cache);
        assert_eq!(ran.code, Some(1), "{cache}: {}{}", ran.stdout, ran.stderr);
        let said =
            format!("`{link}` is a link of user 1001, which root does not follow: name the folder itself");
        assert!(ran.stderr.contains(&said), "{}", ran.stderr);
        assert!(!container.path("workspace/ran").exists(), "{cache}");
    }
    let listing = container.owned(&["etc/kept"]);
    assert_eq!(listing, "etc/kept 0:0\netc/kept/file 0:0\n");
    // A link of root's own is the platform's.
    assert_eq!(create("/by-root/own").code, Some(0));
}
