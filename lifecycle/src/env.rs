//! Environments: what layers, the platform and the operator change in them (Buildpack API, "Environment Variable
//! Modification Rules").

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use crate::file::{self, DirEntry, FileError};

/// The variables of a process.
pub type Env = BTreeMap<OsString, OsString>;

/// Variables that a buildpack inherits from the phase; everything else is dropped.
pub const BUILD_VARIABLES: [&str; 15] = [
    "CNB_STACK_ID",
    "HOSTNAME",
    "HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "PATH",
    "LD_LIBRARY_PATH",
    "LIBRARY_PATH",
    "CPATH",
    "PKG_CONFIG_PATH",
    "CNB_EXEC_ENV",
];

/// Variables that are lists of folders: what the user sets is put before them, not in their place.
const PATH_VARIABLES: [&str; 5] = ["PATH", "LD_LIBRARY_PATH", "LIBRARY_PATH", "CPATH", "PKG_CONFIG_PATH"];

/// What a file without a suffix does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Append,
    Prepend,
    Override,
    Default,
}

/// One change of one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    name: OsString,
    action: Action,
    value: OsString,
    delimiter: OsString,
}

/// The changes that one folder of environment files asks for, in the order of the files' names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvDelta {
    changes: Vec<Change>,
}

impl EnvDelta {
    /// Reads a folder such as `<layer>/env`; no folder means no change. Folders in it are left alone, and so are files
    /// with an unknown suffix.
    pub fn read(dir: &Path, unsuffixed: Action) -> Result<Self, FileError> {
        let mut files = Vec::new();
        for entry in file::entries(dir)?.into_iter().filter(|entry| !entry.is_dir) {
            files.push((entry.name().to_owned(), value_of(&entry)?));
        }
        Ok(Self::of_files(&files, unsuffixed))
    }

    /// The changes of files given by name and content.
    pub fn of_files(files: &[(OsString, OsString)], unsuffixed: Action) -> Self {
        let delimiters: BTreeMap<&[u8], &OsString> = files
            .iter()
            .filter_map(|(file, value)| Some((file.as_bytes().strip_suffix(b".delim")?, value)))
            .collect();
        let mut changes = Vec::new();
        for (file, value) in files {
            let bytes = file.as_bytes();
            let (name, suffix) = match bytes.iter().position(|byte| *byte == b'.') {
                Some(dot) => (&bytes[..dot], Some(&bytes[dot + 1..])),
                None => (bytes, None),
            };
            let action = match suffix {
                None => unsuffixed,
                Some(b"append") => Action::Append,
                Some(b"prepend") => Action::Prepend,
                Some(b"override") => Action::Override,
                Some(b"default") => Action::Default,
                // As the reference: a dot and nothing after it is for a list of folders.
                Some(b"") => Action::Prepend,
                Some(_) => continue,
            };
            let delimiter = delimiters.get(name).copied().cloned();
            let delimiter =
                delimiter.or_else(|| (suffix == Some(b"")).then(|| ":".into())).unwrap_or_default();
            let name = OsStr::from_bytes(name).to_owned();
            changes.push(Change { name, action, value: value.clone(), delimiter });
        }
        Self { changes }
    }

    /// Makes the changes. A variable that is empty counts as not set.
    pub fn apply(&self, env: &mut Env) {
        for change in &self.changes {
            let old = env.get(&change.name).filter(|old| !old.is_empty());
            let new = match (change.action, old) {
                (Action::Default, Some(_)) => continue,
                (Action::Append, Some(old)) => join(&[old, &change.delimiter, &change.value]),
                (Action::Prepend, Some(old)) => join(&[&change.value, &change.delimiter, old]),
                _ => change.value.clone(),
            };
            env.insert(change.name.clone(), new);
        }
    }
}

/// What a file says; a link that leads nowhere says nothing.
fn value_of(entry: &DirEntry) -> Result<OsString, FileError> {
    let bytes = file::read_bytes(&entry.path)?;
    let missing = || FileError::Read { path: entry.path.clone(), source: io::ErrorKind::NotFound.into() };
    bytes.map(OsString::from_vec).ok_or_else(missing)
}

fn join(parts: &[&OsString]) -> OsString {
    OsString::from_vec(parts.iter().flat_map(|part| part.as_bytes().iter().copied()).collect())
}

/// Puts a folder before a list of folders.
fn prepend_path(env: &mut Env, name: &str, value: &OsStr) {
    let new = match env.get(OsStr::new(name)).filter(|old| !old.is_empty()) {
        Some(old) => join(&[&value.to_owned(), &":".into(), old]),
        None => value.to_owned(),
    };
    env.insert(name.into(), new);
}

/// For whom the folders of a layer count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Build,
    Launch,
}

/// Puts the folders of a layer (`bin`, `lib`, …) on the paths they belong to.
pub fn add_layer_dirs(env: &mut Env, layer: &Path, purpose: Purpose) {
    const BUILD: [(&str, &str); 5] = [
        ("bin", "PATH"),
        ("lib", "LD_LIBRARY_PATH"),
        ("lib", "LIBRARY_PATH"),
        ("include", "CPATH"),
        ("pkgconfig", "PKG_CONFIG_PATH"),
    ];
    let folders = if purpose == Purpose::Build { &BUILD[..] } else { &BUILD[..2] };
    for (folder, variable) in folders {
        let path = layer.join(folder);
        // Whatever it is, as with the reference.
        if path.exists() {
            prepend_path(env, variable, path.as_os_str());
        }
    }
}

/// What a buildpack inherits of the phase's own variables.
pub fn build_env(outer: &Env) -> Env {
    // `CNB_EXEC_ENV` belongs to Platform API 0.15; below it is a variable like any other and dropped.
    BUILD_VARIABLES
        .iter()
        .filter(|name| **name != "CNB_EXEC_ENV")
        .filter_map(|name| Some(((*name).into(), outer.get(OsStr::new(name))?.clone())))
        .collect()
}

/// Adds `CNB_EXEC_ENV` for buildpacks that know of it.
#[cfg(feature = "phases")]
pub(crate) fn add_exec_env(env: &mut Env, api: coracle_cnb::ApiVersion, exec_env: Option<&str>) {
    if let Some(exec_env) = exec_env.filter(|_| api >= crate::api::BUILDPACK_EXECUTION_ENVIRONMENTS) {
        env.insert("CNB_EXEC_ENV".into(), exec_env.into());
    }
}

/// Adds what the user set (`<platform>/env`): put before the variables that are lists of folders, in place of all others.
pub fn add_platform_env(env: &mut Env, platform: &Path) -> Result<(), FileError> {
    for entry in file::entries(&platform.join("env"))?.into_iter().filter(|entry| !entry.is_dir) {
        let value = value_of(&entry)?;
        match entry.name().to_str() {
            Some(name) if PATH_VARIABLES.contains(&name) => prepend_path(env, name, &value),
            _ => {
                env.insert(entry.name().to_owned(), value);
            }
        }
    }
    Ok(())
}

/// Adds what the builder's operator set (`<build-config>/env`), where a file without a suffix is a default.
pub fn add_operator_env(env: &mut Env, build_config: &Path) -> Result<(), FileError> {
    EnvDelta::read(&build_config.join("env"), Action::Default)?.apply(env);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(files: &[(&str, &str)], unsuffixed: Action, before: &[(&str, &str)]) -> Vec<(String, String)> {
        let files: Vec<(OsString, OsString)> =
            files.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let mut env: Env = before.iter().map(|(name, value)| (name.into(), value.into())).collect();
        EnvDelta::of_files(&files, unsuffixed).apply(&mut env);
        let text = |value: &OsString| value.to_str().unwrap().to_owned();
        env.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn suffixes_say_what_to_do() {
        let files = [
            ("A.append", "tail"),
            ("A.delim", ";"),
            ("B.prepend", "head"),
            ("C.default", "c"),
            ("D.default", "d"),
            ("E", "e"),
            ("F.unknown", "f"),
            ("G.", "g"),
            ("H.", "h"),
            ("H.delim", "-"),
        ];
        let before =
            [("A", "a"), ("B", "b"), ("C", ""), ("D", "old"), ("E", "old"), ("G", "old"), ("H", "old")];
        let after = [
            ("A", "a;tail"),
            ("B", "headb"),
            ("C", "c"),
            ("D", "old"),
            ("E", "e"),
            ("G", "g:old"),
            ("H", "h-old"),
        ];
        assert_eq!(apply(&files, Action::Override, &before), pairs(&after));
    }

    #[test]
    fn no_delimiter_is_put_next_to_nothing() {
        let files = [("A.append", "x"), ("A.delim", ":"), ("B.delim", ":"), ("B.prepend", "y")];
        assert_eq!(apply(&files, Action::Override, &[("B", "")]), pairs(&[("A", "x"), ("B", "y")]));
    }

    #[test]
    fn an_operator_s_plain_file_is_only_a_default() {
        assert_eq!(apply(&[("A", "new")], Action::Default, &[("A", "old")]), pairs(&[("A", "old")]));
    }

    #[test]
    fn the_user_s_paths_come_first_and_other_values_replace() {
        let dir = tempfile::tempdir().unwrap();
        file::write(&dir.path().join("env/PATH"), b"/mine").unwrap();
        file::write(&dir.path().join("env/X"), b"new\n").unwrap();
        let mut env: Env = [("PATH".into(), "/bin".into()), ("X".into(), "old".into())].into();
        add_platform_env(&mut env, dir.path()).unwrap();
        assert_eq!(env[OsStr::new("PATH")], "/mine:/bin");
        assert_eq!(env[OsStr::new("X")], "new\n");
    }

    #[test]
    fn only_known_variables_reach_buildpacks() {
        let outer: Env =
            [("PATH".into(), "/bin".into()), ("CNB_REGISTRY_AUTH".into(), "secret".into())].into();
        assert_eq!(build_env(&outer).keys().collect::<Vec<_>>(), ["PATH"]);
    }
}
