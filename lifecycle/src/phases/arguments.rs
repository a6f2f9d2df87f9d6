//! Flags, variables and defaults of the phases.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::{FLAGS, Values};
use crate::env::Env;

/// Why the arguments were refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// The flag is not one of those that are implemented.
    #[error("flag `{0}` is not implemented")]
    Unknown(String),
    /// The flag needs a value.
    #[error("flag `{0}` needs a value")]
    NoValue(String),
    /// These phases take flags only.
    #[error("argument `{0}` is not expected")]
    Unexpected(String),
}

/// What a phase was told.
#[derive(Debug)]
pub struct Arguments {
    values: Values,
}

impl Arguments {
    /// Reads flags in the forms `-name value`, `-name=value` and the same with two dashes; a flag goes before its variable.
    pub fn read(args: &[OsString], env: &Env) -> Result<Self, ArgumentError> {
        let mut values: Values = FLAGS
            .iter()
            .filter_map(|(name, variable, _)| Some((*name, env.get(OsStr::new(variable))?.clone())))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let mut args = args.iter();
        while let Some(argument) = args.next() {
            let text = argument.to_string_lossy().into_owned();
            let Some(flag) = argument.as_bytes().strip_prefix(b"-") else {
                return Err(ArgumentError::Unexpected(text));
            };
            let flag = flag.strip_prefix(b"-").unwrap_or(flag);
            let (name, value) = match flag.iter().position(|byte| *byte == b'=') {
                Some(at) => (&flag[..at], Some(OsStr::from_bytes(&flag[at + 1..]).to_owned())),
                None => (flag, None),
            };
            let known = FLAGS.iter().find(|(known, ..)| known.as_bytes() == name);
            let (name, ..) = known.ok_or_else(|| ArgumentError::Unknown(text.clone()))?;
            let value = value.or_else(|| args.next().cloned()).ok_or(ArgumentError::NoValue(text))?;
            values.insert(name, value);
        }
        Ok(Self { values })
    }

    /// The path that a flag names, or its default.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        if let Some(value) = self.values.get(name) {
            return value.into();
        }
        let default = FLAGS.iter().find(|(known, ..)| *known == name).map_or("", |(.., default)| default);
        match default.strip_prefix("<layers>/") {
            Some(within) => self.path("layers").join(within),
            None if name == "order" => {
                let own = self.path("layers").join("order.toml");
                if own.exists() { own } else { Path::new(default).to_owned() }
            }
            None => default.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phases::{PhaseError, main};

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn flags_go_before_variables_and_those_before_defaults() {
        let env: Env = [("CNB_APP_DIR".into(), "/var".into()), ("CNB_LAYERS_DIR".into(), "/l".into())].into();
        let arguments = Arguments::read(&words(&["-app", "/flag", "--plan=/p"]), &env).unwrap();
        assert_eq!(arguments.path("app"), Path::new("/flag"));
        assert_eq!(arguments.path("plan"), Path::new("/p"));
        assert_eq!(arguments.path("group"), Path::new("/l/group.toml"));
        assert_eq!(arguments.path("platform"), Path::new("/platform"));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let refused = Arguments::read(&words(&["-daemon"]), &Env::new()).unwrap_err();
        assert_eq!(refused, ArgumentError::Unknown("-daemon".into()));
        let exit = |name: &str, api: &str, args: &[&str]| {
            let env: Env = [("CNB_PLATFORM_API".into(), api.into())].into();
            main(OsStr::new(name), &words(args), &env).map_err(|error| error.exit_code())
        };
        assert_eq!(exit("/cnb/lifecycle/exporter", "0.13", &[]), Err(3));
        assert_eq!(exit("nonsense", "0.13", &[]), Err(3));
        assert_eq!(exit("builder", "0.13", &["-daemon"]), Err(3));
        assert_eq!(exit("builder", "0.99", &[]), Err(11));
        assert_eq!(exit("builder", "0.13", &["-layers", "/nowhere"]), Err(1));
        assert!(matches!(main(OsStr::new("rebaser"), &[], &Env::new()), Err(PhaseError::Missing(_))));
    }
}
