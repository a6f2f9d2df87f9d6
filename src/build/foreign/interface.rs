//! What each phase of each Platform API is called with, as data: the table below, and one function that reads it.
//! Sources: Platform specification, "Lifecycle Interface", of every version; for 0.2 and 0.3, whose texts leave flags open, the
//! programs of the lifecycles 0.6.1 and 0.7.5.

use coracle_cnb::ApiVersion;

use crate::build::folders::guest;
use crate::build::phase::{Phase, Plan};

/// Since this Platform API the phases begin with the analyzer; before, with the detector.
pub(crate) const ANALYZES_FIRST: ApiVersion = ApiVersion::new(0, 7);
/// Since this Platform API images can be read from folders and written into them.
pub(crate) const LAYOUTS: ApiVersion = ApiVersion::new(0, 12);
/// Since this Platform API `report.toml` is written.
pub(crate) const REPORTS: ApiVersion = ApiVersion::new(0, 4);
/// Since this Platform API the process to start by default can be chosen.
pub(crate) const PROCESS_TYPES: ApiVersion = ApiVersion::new(0, 3);
/// Since this Platform API the restorer asks for the run image again.
pub(crate) const RESTORER_ASKS: ApiVersion = ApiVersion::new(0, 14);

/// Since this Platform API each phase can be told how much to say; before, the builder cannot.
const LOG_LEVELS: ApiVersion = ApiVersion::new(0, 3);

/// What stands after a flag.
#[derive(Debug, Clone, Copy)]
enum Value {
    /// A path in the guest.
    At(&'static str),
    /// A document that only workers write.
    Control(&'static str),
    /// A document in the phase's own folder.
    Out(&'static str),
    Order,
    /// The buildpacks around those of each group.
    System,
    /// The folder of the cache, if it is one.
    CacheDir,
    /// The image that the cache is.
    CacheImage,
    /// The same, unless it is to be forgotten.
    OldCacheImage,
    RunImage,
    /// Once for each further name.
    Tags,
    ProcessType,
    Uid,
    Gid,
    /// Once for each registry spoken to in plain HTTP.
    Insecure,
    /// Nothing, and only where images lie in folders.
    Layout,
    /// Where they lie.
    LayoutDir,
}

/// A flag of a phase, of Platform API 0.`since` up to, but not with, 0.`until`.
struct Row {
    phase: Phase,
    flag: &'static str,
    since: u32,
    until: u32,
    value: Value,
}

const NEVER: u32 = u32::MAX;

const fn row(phase: Phase, flag: &'static str, since: u32, until: u32, value: Value) -> Row {
    Row { phase, flag, since, until, value }
}

use Phase::{Analyze, Build, Detect, Export, Restore};
use Value::{
    At, CacheDir, CacheImage, Control, Gid, Insecure, Layout, LayoutDir, OldCacheImage, Order, Out,
    ProcessType, RunImage, System, Tags, Uid,
};

const ROWS: &[Row] = &[
    row(Analyze, "analyzed", 0, NEVER, Out("analyzed.toml")),
    row(Analyze, "layers", 0, NEVER, At(guest::LAYERS)),
    row(Analyze, "group", 0, 7, Control("group.toml")),
    row(Analyze, "cache-dir", 0, 7, CacheDir),
    row(Analyze, "cache-image", 0, NEVER, CacheImage),
    row(Analyze, "stack", 7, 12, Control("stack.toml")),
    row(Analyze, "run", 12, NEVER, Control("run.toml")),
    row(Analyze, "run-image", 7, NEVER, RunImage),
    row(Analyze, "tag", 7, NEVER, Tags),
    row(Analyze, "uid", 0, NEVER, Uid),
    row(Analyze, "gid", 0, NEVER, Gid),
    row(Analyze, "insecure-registry", 13, NEVER, Insecure),
    row(Analyze, "layout", 12, NEVER, Layout),
    row(Analyze, "layout-dir", 12, NEVER, LayoutDir),
    row(Detect, "app", 0, NEVER, At(guest::WORKSPACE)),
    row(Detect, "buildpacks", 0, NEVER, At("/cnb/buildpacks")),
    row(Detect, "order", 0, NEVER, Order),
    row(Detect, "platform", 0, NEVER, At("/platform")),
    row(Detect, "group", 0, NEVER, Out("group.toml")),
    row(Detect, "plan", 0, NEVER, Out("plan.toml")),
    row(Detect, "analyzed", 10, NEVER, Out("analyzed.toml")),
    row(Detect, "run", 12, NEVER, Control("run.toml")),
    row(Detect, "system", 15, NEVER, System),
    row(Restore, "group", 0, NEVER, Control("group.toml")),
    row(Restore, "layers", 0, NEVER, At(guest::LAYERS)),
    row(Restore, "cache-dir", 0, NEVER, CacheDir),
    row(Restore, "cache-image", 0, NEVER, OldCacheImage),
    row(Restore, "analyzed", 7, NEVER, Out("analyzed.toml")),
    row(Restore, "run", 14, NEVER, Control("run.toml")),
    row(Restore, "uid", 0, NEVER, Uid),
    row(Restore, "gid", 0, NEVER, Gid),
    row(Restore, "insecure-registry", 13, NEVER, Insecure),
    row(Restore, "layout", 12, NEVER, Layout),
    row(Restore, "layout-dir", 12, NEVER, LayoutDir),
    row(Build, "app", 0, NEVER, At(guest::WORKSPACE)),
    row(Build, "buildpacks", 0, NEVER, At("/cnb/buildpacks")),
    row(Build, "platform", 0, NEVER, At("/platform")),
    row(Build, "layers", 0, NEVER, At(guest::LAYERS)),
    row(Build, "group", 0, NEVER, Control("group.toml")),
    row(Build, "plan", 0, NEVER, Control("plan.toml")),
    row(Build, "analyzed", 12, NEVER, Control("analyzed.toml")),
    row(Export, "analyzed", 0, NEVER, Control("analyzed.toml")),
    row(Export, "group", 0, NEVER, Control("group.toml")),
    row(Export, "app", 0, NEVER, At(guest::WORKSPACE)),
    row(Export, "layers", 0, NEVER, At(guest::LAYERS)),
    row(Export, "cache-dir", 0, NEVER, CacheDir),
    row(Export, "cache-image", 0, NEVER, CacheImage),
    row(Export, "image", 0, 3, RunImage),
    row(Export, "run-image", 3, 7, RunImage),
    row(Export, "stack", 0, 12, Control("stack.toml")),
    row(Export, "run", 12, NEVER, Control("run.toml")),
    row(Export, "project-metadata", 3, NEVER, Control("project-metadata.toml")),
    row(Export, "process-type", 3, NEVER, ProcessType),
    row(Export, "report", 4, NEVER, Out("report.toml")),
    row(Export, "uid", 0, NEVER, Uid),
    row(Export, "gid", 0, NEVER, Gid),
    row(Export, "insecure-registry", 13, NEVER, Insecure),
    row(Export, "layout", 12, NEVER, Layout),
    row(Export, "layout-dir", 12, NEVER, LayoutDir),
];

/// The arguments of a phase of another lifecycle.
pub(super) fn arguments(phase: Phase, plan: &Plan) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    if plan.api >= LOG_LEVELS {
        words.extend(["-log-level", if plan.verbose { "debug" } else { "info" }].map(str::to_owned));
    }
    let is_spoken =
        |row: &&Row| ApiVersion::new(0, row.since) <= plan.api && plan.api < ApiVersion::new(0, row.until);
    for row in ROWS.iter().filter(|row| row.phase == phase).filter(is_spoken) {
        let flag = format!("-{}", row.flag);
        if let Layout = row.value {
            words.extend((!plan.publish).then_some(flag));
            continue;
        }
        words.extend(values(row.value, plan).into_iter().flat_map(|value| [flag.clone(), value]));
    }
    if matches!(phase, Analyze | Export) {
        words.push(plan.image.to_string());
    }
    if phase == Export {
        words.extend(plan.tags.iter().map(ToString::to_string));
    }
    words
}

fn values(value: Value, plan: &Plan) -> Vec<String> {
    match value {
        At(path) => vec![path.to_owned()],
        Control(name) => vec![format!("{}/{name}", guest::CONTROL)],
        Out(name) => vec![format!("{}/{name}", guest::OUT)],
        Order if plan.own_order => vec![format!("{}/order.toml", guest::CONTROL)],
        Order => vec!["/cnb/order.toml".to_owned()],
        CacheDir if plan.cache_image.is_none() => vec![guest::CACHE.to_owned()],
        CacheImage => plan.cache_image.iter().map(ToString::to_string).collect(),
        OldCacheImage if !plan.clear_cache => values(CacheImage, plan),
        System => vec![plan.system_toml()],
        RunImage => vec![plan.run_image.to_string()],
        Tags => plan.tags.iter().map(ToString::to_string).collect(),
        ProcessType => plan.process_type.clone().into_iter().collect(),
        Uid => vec![plan.user.uid.to_string()],
        Gid => vec![plan.user.gid.to_string()],
        Insecure if plan.publish => plan.insecure.clone(),
        LayoutDir if !plan.publish => vec![guest::LAYOUT.to_owned()],
        CacheDir | OldCacheImage | Insecure | LayoutDir | Layout => Vec::new(),
    }
}
