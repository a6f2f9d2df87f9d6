//! Flags, variables and defaults of the phases.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use coracle_images::ReferenceError;

use super::{Names, Phase};
use crate::env::Env;

/// A flag: its name, the variable that stands in for it, and what it takes.
type Flag = (&'static str, &'static str, Takes);

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
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
    /// Nothing, or `=true` or `=false`.
    Switch,
}

use Takes::{Id, Level, Path as P, Switch, Text, Texts};

/// The flags that phases here understand, each those of its own list ([`Phase::flags`]).
const FLAGS: [Flag; 34] = [
    ("analyzed", "CNB_ANALYZED_PATH", P("<layers>/analyzed.toml")),
    ("app", "CNB_APP_DIR", P("/workspace")),
    ("build-config", "CNB_BUILD_CONFIG_DIR", P("/cnb/build-config")),
    ("buildpacks", "CNB_BUILDPACKS_DIR", P("/cnb/buildpacks")),
    ("cache-dir", "CNB_CACHE_DIR", P("")),
    ("description", "", P("<layers>/builder.json")),
    ("force", "CNB_FORCE_REBASE", Switch),
    ("gid", "CNB_GROUP_ID", Id),
    ("group", "CNB_GROUP_PATH", P("<layers>/group.toml")),
    ("image", "", Text),
    ("insecure-registry", "CNB_INSECURE_REGISTRIES", Texts),
    ("layers", "CNB_LAYERS_DIR", P("/layers")),
    ("layout", "CNB_USE_LAYOUT", Switch),
    ("layout-dir", "CNB_LAYOUT_DIR", P("")),
    ("log-level", "CNB_LOG_LEVEL", Level),
    ("metadata", "", P("<layers>/config/metadata.toml")),
    ("no-color", "CNB_NO_COLOR", Switch),
    ("order", "CNB_ORDER_PATH", P("/cnb/order.toml")),
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
    ("skip-layers", "CNB_SKIP_LAYERS", Switch),
    ("stack", "CNB_STACK_PATH", P("/cnb/stack.toml")),
    ("system", "CNB_SYSTEM_PATH", P("/cnb/system.toml")),
    ("tag", "", Texts),
    ("uid", "CNB_USER_ID", Id),
    ("verified", "", P("")),
];

/// Every phase understands these.
const COMMON: [&str; 2] = ["log-level", "no-color"];

/// Why the arguments were refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// The flag is not one of those that are implemented.
    #[error("flag `{0}` is not implemented")]
    Unknown(String),
    /// The flag needs a value.
    #[error("flag `{0}` needs a value")]
    NoValue(String),
    /// The flag was given something that it cannot be.
    #[error("flag `-{flag}`, or its variable: `{value}` is not {expected}")]
    Value { flag: &'static str, value: String, expected: &'static str },
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
    /// Reads flags in the forms `-name value`, `-name=value` and the same with two dashes, then names of images; a flag goes
    /// before its variable.
    pub(super) fn read(phase: &Phase, args: &[OsString], env: &Env) -> Result<Self, ArgumentError> {
        let flags = FLAGS.iter().filter(|(name, ..)| COMMON.contains(name) || phase.flags.contains(name));
        let flags: Vec<&Flag> = flags.collect();
        let mut values = BTreeMap::new();
        for (name, variable, takes) in &flags {
            if let Some(value) = env.get(OsStr::new(variable)).filter(|value| !value.is_empty()) {
                values.insert(*name, of_variable(*takes, value));
            }
        }
        let mut given: BTreeMap<&'static str, Vec<OsString>> = BTreeMap::new();
        let mut args = args.iter();
        let mut images = Vec::new();
        while let Some(argument) = args.next() {
            let text = argument.to_string_lossy().into_owned();
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
            let known = flags.iter().find(|(known, ..)| known.as_bytes() == name);
            let (name, _, takes) = known.ok_or_else(|| ArgumentError::Unknown(text.clone()))?;
            let value = match takes {
                Switch => value.unwrap_or_else(|| "true".into()),
                _ => value.or_else(|| args.next().cloned()).ok_or(ArgumentError::NoValue(text))?,
            };
            let all = given.entry(*name).or_default();
            if *takes != Texts {
                all.clear();
            }
            all.push(value);
        }
        values.extend(given);
        for (name, _, takes) in flags {
            values.get(name).into_iter().flatten().try_for_each(|value| check(name, *takes, value))?;
        }
        match phase.images {
            Names::None if !images.is_empty() => Err(ArgumentError::Unexpected(images.swap_remove(0))),
            Names::One if images.len() > 1 => Err(ArgumentError::Unexpected(images.swap_remove(1))),
            Names::One | Names::Some if images.is_empty() => Err(ArgumentError::NoImage),
            _ => Ok(Self { values, images }),
        }
    }

    /// The path that a flag names, or its default.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        if let Some(value) = self.text(name) {
            return value.into();
        }
        let default = FLAGS.iter().find_map(|(known, _, takes)| match takes {
            P(default) if *known == name => Some(*default),
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

    /// Whether a switch is on.
    pub(super) fn on(&self, name: &str) -> bool {
        self.text(name).and_then(switch).unwrap_or(false)
    }

    /// The number of a user or a group, 0 unless told.
    pub(super) fn id(&self, name: &str) -> u32 {
        self.text(name).and_then(|text| text.to_str()?.parse().ok()).unwrap_or(0)
    }

    /// The names of images that followed the flags.
    pub(super) fn images(&self) -> &[String] {
        &self.images
    }
}

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

fn check(flag: &'static str, takes: Takes, value: &OsStr) -> Result<(), ArgumentError> {
    let text = value.to_str();
    let (good, expected) = match takes {
        P(_) => (true, "a path"),
        Text | Texts => (text.is_some(), "text"),
        Id => (text.is_some_and(|text| text.parse::<u32>().is_ok()), "a number of a user or group"),
        Level => (matches!(text, Some("debug" | "info" | "warn" | "error")), "debug, info, warn or error"),
        Switch => (switch(value).is_some(), "true or false"),
    };
    if good {
        return Ok(());
    }
    Err(ArgumentError::Value { flag, value: value.to_string_lossy().into_owned(), expected })
}

/// The words for truth that Go's `strconv.ParseBool` knows.
fn switch(text: &OsStr) -> Option<bool> {
    match text.to_str()? {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PLATFORM_APIS;
    use crate::phases::{Launcher, PHASES, PhaseError, main};

    const LAUNCHER: Launcher<'_> = Launcher { program: b"", metadata: serde_json::Value::Null };

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn read(phase: &Phase, args: &[&str], env: &[(&str, &str)]) -> Result<Arguments, ArgumentError> {
        let env: Env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Arguments::read(phase, &words(args), &env)
    }

    fn builder() -> Phase {
        PHASES.into_iter().find(|phase| phase.name == "builder").unwrap()
    }

    fn exporter() -> Phase {
        let flags = &["layers", "layout", "insecure-registry", "uid", "app", "plan", "group", "platform"];
        Phase {
            name: "test",
            flags,
            images: Names::Some,
            apis: PLATFORM_APIS,
            foreign: false,
            run: |_| Ok(()),
        }
    }

    #[test]
    fn flags_go_before_variables_and_those_before_defaults() {
        let env = [("CNB_APP_DIR", "/var"), ("CNB_LAYERS_DIR", "/l")];
        let arguments = read(&builder(), &["-app", "/flag", "--plan=/p"], &env).unwrap();
        assert_eq!(arguments.path("app"), Path::new("/flag"));
        assert_eq!(arguments.path("plan"), Path::new("/p"));
        assert_eq!(arguments.path("group"), Path::new("/l/group.toml"));
        assert_eq!(arguments.path("platform"), Path::new("/platform"));
    }

    #[test]
    fn repeated_flags_switches_numbers_and_images() {
        let phase = exporter();
        let env = [("CNB_INSECURE_REGISTRIES", "a,b"), ("CNB_USE_LAYOUT", "true"), ("CNB_USER_ID", "7")];
        let arguments = read(&phase, &["one"], &env).unwrap();
        assert_eq!(arguments.texts("insecure-registry"), ["a", "b"]);
        assert!(arguments.on("layout"));
        assert_eq!(arguments.id("uid"), 7);
        let flags = ["-insecure-registry", "c", "-layout=false", "-insecure-registry=d", "-uid", "8"];
        let arguments = read(&phase, &[&flags[..], &["-layout", "one", "two"]].concat(), &env).unwrap();
        assert_eq!(arguments.texts("insecure-registry"), ["c", "d"]);
        assert!(arguments.on("layout"));
        assert_eq!((arguments.id("uid"), arguments.images()), (8, &["one".to_owned(), "two".to_owned()][..]));
        let arguments = read(&phase, &["one"], &[("CNB_USE_LAYOUT", "perhaps")]).unwrap();
        assert!(!arguments.on("layout"));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let phase = exporter();
        let error = |args: &[&str]| read(&phase, args, &[]).unwrap_err().to_string();
        assert!(error(&["-layout=perhaps", "one"]).contains("`perhaps` is not true or false"));
        assert!(error(&["-uid", "-1", "one"]).contains("`-1` is not a number"));
        assert!(error(&["-log-level", "loud", "one"]).contains("`loud` is not debug, info"));
        assert_eq!(error(&["one", "-layout"]), "flag `-layout` comes after an image: flags go first");
        assert!(error(&[]).starts_with("no image is named"));
        assert_eq!(error(&["-uid"]), "flag `-uid` needs a value");
        assert_eq!(error(&["-report", "x", "one"]), "flag `-report` is not implemented");
        let unexpected = read(&builder(), &["one"], &[]).unwrap_err();
        assert_eq!(unexpected, ArgumentError::Unexpected("one".into()));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let exit = |name: &str, api: &str, args: &[&str]| {
            let env: Env = [("CNB_PLATFORM_API".into(), api.into())].into();
            main(OsStr::new(name), &words(args), &env, &LAUNCHER).map_err(|error| error.exit_code())
        };
        assert_eq!(exit("/cnb/lifecycle/exporter", "0.13", &[]), Err(3));
        assert_eq!(exit("nonsense", "0.13", &[]), Err(3));
        assert_eq!(exit("builder", "0.13", &["-daemon"]), Err(3));
        assert_eq!(exit("builder", "0.99", &[]), Err(11));
        assert_eq!(exit("builder", "0.13", &["-layers", "/nowhere", "-no-color"]), Err(1));
        let creator = main(OsStr::new("creator"), &[], &Env::new(), &LAUNCHER);
        assert!(matches!(creator, Err(PhaseError::Missing(_))));
    }
}
