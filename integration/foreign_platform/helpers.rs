//! Programs that know credentials (`credHelpers`, `credsStore` of Docker's configuration), where another platform starts our phases.

use std::fs;

use coracle_fixtures::registry::{PASSWORD, USER};
use coracle_fixtures::{Buildpack, RegistryAccess};

use super::buildpack;
use super::container::{Container, Who};
use crate::harness::Ran;

const PROGRAM: &str = "/usr/bin/docker-credential-x";

/// A container with a helper, which notes who asked it what, what it was told, and whether a program of a buildpack ran before it.
fn container(buildpack: Buildpack) -> Container {
    let container = Container::new(RegistryAccess::Password, &[buildpack.detect("touch /workspace/ran")]);
    let script = format!(
        "#!/bin/sh
read -r registry
echo \"$1 $registry as $(id -u) $(echo $(ls /workspace))\" >>/asked/calls
env >>/asked/env
echo \"{{\\\"Username\\\":\\\"{USER}\\\",\\\"Secret\\\":\\\"{PASSWORD}\\\"}}\"
"
    );
    container.write(&PROGRAM[1..], &script, 0o755);
    container.as_root("mkdir -m 1777 asked");
    container
}

fn config(container: &Container, folder: &str, text: &str) {
    container.as_root(&format!("mkdir -p {folder}/.docker"));
    container.write(&format!("{folder}/.docker/config.json"), text, 0o644);
}

fn named(container: &Container) -> String {
    format!("{{\"credHelpers\":{{\"{}\":\"x\"}}}}", container.registry.address())
}

fn create(container: &Container, who: Who, env: &[(&str, &str)]) -> Ran {
    container.clear(&["layers", "workspace", "cache"]);
    container.ran(who, "creator", &[&container.registry.reference("helped")], env)
}

fn asked(container: &Container, file: &str) -> String {
    fs::read_to_string(container.path("asked").join(file)).unwrap_or_default()
}

#[test]
fn a_creator_asks_the_helper_that_docker_s_configuration_names_before_any_program_runs() {
    for (who, home, uid) in [(Who::Root, "root", 0), (Who::BuildUser, "home/cnb", 1001)] {
        let container = container(buildpack());
        config(&container, home, &named(&container));
        let ran = create(&container, who, &[]);
        assert_eq!(ran.code, Some(0), "{who:?}: {}{}", ran.stdout, ran.stderr);
        let call = format!("get {} as {uid} hello\n", container.registry.address());
        assert_eq!(asked(&container, "calls"), call, "{who:?}");
        assert!(container.path("workspace/ran").exists());
        let text = "programs of buildpacks can ask docker-credential-x as this process did: hand credentials over in CNB_REGISTRY_AUTH, or have root start the creator";
        assert_eq!(ran.stderr.contains(text), who == Who::BuildUser, "{who:?}: {}", ran.stderr);
        assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(PASSWORD), "{}", ran.stderr);
    }
}

#[test]
fn phases_with_programs_of_buildpacks_ask_nobody_and_others_do() {
    let container = container(buildpack());
    config(&container, "root", &format!("{{\"credsStore\":\"x\",{}", &named(&container)[1..]));
    config(&container, "home/cnb", &named(&container));
    let image = container.registry.reference("phases");
    let mut calls = 0;
    for (phase, who, args, asks) in [
        ("analyzer", Who::Root, vec![image.as_str()], 1),
        ("detector", Who::BuildUser, vec![], 0),
        ("restorer", Who::Root, vec!["-cache-dir", "/cache"], 1),
        ("builder", Who::BuildUser, vec![], 0),
        ("exporter", Who::Root, vec![image.as_str()], 1),
        ("rebaser", Who::Root, vec![image.as_str()], 1),
    ] {
        if phase == "rebaser" {
            container.as_root("ln -s coracle cnb/lifecycle/rebaser");
        }
        let ran = container.ran(who, phase, &args, &[]);
        assert_eq!(ran.code, Some(0), "{phase}: {}{}", ran.stdout, ran.stderr);
        calls += asks;
        let asked = asked(&container, "calls");
        assert_eq!(asked.lines().count(), calls, "{phase}: {asked}");
    }
}

#[test]
fn a_helper_is_told_nothing_of_the_platform_s_and_root_tells_it_no_folder_of_others() {
    let container = container(buildpack());
    config(&container, "root", &named(&container));
    container.as_root("mkdir -p home/cnb; chown 1001:1002 home/cnb");
    let env = [
        ("DOCKER_CONFIG", "/root/.docker"),
        ("HOME", "/home/cnb"),
        ("AWS_REGION", "somewhere"),
        ("GNUPGHOME", "/home/cnb"),
        ("OTHER", "x"),
        ("CNB_REGISTRY_AUTH", "{\"elsewhere.example\":\"Basic dXNlcjpoaWRkZW4=\"}"),
    ];
    let ran = create(&container, Who::Root, &env);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    let told = asked(&container, "env");
    let mut names: Vec<_> =
        told.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    // The shell adds three of its own.
    names.retain(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name));
    assert_eq!(names, ["AWS_REGION", "PATH"], "{told}");
}

#[test]
fn root_starts_no_helper_that_others_can_change() {
    for change in [
        format!("chown 1001:1002 .{PROGRAM}"),
        format!("chmod o+w .{PROGRAM}"),
        "chmod g+w usr/bin".to_owned(),
    ] {
        let container = container(buildpack());
        config(&container, "root", &named(&container));
        container.as_root(&change);
        let ran = create(&container, Who::Root, &[]);
        assert_eq!(ran.code, Some(1), "{change}: {}{}", ran.stdout, ran.stderr);
        let address = container.registry.address();
        for text in [
            format!(
                "could not get the credentials for {address}, for which `/root/.docker/config.json` names a helper"
            ),
            format!("root does not start {PROGRAM}, which others than root can change"),
        ] {
            assert!(ran.stderr.contains(&text), "{change}: {}", ran.stderr);
        }
        assert_eq!(asked(&container, "calls"), "", "{change}");
        assert!(!container.path("workspace/ran").exists(), "{change}");
        // The platform's own word needs no helper.
        let ran = create(&container, Who::Root, &[("CNB_REGISTRY_AUTH", &container.header())]);
        assert_eq!(ran.code, Some(0), "{change}: {}{}", ran.stdout, ran.stderr);
    }
}

#[test]
fn root_asks_no_helper_on_the_word_of_a_file_that_others_can_change() {
    for change in ["chmod 0777 root/.docker", "chmod o+w root/.docker/config.json"] {
        let container = container(buildpack());
        config(&container, "root", &named(&container));
        container.as_root(change);
        let ran = create(&container, Who::Root, &[]);
        assert_eq!(ran.code, Some(3), "{change}: {}{}", ran.stdout, ran.stderr);
        let text = "warning: `/root/.docker/config.json` names credential helpers, and others than root can change it or put another in its place: root asks none of them; CNB_REGISTRY_AUTH is another way to hand credentials over";
        assert!(ran.stderr.contains(text), "{change}: {}", ran.stderr);
        assert_eq!(asked(&container, "calls"), "", "{change}");
    }
}

#[test]
fn without_the_helper_for_all_what_is_open_is_reached_and_the_log_says_why_the_rest_is_not() {
    let container = container(buildpack());
    config(&container, "root", "{\"credsStore\":\"missing\"}");
    let ran = create(&container, Who::Root, &[]);
    assert_eq!(ran.code, Some(3), "{}{}", ran.stdout, ran.stderr);
    let address = container.registry.address();
    let text = format!(
        "warning: no credentials for {address} from the credsStore of `/root/.docker/config.json`, so that only what needs none is reached there; CNB_REGISTRY_AUTH is another way to hand them over: docker-credential-missing is in no folder of PATH"
    );
    assert!(ran.stderr.contains(&text), "{}", ran.stderr);
}
