//! Recorded pipelines run by the creator alone: it leaves what the five phases left, and ends as the one of them that failed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Site;

impl Site<'_> {
    /// One round.
    pub(super) fn create(&mut self, round: &Value) {
        if let Some(text) = self.case.get("project-metadata.toml").filter(|text| !text.is_null()) {
            self.write("layers/project-metadata.toml", text);
        }
        let steps: Vec<&Value> = round["steps"].as_array().expect("is a list").iter().collect();
        let exits = steps.iter().map(|step| &step["exit"]);
        let exit = exits.clone().find(|exit| **exit != 0).cloned().unwrap_or(json!(0));
        // No argument of the reference's creator is wrong where its exporter is told of no run image.
        let last_is_exporter = steps.last().is_some_and(|step| step["phase"] == "exporter");
        let exit = if last_is_exporter && exit == 3 { json!(1) } else { exit };
        self.run_program("creator", &self.arguments(&steps), &exit);

        let mut files = BTreeMap::new();
        for step in &steps {
            files.extend(step["files"].as_object().into_iter().flatten());
        }
        // Of a layer's file, what buildpacks make of what came back was not recorded.
        files.retain(|path, _| path.starts_with("/layers/config/") || path.matches('/').count() == 2);
        files.iter().for_each(|(path, text)| self.compare_file(path, text));
        let cache = steps.iter().rev().find_map(|step| step.get("cache").and_then(Value::as_array));
        // Of the layers' folder, what the phases wrote is compared above; a listing of the end was not recorded.
        cache.into_iter().for_each(|lines| self.compare_listing("cache/committed", lines));
    }

    /// The arguments of the phases in one line: their flags, each once, and the names of the last one that has any.
    fn arguments(&self, steps: &[&Value]) -> Vec<String> {
        let (mut flags, mut names) = (Vec::new(), Vec::new());
        for step in steps {
            let mut args = step["args"].as_array().expect("is a list").iter().filter_map(Value::as_str);
            let mut own_names = Vec::new();
            while let Some(word) = args.next() {
                if !word.starts_with('-') {
                    own_names.push(word);
                    continue;
                }
                let pair = [word, args.next().expect("has a value")];
                if word != "-tag" && !flags.contains(&pair) {
                    flags.push(pair);
                }
            }
            names = if own_names.is_empty() { names } else { own_names };
        }
        let (image, tags) = names.split_first().expect("an image");
        flags.extend(tags.iter().map(|tag| ["-tag", tag]));
        flags.iter().flatten().chain([image]).map(|word| self.with_names(word)).collect()
    }
}
