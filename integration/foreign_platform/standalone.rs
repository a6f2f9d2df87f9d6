//! The detector and the builder by themselves: what their programs find of credentials that a platform left lying, and what becomes
//! of layers that several buildpacks write to.

use coracle_fixtures::registry::PASSWORD;
use coracle_fixtures::{Buildpack, RegistryAccess};
use serde_json::json;

use super::container::{Container, Who};
use super::{CACHE, HEADER, reports};
use crate::harness::Ran;
use crate::isolation::found;

fn ok(container: &Container, who: Who, phase: &str, args: &[&str], env: &[(&str, &str)]) -> Ran {
    let ran = container.ran(who, phase, args, env);
    assert_eq!(ran.code, Some(0), "{who:?} {phase}: {}{}", ran.stdout, ran.stderr);
    ran
}

/// A platform that gives every phase all that it has: the variable, and Docker's file where only root reads it. These phases are open to
/// their user, as with the reference: what they hold, programs of buildpacks find.
#[test]
fn programs_under_a_detector_or_a_builder_find_no_credentials() {
    const CONTROL: &str = "the-user-said-this";
    let probe = Buildpack::passing("test/probe").probing(&[PASSWORD, HEADER, CONTROL]).process(&["true"]);
    let container = Container::new(RegistryAccess::Password, &[probe]);
    container.write("platform/env/CONTROL", CONTROL, 0o644);
    container.write("root/.docker/config.json", &container.registry.docker_config(), 0o600);
    let image = container.registry.reference("probed");
    let auth = [("CNB_REGISTRY_AUTH", &*container.header()), ("DOCKER_CONFIG", "/root/.docker")];
    ok(&container, Who::Root, "analyzer", &[&image], &auth);
    for phase in ["detector", "restorer", "builder"] {
        let foreign = phase != "restorer";
        let who = if foreign { Who::BuildUser } else { Who::Root };
        let ran = ok(&container, who, phase, &["-log-level", "debug"], &auth);
        for report in reports(&ran, usize::from(foreign)) {
            for secret in [PASSWORD, HEADER] {
                assert_eq!(found(&report, secret).map(Vec::len), Some(0), "{phase}: {report:#}");
            }
            let control = found(&report, CONTROL).expect("was looked for");
            assert!(!control.is_empty(), "the search is blind: {report:#}");
            assert_eq!(report["env"].get("CNB_REGISTRY_AUTH"), None, "{phase}");
            assert_eq!(report["uid"], json!([1001, 1001, 1001]), "{phase}");
            let files: Vec<&String> =
                report["files"].as_object().into_iter().flatten().map(|(name, _)| name).collect();
            assert_eq!(files, ["0", "1", "2"], "{phase}");
        }
    }
}

/// As `coracle build --shared-layer`: what a later buildpack does to a declared layer stays, and reaches the cache.
#[test]
fn a_builder_keeps_what_later_buildpacks_write_to_a_layer_that_is_shared() {
    let first = Buildpack::passing("test/first").layer("tool", &["build", "cache"], "own");
    let later = Buildpack::passing("test/later")
        .build("echo more >\"$1/../test_first/tool/more\"")
        .process(&["true"]);
    let container = Container::new(RegistryAccess::Password, &[first, later]);
    let auth = container.header();
    let image = container.registry.reference("shared");
    let variable = [("CNB_REGISTRY_AUTH", auth.as_str())];
    let undone = "changed layer `tool` of buildpack `test/first@1.0.0`";
    for (args, env, is_kept) in [
        (&[][..], &[][..], false),
        (&["-shared-layer", "test/first:other"], &[], false),
        (&["-shared-layer", "test/first:tool"], &[], true),
        (&["-shared-layer", "test/later", "-shared-layer", "test/first"], &[], true),
        (&[], &[("CNB_SHARED_LAYERS", "test/later,test/first:tool")], true),
        (&["-build-layers", "shared"], &[], true),
        (&[], &[("CNB_BUILD_LAYERS", "shared")], true),
    ] {
        container.clear(&["layers", "workspace", "cache"]);
        ok(&container, Who::BuildUser, "analyzer", &[&image], &variable);
        ok(&container, Who::BuildUser, "detector", &[], &[]);
        let built = ok(&container, Who::BuildUser, "builder", args, env);
        assert_eq!(built.stderr.contains(undone), !is_kept, "{args:?} {env:?}: {}", built.stderr);
        ok(&container, Who::BuildUser, "exporter", &[&CACHE[..], &[&image]].concat(), &variable);
        container.clear(&["layers", "workspace"]);
        ok(&container, Who::BuildUser, "analyzer", &[&image], &variable);
        ok(&container, Who::BuildUser, "detector", &[], &[]);
        ok(&container, Who::BuildUser, "restorer", &CACHE, &variable);
        let more = container.path("layers/test_first/tool/more");
        assert_eq!(more.exists(), is_kept, "{args:?} {env:?}");
    }
    let ran = container.ran(Who::BuildUser, "builder", &["-shared-layer", "a b"], &[]);
    assert_ne!(ran.code, Some(0));
    assert!(ran.stderr.contains("`a b` is not BUILDPACK or BUILDPACK:LAYER"), "{}", ran.stderr);
}
