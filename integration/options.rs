//! What the options of `coracle build` and `coracle run` do.

use std::fs;
use std::process::{Command, Stdio};

use coracle_fixtures::{Builder, Buildpack, DockerRegistry, Entry, RunImage};

use crate::harness::{Ran, coracle, ran};
use crate::site::Site;

/// Two process types, neither of them the default.
fn typed() -> Buildpack {
    Buildpack::passing("fixture/typed").build(
        r#"cat >"$1/launch.toml" <<'END'
[[processes]]
type = "first"
command = ["echo", "first"]
args = ["as built"]
[[processes]]
type = "second"
command = ["sh", "-c", "echo second in $(pwd)"]
working-dir = "/tmp"
END"#,
    )
}

#[test]
fn process_types_are_started_by_name_and_one_can_be_made_the_default() {
    let site = Site::new(&[typed()]);
    site.built("app", &[]);
    let types = |args: &[&str]| site.home.ok(&[&["run"], args].concat()).stdout;
    assert_eq!(types(&["--entrypoint", "first", "app"]), "first as built\n");
    assert_eq!(types(&["--entrypoint", "first", "app", "as", "told"]), "first as told\n");
    assert_eq!(types(&["--entrypoint", "second", "app"]), "second in /tmp\n");
    // Without a default process the launcher runs what is named after the image.
    assert_eq!(types(&["app", "echo", "free"]), "free\n");
    let none = site.home.run(&["run", "app"]);
    assert_ne!(none.code, Some(0), "{}", none.stdout);
    assert!(none.stderr.contains("process"), "{}", none.stderr);
    let unknown = site.home.run(&["run", "--entrypoint", "third", "app"]);
    assert_eq!(unknown.code, Some(1), "{}", unknown.stdout);
    assert!(unknown.stderr.contains("/cnb/process/third"), "{}", unknown.stderr);

    site.built("app", &["--default-process", "second"]);
    assert_eq!(types(&["app"]), "second in /tmp\n");
    let error = site.refused(62, "app", &["--default-process", "third"]);
    assert!(error.contains("process type `third` is not defined; defined are: `first`, `second`"), "{error}");
    assert_eq!(types(&["app"]), "second in /tmp\n", "the image before it is still there");
}

#[test]
fn the_run_image_the_cache_and_variables_of_the_environment_are_the_users_choice() {
    let buildpack = Buildpack::passing("fixture/chooser")
        .build("echo \"setting=${SETTING-unset} absent=${ABSENT-unset} kept=$(cat \"$1/kept/content\" 2>/dev/null || echo no)\"")
        .layer("kept", &["cache"], "yes")
        .process(&["cat", "/etc/kind"]);
    let site = Site::new(&[buildpack]);
    let other = RunImage::new().file(Entry::file("etc/kind", "another\n")).image();
    site.registry.push(&other, "other", "latest");
    let cache = site.home.path().join("a cache");
    let (other, cache_dir) = (site.registry.reference("other"), cache.display().to_string());
    let build = |more: &[&str]| -> Ran {
        let args = site.args("app", more);
        let mut command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let ran = ran(command.env("SETTING", "from outside").output().expect("start coracle"));
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
        ran
    };
    let first =
        build(&["--run-image", &other, "--env", "SETTING", "--env", "ABSENT", "--cache-dir", &cache_dir]);
    assert!(first.stdout.contains("setting=from outside absent=unset kept=no\n"), "{}", first.stdout);
    assert_eq!(site.home.ok(&["run", "app"]).stdout, "another\n");
    assert!(fs::read_dir(&cache).expect("list the cache").next().is_some());
    let again = build(&["--run-image", &other, "--cache-dir", &cache_dir]);
    assert!(again.stdout.contains("setting=unset absent=unset kept=yes\n"), "{}", again.stdout);
    // The application's own cache knows nothing of that one.
    let own = build(&["--run-image", &other]);
    assert!(own.stdout.contains("kept=no\n"), "{}", own.stdout);
    let cleared = build(&["--run-image", &other, "--cache-dir", &cache_dir, "--clear-cache"]);
    assert!(cleared.stdout.contains("kept=no\n"), "{}", cleared.stdout);
    let mut guests = Command::new("unshare");
    let status =
        guests.args(["--user", "--map-root-user", "--map-auto", "rm", "-rf", "--"]).arg(&cache).status();
    assert!(status.expect("start unshare").success());
}

#[test]
fn a_build_that_names_no_builder_takes_the_users() {
    let site = Site::new(&[Buildpack::passing("fixture/greeter").process(&["cat", "hello"])]);
    let app = site.app().display().to_string();
    let build = ["build", "app", "--path", &app];
    assert_eq!(site.home.ok(&["config", "default-builder"]).stdout, "none; builds name theirs\n");
    assert_eq!(site.home.run(&build).code, Some(2));
    let chosen = site.home.ok(&["config", "default-builder", &site.builder]).stdout;
    assert_eq!(chosen, format!("{}\n", site.builder));
    site.home.ok(&build);
    assert_eq!(site.home.ok(&["run", "app"]).stdout, "hello from the application\n");
    // What is named goes before it.
    let other = site.registry.reference("other:1");
    let error = site.home.run(&[&build[..], &["--builder", &other]].concat()).stderr;
    assert!(error.contains(&other), "{error}");
    let mut variable = site.home.command(&build);
    let error = ran(variable.env("CORACLE_BUILDER", &other).output().expect("start coracle")).stderr;
    assert!(error.contains(&other), "{error}");
    assert_eq!(site.home.ok(&["config", "default-builder", "--unset"]).stdout, "none; builds name theirs\n");
    assert_eq!(site.home.run(&build).code, Some(2));
}

#[test]
fn quiet_says_the_result_alone_until_something_fails() {
    let noisy = Buildpack::passing("fixture/noisy")
        .detect("echo detecting")
        .build("printf '\\033[1;34mblue\\033[0m \\033[2Jcleared\\n'; test ! -e fail || { echo the reason >&2; exit 3; }")
        .process(&["cat", "hello"]);
    let site = Site::new(&[noisy]);
    let loud = site.built("app", &[]);
    // No terminal: colours are left out, other control characters are made harmless.
    assert!(loud.stdout.contains("[builder] blue \u{fffd}[2Jcleared\n"), "{}", loud.stdout);
    assert!(!loud.stdout.contains("detecting") && !loud.stdout.contains('\u{1b}'), "{}", loud.stdout);
    let verbose = site.built("app", &["--verbose"]);
    assert!(verbose.stdout.contains("[detector]   detecting\n"), "{}", verbose.stdout);
    let quiet = site.built("app", &["--quiet"]);
    assert_eq!(quiet.stdout, format!("{}\n", loud.stdout.lines().last().expect("the result")));
    assert_eq!(quiet.stderr, "");
    fs::write(site.app().join("fail"), "").expect("write the application");
    let error = site.refused(51, "app", &["--quiet"]);
    for line in ["[builder] blue \u{fffd}[2Jcleared\n", "[builder] the reason\n", "exit code 51"] {
        assert!(error.contains(line), "{error}");
    }
}

#[test]
fn an_image_gets_every_name_and_what_it_is_made_of_is_fetched_as_often_as_wanted() {
    let site = Site::new(&[typed()]);
    let ran = site.built("app", &["--tag", "team/app:1", "--tag", "team/app:2"]);
    let digest = ran.stdout.lines().last().expect("a result").rsplit_once('@').expect("a digest").1;
    let names: Vec<String> = ["library/app:latest", "team/app:1", "team/app:2"]
        .map(|name| format!("index.docker.io/{name}"))
        .into();
    let results: Vec<String> = names.iter().map(|name| format!("{name}@{digest}")).collect();
    assert!(ran.stdout.ends_with(&format!("{}\n", results.join("\n"))), "{}", ran.stdout);
    let listed = site.home.ok(&["images"]).stdout;
    for name in names {
        assert!(listed.contains(&format!("{name} {digest}\n")), "{listed}");
    }
    let manifests = || {
        site.registry.access_log().lines().filter(|line| line.contains("GET /v2/builder/manifests")).count()
    };
    let before = manifests();
    site.built("app", &[]);
    site.built("app", &["--pull-policy", "never"]);
    assert_eq!(manifests(), before, "what is here is not asked for");
    site.built("app", &["--pull-policy", "always"]);
    assert!(manifests() > before);
}

/// On a terminal of its own, made by script(1).
fn on_a_terminal(site: &Site, env: &[(&str, &str)]) -> String {
    let words: Vec<String> = site.args("app", &[]).iter().map(|word| format!("'{word}'")).collect();
    let line = format!("'{}' {}", coracle().display(), words.join(" "));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env_clear().env("HOME", site.home.path());
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("TERM", "xterm").envs(env.iter().copied());
    let ran = ran(command.stdin(Stdio::null()).output().expect("start script"));
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    ran.stdout
}

#[test]
fn colours_of_buildpacks_reach_a_terminal_unless_no_color_is_set() {
    let site = Site::new(&[Buildpack::passing("fixture/colours").build("printf '\\033[34mblue\\n'")]);
    let (blue, plain) = ("[builder] \u{1b}[34mblue\u{1b}[0m\r\n", "[builder] blue\r\n");
    let shown = on_a_terminal(&site, &[]);
    assert!(shown.contains(blue), "{shown:?}");
    // The builder was fetched, with a bar instead of a line.
    assert!(shown.contains("layers) ") && !shown.contains("fetching"), "{shown:?}");
    let shown = on_a_terminal(&site, &[("NO_COLOR", "1")]);
    assert!(shown.contains(plain) && !shown.contains(blue), "{shown:?}");
}

#[test]
fn the_umask_of_whoever_builds_changes_nothing() {
    let site = Site::new(&[Buildpack::passing("fixture/plain")
        .layer("words", &["launch", "cache"], "words")
        .build("touch new; mkdir folder; ls -ld new folder | cut -c1-10")
        .process(&["cat", "hello", "/layers/fixture_plain/words/content"])]);
    let args = site.args("app", &["--clear-cache"]);
    let build = |umask: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]).arg(coracle());
        command.args(&args).env_clear().env("HOME", site.home.path()).stdin(Stdio::null());
        let ran = ran(command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().expect("start sh"));
        assert_eq!(ran.code, Some(0), "umask {umask}: {}{}", ran.stdout, ran.stderr);
        ran
    };
    // The strictest first, so that it is the one that makes every folder.
    let strict = build("077");
    assert!(strict.stdout.contains("[builder] drwxr-xr-x\n[builder] -rw-r--r--\n"), "{}", strict.stdout);
    for umask in ["022", "000"] {
        assert_eq!(build(umask).stdout.lines().last(), strict.stdout.lines().last(), "umask {umask}");
    }
    assert_eq!(site.home.ok(&["run", "app"]).stdout, "hello from the application\nwords");
}

#[test]
fn two_builds_of_one_application_at_once_come_one_after_the_other() {
    let slow = Buildpack::passing("fixture/slow").build("sleep 1").process(&["cat", "hello"]);
    let site = Site::new(&[slow]);
    site.built("app", &[]);
    let start = || {
        let args = site.args("app", &[]);
        let mut command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start coracle")
    };
    let both = [start(), start()].map(|child| ran(child.wait_with_output().expect("wait")));
    assert_eq!(both.each_ref().map(|ran| ran.code), [Some(0); 2], "{}{}", both[0].stderr, both[1].stderr);
    assert_eq!(both[0].stdout.lines().last(), both[1].stdout.lines().last());
    let waited =
        both.iter().filter(|ran| ran.stderr.contains("waiting for another build that uses the cache"));
    assert_eq!(waited.count(), 1, "{}{}", both[0].stderr, both[1].stderr);
    assert_eq!(site.home.leftovers(), Vec::<String>::new());
}

#[test]
fn what_fails_in_a_phase_has_the_exit_code_of_the_specification() {
    for (code, api, script, text) in [
        (12, "0.99", "", "0.99"),
        (51, "0.10", "exit 100", "exit status: 100"),
        (52, "0.10", "echo broken >\"$1/launch.toml\"", "launch.toml"),
        (52, "0.10", "echo 'unmet = 1' >\"$1/build.toml\"", "build.toml"),
    ] {
        let mut buildpack = Buildpack::passing("fixture/failing").build(script);
        buildpack.api = api.to_owned();
        let error = Site::new(&[buildpack]).refused(code, "app", &[]);
        assert!(error.contains("fixture/failing") && error.contains(text), "{error}");
        assert!(error.contains(&format!("failed with exit code {code}")), "{error}");
    }
}

#[test]
fn a_builder_may_lack_the_folders_that_builds_need_and_its_second_group_may_be_the_one() {
    let registry = DockerRegistry::open();
    let picky = Buildpack::failing("fixture/picky");
    let second = Buildpack::passing("fixture/second")
        .build("echo \"in $(pwd) as $(id -u) $(stat -c %a /tmp)\"; touch /tmp/file; touch \"$1/made\" made")
        .process(&["ls"]);
    let mut builder = Builder::new(&registry.reference("run")).group(&[picky]).group(&[second]);
    for folder in ["workspace", "layers", "platform", "proc", "dev", "sys", "tmp"] {
        builder = builder.file(Entry::whiteout(folder));
    }
    let site = Site::of(registry, &RunImage::new().image(), &builder.image());
    let ran = site.built("app", &[]);
    assert!(ran.stdout.contains("[detector] fixture/second@1.0.0\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("[builder] in /workspace as 1001 1777\n"), "{}", ran.stdout);
    assert_eq!(site.home.ok(&["run", "app"]).stdout, "hello\nmade\n");
}

#[test]
fn an_image_without_a_shell_runs_its_processes() {
    let registry = DockerRegistry::open();
    let program = fs::read("/bin/busybox").expect("read busybox");
    let mut run = RunImage::new().image();
    run.layers = vec![coracle_fixtures::Layer::new(&[Entry::dir("bin"), Entry::program("bin/cat", program)])];
    let direct = Buildpack::passing("fixture/direct").process(&["/bin/cat", "hello"]);
    let builder = Builder::new(&registry.reference("run")).group(&[direct]);
    let site = Site::of(registry, &run, &builder.image());
    site.built("app", &[]);
    for runtime in ["youki", "crun", "runc"] {
        let ran = site.home.ok(&["run", "--runtime", runtime, "app"]);
        assert_eq!(ran.stdout, "hello from the application\n");
    }
}

#[test]
fn what_was_typed_as_a_secret_is_in_no_message() {
    let site = Site::new(&[typed()]);
    for (code, more, expected) in [
        (
            2,
            ["--env", "MY/TOKEN=hunter2"],
            "error: --env number 1 names no variable; write NAME=VALUE or NAME, the name without `/`\n",
        ),
        (
            2,
            ["--env", "hunter2/hunter2=="],
            "error: --env number 1 names no variable; write NAME=VALUE or NAME, the name without `/`\n",
        ),
        (
            1,
            ["--secret", "token=hunter2"],
            "error: --secret cannot be read; write id=NAME,src=FILE[,buildpack=ID]..., the name in letters, digits, `-`, `_` and `.`\n",
        ),
        (
            1,
            ["--binding", "DB=db://me:hunter2@host"],
            "error: --binding cannot be read; write NAME=FOLDER, the name in lower-case letters, digits, `-` and `.`\n",
        ),
    ] {
        assert_eq!(site.refused(code, "app", &more), expected);
    }
    let second = site.refused(2, "app", &["--env", "FIRST=1", "--env", "=hunter2"]);
    assert!(second.contains("--env number 2 names") && !second.contains("hunter2"), "{second}");
}
