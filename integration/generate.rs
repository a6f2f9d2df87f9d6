//! Extensions against what the reference lifecycle's detector did with the same: exit codes, documents, what was generated and
//! what each program found.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::golden::data;
use crate::phases::{Platform, order, ran};

/// Everything below some folders, by path: the text of files, nothing for folders.
fn tree(root: &Path, folder: &str, found: &mut BTreeMap<String, Value>) {
    for entry in fs::read_dir(root.join(folder)).into_iter().flatten() {
        let name = entry.expect("read a folder").file_name().into_string().expect("is text");
        let path = format!("{folder}/{name}");
        if root.join(&path).is_dir() {
            found.insert(format!("{path}/"), Value::Null);
            tree(root, &path, found);
        } else {
            let text = fs::read_to_string(root.join(&path)).expect("read a file");
            found.insert(path, json!(text));
        }
    }
}

/// What programs report of themselves contains a plan, whose entries have no order.
fn in_order(tree: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let sort = |(path, text): (String, Value)| match text.as_str().filter(|_| path.contains("/seen-")) {
        Some(seen) => {
            let mut lines: Vec<&str> = seen.lines().collect();
            lines.sort_unstable();
            (path, json!(lines))
        }
        None => (path, text),
    };
    tree.into_iter().map(sort).collect()
}

/// A TOML document; in plans neither entries nor what each requires have an order.
fn document(text: &str) -> Value {
    let mut value: Value = toml::from_str(text).expect("is TOML");
    let sort = |list: &mut Value| {
        if let Some(list) = list.as_array_mut() {
            list.sort_by_key(ToString::to_string);
        }
    };
    if let Some(entries) = value.get_mut("entries") {
        entries.as_array_mut().into_iter().flatten().for_each(|entry| sort(&mut entry["requires"]));
        sort(entries);
    }
    value
}

fn differences(case: &Value) -> Vec<String> {
    let platform = Platform::new(case["order.toml"].as_str().expect("is text"));
    for (path, file) in case["files"].as_object().expect("is an object") {
        let text = file.as_str().or_else(|| file["text"].as_str()).expect("has a text");
        platform.write(path, text);
        if let Some(mode) = file["mode"].as_str() {
            let mode = u32::from_str_radix(mode, 8).expect("is octal");
            fs::set_permissions(platform.at(path), fs::Permissions::from_mode(mode)).expect("set a mode");
        }
    }
    let mut command = platform.phase("detector", &[]);
    command.env("CNB_PLATFORM_API", case["platform_api"].as_str().expect("is text"));
    command.env("CNB_STACK_ID", "stack");
    for (name, value) in case["env"].as_object().expect("is an object") {
        command.env(name, value.as_str().expect("is text"));
    }
    let (code, stdout, stderr) = ran(&mut command);
    let mut differences = Vec::new();
    if code.map(i64::from) != case["exit"].as_i64() {
        differences.push(format!("exit {code:?}, not {}: {stdout}{stderr}", case["exit"]));
    }
    for name in ["group", "plan", "analyzed"] {
        let found = fs::read_to_string(platform.at(&format!("layers/{name}.toml"))).ok();
        let (found, expected) =
            (found.as_deref().map(document), case["documents"][name].as_str().map(document));
        if found != expected {
            differences.push(format!("{name}.toml:\n  {found:?}\n  {expected:?}"));
        }
    }
    let mut found = BTreeMap::new();
    ["layers/generated", "app"].iter().for_each(|folder| tree(platform.at("").as_path(), folder, &mut found));
    let expected: BTreeMap<String, Value> = serde_json::from_value(case["tree"].clone()).expect("is a tree");
    let (found, expected) = (in_order(found), in_order(expected));
    if found != expected {
        differences.push(format!("files:\n  {found:?}\n  {expected:?}"));
    }
    differences
}

/// Extensions by chance, and orders by chance with and without extensions.
#[test]
fn detection_and_generation_end_as_with_the_reference() {
    assert!(!nix::unistd::geteuid().is_root(), "run as a plain user: phases of foreign programs refuse root");
    let text = fs::read_to_string(data("detect.json")).expect("read the recordings");
    let recorded: Value = serde_json::from_str(&text).expect("is JSON");
    let cases = recorded["cases"].as_array().expect("is a list");
    let wrong: Vec<String> = cases
        .iter()
        .map(|case| (case, differences(case)))
        .filter(|(_, differences)| !differences.is_empty())
        .map(|(case, differences)| format!("=== {}\n{}", case["name"], differences.join("\n")))
        .collect();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn with_extension(script: &str) -> Platform {
    let extensions = order(&["ext"]).replace("[order", "[order-extensions");
    let platform = Platform::new(&format!("{}{extensions}", order(&["one"])));
    platform.buildpack("one", "detect", "exit 0");
    platform.write(
        "extensions/ext/1/extension.toml",
        "api = \"0.10\"\n[extension]\nid = \"ext\"\nversion = \"1\"\n",
    );
    platform.write("extensions/ext/1/bin/generate", &format!("#!/bin/sh\n{script}\n"));
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(platform.at("extensions/ext/1/bin/generate"), mode).expect("set a mode");
    platform
}

/// As the reference: extensions of every API have these, and their programs are found wherever a platform stands.
#[test]
fn an_extension_of_an_old_api_in_a_relative_folder_knows_where_it_writes() {
    let platform = with_extension(
        "echo \"$CNB_OUTPUT_DIR $CNB_PLATFORM_DIR $CNB_EXTENSION_DIR\"; cat $CNB_BP_PLAN_PATH",
    );
    let toml = "api = \"0.7\"\n[extension]\nid = \"ext\"\nversion = \"1\"\n";
    platform.write("extensions/ext/1/extension.toml", toml);
    let at = |path: &str| platform.at(path).display().to_string();
    let told = format!("{} {} {}\n", at("layers/generated/ext"), at("platform"), at("extensions/ext/1"));
    let mut detector = platform.phase("detector", &["-extensions", "extensions"]);
    let (code, stdout, stderr) = ran(detector.current_dir(platform.at("")));
    assert_eq!((code, stdout.as_str()), (Some(0), format!("ext 1\none 1\n{told}").as_str()), "{stderr}");
}

#[test]
fn why_nothing_is_generated_is_said_with_the_exit_code_for_it() {
    for (api, script, code, told) in [
        ("0.12", "", 1, "set CNB_EXPERIMENTAL_MODE=warn"),
        ("0.13", "exit 7", 91, "extension `ext@1`: bin/generate failed: exit status: 7"),
        ("0.13", "echo FROM x >$1/build.Dockerfile", 92, "extension `ext@1`: build.Dockerfile is refused"),
        ("0.13", "echo FROM x >$1/build.Dockerfile", 92, "before FROM it must have ARG base_image"),
        ("0.13", "printf '[[run.args]]\\nname = \"user_id\"' >$1/extend-config.toml", 92, "sets `user_id`"),
        (
            "0.13",
            "mkdir $1/context $1/context.run",
            92,
            "there is a folder `context` and one for build or run",
        ),
        ("0.13", "mkfifo $1/run.Dockerfile", 92, "`run.Dockerfile` is not a regular file"),
        ("0.13", "ln -s /etc/passwd $1/run.Dockerfile", 92, "open without following links: `run.Dockerfile`"),
        ("0.13", "truncate -s 1G $1/run.Dockerfile", 92, "`run.Dockerfile` is not a regular file of at most"),
        ("0.13", "rmdir $1; ln -s / $1", 92, "list folder: `"),
    ] {
        let platform = with_extension(script);
        let mut command = platform.phase("detector", &[]);
        let (ended, stdout, stderr) = ran(command.env("CNB_PLATFORM_API", api));
        assert!(ended == Some(code) && stderr.contains(told), "{script}: {ended:?} {stdout}{stderr}");
    }
}

#[test]
fn an_image_that_nobody_knows_is_told_of() {
    let platform = with_extension("echo FROM strange >$1/run.Dockerfile; echo EXPOSE 1 >>$1/run.Dockerfile");
    let (code, _, stderr) = ran(&mut platform.phase("detector", &[]));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stderr.contains("the run image `strange`, which an extension asks for, is not in run.toml"),
        "{stderr}"
    );
    assert!(stderr.contains("run.Dockerfile: EXPOSE on line 2 is not recommended"), "{stderr}");
}
