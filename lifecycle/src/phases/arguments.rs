//! What a phase was told: flags, variables, names of images.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use coracle_cnb::ApiVersion;
use coracle_images::{LayerCompression, ReferenceError};

use super::flags::{COMMON, FLAGS, Flag, Takes, Verbosity, check, level, of_env, switch};
use super::table::Has;
use super::{Names, Phase};
use crate::env::Env;

/// Why the arguments were refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// The flag is not one of those that are implemented.
    #[error("flag `{0}` is not implemented")]
    Unknown(String),
    /// The phase has the flag, but not at this Platform API.
    #[error("flag `-{flag}`: the {phase} of Platform API {api} has no such flag, it {known}")]
    OtherApi { flag: &'static str, phase: &'static str, api: ApiVersion, known: String },
    /// The flag needs a value.
    #[error("flag `{0}` needs a value")]
    NoValue(String),
    /// The flag was given something that it cannot be.
    #[error("flag `-{flag}`, or its variable: `{value}` is not {expected}")]
    Value { flag: &'static str, value: String, expected: &'static str },
    /// Nothing is mounted here.
    #[error(
        "flag `-build-layers`, or its variable: `strict` takes a container for each buildpack, which `coracle build` makes and a phase by itself does not; `snapshot` keeps layers here"
    )]
    Strict,
    /// These phases take flags only, or fewer images.
    #[error("argument `{0}` is not expected")]
    Unexpected(String),
    /// A flag after the first image would be taken for an image by other lifecycles.
    #[error("flag `{0}` comes after an image: flags go first")]
    Late(String),
    /// The phase is about an image.
    #[error("no image is named: the last argument is the name of the image to write")]
    NoImage,
    /// The name of an image is none.
    #[error("read name of image")]
    Image(#[source] ReferenceError),
    /// An image is written once, into one registry.
    #[error("all names of the image must be in one registry, not in {0}")]
    Registries(String),
    /// Two names of one flag.
    #[error("flags `-{0}` and `-{1}` mean the same: give one of them")]
    Both(&'static str, &'static str),
    /// A name that the phase cannot do without.
    #[error("flag `-{0}` is missing")]
    Missing(&'static str),
}

/// What a phase was told.
#[derive(Debug, Default)]
pub struct Arguments {
    values: BTreeMap<&'static str, Vec<OsString>>,
    images: Vec<String>,
}

impl Arguments {
    /// Reads flags in the forms `-name value`, `-name=value` and the same with two dashes, then names of images, which may stand behind a
    /// `--`; a flag goes before its variable, and lists of both are joined. A name that is empty is none.
    ///
    /// A flag that the Platform API does not have is refused. Its variable counts all the same, as with the reference. After `-h` nothing
    /// else is read ([`Arguments::asks_for_help`]).
    pub(super) fn read(
        phase: &Phase,
        api: ApiVersion,
        args: &[OsString],
        env: &Env,
    ) -> Result<Self, ArgumentError> {
        let has = |name: &str| phase.flags.iter().find(|has| has.flag == name);
        let known = |(name, ..): &&Flag| COMMON.contains(name) || has(name).is_some();
        let flags: Vec<&Flag> = FLAGS.iter().filter(known).collect();
        let mut values = BTreeMap::new();
        for flag in &flags {
            if let Some(value) = of_env(flag, env) {
                values.insert(flag.0, value);
            }
        }
        let mut given: BTreeMap<&'static str, Vec<OsString>> = BTreeMap::new();
        let mut args = args.iter();
        let mut images: Vec<String> = Vec::new();
        while let Some(argument) = args.next() {
            let text = argument.to_string_lossy().into_owned();
            if text == "--" && images.is_empty() {
                images.extend(args.map(|image| image.to_string_lossy().into_owned()));
                break;
            }
            let Some(flag) = argument.as_bytes().strip_prefix(b"-").filter(|flag| !flag.is_empty()) else {
                images.push(text);
                continue;
            };
            if !images.is_empty() {
                return Err(ArgumentError::Late(text));
            }
            let flag = flag.strip_prefix(b"-").unwrap_or(flag);
            let (name, value) = match flag.iter().position(|byte| *byte == b'=') {
                Some(at) => (&flag[..at], Some(OsStr::from_bytes(&flag[at + 1..]).to_owned())),
                None => (flag, None),
            };
            if HELP.iter().any(|word| word.as_bytes() == name) {
                values.insert(HELP[0], vec!["true".into()]);
                return Ok(Self { values, images });
            }
            let known = flags.iter().find(|(known, ..)| known.as_bytes() == name);
            let known =
                known.filter(|(known, ..)| has(known).is_none_or(|has| !has.is_variable && has.at(api)));
            let (name, _, takes) = known.ok_or_else(|| unknown(phase, api, name, &text))?;
            let value = match takes {
                Takes::Switch => value.unwrap_or_else(|| "true".into()),
                _ => value.or_else(|| args.next().cloned()).ok_or(ArgumentError::NoValue(text))?,
            };
            let all = given.entry(*name).or_default();
            if *takes == Takes::Texts && all.is_empty() {
                all.extend(values.remove(name).into_iter().flatten());
            } else if *takes != Takes::Texts {
                all.clear();
            }
            all.push(value);
        }
        values.extend(given);
        // Platforms pass on what they were not given, too.
        for (name, ..) in flags.iter().filter(|(_, _, takes)| [Takes::Text, Takes::Texts].contains(takes)) {
            if let Some(values) = values.get_mut(name) {
                values.retain(|value: &OsString| !value.is_empty());
            }
        }
        for (name, _, takes) in flags {
            values.get(name).into_iter().flatten().try_for_each(|value| check(name, *takes, value))?;
        }
        let arguments = Self { values, images };
        if arguments.on("version") {
            return Ok(arguments);
        }
        let Self { values, mut images } = arguments;
        match phase.images {
            Names::None if !images.is_empty() => Err(ArgumentError::Unexpected(images.swap_remove(0))),
            Names::One if images.len() > 1 => Err(ArgumentError::Unexpected(images.swap_remove(1))),
            Names::One | Names::Some if images.is_empty() => Err(ArgumentError::NoImage),
            _ => Ok(Self { values, images }),
        }
    }

    /// The path that a flag names, or its default. Folders are absolute: images and buildpacks are told of them.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        if let Some(value) = self.text(name) {
            return if FOLDERS.contains(&name) { absolute(Path::new(value)) } else { value.into() };
        }
        let default = FLAGS.iter().find_map(|(known, _, takes)| match takes {
            Takes::Path(default) if *known == name => Some(*default),
            _ => None,
        });
        let default = default.unwrap_or_default();
        match default.strip_prefix("<layers>/") {
            Some(within) => self.path("layers").join(within),
            None if name == "order" => {
                let own = self.path("layers").join("order.toml");
                if own.exists() { own } else { Path::new(default).to_owned() }
            }
            None => default.into(),
        }
    }

    /// The text that a flag was given.
    pub(super) fn text(&self, name: &str) -> Option<&OsStr> {
        self.values.get(name)?.last().map(OsString::as_os_str)
    }

    /// The texts that a flag was given, in their order.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let texts = self.values.get(name).into_iter().flatten();
        texts.map(|text| text.to_string_lossy().into_owned()).collect()
    }

    /// Whether only the flags are asked for.
    pub(super) fn asks_for_help(&self) -> bool {
        self.on(HELP[0])
    }

    /// Whether a switch is on.
    pub(super) fn on(&self, name: &str) -> bool {
        self.text(name).and_then(switch).unwrap_or(false)
    }

    /// How much is logged.
    pub(super) fn verbosity(&self) -> Verbosity {
        self.text("log-level").and_then(level).unwrap_or_default()
    }

    /// How new layers are compressed.
    pub(super) fn compression(&self) -> LayerCompression {
        let text = self.text("compression").and_then(OsStr::to_str);
        text.and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// The number of a user or a group.
    pub(super) fn id(&self, name: &str) -> Option<u32> {
        self.text(name)?.to_str()?.parse().ok()
    }

    /// The names of images that followed the flags.
    pub(super) fn images(&self) -> &[String] {
        &self.images
    }
}

/// What asks for the flags, whatever is behind a `=`.
const HELP: [&str; 2] = ["help", "h"];

/// Flags that name folders by whose names others find something: archives, for one, name their files by whole paths.
const FOLDERS: [&str; 10] = [
    "app",
    "build-config",
    "buildpacks",
    "cache-dir",
    "extensions",
    "generated",
    "kaniko",
    "launch-cache",
    "layers",
    "platform",
];

/// From the root, without `.`, `..` and a `/` at the end; no link is followed.
fn absolute(path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() {
        return path.to_owned();
    }
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut clean = PathBuf::new();
    for component in whole.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// Why a flag is not one of the phase's.
fn unknown(phase: &Phase, api: ApiVersion, name: &[u8], text: &str) -> ArgumentError {
    let is_flag = |has: &&Has| !has.is_variable && has.flag.as_bytes() == name;
    let Some(has) = phase.flags.iter().find(is_flag) else {
        return ArgumentError::Unknown(text.to_owned());
    };
    let known = match (has.since, has.until) {
        (_, Some(until)) if until <= api => format!("was dropped at {until}"),
        (since, _) => format!("came with {}", since.unwrap_or(api)),
    };
    ArgumentError::OtherApi { flag: has.flag, phase: phase.name, api, known }
}

#[cfg(test)]
mod tests;
