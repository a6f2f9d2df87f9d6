use super::*;
use crate::phases::PHASES;

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn read(phase: &Phase, args: &[&str], env: &[(&str, &str)]) -> Result<Arguments, ArgumentError> {
    let env: Env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    Arguments::read(phase, ApiVersion::new(0, 13), &words(args), &env)
}

fn phase(name: &str) -> &'static Phase {
    PHASES.iter().find(|phase| phase.name == name).unwrap()
}

fn builder() -> &'static Phase {
    phase("builder")
}

#[test]
fn flags_go_before_variables_and_those_before_defaults() {
    let env = [("CNB_APP_DIR", "/var"), ("CNB_LAYERS_DIR", "/l")];
    let arguments = read(builder(), &["-app", "/flag", "--plan=/p"], &env).unwrap();
    assert_eq!(arguments.path("app"), Path::new("/flag"));
    assert_eq!(arguments.path("plan"), Path::new("/p"));
    assert_eq!(arguments.path("group"), Path::new("/l/group.toml"));
    assert_eq!(arguments.path("platform"), Path::new("/platform"));
}

#[test]
fn repeated_flags_switches_numbers_and_images() {
    let phase = phase("exporter");
    let env = [("CNB_INSECURE_REGISTRIES", "a,b"), ("CNB_USE_LAYOUT", "true"), ("CNB_USER_ID", "7")];
    let arguments = read(phase, &["one"], &env).unwrap();
    assert_eq!(arguments.texts("insecure-registry"), ["a", "b"]);
    assert!(arguments.on("layout"));
    assert_eq!(arguments.id("uid"), Some(7));
    let flags = ["-insecure-registry", "c", "-layout=false", "-insecure-registry=d", "-uid", "8"];
    let arguments = read(phase, &[&flags[..], &["-layout", "one", "two"]].concat(), &env).unwrap();
    assert_eq!(arguments.texts("insecure-registry"), ["a", "b", "c", "d"]);
    assert!(arguments.on("layout"));
    assert_eq!(
        (arguments.id("uid"), arguments.images()),
        (Some(8), &["one".to_owned(), "two".to_owned()][..])
    );
    let arguments = read(phase, &["one"], &[("CNB_USE_LAYOUT", "perhaps")]).unwrap();
    assert!(!arguments.on("layout"));
}

/// Platforms write `-cache-image=$(CACHE_IMAGE)` for all their builds.
#[test]
fn an_empty_name_is_none_and_goes_before_its_variable() {
    let env = [("CNB_CACHE_IMAGE", "v"), ("CNB_RUN_IMAGE", "v"), ("CNB_INSECURE_REGISTRIES", "a")];
    let flags = ["-cache-image=", "-run-image", "", "-previous-image=", "-tag=", "-insecure-registry="];
    let arguments = read(phase("creator"), &[&flags[..], &["one"]].concat(), &env).unwrap();
    for flag in ["cache-image", "run-image", "previous-image"] {
        assert_eq!(arguments.text(flag), None, "{flag}");
    }
    assert_eq!(
        (arguments.texts("tag"), arguments.texts("insecure-registry")),
        (vec![], vec!["a".to_owned()])
    );
}

#[test]
fn two_dashes_end_the_flags() {
    let arguments = read(phase("exporter"), &["-app", "/a", "--", "-one", "--"], &[]).unwrap();
    assert_eq!(arguments.images(), ["-one", "--"]);
    let error = read(phase("exporter"), &["--"], &[]).unwrap_err();
    assert_eq!(error, ArgumentError::NoImage);
    assert!(read(builder(), &["--"], &[]).is_ok());
}

#[test]
fn an_order_among_the_layers_goes_before_the_builder_s() {
    let layers = tempfile::tempdir().unwrap();
    let own = layers.path().join("order.toml");
    let args = ["-layers", layers.path().to_str().unwrap()];
    let order = |more: &[&str]| read(phase("detector"), &[&args, more].concat(), &[]).unwrap().path("order");
    assert_eq!(order(&[]), Path::new("/cnb/order.toml"));
    std::fs::write(&own, "").unwrap();
    assert_eq!(order(&[]), own);
    assert_eq!(order(&["-order", "o"]), Path::new("o"));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let phase = phase("exporter");
    let error = |args: &[&str]| read(phase, args, &[]).unwrap_err().to_string();
    assert!(error(&["-layout=perhaps", "one"]).contains("`perhaps` is not true or false"));
    assert!(error(&["-uid", "-1", "one"]).contains("`-1` is not a number"));
    let compression = error(&["-compression", "zstd:23", "one"]);
    assert!(compression.contains("`zstd:23` is not gzip, zstd or none, where wanted"), "{compression}");
    assert!(error(&["-log-level", "loud", "one"]).contains("`loud` is not debug, info"));
    assert_eq!(error(&["one", "-layout"]), "flag `-layout` comes after an image: flags go first");
    assert!(error(&[]).starts_with("no image is named"));
    assert_eq!(error(&["-uid"]), "flag `-uid` needs a value");
    assert_eq!(error(&["-order", "x", "one"]), "flag `-order` is not implemented");
    let unexpected = read(builder(), &["one"], &[]).unwrap_err();
    assert_eq!(unexpected, ArgumentError::Unexpected("one".into()));
}

#[test]
fn flags_come_and_go_with_platform_apis() {
    let read = |name: &str, minor: u32, args: &[&str], env: &[(&str, &str)]| {
        let env: Env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Arguments::read(phase(name), ApiVersion::new(0, minor), &words(args), &env)
    };
    for (name, first, flag) in [
        ("analyzer", 9, "-skip-layers"),
        ("analyzer", 12, "-run=r"),
        ("detector", 10, "-analyzed=a"),
        ("detector", 11, "-build-config=b"),
        ("detector", 12, "-run=r"),
        ("detector", 15, "-system=s"),
        ("restorer", 12, "-layout"),
        ("restorer", 14, "-run=r"),
        ("builder", 11, "-build-config=b"),
        ("builder", 12, "-analyzed=a"),
        ("exporter", 12, "-layout-dir=l"),
        ("exporter", 13, "-insecure-registry=i"),
        ("rebaser", 11, "-previous-image=p"),
        ("rebaser", 12, "-force"),
    ] {
        let images = if phase(name).images == Names::None { vec![] } else { vec!["one"] };
        let args = [&[flag][..], &images].concat();
        assert!(read(name, first, &args, &[]).is_ok(), "{name} {flag}");
        let error = read(name, first - 1, &args, &[]).unwrap_err().to_string();
        let bare = flag.split('=').next().unwrap();
        let before = format!("0.{}", first - 1);
        assert_eq!(
            error,
            format!(
                "flag `{bare}`: the {name} of Platform API {before} has no such flag, it came with 0.{first}"
            )
        );
    }
    for name in ["analyzer", "exporter"] {
        assert!(read(name, 11, &["-stack", "s", "one"], &[]).is_ok());
        let error = read(name, 12, &["-stack", "s", "one"], &[]).unwrap_err().to_string();
        assert!(error.ends_with("Platform API 0.12 has no such flag, it was dropped at 0.12"), "{error}");
    }
}

/// What the reference reads without asking for the Platform API.
#[test]
fn a_variable_counts_also_before_its_flag_came_and_after_it_went() {
    let read = |name: &str, minor: u32, env: &[(&str, &str)]| {
        let env: Env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let images = if phase(name).images == Names::None { vec![] } else { words(&["one"]) };
        Arguments::read(phase(name), ApiVersion::new(0, minor), &images, &env).unwrap()
    };
    for minor in [7, 8, 9, 15] {
        for variable in ["CNB_SKIP_LAYERS", "CNB_SKIP_RESTORE"] {
            assert!(read("analyzer", minor, &[(variable, "true")]).on("skip-layers"), "{variable} {minor}");
        }
        assert!(read("rebaser", minor, &[("CNB_FORCE_REBASE", "true")]).on("force"), "{minor}");
        assert!(read("exporter", minor, &[("CNB_USE_LAYOUT", "true")]).on("layout"), "{minor}");
        let env = [("CNB_PREVIOUS_IMAGE", "p"), ("CNB_INSECURE_REGISTRIES", "a,b")];
        let rebaser = read("rebaser", minor, &env);
        assert_eq!(rebaser.text("previous-image"), Some(OsStr::new("p")), "{minor}");
        assert_eq!(rebaser.texts("insecure-registry"), ["a", "b"], "{minor}");
    }
}

#[test]
fn folders_are_absolute_and_clean() {
    let args = ["-app=.", "-layers", "/a/./b/../c/", "-group", "g.toml"];
    let arguments = read(builder(), &args, &[]).unwrap();
    assert_eq!(arguments.path("app"), std::env::current_dir().unwrap());
    assert_eq!(arguments.path("layers").to_str(), Some("/a/c"));
    assert_eq!(arguments.path("plan").to_str(), Some("/a/c/plan.toml"));
    assert_eq!(arguments.path("group"), Path::new("g.toml"));
    let relative = FOLDERS.map(|folder| format!("-{folder}=f"));
    for (name, flag) in FOLDERS.iter().zip(&relative) {
        let has = |phase: &&Phase| phase.flags.iter().any(|has| has.flag == *name && !has.is_variable);
        let phase = PHASES.iter().find(has).unwrap();
        let images: &[&str] = if phase.images == Names::None { &[] } else { &["one"] };
        let arguments = read(phase, &[&[flag.as_str()], images].concat(), &[]).unwrap();
        assert_eq!(arguments.path(name), std::env::current_dir().unwrap().join("f"), "{name}");
    }
}
