//! The copy of the application that stays between builds (docs/decisions/0030-the-applications-copy-stays.md): the same images and
//! the same files for buildpacks as where it is copied each time, and nothing read where nothing changed.

use std::fs;
use std::time::Duration;

use coracle_fixtures::Buildpack;

use crate::harness::Ran;
use crate::kill::killed_at;
use crate::site::Site;

const FILES: usize = 500;

/// Tells what it finds of the application, and does what the variable says.
fn worker() -> Buildpack {
    Buildpack::passing("fixture/worker").process(&["cat", "hello"]).build(
        r#"
all=$(find . -type f | sort | xargs cat | md5sum; find . | sort | xargs stat -c '%n %f %Y %N' | md5sum)
echo "sum" $all
if [ -e "$2/env/DO" ]; then eval "$(cat "$2/env/DO")"; fi"#,
    )
}

fn site() -> Site {
    let site = Site::new(&[worker()]);
    for number in 0..FILES {
        let folder = site.app().join(format!("src/{}", number % 10));
        fs::create_dir_all(&folder).expect("make a folder");
        let content = "x".repeat(2000 + number);
        fs::write(folder.join(number.to_string()), content).expect("write the application");
    }
    std::os::unix::fs::symlink("hello", site.app().join("link")).expect("make a link");
    // What changed within a tick of the clock is not known again.
    std::thread::sleep(Duration::from_millis(50));
    site
}

fn digest(ran: &Ran) -> String {
    ran.stdout.lines().last().and_then(|line| line.split_once('@')).expect("a digest").1.to_owned()
}

/// What the buildpack found.
fn found(ran: &Ran) -> &str {
    ran.stdout.lines().find(|line| line.starts_with("[builder] sum ")).expect("a sum")
}

fn said(ran: &Ran, line: &str) -> bool {
    ran.stdout.contains(line) || ran.stderr.contains(line)
}

const UNREAD: &str = "'Application Layer' was changed by nobody since it was packed, and not read";

#[test]
fn of_an_application_that_nobody_changed_nothing_is_read() {
    let site = site();
    let image = site.registry.reference("app:latest");
    let verbose = ["--publish", "--verbose"];
    let first = site.built(&image, &verbose);
    assert_eq!(found(&first).split_whitespace().count(), 6, "two sums");
    for _ in 0..2 {
        let again = site.built(&image, &verbose);
        assert!(
            said(&again, "of the source 0 files and links were copied (0 bytes), 502 had stayed"),
            "{}",
            again.stdout
        );
        assert!(said(&again, UNREAD), "{}", again.stdout);
        assert!(said(&again, "Reusing 1/1 app layer(s)"));
        assert_eq!((digest(&again), found(&again)), (digest(&first), found(&first)));
    }
    // The plain way: the same image of the same files, by reading.
    let copied = site.built(&image, &["--publish", "--verbose", "--restore", "copy"]);
    assert!(said(&copied, "'Application Layer' was read, and is what the previous image has"));
    assert_eq!((digest(&copied), found(&copied)), (digest(&first), found(&first)));
    // And the copy is there still.
    assert!(said(&site.built(&image, &verbose), UNREAD));
    // An image that is not there has no layers that could be taken.
    let other = site.built(&site.registry.reference("other:latest"), &verbose);
    assert_eq!(digest(&other), digest(&first));
}

#[test]
fn of_one_file_that_changed_one_is_copied() {
    let site = site();
    let image = site.registry.reference("app:latest");
    let first = site.built(&image, &["--publish"]);
    let path = site.app().join("src/3/3");
    let time = fs::metadata(&path).expect("look").modified().expect("a time");
    let content = fs::read_to_string(&path).expect("read").replacen('x', "y", 1);
    fs::write(&path, content).expect("write");
    fs::File::options().write(true).open(&path).expect("open").set_modified(time).expect("set a time");
    std::thread::sleep(Duration::from_millis(50));
    let changed = site.built(&image, &["--publish", "--verbose"]);
    assert!(said(&changed, "of the source 1 files and links were copied (2003 bytes), 501 had stayed"));
    assert!(said(&changed, "Adding 1/1 app layer(s)"), "{}", changed.stdout);
    assert!(digest(&changed) != digest(&first) && found(&changed) != found(&first));
    let copied = site.built(&image, &["--publish", "--restore", "copy"]);
    assert_eq!((digest(&copied), found(&copied)), (digest(&changed), found(&changed)));
    assert!(said(&site.built(&image, &["--publish", "--verbose"]), UNREAD));
}

/// What a buildpack does to the application, and whether something is left for the image to have another layer.
#[test]
fn what_buildpacks_do_to_the_application_is_in_the_image_and_gone_in_the_next_build() {
    let site = site();
    let image = site.registry.reference("app:latest");
    let first = site.built(&image, &["--publish"]);
    // How many files and links are copied in the next build.
    for (deed, copied) in [
        ("printf two >hello", 1),
        (
            "t=$(stat -c @%Y hello); printf 'HELLO' | dd of=hello conv=notrunc 2>/dev/null; touch -d $t hello",
            1,
        ),
        ("chmod 700 hello", 1),
        ("rm hello; ln -s link hello", 1),
        ("mkdir node_modules; printf more >node_modules/file", 0),
        ("rm -r src/1", FILES / 10),
        ("chmod 700 src", 0),
        ("mv src was; ln -s was src", FILES),
        ("ln -s src more; touch -d @315532801 -h . more", 0),
    ] {
        let done = site.built(&image, &["--publish", "--env", &format!("DO={deed}")]);
        assert!(said(&done, "Adding 1/1 app layer(s)"), "{deed}: {}", done.stdout);
        assert_ne!(digest(&done), digest(&first), "{deed}");
        let plain = ["--publish", "--restore", "copy", "--env", &format!("DO={deed}")];
        let plain = site.built(&image, &plain);
        assert_eq!(digest(&plain), digest(&done), "{deed}");
        let next = site.built(&image, &["--publish", "--verbose"]);
        assert_eq!((digest(&next), found(&next)), (digest(&first), found(&first)), "{deed}");
        let line = format!("of the source {copied} files and links were copied");
        assert!(said(&next, &line), "{deed}: {}", next.stderr);
    }
}

#[test]
fn other_slices_other_tags_and_other_times_of_one_application() {
    let site = site();
    let image = site.registry.reference("app:latest");
    let slices = |paths: &str| format!("DO=printf '[[slices]]\\npaths = [{paths}]\\n' >>\"$1/launch.toml\"");
    let (one, other) = (slices("\"src/1\""), slices("\"src/1\", \"src/2\""));
    let plain = |more: &[&str]| {
        let image = site.registry.reference("plain:latest");
        digest(&site.built(&image, &[&["--publish", "--restore", "copy"], more].concat()))
    };
    for (more, layers, is_unread) in [
        (vec!["--env", &one], 2, false),
        (vec!["--env", &one], 2, true),
        (vec!["--env", &other], 2, false),
        (vec!["--env", &other], 2, true),
        (vec![], 1, false),
        (vec!["--compression", "none"], 1, true),
        (vec!["--tag", &site.registry.reference("app:two")], 1, true),
    ] {
        let built = site.built(&image, &[&["--publish", "--verbose"][..], &more].concat());
        assert_eq!(said(&built, "was changed by nobody since it was packed"), is_unread, "{more:?}");
        assert!(said(&built, &format!("/{layers} app layer(s)")), "{more:?}: {}", built.stdout);
        let more = if more.contains(&"--env") { more } else { vec![] };
        assert_eq!(digest(&built), plain(&more), "{more:?}");
    }
}

#[test]
fn a_build_that_fails_or_is_killed_leaves_nothing_of_what_it_did_to_the_application() {
    let site = site();
    let first = site.built("app", &[]);
    let deed = "DO=printf two >hello; touch src/more;";
    site.refused(51, "app", &["--env", &format!("{deed} exit 1")]);
    let again = site.built("app", &[]);
    assert_eq!((digest(&again), found(&again)), (digest(&first), found(&first)));

    let stalled = format!("{deed} echo stalled; sleep 60");
    let args = site.args("app", &["--env", &stalled]);
    let command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    killed_at(command, "[builder] stalled", Duration::ZERO, &site.home, "a buildpack");
    let again = site.built("app", &["--verbose"]);
    assert!(said(&again, "of the source 1 files and links were copied"), "{}", again.stderr);
    assert_eq!((digest(&again), found(&again)), (digest(&first), found(&first)));

    // One that fails without touching it costs nothing.
    site.refused(51, "app", &["--env", "DO=exit 1"]);
    let again = site.built("app", &["--verbose"]);
    assert!(said(&again, "(0 bytes), 502 had stayed"), "{}", again.stderr);
}

#[test]
fn the_copy_of_a_trusted_builder_s_one_container_stays_if_its_programs_left_it_alone() {
    let site = site();
    let image = site.registry.reference("app:latest");
    let trusted = ["--publish", "--verbose", "--trust-builder"];
    let (all, none) =
        ("of the source 502 files and links were copied", "of the source 0 files and links were copied");
    let first = site.built(&image, &trusted);
    assert!(said(&first, "its phases share one container") && said(&first, all), "{}", first.stderr);
    let again = site.built(&image, &trusted);
    assert!(said(&again, none), "{}", again.stderr);
    // What a program writes there is in the image, and in no other.
    let written = site.built(&image, &[&trusted[..], &["--env", "DO=echo written >>hello"]].concat());
    assert!(said(&written, none), "{}", written.stderr);
    assert_ne!(digest(&written), digest(&first));
    let after = site.built(&image, &trusted);
    assert!(said(&after, "of the source 1 files and links were copied"), "{}", after.stderr);
    // Each phase in a container of its own finds the same copy.
    let apart = site.built(&image, &["--publish", "--verbose"]);
    assert!(said(&apart, none), "{}", apart.stderr);
    for build in [again, after, apart] {
        assert_eq!(digest(&build), digest(&first));
    }
}
