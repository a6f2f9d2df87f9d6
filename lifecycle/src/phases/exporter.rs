//! `exporter`: the image from what the build left (Platform API, "exporter").

mod below;
mod error;
mod launch;

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use coracle_cnb::{Analyzed, Group, Metadata, ProjectMetadata, Report, ReportBuild, ReportImage, RunToml};
use coracle_images::pack::Parent;
use coracle_images::{Digest, Image};

use below::Below;
pub use error::ExporterError;
pub(super) use launch::not_used;

use super::bills;
use super::caching::CachePlace;
use super::created::created;
use super::extended::extended;
use super::images::{Images, layout_path};
use super::outputs::Outputs;
use super::restorer::{Verified, unchanged};
use super::scratch::Scratch;
use super::{Call, PhaseError, analyzed, group, left, run_toml};
use crate::api;
use crate::bom;
use crate::cache::{LaunchCache, Nearby, Saving};
use crate::export::{
    ExportError, ExportInput, Exported, Extended, Launcher, Outbox, Publisher, Source, Step, export,
};
use crate::file::{self, FileError};
use crate::known::{KnownImages, KnownLayers};

pub(super) fn run(call: &Call<'_>) -> Result<(), PhaseError> {
    let arguments = &call.arguments;
    let outputs = Outputs::of(arguments)?;
    let documents = Documents {
        analyzed: analyzed(arguments).map_err(PhaseError::Analyzed)?,
        group: group(call)?,
        metadata: left("metadata.toml", &arguments.path("metadata"))
            .map_err(|error| PhaseError::NoMetadata(Box::new(error)))?,
        platform: PlatformDocuments::read(call, run_toml(call)?)?,
    };
    let verified = match arguments.path("verified") {
        path if path.as_os_str().is_empty() => None,
        path => file::read_document::<Verified>("verified.toml", &path)?,
    };
    let images = Images::new(call)?;
    let known = arguments.path("known-images");
    if let Images::Registry(registry) = &images
        && !known.as_os_str().is_empty()
    {
        file::read_document::<KnownImages>("known images", &known)?.unwrap_or_default().tell(registry);
    }
    let scratch = Scratch::of(call)?;
    let extended = extended(call, &documents)?;
    let verified = verified.unwrap_or_default().archives;
    export_image(call, &images, &outputs, documents, extended.as_ref(), &verified, &scratch)
}

/// Makes the image and leaves it where its names say, then the report, then the cache. The archives of the cache that are `verified`
/// are known to be what they are called by.
pub(super) fn export_image(
    call: &Call<'_>,
    images: &Images,
    outputs: &Outputs,
    mut documents: Documents,
    extended: Option<&Extended>,
    verified: &[Digest],
    scratch: &Scratch,
) -> Result<(), PhaseError> {
    let below = Below::find(images, call.arguments.on("by-name"), &mut documents.analyzed, extended)?;
    let place = CachePlace::of(call, Some(images))?;
    // Image and cache are made together in any case: each layer is read once for both.
    if call.arguments.on("parallel") && place.is_nowhere() {
        call.warn("-parallel changes nothing: no cache is specified");
    }
    let cache = place.open(call);
    let outbox_dir = match images {
        Images::Registry(_) => scratch.path().join("outbox"),
        Images::Layout(dir) => layout_path(dir, &outputs.names[0]),
    };
    let compression = call.arguments.compression();
    let outbox = Outbox::with(&outbox_dir, compression).map_err(ExporterError::from)?;
    let cache_outbox = Outbox::new(&scratch.path().join("cache-outbox")).map_err(ExporterError::from)?;
    // A layout folder need not hold what it names.
    let near = below.previous.as_ref().filter(|_| matches!(images, Images::Registry(_)));
    let near = near.map(|(_, image)| image);
    let saving = place.begin(call, &cache, verified, &cache_outbox, near);

    let launch_cache = launch::cache(call);
    let kept = Kept { outbox: &outbox, cache: saving.as_ref(), launch_cache: launch_cache.as_ref() };
    let exported = make(call, images, &documents, outputs, &below, &kept)?;
    let image = &exported.image;
    let report = Report {
        build: report_build(call, &documents.group)?,
        image: reported(images, outputs, image, call.arguments.on("by-name")),
    };
    file::write_document(&call.arguments.path("report"), &report).map_err(ExporterError::Report)?;
    let mut packed = KnownLayers { application: Some(exported.application), ..KnownLayers::default() };
    if let (Some(saving), Some(saved)) = (&saving, exported.cache) {
        let made = matches!(images, Images::Registry(_)).then_some(Source { name: &outputs.names[0], image });
        let previous = below.previous.as_ref().filter(|_| made.is_some());
        let previous = previous.map(|(name, image)| Source { name, image });
        packed.layers = saved.as_ref().map(|saved| saved.known().to_vec()).unwrap_or_default();
        place.commit(call, saving, saved, &Nearby { outbox: &outbox, previous, made });
    }
    if let Some(cache) = &launch_cache {
        launch::keep(call, cache, image, &below, &outbox);
    }
    let list = call.arguments.path("packed");
    if !list.as_os_str().is_empty() {
        file::write_document(&list, &packed).map_err(ExporterError::Report)?;
    }
    drop(saving);
    cache_outbox.discard().map_err(ExporterError::from)?;
    if let Images::Registry(_) = images {
        outbox.discard().map_err(ExporterError::from)?;
    }
    Ok(())
}

/// As the reference: an image in a layout is known by the folder of its first name, and has no digest that a registry would know, but
/// where the name is asked for.
fn reported(images: &Images, outputs: &Outputs, image: &Image, by_name: bool) -> ReportImage {
    let (mut tags, mut digest) = (outputs.texts.clone(), image.digest.to_string());
    if let (Images::Layout(dir), false) = (images, by_name) {
        tags[0] = layout_path(dir, &outputs.names[0]).display().to_string();
        digest.clear();
    }
    let manifest_size = Some(image.manifest_bytes.len() as u64);
    ReportImage { tags, image_id: String::new(), digest, manifest_size }
}

/// What buildpacks say that went into the build, before Platform API 0.9.
fn report_build(call: &Call<'_>, group: &Group) -> Result<Option<ReportBuild>, ExporterError> {
    if call.api >= api::LEGACY_BOM_FILES {
        return Ok(None);
    }
    let layers_dir = open(&call.arguments.path("layers"))?;
    let bom = bom::of_build(layers_dir.as_fd(), group).map_err(ExportError::from)?;
    Ok((!bom.is_empty()).then_some(ReportBuild { bom }))
}

/// What the image is made by.
pub(super) struct Documents {
    pub(super) group: Group,
    pub(super) metadata: Metadata,
    pub(super) analyzed: Analyzed,
    pub(super) platform: PlatformDocuments,
}

/// What the platform says of the image.
pub(super) struct PlatformDocuments {
    pub(super) run: RunToml,
    project: ProjectMetadata,
}

impl PlatformDocuments {
    pub(super) fn read(call: &Call<'_>, run: RunToml) -> Result<Self, FileError> {
        let project = call.arguments.path("project-metadata");
        // By default among the layers; elsewhere platforms bring it along by links.
        let among_layers = project.starts_with(call.arguments.path("layers"));
        let read = if among_layers { file::read_foreign_document } else { file::read_document };
        let project = read("project-metadata.toml", &project)?;
        Ok(Self { run, project: project.unwrap_or_default() })
    }
}

/// Where layers are kept.
struct Kept<'a> {
    outbox: &'a Outbox,
    cache: Option<&'a Saving<'a>>,
    launch_cache: Option<&'a LaunchCache>,
}

/// Makes the image, and leaves it where its names say.
fn make(
    call: &Call<'_>,
    images: &Images,
    documents: &Documents,
    Outputs { names, texts }: &Outputs,
    below: &Below<'_>,
    &Kept { outbox, cache, launch_cache }: &Kept<'_>,
) -> Result<Exported, PhaseError> {
    let arguments = &call.arguments;
    let (layers_path, app_path) = (arguments.path("layers"), arguments.path("app"));
    let (layers_dir, app_dir) = (open(&layers_path)?, open(&app_path)?);
    let process_type = arguments.text("process-type").map(OsStr::to_string_lossy);
    let exec_env = call.exec_env();
    let program = given_launcher(&arguments.path("launcher"))?;
    let metadata_of = |program| Launcher { program, metadata: call.launcher.metadata.clone() };
    let given_launcher = program.as_deref().map(metadata_of);
    let bills = bills::placed(call, layers_dir.as_fd())?;
    let input = ExportInput {
        group: &documents.group,
        metadata: &documents.metadata,
        analyzed: &documents.analyzed,
        run: &documents.platform.run,
        project: &documents.platform.project,
        base: &below.run,
        extended: below.extended,
        previous: below.previous.as_ref().map(|(_, image)| image),
        layers_dir: layers_dir.as_fd(),
        layers_path: &layers_path.to_string_lossy(),
        above_layers: &above(&layers_path)?,
        app_dir: app_dir.as_fd(),
        app_path: &app_path.to_string_lossy(),
        above_app: &above(&app_path)?,
        // Where metadata.toml is not brought along, the builder has left it there.
        config_as_it_is: arguments.text("metadata").is_none(),
        launcher: given_launcher.as_ref().unwrap_or(call.launcher),
        bills: bills.as_ref(),
        unchanged: &unchanged(call).map_err(ExporterError::from)?,
        owner: call.owner(),
        owner_above: None,
        process_type: process_type.as_deref().filter(|kind| !kind.is_empty()),
        exec_env: Some(exec_env.as_str()).filter(|_| call.api >= api::EXECUTION_ENVIRONMENTS),
        platform_api: call.api,
        created: &created(call),
    };
    let make = || export(&input, outbox, cache, &mut |step| tell(call, &step)).map_err(ExporterError::from);
    let exported = match images {
        Images::Registry(registry) => {
            let mut sources = vec![Source { name: &below.run_name, image: &below.run }];
            sources.extend(below.previous.as_ref().map(|(name, image)| Source { name, image }));
            let outboxes = [outbox];
            let publisher =
                Publisher::new(registry, &outboxes, &sources, &[]).with_launch_cache(launch_cache);
            let exported = publisher.while_made(&names[0], &below.run, outbox, make)?;
            for name in texts {
                call.say(&format!("Saving {name}..."));
            }
            publisher.publish(&exported.image, names).map_err(ExporterError::from)?;
            exported
        }
        Images::Layout(dir) => {
            let exported = make()?;
            if let Some(cache) = launch_cache {
                launch::complete(cache, &exported.image, below, outbox);
            }
            let image = &exported.image;
            below.complete(call, images, image, outbox)?;
            outbox.finish(image, names[0].identifier()).map_err(ExporterError::from)?;
            for name in &names[1..] {
                let folder = layout_path(dir, name);
                outbox.finish_also(&folder, image, name.identifier()).map_err(ExporterError::from)?;
            }
            exported
        }
    };
    call.say(&format!("*** Images ({}):", exported.image.digest));
    texts.iter().for_each(|name| call.say(&format!("      {name}")));
    Ok(exported)
}

/// The program that `-launcher` names, if it names one.
fn given_launcher(path: &Path) -> Result<Option<Vec<u8>>, ExporterError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let failed = |source| ExporterError::Launcher { path: path.to_owned(), source };
    std::fs::read(path).map(Some).map_err(failed)
}

fn tell(call: &Call<'_>, step: &Step) {
    match step {
        Step::RefusedLabel(_) => call.warn(&step.to_string()),
        Step::Because(..) => call.whisper(&step.to_string()),
        step => call.say(&step.to_string()),
    }
}

fn open(path: &Path) -> Result<File, ExporterError> {
    File::open(path).map_err(|source| FileError::Read { path: path.to_owned(), source }.into())
}

/// The folders above one, from the root, as they are: whoever unpacks the image's layers over a run image finds them so.
fn above(folder: &Path) -> Result<Vec<Parent>, ExporterError> {
    let parent = |path: &Path| {
        let about = path.metadata().map_err(|source| FileError::Read { path: path.to_owned(), source })?;
        let path = path.to_string_lossy().into_owned();
        Ok(Parent { path, uid: about.uid(), gid: about.gid(), mode: about.mode() & 0o7777 })
    };
    let mut above: Vec<&Path> = folder.ancestors().skip(1).filter(|path| path.parent().is_some()).collect();
    above.reverse();
    above.into_iter().map(parent).collect()
}
