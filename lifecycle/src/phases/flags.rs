//! The flags of all phases: their variables, what they take, and their defaults.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use coracle_cnb::ApiVersion;
use coracle_images::LayerCompression;

use super::ArgumentError;
use super::table::{Names, Phase};
use crate::env::Env;

/// A flag: its name, the variable that stands in for it, and what it takes.
pub(super) type Flag = (&'static str, &'static str, Takes);

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// A path, with its default (`<layers>` is filled in; nothing where there is none).
    Path(&'static str),
    /// Any text.
    Text,
    /// A text, any number of times; in the variable with commas between.
    Texts,
    /// A user's or a group's number.
    Id,
    /// How much is logged.
    Level,
    /// How new layers are compressed.
    Compression,
    /// Nothing, or `=true` or `=false`.
    Switch,
}

use Takes::{Compression, Id, Level, Path as P, Switch, Text, Texts};

/// The flags that phases here understand, each those of its own list ([`Phase::flags`]).
pub(super) const FLAGS: &[Flag] = &[
    ("analyzed", "CNB_ANALYZED_PATH", P("<layers>/analyzed.toml")),
    ("any-api", "", Switch),
    ("app", "CNB_APP_DIR", P("/workspace")),
    ("build-config", "CNB_BUILD_CONFIG_DIR", P("/cnb/build-config")),
    ("build-image", "CNB_BUILD_IMAGE", Text),
    ("build-layers", "CNB_BUILD_LAYERS", Text),
    ("buildpacks", "CNB_BUILDPACKS_DIR", P("/cnb/buildpacks")),
    ("by-name", "CORACLE_LAYOUT_BY_NAME", Switch),
    ("cache-dir", "CNB_CACHE_DIR", P("")),
    ("cache-image", "CNB_CACHE_IMAGE", Text),
    ("chosen", "", P("<layers>/chosen.toml")),
    ("compression", "", Compression),
    ("daemon", "CNB_USE_DAEMON", Switch),
    ("description", "", P("<layers>/builder.json")),
    ("distinct", "", Switch),
    ("extended", "CNB_EXTENDED_DIR", P("<layers>/extended")),
    ("extensions", "CNB_EXTENSIONS_DIR", P("/cnb/extensions")),
    ("force", "CNB_FORCE_REBASE", Switch),
    ("generated", "CNB_GENERATED_DIR", P("<layers>/generated")),
    ("gid", "CNB_GROUP_ID", Id),
    ("group", "CNB_GROUP_PATH", P("<layers>/group.toml")),
    ("image", "", Text),
    ("insecure-registry", "CNB_INSECURE_REGISTRIES", Texts),
    ("kaniko", "", P("/kaniko")),
    ("kaniko-cache-ttl", "CNB_KANIKO_CACHE_TTL", Text),
    ("kind", "CNB_EXTEND_KIND", Text),
    ("known-images", "", P("")),
    ("launch-cache", "CNB_LAUNCH_CACHE_DIR", P("")),
    ("launcher", "CNB_LAUNCHER_PATH", P("")),
    ("launcher-sbom", "", P("/cnb/lifecycle")),
    ("layers", "CNB_LAYERS_DIR", P("/layers")),
    ("layout", "CNB_USE_LAYOUT", Switch),
    ("layout-dir", "CNB_LAYOUT_DIR", P("")),
    ("log-level", "CNB_LOG_LEVEL", Level),
    ("metadata", "", P("<layers>/config/metadata.toml")),
    ("no-color", "CNB_NO_COLOR", Switch),
    ("order", "CNB_ORDER_PATH", P("/cnb/order.toml")),
    ("packed", "", P("")),
    ("parallel", "CNB_PARALLEL_EXPORT", Switch),
    ("plan", "CNB_PLAN_PATH", P("<layers>/plan.toml")),
    ("platform", "CNB_PLATFORM_DIR", P("/platform")),
    ("previous-image", "CNB_PREVIOUS_IMAGE", Text),
    ("process-type", "CNB_PROCESS_TYPE", Text),
    ("project-metadata", "CNB_PROJECT_METADATA_PATH", P("<layers>/project-metadata.toml")),
    ("report", "CNB_REPORT_PATH", P("<layers>/report.toml")),
    ("run", "CNB_RUN_PATH", P("/cnb/run.toml")),
    ("run-image", "CNB_RUN_IMAGE", Text),
    ("runs", "", P("<layers>/detect-runs.toml")),
    ("scratch", "", P("")),
    ("shared-layer", "CNB_SHARED_LAYERS", Texts),
    ("skip-layers", "CNB_SKIP_LAYERS", Switch),
    ("skip-restore", "CNB_SKIP_RESTORE", Switch),
    ("stack", "CNB_STACK_PATH", P("/cnb/stack.toml")),
    ("step", "", Text),
    ("system", "CNB_SYSTEM_PATH", P("/cnb/system.toml")),
    ("tag", "", Texts),
    ("times", "", Switch),
    ("uid", "CNB_USER_ID", Id),
    ("unchanged", "", P("")),
    ("verified", "", P("")),
    ("version", "", Switch),
];

/// The other variable of a switch: whichever of the two a platform sets counts in every phase that has either flag.
const ALSO: [(&str, &str); 2] = [("skip-layers", "CNB_SKIP_RESTORE"), ("skip-restore", "CNB_SKIP_LAYERS")];

/// Every phase understands these.
pub(super) const COMMON: [&str; 4] = ["daemon", "log-level", "no-color", "version"];

/// The values that a flag has by its variables; nothing where none is set.
pub(super) fn of_env((name, variable, takes): &Flag, env: &Env) -> Option<Vec<OsString>> {
    let set = |variable: &str| env.get(OsStr::new(variable)).filter(|value| !value.is_empty());
    let also = ALSO.iter().find(|(switch, _)| switch == name).and_then(|(_, variable)| set(variable));
    let also = also.filter(|value| switch(value) == Some(true));
    Some(of_variable(*takes, also.or_else(|| set(variable))?))
}

/// The values in a variable.
fn of_variable(takes: Takes, value: &OsStr) -> Vec<OsString> {
    match takes {
        Texts => {
            let parts = value.as_bytes().split(|byte| *byte == b',').filter(|part| !part.is_empty());
            parts.map(|part| OsStr::from_bytes(part).to_owned()).collect()
        }
        // As the reference does: a variable that is no truth value is none.
        Switch if switch(value).is_none() => Vec::new(),
        _ => vec![value.to_owned()],
    }
}

/// Whether a flag can be this.
pub(super) fn check(flag: &'static str, takes: Takes, value: &OsStr) -> Result<(), ArgumentError> {
    let text = value.to_str();
    let (good, expected) = match takes {
        P(_) => (true, "a path"),
        Text | Texts => (text.is_some(), "text"),
        Id => (text.is_some_and(|text| text.parse::<u32>().is_ok()), "a number of a user or group"),
        Level => (level(value).is_some(), "debug, info, warn or error"),
        Switch => (switch(value).is_some(), "true or false"),
        Compression => (
            text.is_some_and(|text| text.parse::<LayerCompression>().is_ok()),
            "gzip, zstd or none, where wanted with a level: gzip:1 to gzip:9, zstd:1 to zstd:22",
        ),
    };
    if good {
        return Ok(());
    }
    Err(ArgumentError::Value { flag, value: value.to_string_lossy().into_owned(), expected })
}

/// What `-h` tells of a phase: its flags at a Platform API, with their variables and defaults.
pub(super) fn usage(phase: &Phase, api: ApiVersion) -> String {
    let images = match phase.images {
        Names::None => "",
        Names::One => " IMAGE",
        Names::Some => " IMAGE...",
    };
    let has = |name: &str| phase.flags.iter().any(|has| has.flag == name && !has.is_variable && has.at(api));
    let mut text = format!("Usage of {} at Platform API {api}: {} [FLAGS]{images}\n", phase.name, phase.name);
    for (name, variable, takes) in FLAGS.iter().filter(|(name, ..)| COMMON.contains(name) || has(name)) {
        let (value, default) = match takes {
            P(default) => (" PATH", *default),
            Text => (" TEXT", ""),
            Texts => (" TEXT, any number of times", ""),
            Id => (" NUMBER", ""),
            Level => (" LEVEL", "info"),
            Compression => (" COMPRESSION", "gzip"),
            Switch => ("", ""),
        };
        let more = [("variable ", *variable), ("default ", default)].into_iter();
        let more = more.filter(|(_, word)| !word.is_empty()).map(|(what, word)| format!("{what}{word}"));
        let more: Vec<String> = more.collect();
        let more = if more.is_empty() { String::new() } else { format!(" ({})", more.join(", ")) };
        text.push_str(&format!("  -{name}{value}{more}\n"));
    }
    text
}

/// How much is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verbosity {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

/// The words for it, whatever their case. Why a phase failed is told at any level, so that `fatal` is no less than `error`.
pub(super) fn level(text: &OsStr) -> Option<Verbosity> {
    match text.to_str()?.to_ascii_lowercase().as_str() {
        "debug" => Some(Verbosity::Debug),
        "info" => Some(Verbosity::Info),
        "warn" | "warning" => Some(Verbosity::Warn),
        "error" | "fatal" => Some(Verbosity::Error),
        _ => None,
    }
}

/// The words for truth that Go's `strconv.ParseBool` knows.
pub(super) fn switch(text: &OsStr) -> Option<bool> {
    match text.to_str()? {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
