//! What a pipeline left, beside what was recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use coracle::Digest;
use coracle_images::Platform;
use serde_json::{Value, json};

use super::Site;

impl Site<'_> {
    pub(super) fn compare_file(&mut self, path: &str, text: &Value) {
        let expected = self.with_names(text.as_str().expect("is text"));
        match fs::read_to_string(self.root.join(&path[1..])) {
            Err(error) => self.differences.push(format!("{path}: {error}")),
            Ok(found) => self.compare_document(path, &found, &expected),
        }
    }

    pub(super) fn compare_document(&mut self, path: &str, found: &str, expected: &str) {
        let same = if path.ends_with(".toml") {
            let value = |text: &str| -> Value {
                let table: Option<toml::Table> = text.parse().ok();
                let mut value =
                    table.map_or(Value::Null, |table| serde_json::to_value(table).unwrap_or_default());
                if let Some(entries) = value.get_mut("entries").and_then(Value::as_array_mut) {
                    entries.sort_by_key(ToString::to_string);
                }
                value
            };
            fits(&value(found), &value(expected))
        } else {
            found == expected
        };
        if !same {
            self.differences.push(format!("{path}:\n--- found\n{found}\n--- expected\n{expected}"));
        }
    }

    pub(super) fn compare_listing(&mut self, folder: &str, expected: &[Value]) {
        let mut found = BTreeSet::new();
        list(&self.root, Path::new(folder), &mut found);
        // What holds the registry's address, or has no order of its own, has another size here.
        let of_here = ["/layers/analyzed.toml", "/layers/plan.toml"];
        let shown = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let bare = of_here.iter().any(|path| words.get(1) == Some(path)) || folder.starts_with("cache");
            if bare { words[..3.min(words.len())].join(" ") } else { line.to_owned() }
        };
        let found: BTreeSet<String> = found.iter().map(|line| shown(line)).collect();
        let expected: BTreeSet<String> = expected.iter().filter_map(Value::as_str).map(shown).collect();
        let expected: BTreeSet<String> =
            expected.into_iter().filter(|line| line.contains(&format!(" /{folder}/"))).collect();
        let only = |of: &BTreeSet<String>, other: &BTreeSet<String>| {
            of.difference(other).cloned().collect::<Vec<_>>().join("\n    ")
        };
        if found != expected {
            let (here, there) = (only(&found, &expected), only(&expected, &found));
            self.differences
                .push(format!("/{folder}:\n  only here:\n    {here}\n  only there:\n    {there}"));
        }
    }

    /// Byte for byte, but for layers that come from the last cache: the reference lists those twice
    /// (docs/decisions/0012-each-layer-is-read-once.md). Layers are compressed otherwise.
    pub(super) fn compare_cache_image(&mut self, expected: &Value) {
        let name = self.with_names(expected["name"].as_str().expect("is text"));
        let image = match self.bench.client.image(&name.parse().expect("is a name"), &Platform::host()) {
            Ok(image) => image,
            Err(error) => return self.differences.push(format!("cache image: {error}")),
        };
        let found = String::from_utf8_lossy(&image.config_bytes).into_owned();
        let expected = self.with_names(expected["config"].as_str().expect("is text"));
        let expected = without_repetition(&expected);
        if found != expected {
            self.differences.push(format!("cache image:\n  {found}\n  {expected}"));
        }
    }

    pub(super) fn compare_image(&mut self, expected: &Value) {
        let reference = self.bench.registry.reference(&format!("{}:latest", self.repository()));
        let image = match self.bench.client.image(&reference.parse().expect("is a name"), &Platform::host()) {
            Ok(image) => image,
            Err(error) => return self.differences.push(format!("image: {error}")),
        };
        let mut found: Value = serde_json::from_slice(&image.config_bytes).expect("is JSON");
        let label = image.config.label("io.buildpacks.lifecycle.metadata").unwrap_or("{}");
        let metadata: Value = serde_json::from_str(label).unwrap_or_default();
        let launcher = metadata["launcher"]["sha"].as_str().unwrap_or("no launcher").to_owned();
        let build = image.config.label("io.buildpacks.build.metadata").unwrap_or("{}");
        let build: Value = serde_json::from_str(build).unwrap_or_default();
        let labels =
            found["config"].as_object_mut().and_then(|config| config.remove("Labels")).unwrap_or_default();
        let mut all = BTreeMap::new();
        for (name, text) in labels.as_object().into_iter().flatten() {
            let text = text.as_str().unwrap_or_default().replace(&launcher, "LAUNCHER");
            let own = format!("\"launcher\":{}", build["launcher"]);
            all.insert(name.clone(), text.replace(&own, "\"launcher\":LAUNCHER"));
        }
        let rootfs = found.as_object_mut().and_then(|config| config.remove("rootfs")).unwrap_or_default();
        let diff_ids = rootfs["diff_ids"].to_string().replace(&launcher, "LAUNCHER");
        found["diff_ids"] = serde_json::from_str(&diff_ids).unwrap_or_default();
        found["labels"] = json!(all);
        let mut expected: Value =
            serde_json::from_str(&self.with_names(&expected.to_string())).expect("is JSON");
        if let Some(members) = expected.as_object_mut() {
            // Docker and OCI mixed: ours are of one kind.
            members.remove("media_types");
        }
        for key in keys(&found).union(&keys(&expected)) {
            let (ours, theirs) = (&found[key], &expected[key]);
            for inner in keys(ours).union(&keys(theirs)) {
                if ours[inner] != theirs[inner] {
                    self.differences
                        .push(format!("image {key} {inner}:\n  {}\n  {}", ours[inner], theirs[inner]));
                }
            }
            if ours != theirs && !ours.is_object() {
                self.differences.push(format!("image {key}:\n  {ours}\n  {theirs}"));
            }
        }
    }
}

/// A configuration in which each layer, and the history of each, is listed once.
fn without_repetition(config: &str) -> String {
    let value: Value = serde_json::from_str(config).expect("is JSON");
    let listed = value["rootfs"]["diff_ids"].as_array().expect("is a list");
    let mut once: Vec<&Value> = Vec::new();
    listed.iter().for_each(|id| {
        if !once.contains(&id) {
            once.push(id)
        }
    });
    let history = value["history"].as_array().expect("is a list");
    let kept = &history[..once.len()];
    config
        .replace(&json!(listed).to_string(), &json!(once).to_string())
        .replace(&json!(history).to_string(), &json!(kept).to_string())
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
}

/// Whether a value is as recorded; what varies is anything.
fn fits(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (_, Value::String(text)) if text == "VARIES" => true,
        (Value::String(found), Value::String(expected)) => {
            let launcher = expected == "LAUNCHER" && (found.starts_with("sha256:") || found.is_empty());
            let varies = expected.split_once("VARIES").is_some_and(|(start, _)| found.starts_with(start));
            found == expected || launcher || varies
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && other.iter().all(|(key, value)| one.get(key).is_some_and(|found| fits(found, value)))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(found, value)| fits(found, value))
        }
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        _ => found == expected,
    }
}

/// The lines of a listing, in the recordings' form.
fn list(root: &Path, folder: &Path, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
        let path = folder.join(entry.file_name());
        let (shown, full) = (path.display(), root.join(&path));
        let metadata = fs::symlink_metadata(&full).expect("look at an entry");
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_symlink() {
            let target = fs::read_link(&full).expect("read a link");
            lines.insert(format!("link /{shown} -> {}", target.display()));
        } else if metadata.is_dir() {
            lines.insert(format!("dir /{shown} {mode:o}"));
            list(root, &path, lines);
        } else {
            let bytes = fs::read(&full).unwrap_or_default();
            let hash = Digest::of(&bytes).hex()[..16].to_owned();
            lines.insert(format!("file /{shown} {mode:o} {} {hash}", bytes.len()));
        }
    }
}
