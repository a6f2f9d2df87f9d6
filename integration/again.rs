//! What a second build finds of the first.

use coracle_fixtures::Buildpack;

use crate::site::Site;

/// Counts its builds in a cached layer, and tells what it finds.
fn counter() -> Buildpack {
    Buildpack::passing("fixture/counter").plan("count").build(
        r#"
count=$(cat "$1/kept/count" 2>/dev/null || echo 0)
echo "count=$count store=$(tr -d '\n' 2>/dev/null <"$1/store.toml") kept=$(tr -d '\n' 2>/dev/null <"$1/kept.toml") words=$(tr -d '\n' 2>/dev/null <"$1/words.toml")" || true
ls -A "$1" "$1/.."
mkdir -p "$1/kept/closed" "$1/words"; chmod u+w "$1/kept/closed"
rm -rf "$1/kept/closed"; mkdir "$1/kept/closed"
echo $((count + 1)) >"$1/kept/count"
touch "$1/kept/closed/file"; chmod 555 "$1/kept/closed"
echo words >"$1/words/content"
mkdir -p "$1/same"; echo same >"$1/same/content"; printf '[types]\ncache = true\n' >"$1/same.toml"
printf '[types]\nbuild = true\ncache = true\n[metadata]\nof = "kept"\n' >"$1/kept.toml"
printf '[types]\nlaunch = true\n[metadata]\nof = "words"\n' >"$1/words.toml"
printf '[metadata]\nof = "store"\n' >"$1/store.toml""#,
    )
}

fn build(site: &Site, image: &str, more: &[&str]) -> String {
    let args = site.args(image, more);
    let ran = site.home.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ran.code, Some(0), "stdout: {}\nstderr: {}", ran.stdout, ran.stderr);
    assert_eq!(site.home.leftovers(), Vec::<String>::new());
    ran.stdout
}

#[test]
fn cached_layers_and_metadata_come_back_under_every_runtime() {
    let site = Site::new(&[counter()]);
    let published = site.registry.reference("team/app");
    for (image, publish) in [("app", &[][..]), (&published, &["--publish"][..])] {
        let first = build(&site, image, publish);
        assert!(first.contains("count=0 store= kept= words="), "{first}");
        for (runtime, count) in ["youki", "crun", "runc"].iter().zip(1..) {
            let more = [publish, &["--runtime", runtime]].concat();
            let again = build(&site, image, &more);
            let found = format!(
                "count={count} store=[metadata]  of = \"store\" kept=[metadata]  of = \"kept\" words=[metadata]  of = \"words\""
            );
            assert!(again.contains(&found), "{again}");
            assert!(again.contains("Restoring data for \"fixture/counter:kept\" from cache"), "{again}");
            assert!(again.contains("Adding cache layer 'fixture/counter:kept'"), "{again}");
            assert!(again.contains("Reusing cache layer 'fixture/counter:same'"), "{again}");
            assert!(!again.contains(".restoring"), "{again}");
        }
        let cleared = build(&site, image, &[publish, &["--clear-cache"]].concat());
        assert!(cleared.contains("count=0 store=[metadata]  of = \"store\" kept= words=["), "{cleared}");
    }
}

/// A launch layer that only the first build makes, with a bill of materials.
fn reuser() -> Buildpack {
    let toml = "api = \"0.10\"\n[buildpack]\nid = \"fixture/reuser\"\nversion = \"1.0.0\"\nsbom-formats = [\"application/vnd.cyclonedx+json\"]\n[[targets]]\nos = \"linux\"\n";
    // The later of two files counts.
    Buildpack::passing("fixture/reuser").file("buildpack.toml", toml).build(
        r#"
echo "found: $(cd "$1" && echo *)"
if [ ! -e "$1/reused.toml" ]; then mkdir "$1/reused"; echo content >"$1/reused/content"; echo '{}' >"$1/reused.sbom.cdx.json"; fi
printf '[types]\nlaunch = true\n' >"$1/reused.toml""#,
    )
}

#[test]
fn a_layer_that_is_reused_keeps_its_bill_of_materials() {
    let site = Site::new(&[reuser()]);
    let published = site.registry.reference("team/app");
    for (image, more) in [("app", &[][..]), (&published, &["--publish"][..])] {
        let first = build(&site, image, more);
        assert!(first.contains("found: *"), "{first}");
        let again = build(&site, image, more);
        assert!(again.contains("found: reused.sbom.cdx.json reused.toml\n"), "{again}");
        assert_eq!(first.lines().last(), again.lines().last(), "another image");
    }
}
