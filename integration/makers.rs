//! What one builder's build left under a name, as image or as cache image, no build with another builder takes over.

use coracle_fixtures::{Builder, Buildpack};
use serde_json::Value;

use crate::harness::Ran;
use crate::site::Site;

/// Makes a layer, or believes that it is there because its metadata are.
fn buildpack(content: &str, types: &str) -> Buildpack {
    let about = format!("printf '[types]\\n{types}\\n[metadata]\\nv = \"1\"\\n' >\"$1/l.toml\"");
    Buildpack::passing("team/own").build(&format!(
        "if [ -e \"$1/l.toml\" ]; then echo \"found $(cat $1/l/content 2>/dev/null)\"; else echo made; mkdir \"$1/l\"; printf {content} >\"$1/l/content\"; fi; {about}"
    ))
}

/// A site, and the name of a stranger's builder that has a buildpack of the same id.
fn site(types: &str) -> (Site, String) {
    let site = Site::new(&[buildpack("good", types)]);
    let evil = Builder::new(&site.registry.reference("run:latest")).group(&[buildpack("trojan", types)]);
    site.registry.push(&evil.image(), "stranger/builder", "latest");
    let name = site.registry.reference("stranger/builder:latest");
    (site, name)
}

fn built(site: &Site, builder: &str, image: &str, more: &[&str]) -> Ran {
    let mut args = site.args(image, more);
    let at = args.iter().position(|word| word == &site.builder).expect("the builder");
    builder.clone_into(&mut args[at]);
    site.home.ok(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The digest of the layer, by the image's own word.
fn layer(site: &Site) -> String {
    let config: Value = serde_json::from_slice(&site.registry.config("app:1")).expect("a configuration");
    let text = config["config"]["Labels"]["io.buildpacks.lifecycle.metadata"].as_str().expect("a label");
    let metadata: Value = serde_json::from_str(text).expect("is JSON");
    metadata["buildpacks"][0]["layers"]["l"]["sha"].as_str().expect("a digest").to_owned()
}

#[test]
fn an_image_that_another_builder_made_gives_no_layer_to_the_next() {
    let (site, evil) = site("launch = true");
    let name = site.registry.reference("app:1");
    let note = "was made with another builder or other buildpacks before: nothing of it is used\n";
    let good = site.builder.clone();
    for publish in [&["--publish"][..], &[]] {
        let image = if publish.is_empty() { "app" } else { &name };
        for flow in [&[][..], &["--trust-builder", "--restore", "copy"]] {
            built(&site, &evil, image, publish);
            let ran = built(&site, &good, image, &[publish, flow].concat());
            assert!(ran.stdout.contains("] made\n"), "{}", ran.stdout);
            assert!(ran.stderr.contains(note), "{}", ran.stderr);
            // Its own it believes.
            let own = publish.first().map(|_| layer(&site));
            let ran = built(&site, &good, image, &[publish, flow].concat());
            assert!(ran.stdout.contains("] found \n"), "{}", ran.stdout);
            assert!(!ran.stderr.contains(note), "{}", ran.stderr);
            assert_eq!(own, publish.first().map(|_| layer(&site)));
        }
    }
}

#[test]
fn a_cache_image_that_another_builder_wrote_gives_no_layer_to_the_next() {
    let (site, evil) = site("build = true\\ncache = true");
    let name = site.registry.reference("app:1");
    let cache = site.registry.reference("cache:1");
    let good = site.builder.clone();
    for flow in [&[][..], &["--trust-builder"]] {
        let more = [&["--publish", "--cache-image", &cache], flow].concat();
        built(&site, &evil, &name, &more[..3]);
        let ran = built(&site, &good, &name, &more);
        assert!(ran.stdout.contains("] made\n"), "{}", ran.stdout);
        let ran = built(&site, &good, &name, &more);
        assert!(ran.stdout.contains("] found good\n"), "{}", ran.stdout);
    }
}

#[test]
fn an_image_that_was_imported_gives_no_layer_to_a_build() {
    let (site, _) = site("launch = true");
    let name = site.registry.reference("app:1");
    let good = site.builder.clone();
    for image in [name.as_str(), "app"] {
        let publish: &[&str] = if image == "app" { &[] } else { &["--publish"] };
        built(&site, &good, image, publish);
    }
    let config: Value = serde_json::from_slice(&site.registry.config("app:1")).expect("a configuration");
    let label = "io.buildpacks.lifecycle.metadata";
    let text = config["config"]["Labels"][label].as_str().expect("a label");
    let archive = site.home.path().join("root.tar");
    std::fs::write(&archive, coracle_fixtures::builder::base_layer().tar()).expect("write an archive");
    let archive = archive.display().to_string();
    site.home.ok(&["import", &archive, "app", "--label", &format!("{label}={text}")]);
    let ran = built(&site, &good, "app", &[]);
    assert!(ran.stdout.contains("] made\n"), "{}", ran.stdout);
    assert!(
        ran.stderr.contains("app:latest was made with another builder or other buildpacks before"),
        "{}",
        ran.stderr
    );
}
