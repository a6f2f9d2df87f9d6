//! Buildpacks in shell, a few lines each.

use crate::layer::{Entry, Layer};

/// A buildpack: its document and its two programs.
#[derive(Debug, Clone)]
pub struct Buildpack {
    pub id: String,
    pub version: String,
    pub api: String,
    pub detect: String,
    pub build: String,
    /// More files, by path below the buildpack's folder.
    pub files: Vec<(String, String)>,
}

const SHELL: &str = "#!/bin/bash\nset -eu\n";

impl Buildpack {
    /// Detects and builds, and does nothing in both.
    pub fn passing(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            version: "1.0.0".to_owned(),
            api: "0.10".to_owned(),
            detect: SHELL.to_owned(),
            build: SHELL.to_owned(),
            files: Vec::new(),
        }
    }

    /// Does not detect: status 100 (Buildpack specification, "Detection").
    pub fn failing(id: &str) -> Self {
        Self::passing(id).detect("exit 100")
    }

    /// Breaks in detection: any other status (Buildpack specification, "Detection").
    pub fn broken(id: &str) -> Self {
        Self::passing(id).detect("echo broken on purpose >&2; exit 7")
    }

    /// Adds shell to `bin/detect`, after `set -eu`. `$1` is the platform folder, `$2` the plan.
    pub fn detect(mut self, shell: &str) -> Self {
        self.detect.push_str(shell);
        self.detect.push('\n');
        self
    }

    /// Adds shell to `bin/build`, after `set -eu`. `$1` is the layers folder, `$2` the platform folder, `$3` the plan.
    pub fn build(mut self, shell: &str) -> Self {
        self.build.push_str(shell);
        self.build.push('\n');
        self
    }

    /// Provides and requires `name` in the build plan.
    pub fn plan(self, name: &str) -> Self {
        self.detect(&format!(
            "printf '[[provides]]\\nname = \"{name}\"\\n[[requires]]\\nname = \"{name}\"\\n' >>\"$2\""
        ))
    }

    /// Contributes a layer with one file, `content`, and these types (`launch`, `build`, `cache`).
    pub fn layer(self, name: &str, types: &[&str], content: &str) -> Self {
        let types: String = types.iter().map(|kind| format!("{kind} = true\\n")).collect();
        self.build(&format!(
            "mkdir -p \"$1/{name}\"; printf '%s' '{content}' >\"$1/{name}/content\"; printf '[types]\\n{types}' >\"$1/{name}.toml\""
        ))
    }

    /// Contributes a process of type `web` that is the default; each word of `command` is one argument.
    pub fn process(self, command: &[&str]) -> Self {
        let words: Vec<String> = command.iter().map(|word| format!("\"{word}\"")).collect();
        let words = words.join(", ");
        self.build(&format!(
            "printf '[[processes]]\\ntype = \"web\"\\ncommand = [{words}]\\ndefault = true\\n' >\"$1/launch.toml\""
        ))
    }

    /// Prints the probe's report (`probe.rs`) as one line in detection and in the build. It looks for these texts in
    /// every file and process. The builder needs the probe: [`Builder::probe`](crate::Builder::probe).
    pub fn probing(self, wanted: &[&str]) -> Self {
        let hexadecimal = |text: &&str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let finds: String = wanted.iter().map(|text| format!(" find={}", hexadecimal(text))).collect();
        let line = format!("{} in=/{finds}", crate::builder::PROBE);
        self.detect(&line).build(&line)
    }

    /// Adds a file to the buildpack's folder.
    pub fn file(mut self, path: &str, content: &str) -> Self {
        self.files.push((path.to_owned(), content.to_owned()));
        self
    }

    /// `buildpack.toml` (Buildpack specification, "buildpack.toml").
    pub fn toml(&self) -> String {
        let Self { api, id, version, .. } = self;
        format!(
            "api = \"{api}\"\n\n[buildpack]\nid = \"{id}\"\nversion = \"{version}\"\n\n[[targets]]\nos = \"linux\"\narch = \"amd64\"\n\n[[stacks]]\nid = \"*\"\n"
        )
    }

    /// The folder in a builder: `/cnb/buildpacks/ID/VERSION`, slashes of the id written as underscores.
    pub fn folder(&self) -> String {
        format!("/cnb/buildpacks/{}/{}", self.id.replace('/', "_"), self.version)
    }

    /// The files by path below the buildpack's folder; `true` marks programs.
    pub fn tree(&self) -> Vec<(String, String, bool)> {
        let mut tree = vec![
            ("buildpack.toml".to_owned(), self.toml(), false),
            ("bin/detect".to_owned(), self.detect.clone(), true),
            ("bin/build".to_owned(), self.build.clone(), true),
        ];
        tree.extend(self.files.iter().map(|(path, content)| (path.clone(), content.clone(), false)));
        tree
    }

    /// The buildpack as a builder's layer.
    pub fn to_layer(&self) -> Layer {
        let folder = self.folder();
        let mut entries: Vec<Entry> = Vec::new();
        let mut made: Vec<String> = Vec::new();
        for (path, content, program) in self.tree() {
            let path = format!("{folder}/{path}");
            for (at, _) in path.match_indices('/').skip(1) {
                if !made.iter().any(|known| known == &path[..at]) {
                    made.push(path[..at].to_owned());
                    entries.push(Entry::dir(&path[..at]));
                }
            }
            entries.push(if program { Entry::program(&path, content) } else { Entry::file(&path, content) });
        }
        Layer::new(&entries)
    }

    /// Writes the buildpack's folder to disk.
    pub fn write(&self, folder: &std::path::Path) {
        use std::os::unix::fs::PermissionsExt;
        for (path, content, program) in self.tree() {
            let path = folder.join(path);
            let parent = path.parent().expect("a path below the folder has a parent");
            std::fs::create_dir_all(parent)
                .and_then(|()| std::fs::write(&path, content))
                .and_then(|()| {
                    let mode = if program { 0o755 } else { 0o644 };
                    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
                })
                .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        }
    }
}
