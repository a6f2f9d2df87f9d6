//! What a build does before a program of a buildpack runs, as much of it at once as can be: shown by what waits for what.

use coracle_fixtures::{Buildpack, Gate};

use crate::harness::{Ran, TestHome};
use crate::site::Site;

fn site() -> Site {
    Site::new(&[Buildpack::passing("fixture/worker").process(&["cat", "hello"])])
}

/// A part of the path in which a layer is asked for that only the builder has.
fn last_layer(site: &Site) -> String {
    let manifest: serde_json::Value =
        serde_json::from_slice(&site.registry.manifest("builder")).expect("a manifest");
    let layer = manifest["layers"].as_array().and_then(|layers| layers.last()).expect("a layer");
    format!("/builder/blobs/{}", layer["digest"].as_str().expect("a digest"))
}

/// A build in this home that knows the registry by the gate alone.
fn built(home: &TestHome, site: &Site, gate: &Gate, more: &[&str]) -> Ran {
    let app = site.app().display().to_string();
    let [image, builder, run_image] = ["app", "builder", "run"].map(|name| gate.reference(name));
    let fixed = ["build", &image, "--path", &app, "--builder", &builder, "--run-image", &run_image];
    let ran = home.run(&[&fixed[..], more].concat());
    assert_eq!(home.leftovers(), Vec::<String>::new());
    ran
}

#[test]
fn the_application_is_copied_and_its_images_are_analyzed_while_the_builder_is_fetched() {
    let site = site();
    // The last thing that the analysis asks for, after the copy was made: whether the image may be written.
    let gate = Gate::holding(&site.registry, &last_layer(&site), "POST /v2/app/blobs/uploads/");
    let ran = built(&site.home, &site, &gate, &["--publish"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn where_the_builder_and_the_application_fail_the_builder_s_failure_is_told() {
    let site = site();
    let wrong = ["--publish", "--buildpack", "fixture/unknown"];
    let last = |ran: &Ran| ran.stderr.lines().last().unwrap_or_default().to_owned();
    // Alone it is told, whether the builder comes or is here.
    let gate = Gate::for_any_host(&site.registry);
    for _ in 0..2 {
        let ran = built(&site.home, &site, &gate, &wrong);
        assert!(ran.code == Some(1) && last(&ran).contains("fixture/unknown"), "{}", ran.stderr);
    }
    // A builder that fails later.
    let gate = Gate::holding(&site.registry, &last_layer(&site), "nothing that anybody asks for");
    let ran = built(&TestHome::new(), &site, &gate, &wrong);
    assert!(ran.code == Some(1) && last(&ran).contains("/builder/blobs/"), "{}", ran.stderr);
}
