//! `--timings`: what took how long, as a table, a trace and a page.

use coracle_fixtures::Buildpack;
use serde_json::Value;

use crate::site::Site;

fn site() -> Site {
    let program = "echo '::coracle-took::5 somebody/else@1'; mkdir \"$1/kept\"; printf '[types]\\nlaunch = true\\n' >\"$1/kept.toml\"";
    Site::new(&[Buildpack::passing("fixture/slow").plan("slow").build(program)])
}

#[test]
fn a_build_tells_what_took_how_long_in_three_forms() {
    let site = site();
    let image = site.registry.reference("team/app");
    let folder = site.home.path().join("timings");
    std::fs::create_dir(&folder).expect("make a folder");
    let build = |form: &[&str]| {
        let args =
            [site.args(&image, &["--publish"]), form.iter().map(ToString::to_string).collect()].concat();
        let ran = site.home.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(ran.code, Some(0), "stdout: {}\nstderr: {}", ran.stdout, ran.stderr);
        assert!(!ran.stdout.contains("::coracle-took::"), "{}", ran.stdout);
        ran
    };
    let (trace, page) = (folder.join("t.json"), folder.join("t.html"));
    build(&["--timings", &trace.display().to_string()]);
    let trace: Value = serde_json::from_slice(&std::fs::read(trace).expect("read")).expect("JSON");
    let names: Vec<&str> =
        trace["traceEvents"].as_array().into_iter().flatten().filter_map(|e| e["name"].as_str()).collect();
    for name in [
        "stage start",
        "job Pull",
        "container analyzer",
        "detect fixture/slow@1.0.0",
        "container builder",
        "buildpack fixture/slow@1.0.0",
        "container exporter",
        "Adding layer 'fixture/slow:kept'",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert!(names.iter().any(|name| name.starts_with("layer ")), "{names:?}");

    let table = build(&["--timings"]).stderr;
    for part in
        ["what ", " began ", "container exporter ", "buildpack fixture/slow@1.0.0", "between them", "all "]
    {
        assert!(table.contains(part), "{part}: {table}");
    }
    build(&[&format!("--timings={}", page.display())]);
    let page = std::fs::read_to_string(page).expect("read");
    assert!(page.contains(&format!("<title>build {image}")), "{page}");
    assert!(page.contains("exporter: Reusing layer 'fixture/slow:kept'"), "{page}");
}

#[test]
fn timings_that_nobody_could_read_are_refused_before_anything_is_done() {
    let site = site();
    let run = |form: &str| {
        let args = [site.args("app", &[]), vec![form.to_owned()]].concat();
        site.home.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let missing = run("--timings=/nowhere/t.json");
    let expected = "error: could not write the timings to /nowhere/t.json\n  cause: No such file or directory (os error 2)\n";
    assert_eq!((missing.code, missing.stderr.as_str(), missing.stdout.as_str()), (Some(1), expected, ""));
    let form = run("--timings=t.txt");
    assert_eq!(form.code, Some(2));
    assert!(
        form.stderr.contains("timings are written as a trace to FILE.json or as a page to FILE.html"),
        "{}",
        form.stderr
    );
}

#[test]
fn a_buildpack_that_tells_times_without_end_fills_neither_memory_nor_picture() {
    let flood = "i=0; while [ $i -lt 1200 ]; do echo '::coracle-took::5 somebody/else@1'; i=$((i+1)); done";
    let site = Site::new(&[Buildpack::passing("fixture/liar").build(flood)]);
    let trace = site.home.path().join("t.json");
    let form = format!("--timings={}", trace.display());
    let ran = site.built("app", &[&form]);
    let trace: Value = serde_json::from_slice(&std::fs::read(trace).expect("read")).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("a list");
    let told = events.iter().filter(|event| event["name"] == "buildpack somebody/else@1").count();
    let shown = ran.stdout.lines().filter(|line| line.ends_with("coracle-took::5 somebody/else@1")).count();
    assert_eq!((told, shown), (1000, 200));
}
