//! Lifecycles of other ages, imitated: shell that says how it was called, and leaves the documents that its phase leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use coracle_fixtures::{Builder, Buildpack, DockerRegistry, Image, RegistryAccess, RunImage};

use crate::site::Site;

/// Says how it was called, as whom, and whether it has credentials.
const HEAD: &str = "#!/cnb/lifecycle/bash\nset -eu\nc=without; [ -r /run/coracle/config.json ] && c=with\necho \"${0##*/} at $CNB_PLATFORM_API as $UID $c credentials${DOCKER_CONFIG:+ in $DOCKER_CONFIG}${CNB_REGISTRY_AUTH:+ in a variable}: $*\"\n";

const GROUP: &str = "[[group]]\\nid = \\\"fixture/one\\\"\\nversion = \\\"1.0.0\\\"\\n";

/// A lifecycle in a folder, at one Platform API.
fn imitation(site: &Site, api: &str, detector: &str) -> PathBuf {
    let folder = site.home.path().join(format!("lifecycle-{api}"));
    let programs = folder.join("lifecycle");
    fs::create_dir_all(&programs).expect("make a folder");
    let toml =
        format!("[api]\nplatform = \"{api}\"\nbuildpack = \"0.2\"\n[lifecycle]\nversion = \"0.0.{api}\"\n");
    fs::write(folder.join("lifecycle.toml"), toml).expect("write lifecycle.toml");
    fs::copy("/bin/bash-static", programs.join("bash")).expect("copy bash (scripts/setup installs it)");
    let written = "printf '[[buildpacks]]\\nid = \"fixture/one\"\\nversion = \"1.0.0\"\\n' >/layers/config/metadata.toml";
    let builder = format!("mkdir -p /layers/config\n{written}\n");
    let report = format!("printf '[image]\\ndigest = \"sha256:{}\"\\n' >/out/report.toml\n", "1".repeat(64));
    let minor: u32 = api.trim_start_matches("0.").parse().expect("a number");
    let phases = [
        ("detector", detector.to_owned()),
        ("analyzer", "printf '' >/out/analyzed.toml\n".to_owned()),
        ("restorer", String::new()),
        ("builder", builder),
        ("exporter", if minor < 4 { String::new() } else { report }),
    ];
    for (name, shell) in phases {
        let path = programs.join(name);
        fs::write(&path, format!("{HEAD}{shell}")).expect("write a phase");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it a program");
    }
    folder
}

/// Chooses these buildpacks.
fn choosing(group: &str) -> String {
    format!("printf \"{group}\" >/out/group.toml\nprintf '' >/out/plan.toml\n")
}

/// Of another age: ours does not run it.
fn old_buildpack() -> Buildpack {
    Buildpack { api: "0.2".to_owned(), ..Buildpack::passing("fixture/one") }
}

#[test]
fn each_age_is_called_in_its_own_order_with_credentials_in_a_file() {
    let site = Site::with_password(&[old_buildpack()]);
    let name = site.registry.reference("team/app:1");
    // Those before 0.4 leave no report: the registry is asked.
    let image = coracle_fixtures::RunImage::new().image();
    let earlier = site.registry.push(&image, "team/app", "1");
    let earlier = earlier.rsplit_once('@').expect("a digest").1.to_owned();
    for api in ["0.2", "0.3", "0.4", "0.6", "0.7", "0.9", "0.11"] {
        let folder = imitation(&site, api, &choosing(GROUP)).display().to_string();
        let ran = site.built(&name, &["--publish", "--lifecycle", &folder]);
        let minor: u32 = api[2..].parse().expect("a number");
        let said: Vec<&str> = ran.stdout.lines().filter(|line| line.contains(" at 0.")).collect();
        let order = if minor < 7 { ["detector", "analyzer"] } else { ["analyzer", "detector"] };
        let order = [&order[..], &["restorer", "builder", "exporter"]].concat();
        let level = if minor < 3 { "-" } else { "-log-level info " };
        assert_eq!(said.len(), order.len(), "{}\n{}", ran.stdout, ran.stderr);
        for (line, phase) in said.iter().zip(order) {
            let has = if matches!(phase, "analyzer" | "exporter") {
                "with credentials in /run/coracle"
            } else {
                "without credentials"
            };
            assert!(
                line.starts_with(&format!("[{phase}] {phase} at {api} as 1001 {has}: {level}")),
                "{line}"
            );
        }
        let exporter = said[4];
        let flag = match minor {
            2 => format!(" -image {} ", site.registry.reference("run:latest")),
            3..7 => format!(" -run-image {} ", site.registry.reference("run:latest")),
            _ => " -stack /control/stack.toml ".to_owned(),
        };
        assert!(exporter.contains(&flag) && exporter.ends_with(&format!(" {name}")), "{exporter}");
        let digest = if minor < 4 { earlier.clone() } else { format!("sha256:{}", "1".repeat(64)) };
        assert_eq!(ran.stdout.lines().last(), Some(format!("{name}@{digest}").as_str()));
    }
    let native = site.refused(12, &name, &["--publish"]);
    assert!(native.contains("Buildpack API 0.2 is not supported (supported: 0.7 to 0.12): take the builder's own lifecycle (--lifecycle builder)"), "{native}");
}

#[test]
fn what_another_detector_chose_is_a_stranger_s_word() {
    let site = Site::with_password(&[old_buildpack()]);
    let name = site.registry.reference("team/app:1");
    let refused = |code: i32, api: &str, detector: &str| {
        let folder = imitation(&site, api, detector).display().to_string();
        let args = site.args(&name, &["--publish", "--lifecycle", &folder]);
        let ran = site.home.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(ran.code, Some(code), "{}\n{}", ran.stdout, ran.stderr);
        assert!(!ran.stdout.contains("===> RESTORER"), "{}", ran.stdout);
        ran.stdout + &ran.stderr
    };
    let evil = GROUP.replace("fixture/one", "fixture/evil");
    for api in ["0.3", "0.11"] {
        let said = refused(1, api, &choosing(&evil));
        let expected = "error: the detector chose buildpacks (fixture/evil@1.0.0) that no group of the builder's order consists of; nothing of it is used\n";
        assert!(said.ends_with(expected), "{said}");
    }
    let said = refused(1, "0.11", &choosing(&GROUP.replace("1.0.0", "../../../control")));
    assert!(said.contains("of a buildpack is `.` or `..`, or has `/`"), "{said}");
    let said = refused(1, "0.11", "ln -s /control/run.toml /out/group.toml; printf '' >/out/plan.toml\n");
    assert!(said.contains("open without following links: `group.toml`"), "{said}");
    let plan = "printf '[[entries]]\\n[[entries.providers]]\\nid = \"other\"\\nversion = \"1\"\\n' >/out/plan.toml\n";
    let said = refused(1, "0.11", &format!("{}{plan}", choosing(GROUP)));
    assert!(said.contains("the detector's plan names other@1 as provider"), "{said}");
    let extension = "printf '[[group-extensions]]\\nid = \"x\"\\nversion = \"1\"\\n' >>/out/group.toml\n";
    let said = refused(102, "0.11", &format!("{}{extension}", choosing(GROUP)));
    assert!(said.contains("image extensions take part (x@1), which Coracle's own detector has to see to: add --native-phase detector"), "{said}");
}

/// With these two labels.
fn stacked(image: Image, id: &str, mixins: &str) -> Image {
    image.label("io.buildpacks.stack.id", id).label("io.buildpacks.stack.mixins", mixins)
}

#[test]
fn before_targets_images_and_buildpacks_go_together_or_nothing_of_them_runs() {
    let registry = DockerRegistry::start(RegistryAccess::Password);
    let run = |id: &str, mixins: &str| stacked(RunImage::new().image(), id, mixins);
    let builder = Builder::new(&registry.reference("run:latest")).group(&[Buildpack::passing("fixture/one")]);
    let builder = stacked(builder.image(), "own", r#"["both", "build:make"]"#);
    let site = Site::of(registry, &run("own", r#"["both", "run:one"]"#), &builder).logged_in();
    for (name, tag, image) in [
        ("run", "other", run("other", "[]")),
        ("run", "bare", run("own", r#"["run:one"]"#)),
        ("team/app", "other", run("other", "[]")),
        ("team/app", "more", run("own", r#"["run:two", "both"]"#)),
        ("team/app", "same", run("own", r#"["both", "build:make"]"#)),
    ] {
        site.registry.push(&image, name, tag);
    }
    let needing = |name: &str, stacks: &str| {
        let toml = "api = \"0.2\"\n[buildpack]\nid = \"fixture/one\"\nversion = \"1.0.0\"\n[[stacks]]\n";
        let folder = site.home.path().join(name);
        old_buildpack().file("buildpack.toml", &format!("{toml}{stacks}")).write(&folder);
        folder.display().to_string()
    };
    let named = |name: &str| site.registry.reference(name);
    let (own, run_own, of) = (named("team/app:new"), named("run:latest"), &site.builder);
    let [other, bare, app_other, app_more] =
        ["run:other", "run:bare", "team/app:other", "team/app:more"].map(named);
    let [greedy, foreign, fitting] = [
        needing("greedy", "id = \"*\"\nmixins = [\"build:x\", \"both\", \"run:y\", \"one\"]\n"),
        needing("foreign", "id = \"there\"\n"),
        needing("fitting", "id = \"own\"\nmixins = [\"both\", \"run:one\", \"build:make\"]\n"),
    ];
    for api in ["0.3", "0.6", "0.9", "0.11"] {
        let folder = imitation(&site, api, &choosing(GROUP)).display().to_string();
        let fixed = ["--publish", "--lifecycle", &folder];
        for (image, more, expected) in [
            (
                &own,
                ["--run-image", &other],
                format!(
                    "the run image {other} is of stack `other`, and builder {of} of stack `own`; name a run image of that stack with --run-image"
                ),
            ),
            (
                &own,
                ["--run-image", &bare],
                format!(
                    "the run image {bare} lacks mixins that builder {of} has: `both`; name a run image that has them with --run-image"
                ),
            ),
            (
                &app_other,
                ["--run-image", &run_own],
                format!(
                    "the image {app_other} is of stack `other`, and what is built now of stack `own`, for which its layers were not made; build under another name, or delete it first"
                ),
            ),
            (
                &app_more,
                ["--run-image", &run_own],
                format!(
                    "the run image {run_own} lacks mixins that the image {app_more} was built on: `two`; name a run image that has them with --run-image, or build under another name"
                ),
            ),
            (
                &own,
                ["--buildpack", &greedy],
                format!(
                    "buildpack fixture/one@1.0.0 needs mixins that are missing: `one`, `x` in builder {of}; `y` in the run image {run_own}; take images that have them, or choose other buildpacks with --buildpack"
                ),
            ),
            (
                &own,
                ["--buildpack", &foreign],
                format!(
                    "buildpack fixture/one@1.0.0 is for `there`, and builder {of} is of stack `own`; choose others with --buildpack, or take a builder of its stack"
                ),
            ),
        ] {
            let args = site.args(image, &[&fixed[..], &more].concat());
            let ran = site.home.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(ran.code, Some(1), "{}\n{}", ran.stdout, ran.stderr);
            assert!(!ran.stdout.contains("===>"), "{}", ran.stdout);
            assert!(ran.stderr.ends_with(&format!("error: {expected}\n")), "{api}: {}", ran.stderr);
        }
        let same = named("team/app:same");
        site.built(&same, &[&fixed[..], &["--buildpack", &fitting]].concat());
    }
    // Ours speak of targets.
    site.built(&own, &["--publish", "--run-image", &other]);
}

#[test]
fn the_run_image_is_the_one_that_was_resolved_whatever_another_lifecycle_says() {
    let site = Site::with_password(&[old_buildpack()]);
    let (name, run) = (site.registry.reference("team/app:1"), site.registry.reference("run:latest"));
    let refused = |phase: &str, analyzed: &str| {
        let folder = imitation(&site, "0.11", &choosing(GROUP));
        let written = format!("{HEAD}printf '{analyzed}' >/out/analyzed.toml\n");
        fs::write(folder.join("lifecycle").join(phase), written).expect("write a phase");
        let folder = folder.display().to_string();
        let args = site.args(&name, &["--publish", "--lifecycle", &folder]);
        let ran = site.home.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(ran.code, Some(1), "{}\n{}", ran.stdout, ran.stderr);
        let next = if phase == "analyzer" { "===> DETECTOR" } else { "===> BUILDER" };
        assert!(!ran.stdout.contains(next), "{}", ran.stdout);
        ran.stderr.replace(&folder, "PATH").split_once("error: ").expect("an error").1.to_owned()
    };
    let evil = site.registry.reference("evil:latest");
    let digest = format!("{}@sha256:{}", run.trim_end_matches(":latest"), "1".repeat(64));
    for phase in ["analyzer", "restorer"] {
        let tag = run.replace(":latest", ":other");
        // On another registry, under a name that a rebase would ask for.
        let elsewhere = "registry.example/evil:latest".to_owned();
        for (reference, image, extend) in [
            (&evil, &run, false),
            (&tag, &run, false),
            (&elsewhere, &run, false),
            (&"/layout/evil".to_owned(), &run, false),
            (&digest, &run, true),
            (&digest, &elsewhere, false),
            (&digest, &tag, false),
        ] {
            let analyzed = format!(
                "[run-image]\\nreference = \"{reference}\"\\nimage = \"{image}\"\\nextend = {extend}\\n"
            );
            let (field, found) = match (extend, image == &run) {
                (true, _) => ("run-image.extend", reference),
                (_, true) => ("run-image.reference", reference),
                (_, false) => ("run-image.image", image),
            };
            let expected = format!(
                "the {phase} of the lifecycle PATH says in analyzed.toml ({field}) that the image is to run on `{found}`, and it is to run on `{run}`; nothing of it is used: take --lifecycle native, or another lifecycle\n"
            );
            assert_eq!(refused(phase, &analyzed), expected);
        }
    }
    let analyzed = format!("[run-image]\\nreference = \"{run}\"\\n[image]\\nreference = \"{evil}\"\\n");
    let expected = format!(
        "the analyzer of the lifecycle PATH says in analyzed.toml (image.reference) that the image was `{evil}` before, and it is to be `{name}`; nothing of it is used: take --lifecycle native, or another lifecycle\n"
    );
    assert_eq!(refused("analyzer", &analyzed), expected);

    // What a detector writes there is not read.
    let folder = imitation(&site, "0.11", &choosing(GROUP)).join("lifecycle");
    let add = |phase: &str, shell: &str| {
        let own = fs::read_to_string(folder.join(phase)).expect("read a phase");
        fs::write(folder.join(phase), own + shell).expect("write a phase");
    };
    add("analyzer", &format!("printf '[run-image]\\nreference = \"{run}\"\\n' >/out/analyzed.toml\n"));
    add("detector", &format!("printf '[run-image]\\nreference = \"{evil}\"\\n' >/out/analyzed.toml\n"));
    add("exporter", "echo $(</control/analyzed.toml)\n");
    let folder = folder.parent().expect("a folder").display().to_string();
    let said = site.built(&name, &["--publish", "--lifecycle", &folder]).stdout;
    assert!(said.contains(&format!("[exporter] [run-image] reference = \"{run}\"\n")), "{said}");
}

#[test]
fn what_buildpacks_leave_is_looked_at_before_another_lifecycle_exports_it() {
    let site = Site::with_password(&[old_buildpack()]);
    let name = site.registry.reference("team/app:1");
    let ran = |left: &str| {
        let folder = imitation(&site, "0.11", &choosing(GROUP));
        let builder = folder.join("lifecycle/builder");
        let own = fs::read_to_string(&builder).expect("read a phase");
        let left = format!("mkdir -p /layers/fixture_one/x; cd /layers/fixture_one; {left}\n");
        fs::write(builder, own + &left).expect("write a phase");
        let exporter = folder.join("lifecycle/exporter");
        let own = fs::read_to_string(&exporter).expect("read a phase");
        // As exporters do: follow what is there.
        let reading = "for file in /layers/fixture_one/*.toml /layers/sbom/*/*; do if [ -e $file ]; then echo $(<$file); fi; done\n";
        fs::write(exporter, own + reading).expect("write a phase");
        let folder = folder.display().to_string();
        let args = site.args(&name, &["--publish", "--lifecycle", &folder]);
        site.home.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    for (left, path, what, belongs) in [
        ("ln -s /run/coracle/config.json x.toml", "fixture_one/x.toml", "a symbolic link", "a document"),
        ("mkfifo x.toml", "fixture_one/x.toml", "a FIFO", "a document"),
        (
            "mkdir -p ../sbom/launch; ln -s /run/coracle ../sbom/launch/fixture_one",
            "sbom/launch/fixture_one",
            "a symbolic link",
            "a bill of materials or a folder of them",
        ),
        ("echo >x.toml; rmdir x; ln -s / x", "fixture_one/x", "a symbolic link", "a layer"),
        (
            "cd ..; rm -r fixture_one; ln -s / fixture_one",
            "fixture_one",
            "a symbolic link",
            "the buildpack's folder",
        ),
    ] {
        let ran = ran(left);
        assert_eq!(ran.code, Some(1), "{}\n{}", ran.stdout, ran.stderr);
        assert!(!ran.stdout.contains("===> EXPORTER"), "{}", ran.stdout);
        let expected = format!(
            "error: `/layers/{path}`, left by buildpack fixture/one@1.0.0, is {what} where {belongs} belongs; the exporter of another lifecycle is not started on that: have the buildpack put what is meant there itself, or choose other buildpacks with --buildpack\n"
        );
        assert!(ran.stderr.ends_with(&expected), "{}", ran.stderr);
    }
    // What goes into the image as it is harms nobody.
    let ran =
        ran("echo '[types]' >x.toml; ln -s / x/link; mkfifo x/fifo /workspace/fifo; ln -s / /workspace/link");
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("[exporter] [types]\n"), "{}", ran.stdout);
}
