//! `--build-layers strict`: each buildpack in a container of its own (docs/decisions/0013-layers-of-earlier-buildpacks.md).

use coracle_fixtures::{Builder, Buildpack, DockerRegistry, Entry, RunImage};

use crate::harness::Ran;
use crate::site::Site;

const RUNTIMES: [&str; 3] = ["youki", "crun", "runc"];
const STRICT: [&str; 2] = ["--build-layers", "strict"];

/// Brings a tool, and a layer beside it; says what it finds of an earlier build.
fn tool() -> Buildpack {
    Buildpack::passing("fixture/tool")
        .plan("one")
        .plan("two")
        .build("echo \"tool finds $(ls \"$1\" | tr '\\n' ' ')\"")
        .build(
            r#"
mkdir -p "$1/tool/bin" "$1/tool/env.build" "$1/other"
printf '#!/bin/bash\necho "tool with $SETTING"\n' >"$1/tool/bin/tool"; chmod 755 "$1/tool/bin/tool"
printf 'a setting' >"$1/tool/env.build/SETTING"
printf '[types]\nbuild = true\nlaunch = true\ncache = true\n' | tee "$1/tool.toml" >"$1/other.toml"
echo as it was >"$1/other/file"
mkdir -p "$1/unused"; printf '[types]\n' | tee "$1/unused.toml" >"$1/unused.ignore.toml"
printf '[[unmet]]\nname = "two"\n' >"$1/build.toml""#,
        )
}

/// Uses it.
fn user() -> Buildpack {
    Buildpack::passing("fixture/user")
        .plan("one")
        .plan("two")
        .build(
            r#"
tool
echo "asked for $(grep -o '"[a-z]*"' "$3" | tr '\n' ' ')"
echo "others: $(cd /layers && ls | tr '\n' ' ')"
echo kept >/tmp/note; echo kept >"$HOME/note" 2>/dev/null || true"#,
        )
        .layer("app", &["launch"], "made with the tool")
        .process(&["cat"])
}

fn last() -> Buildpack {
    Buildpack::passing("fixture/last")
        .build("tool; echo \"asked for $(grep -c name \"$3\" || true)\"; echo \"note: $(cat /tmp/note)\"")
}

/// Tries to change what the tool's buildpack left, and goes on.
fn writer(how: &str) -> Buildpack {
    Buildpack::passing("fixture/writer").build(&format!("cd /layers/fixture_tool; {how}"))
}

fn said(ran: &Ran) -> String {
    format!("{}{}", ran.stdout, ran.stderr)
}

#[test]
fn a_write_into_a_folder_of_an_earlier_buildpack_fails_where_it_happens() {
    let tries = "for path in tool/bin/tool new launch.toml; do (echo x >>\"$path\") 2>&1 || echo \"no $path\"; done
mkdir dir 2>&1 || true; mv other moved 2>&1 || true; chmod 700 tool 2>&1 || true; rm tool.toml 2>&1 || true; touch tool 2>&1 || true
rm -r /layers/fixture_tool 2>&1 | tail -1; mount -o remount,rw /layers/fixture_tool 2>&1 || true
cd /; mv /layers/fixture_tool /layers/away 2>&1 || echo it stays";
    let site = Site::new(&[tool(), writer(tries), user()]);
    for runtime in RUNTIMES {
        let said = said(&site.built("app", &[&STRICT[..], &["--runtime", runtime]].concat()));
        for path in ["tool/bin/tool", "new", "launch.toml"] {
            assert!(said.contains(&format!("{path}: Read-only file system")), "{runtime}: {said}");
            assert!(said.contains(&format!("[builder] no {path}\n")), "{runtime}: {said}");
        }
        assert!(said.matches("Read-only file system").count() >= 8, "{runtime}: {said}");
        assert!(said.contains("[builder] it stays\n"), "{runtime}: {said}");
        assert!(said.contains("tool with a setting"), "{runtime}: {said}");
        assert!(!said.contains("is undone"), "{runtime}: {said}");
    }
    let image = site.home.ok(&["run", "app", "--", "/layers/fixture_tool/other/file"]);
    assert_eq!(image.stdout, "as it was\n");
}

#[test]
fn who_does_not_expect_it_fails_the_build() {
    let site = Site::new(&[tool(), writer("echo x >tool/new; echo not reached"), user()]);
    let said = site.refused(51, "app", &STRICT);
    assert!(said.contains("tool/new: Read-only file system"), "{said}");
    assert!(said.contains("buildpack `fixture/writer@1.0.0` failed"), "{said}");
    assert!(!said.contains("not reached") && !said.contains("tool with"), "{said}");
}

#[test]
fn buildpacks_that_keep_to_their_own_make_the_same_image_as_with_snapshot() {
    let site = Site::new(&[tool(), user(), last()]);
    let built = |name: &str, more: &[&str]| {
        let ran = site.built(name, more);
        let line = ran.stdout.lines().last().unwrap_or_default();
        let digest = line.split_once('@').expect("a digest").1.to_owned();
        (digest, said(&ran))
    };
    let (strict, first) = built("strict", &STRICT);
    for line in [
        "tool finds \n",
        "tool with a setting\n",
        "asked for \"two\" \"two\" \n",
        "others: fixture_tool fixture_user sbom \n",
        "asked for 0\n",
        "note: kept\n",
    ] {
        assert!(first.contains(&format!("[builder] {line}")), "{line:?} in {first}");
    }
    assert_eq!(first.matches("===> BUILDER").count(), 1, "{first}");
    let (again, second) = built("strict", &STRICT);
    assert!(second.contains("[builder] tool finds other other.toml tool tool.toml \n"), "{second}");
    assert!(second.contains("Reusing layer 'fixture/tool:tool'"), "{second}");
    assert!(second.contains("Reusing cache layer 'fixture/tool:tool'"), "{second}");
    let (snapshot, _) = built("snapshot", &["--clear-cache"]);
    assert_eq!([&strict, &again], [&snapshot; 2]);
}

/// Folders of the image at which later steps mount are the image's, or those of the steps before: they lead nowhere else.
#[test]
fn a_link_where_a_later_folder_is_mounted_is_refused() {
    // A kernel with Landlock does not let the link be made; the launcher refuses it where there is none.
    let linking = tool().build("ln -s /tmp /layers/fixture_user && echo linked || echo stopped");
    let site = Site::new(&[linking, user()]);
    let arguments = site.args("app", &STRICT);
    let ran = site.home.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    if ran.stdout.contains("[builder] stopped\n") {
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        return;
    }
    assert_eq!((ran.code, ran.stdout.contains("[builder] linked\n")), (Some(1), true), "{}", ran.stderr);
    let said = ran.stderr;
    let expected =
        "layers/fixture_user of the image is a symbolic link or a file where a folder must be; refused";
    assert!(said.contains(expected), "{said}");
}

/// The second builder's `/layers` is root's.
#[test]
fn what_is_shared_is_written_and_what_lies_beside_it_is_kept() {
    let site = Site::new(&[tool(), writer("echo more >tool/more; echo x >other/file; echo written"), user()]);
    let told = "buildpack `fixture/writer@1.0.0` changed layer `other` of buildpack `fixture/tool@1.0.0` in 1 place, such as `other/file`: that is undone";
    let named = ["--shared-layer", "fixture/tool:tool"];
    let said_by_flag = said(&site.built("app", &[&STRICT[..], &named].concat()));
    let declared = tool().build("printf '[coracle]\\nshared = true\\n' >>\"$1/tool.toml\"");
    let registry = DockerRegistry::open();
    let builder = Builder::new(&registry.reference("run:latest"))
        .group(&[declared, writer("echo more >tool/more; echo x >other/file; echo written"), user()])
        .file(Entry::dir("/layers"));
    let other = Site::of(registry, &RunImage::new().image(), &builder.image());
    let said_by_layer = said(&other.built("app", &STRICT));
    for (site, said) in [(&site, said_by_flag), (&other, said_by_layer)] {
        assert!(said.contains("[builder] written\n") && said.contains(told), "{said}");
        let image = ["tool/more", "other/file"]
            .map(|path| site.home.ok(&["run", "app", "--", &format!("/layers/fixture_tool/{path}")]).stdout);
        assert_eq!(image, ["more\n", "as it was\n"]);
    }
}
