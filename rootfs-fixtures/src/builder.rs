//! A builder and a run image made of the static busybox and bash of this machine (Debian `busybox-static`,
//! `bash-static`).

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::buildpack::Buildpack;
use crate::image::Image;
use crate::layer::{Entry, Layer};

/// The user of the builder and of the applications it makes.
pub const UID: u32 = 1001;
/// The group of that user.
pub const GID: u32 = 1002;
/// The stack both images name.
pub const STACK: &str = "io.coracle.fixture";

/// Where the probe is in a builder that has it.
pub(crate) const PROBE: &str = "/usr/bin/probe";

/// A run image: a base with a shell and the user `cnb`.
#[derive(Debug, Clone)]
pub struct RunImage {
    pub files: Vec<Entry>,
}

impl RunImage {
    /// The plain run image.
    pub fn new() -> Self {
        Self { files: Vec::new() }
    }

    /// Adds an entry in a layer above the base.
    pub fn file(mut self, entry: Entry) -> Self {
        self.files.push(entry);
        self
    }

    /// The image (Platform specification, "Run Image").
    pub fn image(&self) -> Image {
        let mut layers = vec![base_layer()];
        if !self.files.is_empty() {
            layers.push(Layer::new(&self.files));
        }
        base_image(layers)
    }
}

impl Default for RunImage {
    fn default() -> Self {
        Self::new()
    }
}

/// A builder: base, buildpacks, order, run image's name.
#[derive(Debug, Clone)]
pub struct Builder {
    pub buildpacks: Vec<Buildpack>,
    /// Groups of buildpack ids, tried in this order.
    pub order: Vec<Vec<String>>,
    pub run_image: String,
    pub files: Vec<Entry>,
}

impl Builder {
    /// A builder without buildpacks that names `run_image`.
    pub fn new(run_image: &str) -> Self {
        Self { buildpacks: Vec::new(), order: Vec::new(), run_image: run_image.to_owned(), files: Vec::new() }
    }

    /// Adds buildpacks and, of all of them, one group at the end of the order.
    pub fn group(mut self, buildpacks: &[Buildpack]) -> Self {
        self.order.push(buildpacks.iter().map(|buildpack| buildpack.id.clone()).collect());
        self.buildpacks.extend(buildpacks.iter().cloned());
        self
    }

    /// Adds an entry in the last layer.
    pub fn file(mut self, entry: Entry) -> Self {
        self.files.push(entry);
        self
    }

    /// Adds the probe, for buildpacks made with [`Buildpack::probing`].
    pub fn probe(self) -> Self {
        let program = fs::read(crate::probe()).expect("read the probe");
        self.file(Entry::program(PROBE, program))
    }

    fn version(&self, id: &str) -> &str {
        let known = self.buildpacks.iter().find(|buildpack| buildpack.id == id);
        known.map_or_else(
            || panic!("the order names {id}, which is not in the builder"),
            |found| &found.version,
        )
    }

    /// `order.toml` (Platform specification, "order.toml").
    pub fn order_toml(&self) -> String {
        let mut text = String::new();
        for group in &self.order {
            text.push_str("[[order]]\n");
            for id in group {
                let version = self.version(id);
                text.push_str(&format!("[[order.group]]\nid = \"{id}\"\nversion = \"{version}\"\n"));
            }
        }
        text
    }

    /// The image (Platform specification, "Builder"), as it would be without a lifecycle of its own.
    pub fn image(&self) -> Image {
        let mut layers = vec![base_layer(), Layer::new(&builder_folders())];
        let mut modules = json!({});
        for buildpack in &self.buildpacks {
            let layer = buildpack.to_layer();
            modules[&buildpack.id][&buildpack.version] = json!({
                "api": buildpack.api,
                "layerDiffID": layer.diff_id(),
                "stacks": [{ "id": "*" }],
                "targets": [{ "os": "linux", "arch": "amd64" }],
            });
            layers.push(layer);
        }
        let run = &self.run_image;
        let mut files = vec![
            Entry::file("/cnb/order.toml", self.order_toml()),
            Entry::file("/cnb/stack.toml", format!("[run-image]\nimage = \"{run}\"\n")),
            Entry::file("/cnb/run.toml", format!("[[images]]\nimage = \"{run}\"\n")),
        ];
        files.extend(self.files.iter().cloned());
        layers.push(Layer::new(&files));
        let mut image = base_image(layers)
            .label("io.buildpacks.builder.metadata", &self.metadata().to_string())
            .label("io.buildpacks.buildpack.order", &self.order_label().to_string())
            .label("io.buildpacks.buildpack.layers", &modules.to_string());
        image.working_dir = "/layers".to_owned();
        image
    }

    fn metadata(&self) -> Value {
        let modules: Vec<Value> = self
            .buildpacks
            .iter()
            .map(|buildpack| json!({ "id": buildpack.id, "version": buildpack.version }))
            .collect();
        json!({
            "description": "a builder for tests",
            "buildpacks": modules,
            "stack": { "runImage": { "image": self.run_image, "mirrors": null } },
            "images": [{ "image": self.run_image, "mirrors": null }],
            "createdBy": { "name": "coracle-fixtures", "version": "" },
        })
    }

    fn order_label(&self) -> Value {
        let group = |ids: &Vec<String>| -> Value {
            let members: Vec<Value> =
                ids.iter().map(|id| json!({ "id": id, "version": self.version(id) })).collect();
            json!({ "group": members })
        };
        self.order.iter().map(group).collect()
    }
}

fn base_image(layers: Vec<Layer>) -> Image {
    Image::new(layers)
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("CNB_USER_ID", &UID.to_string())
        .env("CNB_GROUP_ID", &GID.to_string())
        .env("CNB_STACK_ID", STACK)
        .label("io.buildpacks.stack.id", STACK)
        .label("io.buildpacks.base.distro.name", "debian")
        .label("io.buildpacks.base.distro.version", "12")
        .user(&format!("{UID}:{GID}"))
}

fn builder_folders() -> Vec<Entry> {
    let (uid, gid) = (u64::from(UID), u64::from(GID));
    let mut entries: Vec<Entry> =
        ["/workspace", "/layers"].iter().map(|path| Entry::dir(path).owner(uid, gid)).collect();
    for path in ["", "/buildpacks", "/extensions", "/build-config", "/build-config/env"] {
        entries.push(Entry::dir(&format!("/cnb{path}")));
    }
    entries.extend(["/platform", "/platform/env"].iter().map(|path| Entry::dir(path)));
    entries
}

/// Folders, busybox with all its applets, bash, and the user `cnb`.
pub fn base_layer() -> Layer {
    let (uid, gid) = (u64::from(UID), u64::from(GID));
    let mut entries: Vec<Entry> =
        ["bin", "dev", "etc", "home", "lib", "proc", "root", "sbin", "sys", "usr", "usr/bin", "usr/local"]
            .iter()
            .map(|path| Entry::dir(path))
            .collect();
    entries.push(Entry::dir("usr/local/bin"));
    entries.push(Entry::dir("var"));
    entries.push(Entry::dir("tmp").mode(0o1777));
    entries.push(Entry::dir("home/cnb").owner(uid, gid));
    entries.push(Entry::file("etc/os-release", "ID=\"debian\"\nVERSION_ID=\"12\"\n"));
    let passwd = format!("root:x:0:0::/root:/bin/sh\ncnb:x:{UID}:{GID}::/home/cnb:/bin/bash\n");
    entries.push(Entry::file("etc/passwd", passwd));
    entries.push(Entry::file("etc/group", format!("root:x:0:\ncnb:x:{GID}:\n")));
    entries.push(Entry::program("bin/busybox", read(Path::new("/bin/busybox"))));
    entries.push(Entry::program("bin/bash", read(Path::new("/bin/bash-static"))));
    for applet in applets() {
        if applet != "busybox" && applet != "bash" {
            entries.push(Entry::symlink(&format!("bin/{applet}"), "busybox"));
        }
    }
    entries.push(Entry::symlink("usr/bin/env", "../../bin/busybox"));
    Layer::new(&entries)
}

fn applets() -> Vec<String> {
    let output = Command::new("/bin/busybox").arg("--list").output();
    let output =
        output.unwrap_or_else(|error| panic!("run /bin/busybox (scripts/setup installs it): {error}"));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn read(program: &Path) -> Vec<u8> {
    fs::read(program)
        .unwrap_or_else(|error| panic!("read {} (scripts/setup installs it): {error}", program.display()))
}
