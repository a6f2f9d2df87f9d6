//! `bin/detect` and `bin/build`: an image that serves the folder `public`, and can check that it is as it was built.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use libcnb::build::{BuildContext, BuildResult, BuildResultBuilder};
use libcnb::data::build_plan::BuildPlanBuilder;
use libcnb::data::launch::{Label, LaunchBuilder, ProcessBuilder, Slice};
use libcnb::data::sbom::SbomFormat;
use libcnb::data::store::Store;
use libcnb::data::{layer_name, process_type};
use libcnb::detect::{DetectContext, DetectResult, DetectResultBuilder};
use libcnb::generic::{GenericMetadata, GenericPlatform};
use libcnb::layer::{CachedLayerDefinition, InvalidMetadataAction, LayerState, RestoredLayerAction};
use libcnb::layer_env::{LayerEnv, ModificationBehavior, Scope};
use libcnb::sbom::Sbom;
use libcnb::{Buildpack, buildpack_main};
use serde::{Deserialize, Serialize};

struct Site;

/// What could not be done with a file.
#[derive(Debug)]
struct FileError(String, io::Error);

impl fmt::Display for FileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "could not {}: {}", self.0, self.1)
    }
}

impl From<FileError> for libcnb::Error<FileError> {
    fn from(error: FileError) -> Self {
        Self::BuildpackError(error)
    }
}

/// What a layer was made of; it is kept as long as that is the same.
#[derive(Serialize, Deserialize)]
struct Made {
    of: String,
}

impl Made {
    fn kept_for(&self, wanted: &str) -> RestoredLayerAction {
        if self.of == wanted { RestoredLayerAction::KeepLayer } else { RestoredLayerAction::DeleteLayer }
    }
}

impl Buildpack for Site {
    type Platform = GenericPlatform;
    type Metadata = GenericMetadata;
    type Error = FileError;

    fn detect(&self, context: DetectContext<Self>) -> libcnb::Result<DetectResult, FileError> {
        if !context.app_dir.join("public/index.html").is_file() {
            return DetectResultBuilder::fail().build();
        }
        let plan = BuildPlanBuilder::new().provides("site").requires("site").build();
        DetectResultBuilder::pass().build_plan(plan).build()
    }

    fn build(&self, context: BuildContext<Self>) -> libcnb::Result<BuildResult, FileError> {
        let target = &context.target;
        println!("---> for {} {} {} {}", target.os, target.arch, target.distro_name, target.distro_version);
        let listing = site::listing(&context.app_dir.join("public"))
            .map_err(|error| FileError("list public".to_owned(), error))?;
        server(&context)?;
        pages(&context, &listing)?;

        let count = listing.lines().count().to_string();
        // As text: what is restored went through JSON, where every number is a float.
        let before = context.store.as_ref().and_then(|store| store.metadata.get("files")?.as_str());
        println!("---> files: {count}, the last time {}", before.unwrap_or("none"));
        let mut store = Store::default();
        store.metadata.insert("files".to_owned(), count.clone().into());

        let launch = LaunchBuilder::new()
            .process(ProcessBuilder::new(process_type!("web"), ["serve", "public"]).default(true).build())
            .process(ProcessBuilder::new(process_type!("check"), ["serve", "--check"]).arg("public").build())
            .label(Label { key: "io.coracle.site.files".to_owned(), value: count })
            .slice(Slice { path_globs: vec!["public/assets".to_owned()] })
            .build();
        let launched = bill("file", "public", &format!("{:016x}", site::hash(listing.as_bytes())));
        BuildResultBuilder::new().launch(launch).store(store).launch_sbom(launched).build()
    }

    fn on_error(&self, error: libcnb::Error<FileError>) {
        match error {
            libcnb::Error::BuildpackError(error) => eprintln!("{error}"),
            other => eprintln!("{other}"),
        }
    }
}

/// The server, its variables and what runs before it.
fn server(context: &BuildContext<Site>) -> libcnb::Result<(), FileError> {
    let version = context.buildpack_descriptor.buildpack.version.to_string();
    let program = context.buildpack_dir.join("libexec/serve");
    let content = read(&program)?;
    let wanted = format!("{version} {:016x}", site::hash(&content));
    let layer = context.cached_layer(
        layer_name!("server"),
        CachedLayerDefinition {
            build: false,
            launch: true,
            invalid_metadata_action: &|_| InvalidMetadataAction::<Made>::DeleteLayer,
            restored_layer_action: &|made: &Made, _| made.kept_for(&wanted),
        },
    )?;
    if let LayerState::Restored { .. } = layer.state {
        println!("---> server: nothing changed");
        return Ok(());
    }
    println!("---> server: adding {version}");
    let bin = layer.path().join("bin");
    act("make", &bin, fs::create_dir(&bin))?;
    // The copy keeps the mode.
    act("copy", &program, fs::copy(&program, bin.join("serve")))?;
    let types =
        "html=text/html,css=text/css,js=text/javascript,txt=text/plain,svg=image/svg+xml,png=image/png";
    let web = || Scope::Process("web".to_owned());
    layer.write_env(
        LayerEnv::new()
            .chainable_insert(Scope::Launch, ModificationBehavior::Default, "PORT", "8080")
            .chainable_insert(Scope::Launch, ModificationBehavior::Delimiter, "SITE_TYPES", ",")
            .chainable_insert(Scope::Launch, ModificationBehavior::Append, "SITE_TYPES", types)
            .chainable_insert(web(), ModificationBehavior::Default, "SITE_LOG", "requests"),
    )?;
    layer.write_exec_d_programs([("threads", context.buildpack_dir.join("libexec/threads"))])?;
    layer.write_sboms(&[bill("application", "serve", &version)])?;
    layer.write_metadata(Made { of: wanted })
}

/// What the build saw of the pages, for the process `check` and for later buildpacks.
fn pages(context: &BuildContext<Site>, listing: &str) -> libcnb::Result<(), FileError> {
    let wanted = format!("{:016x}", site::hash(listing.as_bytes()));
    let layer = context.cached_layer(
        layer_name!("pages"),
        CachedLayerDefinition {
            build: true,
            launch: true,
            invalid_metadata_action: &|_| InvalidMetadataAction::<Made>::DeleteLayer,
            restored_layer_action: &|made: &Made, _| made.kept_for(&wanted),
        },
    )?;
    if let LayerState::Restored { .. } = layer.state {
        println!("---> pages: nothing changed");
        return Ok(());
    }
    println!("---> pages: listing public");
    let list = layer.path().join("listing");
    act("write", &list, fs::write(&list, listing))?;
    layer.write_env(LayerEnv::new().chainable_insert(
        Scope::All,
        ModificationBehavior::Override,
        "SITE_LISTING",
        list,
    ))?;
    layer.write_metadata(Made { of: wanted })
}

/// A bill of materials with one component.
fn bill(kind: &str, name: &str, version: &str) -> Sbom {
    let component = format!("{{\"type\":\"{kind}\",\"name\":\"{name}\",\"version\":\"{version}\"}}");
    let head = "\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.4\",\"version\":1";
    Sbom::from_bytes(SbomFormat::CycloneDxJson, format!("{{{head},\"components\":[{component}]}}\n"))
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    act("read", path, fs::read(path))
}

fn act<T>(verb: &str, path: &Path, done: io::Result<T>) -> Result<T, FileError> {
    done.map_err(|error| FileError(format!("{verb} {}", path.display()), error))
}

buildpack_main!(Site);
