//! Names that the specification restricts, checked once where they enter.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name or a version was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Neither `MAJOR` nor `MAJOR.MINOR`.
    #[error("API version `{0}` is not MAJOR.MINOR")]
    ApiVersion(String),
    /// Not a buildpack id.
    #[error(
        "buildpack id `{0}`: only letters, digits, `.`, `/` and `-` are allowed, and not `app`, `config` or `sbom`"
    )]
    Buildpack(String),
    /// Not the version of a buildpack.
    #[error("version `{0}` of a buildpack is `.` or `..`, or has `/` or a control character")]
    Version(String),
    /// Not a process type.
    #[error("process type `{0}` is empty, `.` or `..`, or has one of / > < : | & \\")]
    Process(String),
}

/// The version of the Buildpack API or the Platform API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApiVersion {
    major: u32,
    minor: u32,
}

impl ApiVersion {
    /// `major.minor`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }
}

impl FromStr for ApiVersion {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let refuse = || IdError::ApiVersion(text.to_owned());
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            if digits { part.parse::<u32>().map_err(|_| refuse()) } else { Err(refuse()) }
        };
        Ok(Self { major: number(major.strip_prefix('v').unwrap_or(major))?, minor: number(minor)? })
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

macro_rules! name {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

/// The id of a buildpack (Buildpack API, "buildpack.toml"): safe as the name of a folder once [`BuildpackId::dir`] is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BuildpackId(String);

name!(BuildpackId);

impl FromStr for BuildpackId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::try_from(text.to_owned())
    }
}

impl BuildpackId {
    /// The id as the name of a folder: every `/` becomes `_`.
    pub fn dir(&self) -> String {
        self.0.replace('/', "_")
    }
}

impl TryFrom<String> for BuildpackId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/' | b'-' | b'_');
        let reserved = matches!(text.as_str(), "" | "." | ".." | "app" | "config" | "sbom");
        if reserved || !text.bytes().all(allowed) { Err(IdError::Buildpack(text)) } else { Ok(Self(text)) }
    }
}

/// The version of a buildpack, which is the name of its folder: anything that stays one.
pub(crate) fn version<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let refused = matches!(text.as_str(), "." | "..") || text.contains(|c: char| c == '/' || c.is_control());
    if refused { Err(serde::de::Error::custom(IdError::Version(text))) } else { Ok(text) }
}

/// The type of a process: the name of a link under `/cnb/process` once [`ProcessType::fits`] says so. Buildpacks may leave any text.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProcessType(String);

name!(ProcessType);

impl ProcessType {
    /// Whether a link can have this name.
    pub fn fits(&self) -> Result<(), IdError> {
        let forbidden = |letter: char| matches!(letter, '/' | '>' | '<' | ':' | '|' | '&' | '\\' | '\0');
        let refused = matches!(self.as_str(), "" | "." | "..") || self.0.contains(forbidden);
        if refused { Err(IdError::Process(self.0.clone())) } else { Ok(()) }
    }
}

macro_rules! api_text {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(version: $name) -> String {
                version.to_string()
            }
        }
    )*};
}

api_text!(ApiVersion);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let parse = |text: &str| text.parse::<ApiVersion>();
        assert!(parse("0.10").unwrap() > parse("0.9").unwrap());
        assert_eq!(parse("1").unwrap(), ApiVersion::new(1, 0));
        for refused in ["", "a", "0.", "0.1.2", "-1.0", "+1"] {
            assert_eq!(parse(refused), Err(IdError::ApiVersion(refused.into())), "{refused}");
        }
    }

    #[test]
    fn ids_that_could_leave_their_folder_are_refused() {
        for refused in ["", "..", "a b", "app", "config", "sbom", "a\0b"] {
            assert!(refused.parse::<BuildpackId>().is_err(), "{refused}");
        }
        assert_eq!("../x".parse::<BuildpackId>().unwrap().dir(), ".._x");
        assert_eq!("a/b".parse::<BuildpackId>().unwrap().dir(), "a_b");
        for refused in ["", "..", "a/b", "a|b"] {
            assert!(ProcessType(refused.to_owned()).fits().is_err(), "{refused}");
        }
    }

    #[test]
    fn versions_that_could_leave_their_folder_are_refused_in_every_document() {
        let is_read = |version: &str| {
            let element = format!("id = \"a\"\nversion = \"{version}\"\n");
            let read = [
                toml::from_str::<crate::GroupElement>(&element).is_ok(),
                toml::from_str::<crate::Provider>(&element).is_ok(),
                toml::from_str::<crate::BuildpackToml>(&format!("api = \"0.10\"\n[buildpack]\n{element}"))
                    .is_ok(),
            ];
            assert_eq!(read, [read[0]; 3], "{version}");
            read[0]
        };
        assert!(is_read("") && is_read("1.0.0+x~y_z") && is_read("..."));
        for refused in [".", "..", "../x", "1/2", "/store", "a\\u0000", "\\u001b[2J"] {
            assert!(!is_read(refused), "{refused}");
        }
    }
}
