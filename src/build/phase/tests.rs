//! Who sees what, in full.

use super::*;
use crate::build::steps::step;
use crate::worker::Place;

pub(in crate::build) fn plan(publish: bool) -> Plan {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Plan {
        folders: Folders { root: "/work/op".into(), tree: true },
        runtime: Runtime::Youki,
        api: PLATFORM_API,
        foreign: None,
        user: User { uid: 1001, gid: 1002, home: "/home/cnb".to_owned() },
        builder: vec!["/store/layers/a".into(), "/work/op/buildpacks".into()],
        env: vec![pair("PATH", "/usr/bin")],
        platform_env: vec![("USER_SETTING".to_owned(), "value".to_owned().into())],
        brought: Brought::default(),
        proxies: vec![pair("HTTP_PROXY", "http://name:word@proxy")],
        image: "r.example/app:1".parse().unwrap(),
        tags: vec!["r.example/app:2".parse().unwrap()],
        run_image: "r.example/run:1".parse().unwrap(),
        switched: false,
        process_type: None,
        publish,
        cache_image: None,
        clear_cache: false,
        compression: "zstd:19".parse().unwrap(),
        insecure: vec!["plain.example".to_owned()],
        auth: AuthFile::parse(AUTHS).unwrap(),
        own_order: false,
        system_buildpacks: true,
        exec_env: "production".to_owned(),
        build_layers: BuildLayers::Snapshot,
        shared_layers: vec!["team/ws:all".parse().unwrap()],
        network: Network::Host,
        time: Duration::from_secs(3600),
        idle: Duration::from_secs(1800),
        disk: 64 << 30,
        verbose: false,
        host_files: vec!["/etc/resolv.conf".into(), CA_BUNDLE.into()],
    }
}

/// Of the image's registry, and of the cache image's.
const AUTHS: &[u8] =
    br#"{"auths":{"r.example":{"registrytoken":"SECRET"},"c.example/cache":{"registrytoken":"CACHE"},"c.example":{"registrytoken":"OTHERS"}}}"#;

fn with_cache_image() -> Plan {
    Plan { cache_image: Some("c.example/cache:1".parse().unwrap()), ..plan(true) }
}

const PHASES: [Phase; 7] = [
    Phase::Describe,
    Phase::Analyze,
    Phase::Detect,
    Phase::Generate,
    Phase::Restore,
    Phase::Build,
    Phase::Export,
];

/// Mounts, files, variables and arguments, a line each.
pub(in crate::build) fn shown(specs: impl IntoIterator<Item = SandboxSpec>) -> String {
    let mut text = String::new();
    for spec in specs {
        let root = if spec.rootfs == Rootfs::Empty { "empty" } else { "builder" };
        text.push_str(&format!(
            "{} in {root}, {}:{}, at {}\n",
            spec.id,
            spec.uid,
            spec.gid,
            spec.cwd.display()
        ));
        text.push_str(&format!("  {}\n", spec.argv.join(" ")));
        for (name, value) in &spec.env {
            text.push_str(&format!("  env {name}={value}\n"));
        }
        for mount in &spec.mounts {
            let access = if mount.access == Access::ReadOnly { "ro" } else { "rw" };
            text.push_str(&format!("  {access} {} <- {}\n", mount.target.display(), mount.source.display()));
        }
        for file in &spec.files {
            text.push_str(&format!("  file {}\n", file.target.display()));
        }
        text.push_str(&format!("  {:?}\n", spec.bounds));
        spec.input.iter().for_each(|input| text.push_str(&format!("  input {:?}\n", input.name)));
    }
    text
}

#[test]
fn who_gets_what_when_publishing() {
    insta::assert_snapshot!(shown(PHASES.map(|phase| sandbox(phase, &plan(true)))));
}

#[test]
fn who_gets_what_when_the_image_stays_here() {
    insta::assert_snapshot!(shown(PHASES.map(|phase| sandbox(phase, &plan(false)))));
}

#[test]
fn who_gets_what_when_each_buildpack_has_a_container() {
    let place = |folder: &str, writable| Place { folder: folder.to_owned(), writable };
    let mut places = vec![place("sbom", true), place("team_first", true)];
    let plan = Plan { build_layers: BuildLayers::Strict, ..plan(true) };
    let first = step(0, "team/first@1", &places, &plan);
    places[1].writable = false;
    places.extend([place("team_ws", true), place("team_last", true)]);
    insta::assert_snapshot!(shown([first, step(2, "team/last@1", &places, &plan)]));
}

/// The restorer looks the image up that extensions have chosen.
#[test]
fn what_the_restorer_gets_where_extensions_have_chosen_the_run_image() {
    let restorer = |publish| sandbox(Phase::Restore, &Plan { switched: true, ..plan(publish) });
    insta::assert_snapshot!(shown([true, false].map(restorer)));
}

#[test]
fn who_gets_what_when_the_cache_is_an_image() {
    let phases = [Phase::Analyze, Phase::Restore, Phase::Export];
    let cleared = Plan { clear_cache: true, ..with_cache_image() };
    let specs = phases.map(|phase| sandbox(phase, &with_cache_image()));
    insta::assert_snapshot!(shown(specs.into_iter().chain([sandbox(Phase::Restore, &cleared)])));
}

#[test]
fn who_gets_what_without_a_network() {
    let plan = Plan { network: Network::None, ..plan(true) };
    insta::assert_snapshot!(shown([Phase::Detect, Phase::Export].map(|phase| sandbox(phase, &plan))));
}

#[test]
fn who_gets_what_of_a_network_with_a_way_out() {
    let plan = Plan { network: Network::Isolated, ..plan(true) };
    insta::assert_snapshot!(shown([Phase::Detect, Phase::Export].map(|phase| sandbox(phase, &plan))));
}

#[test]
fn what_the_user_brings_is_where_foreign_code_runs_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("type"), "t").unwrap();
    let path = folder.path().display();
    let brought = Brought {
        bindings: vec![format!("db={path}").parse().unwrap()],
        secrets: vec![format!("id=all,src={path}/type").parse().unwrap()],
        volumes: vec!["/srv/a:/a".parse().unwrap()],
        ..Brought::default()
    };
    for phase in PHASES {
        let spec = sandbox(phase, &Plan { brought: brought.clone(), ..plan(true) });
        let has = |target: &str| spec.files.iter().any(|file| file.target == Path::new(target));
        assert_eq!(has("/platform/bindings/db/type"), phase.runs_foreign_code(), "{phase:?}");
        assert_eq!(has("/run/secrets/all"), phase == Phase::Build, "{phase:?}");
        let mounted = spec.mounts.contains(&mount("/volumes/0", "/a", Access::ReadOnly));
        assert_eq!(mounted, phase.runs_foreign_code(), "{phase:?}");
    }
}

#[test]
fn credentials_and_foreign_code_never_meet() {
    let switched = |publish| Plan { switched: true, ..plan(publish) };
    for plan in [plan(true), plan(false), switched(true), switched(false), with_cache_image()] {
        for phase in PHASES {
            let spec = sandbox(phase, &plan);
            let has = |secret: &str| {
                let file = |file: &EphemeralFile| String::from_utf8_lossy(&file.content).contains(secret);
                spec.files.iter().any(file)
            };
            let is_reached =
                |registry: &str| reached(phase, &plan).iter().any(|image| image.registry == registry);
            assert_eq!(has("SECRET"), plan.publish && is_reached("r.example"), "{phase:?}");
            assert_eq!(has("CACHE"), plan.publish && is_reached("c.example"), "{phase:?}");
            assert!(!((has("SECRET") || has("CACHE")) && phase.has_builder_root()), "{phase:?}");
            let shown = format!("{:?} {:?}", spec.argv, spec.env);
            assert!(!has("OTHERS"), "{phase:?}");
            assert!(!shown.contains("SECRET") && !shown.contains("CACHE"), "{phase:?}");
        }
    }
    assert!(reached(Phase::Restore, &plan(true)).is_empty());
    assert_eq!(reached(Phase::Restore, &switched(true)), [&plan(true).run_image]);
}
