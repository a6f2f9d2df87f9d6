//! The inputs of phases as platforms know them (Platform API, "Inputs" of each phase, and what the reference takes).

use std::collections::{BTreeMap, BTreeSet};

use coracle_cnb::ApiVersion;

use super::*;
use crate::phases::arguments::Arguments;
use crate::phases::table::{Names, PHASES, Phase};

/// Flag, variable and default; `*` is a text, or nothing.
const INPUTS: &str = "
    analyzed CNB_ANALYZED_PATH <layers>/analyzed.toml
    app CNB_APP_DIR /workspace
    build-config CNB_BUILD_CONFIG_DIR /cnb/build-config
    build-image CNB_BUILD_IMAGE *
    buildpacks CNB_BUILDPACKS_DIR /cnb/buildpacks
    cache-dir CNB_CACHE_DIR *
    cache-image CNB_CACHE_IMAGE *
    daemon CNB_USE_DAEMON false
    extended CNB_EXTENDED_DIR <layers>/extended
    extensions CNB_EXTENSIONS_DIR /cnb/extensions
    force CNB_FORCE_REBASE false
    generated CNB_GENERATED_DIR <layers>/generated
    gid CNB_GROUP_ID *
    group CNB_GROUP_PATH <layers>/group.toml
    image - *
    insecure-registry CNB_INSECURE_REGISTRIES *
    kaniko-cache-ttl CNB_KANIKO_CACHE_TTL *
    kind CNB_EXTEND_KIND *
    launch-cache CNB_LAUNCH_CACHE_DIR *
    launcher-sbom - /cnb/lifecycle
    layers CNB_LAYERS_DIR /layers
    layout CNB_USE_LAYOUT false
    layout-dir CNB_LAYOUT_DIR *
    log-level CNB_LOG_LEVEL *
    no-color CNB_NO_COLOR false
    order CNB_ORDER_PATH /cnb/order.toml
    parallel CNB_PARALLEL_EXPORT false
    plan CNB_PLAN_PATH <layers>/plan.toml
    platform CNB_PLATFORM_DIR /platform
    previous-image CNB_PREVIOUS_IMAGE *
    process-type CNB_PROCESS_TYPE *
    project-metadata CNB_PROJECT_METADATA_PATH <layers>/project-metadata.toml
    report CNB_REPORT_PATH <layers>/report.toml
    run CNB_RUN_PATH /cnb/run.toml
    run-image CNB_RUN_IMAGE *
    skip-layers CNB_SKIP_LAYERS false
    skip-restore CNB_SKIP_RESTORE false
    stack CNB_STACK_PATH /cnb/stack.toml
    system CNB_SYSTEM_PATH /cnb/system.toml
    tag - *
    uid CNB_USER_ID *";

/// The flags of each phase; after `+N` those since Platform API 0.N, after `-N` those until then.
const OF_PHASES: &str = "
    analyzer analyzed cache-image daemon gid layers log-level no-color previous-image run-image tag uid +9 launch-cache skip-layers +12 layout layout-dir run +13 insecure-registry -12 stack
    detector app buildpacks daemon group layers log-level no-color order plan platform +10 analyzed extensions generated +11 build-config +12 run +15 system
    restorer analyzed cache-dir cache-image daemon gid group layers log-level no-color skip-layers uid +10 build-image +12 generated layout layout-dir +13 insecure-registry +14 run
    builder app buildpacks daemon group layers log-level no-color plan platform +11 build-config +12 analyzed
    exporter analyzed app cache-dir cache-image daemon gid group launch-cache launcher layers log-level no-color parallel process-type project-metadata report uid +11 launcher-sbom +12 extended layout layout-dir run +13 insecure-registry -12 stack
    creator app buildpacks cache-dir cache-image daemon gid launch-cache launcher layers log-level no-color order parallel platform previous-image process-type project-metadata report run-image skip-restore stack tag uid +11 build-config launcher-sbom +12 layout layout-dir run +13 insecure-registry +15 system
    rebaser daemon gid image log-level no-color report run-image uid +11 previous-image +12 force +13 insecure-registry
    extender analyzed app buildpacks daemon gid generated group kaniko-cache-ttl layers log-level no-color plan platform uid +12 extended kind";

/// Flags that no other lifecycle has, or not in that phase; a platform finds them where it looks for them only.
const OURS: &str = "
    analyzer by-name known-images
    detector scratch
    restorer kaniko unchanged verified
    builder build-layers scratch shared-layer step times
    exporter by-name compression known-images metadata packed scratch unchanged verified
    creator build-layers by-name compression extensions generated scratch shared-layer times
    rebaser distinct layout layout-dir";

fn lines(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table.trim().lines().map(|line| line.split_whitespace().collect())
}

#[test]
fn flags_have_the_variables_and_the_defaults_that_platforms_know() {
    let known: BTreeMap<&str, (&str, &str)> = lines(INPUTS).map(|row| (row[0], (row[1], row[2]))).collect();
    let ours: BTreeSet<&str> = lines(OURS).flat_map(|row| row.into_iter().skip(1)).collect();
    let of_our_phases = ["any-api", "chosen", "description", "runs"];
    for (name, variable, takes) in FLAGS {
        let default = match takes {
            P("") | Text | Texts | Id | Level | Compression => "*",
            P(default) => default,
            Switch => "false",
        };
        let variable = if variable.is_empty() { "-" } else { variable };
        match known.get(name) {
            Some(wanted) => assert_eq!((variable, default), *wanted, "{name}"),
            // It is in this program, so that the default names no file.
            None if *name == "launcher" => assert_eq!((variable, default), ("CNB_LAUNCHER_PATH", "*")),
            None => assert!(
                ours.contains(name) || of_our_phases.contains(name) || *name == "version",
                "{name} is in no table"
            ),
        }
    }
    let have: BTreeSet<&str> = FLAGS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(known.keys().filter(|name| !have.contains(*name)).collect::<Vec<_>>(), Vec::<&&str>::new());
}

/// Every flag of every phase, at every Platform API.
#[test]
fn phases_have_the_flags_that_platforms_know() {
    let ours: BTreeMap<&str, BTreeSet<&str>> =
        lines(OURS).map(|row| (row[0], row.into_iter().skip(1).collect())).collect();
    for row in lines(OF_PHASES) {
        let phase = PHASES.iter().find(|phase| phase.name == row[0]).unwrap();
        for minor in 7..=15 {
            let (mut since, mut until, mut wanted) = (0, 99, BTreeSet::new());
            for word in &row[1..] {
                if let Some(first) = word.strip_prefix('+') {
                    since = first.parse().unwrap();
                } else if let Some(last) = word.strip_prefix('-') {
                    (since, until) = (0, last.parse().unwrap());
                } else if (since..until).contains(&minor) {
                    wanted.insert(*word);
                }
            }
            let own = ours.get(phase.name).cloned().unwrap_or_default();
            let takes = |(name, _, takes): &&Flag| {
                let value = match takes {
                    Switch => "",
                    Id => "=1",
                    Level => "=info",
                    _ => "=x",
                };
                let image = (phase.images != Names::None).then(|| OsString::from("image"));
                let args: Vec<OsString> =
                    [format!("-{name}{value}").into()].into_iter().chain(image).collect();
                Arguments::read(phase, ApiVersion::new(0, minor), &args, &Env::new()).is_ok()
            };
            let found: BTreeSet<&str> = FLAGS.iter().filter(takes).map(|(name, ..)| *name).collect();
            let found: BTreeSet<&str> = found
                .into_iter()
                .filter(|name| !own.contains(name) && !matches!(*name, "version" | "compression"))
                .collect();
            assert_eq!(found, wanted, "{} of Platform API 0.{minor}", phase.name);
        }
    }
}

fn read(name: &str, args: &[&str], env: &[(&str, &str)]) -> Result<Arguments, String> {
    let phase: &Phase = PHASES.iter().find(|phase| phase.name == name).unwrap();
    let image = (phase.images != Names::None).then_some("image");
    let args: Vec<OsString> = args.iter().copied().chain(image).map(OsString::from).collect();
    let env: Env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    Arguments::read(phase, ApiVersion::new(0, 13), &args, &env).map_err(|error| error.to_string())
}

#[test]
fn the_rebaser_knows_the_layers_folder_by_its_variable_only() {
    let report = |args: &[&str], env| read("rebaser", args, env).map(|read| read.path("report"));
    let env = &[("CNB_LAYERS_DIR", "/elsewhere")];
    assert_eq!(report(&[], &[]), Ok("/layers/report.toml".into()));
    assert_eq!(report(&[], env), Ok("/elsewhere/report.toml".into()));
    assert_eq!(report(&["-report", "/r"], env), Ok("/r".into()));
    assert_eq!(report(&["-layers", "/l"], env), Err("flag `-layers` is not implemented".to_owned()));
}

#[test]
fn either_variable_that_skips_layers_counts_in_every_phase_and_a_flag_counts_more() {
    for (phase, flag) in
        [("analyzer", "skip-layers"), ("restorer", "skip-layers"), ("creator", "skip-restore")]
    {
        let skips = |args: &[&str], env: &[(&str, &str)]| read(phase, args, env).unwrap().on(flag);
        let off = format!("-{flag}=false");
        assert!(!skips(&[], &[]), "{phase}");
        for variable in ["CNB_SKIP_LAYERS", "CNB_SKIP_RESTORE"] {
            for (value, wanted) in [("true", true), ("1", true), ("0", false), ("x", false), ("", false)] {
                assert_eq!(skips(&[], &[(variable, value)]), wanted, "{phase} {variable}={value}");
            }
            assert!(!skips(&[&off], &[(variable, "true")]), "{phase} {variable}");
        }
        assert!(skips(&[], &[("CNB_SKIP_LAYERS", "false"), ("CNB_SKIP_RESTORE", "true")]), "{phase}");
        assert!(skips(&[], &[("CNB_SKIP_LAYERS", "true"), ("CNB_SKIP_RESTORE", "false")]), "{phase}");
    }
}

#[test]
fn how_much_is_logged_has_more_than_one_word_in_any_case() {
    for (word, wanted) in [
        ("debug", Verbosity::Debug),
        ("INFO", Verbosity::Info),
        ("Warn", Verbosity::Warn),
        ("WARNING", Verbosity::Warn),
        ("error", Verbosity::Error),
        ("fatal", Verbosity::Error),
    ] {
        assert_eq!(read("builder", &["-log-level", word], &[]).unwrap().verbosity(), wanted);
        assert_eq!(read("builder", &[], &[("CNB_LOG_LEVEL", word)]).unwrap().verbosity(), wanted);
    }
    assert_eq!(read("builder", &[], &[]).unwrap().verbosity(), Verbosity::Info);
    for word in ["", "trace", "loud"] {
        let error = read("builder", &["-log-level", word], &[]).unwrap_err();
        assert!(error.contains("is not debug, info, warn or error"), "{error}");
    }
}

#[test]
fn help_names_each_flag_with_its_variable_and_default() {
    let usage = |name: &str, minor| {
        usage(PHASES.iter().find(|phase| phase.name == name).unwrap(), ApiVersion::new(0, minor))
    };
    let text = usage("exporter", 11);
    assert!(
        text.starts_with("Usage of exporter at Platform API 0.11: exporter [FLAGS] IMAGE...\n"),
        "{text}"
    );
    for line in [
        "  -analyzed PATH (variable CNB_ANALYZED_PATH, default <layers>/analyzed.toml)",
        "  -cache-image TEXT (variable CNB_CACHE_IMAGE)",
        "  -gid NUMBER (variable CNB_GROUP_ID)",
        "  -parallel (variable CNB_PARALLEL_EXPORT)",
        "  -stack PATH (variable CNB_STACK_PATH, default /cnb/stack.toml)",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(!text.contains("-layout") && usage("exporter", 12).contains("  -layout ("), "{text}");
    assert!(!usage("rebaser", 12).contains("  -layers"));
}
