//! What was typed, completed from the environment and the user's files.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use coracle::{AuthFormat, BindingError, Brought, Config, Helpers, Keychain, Policy, VolumeError};
use zeroize::Zeroizing;

use crate::args::auth::Place;
use crate::args::{self, Access};
use crate::failure::Failure;

/// An absolute path in a variable; others mean nothing (XDG Base Directory Specification).
fn absolute(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Where the user's choices are kept: `CORACLE_CONFIG`, else as the XDG Base Directory Specification says.
pub(crate) fn config_path() -> Option<PathBuf> {
    let named = std::env::var_os("CORACLE_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
    named
        .or_else(|| Some(absolute("XDG_CONFIG_HOME")?.join("coracle/config.toml")))
        .or_else(|| Some(absolute("HOME")?.join(".config/coracle/config.toml")))
}

/// The user's choices. No file is none.
pub(crate) fn config() -> Result<Config, Failure> {
    Ok(config_path().map(|path| Config::read(&path)).transpose()?.unwrap_or_default())
}

/// What whoever runs the machine says of trust.
const POLICY: &str = "/etc/coracle/policy.toml";

/// The machine's policy, and the one that `CORACLE_POLICY` names: it adds to the machine's, and never replaces it.
pub(crate) fn policies() -> Result<Vec<Policy>, Failure> {
    let named = std::env::var_os("CORACLE_POLICY").filter(|name| !name.is_empty());
    let named = named.map(|path| Policy::named(Path::new(&path))).transpose()?;
    Ok(Policy::read(Path::new(POLICY))?.into_iter().chain(named).collect())
}

/// Where images are kept (XDG Base Directory Specification).
pub(crate) fn home(typed: Option<PathBuf>) -> Result<PathBuf, Failure> {
    typed
        .or_else(|| Some(absolute("XDG_DATA_HOME")?.join("coracle")))
        .or_else(|| Some(absolute("HOME")?.join(".local/share/coracle")))
        .ok_or(Failure::NoHome)
}

/// Credentials for continuous integration: a header by registry, as `CNB_REGISTRY_AUTH` of the Platform API has them.
pub(crate) const AUTH_VARIABLE: &CStr = c"CORACLE_REGISTRY_AUTH";

/// What [`AUTH_VARIABLE`] said.
pub(crate) type Given = Zeroizing<Vec<u8>>;

/// The user's credentials, in the order of docs/decisions/0019-credentials.md. Where a file is named, it alone counts.
pub(crate) fn keychain(access: &Access, given: Option<&Given>) -> Result<Keychain, Failure> {
    match keychain_of(&access.place, given, access.verbose)? {
        (keychain, None) => Ok(keychain),
        (_, Some(missing)) => Err(Failure::AuthFile(missing)),
    }
}

/// The same, to change it: with the file in which credentials are kept for registries that it does not know.
pub(crate) fn keychain_to_change(
    place: &Place,
    given: Option<&Given>,
) -> Result<(Keychain, PathBuf), Failure> {
    let (keychain, _) = keychain_of(place, given, false)?;
    let file = named(place).or_else(|| kept_in(set)).ok_or(Failure::NoAuthFile)?;
    Ok((keychain, file))
}

/// And the file that was named, where there is none.
fn keychain_of(
    place: &Place,
    given: Option<&Given>,
    tells: bool,
) -> Result<(Keychain, Option<PathBuf>), Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let helpers = Helpers::new(&path, coracle::helper_environment(std::env::vars_os()));
    let mut keychain = Keychain::new(helpers, tells);
    let failed = |source| Failure::Library(coracle::Error::Credentials(source));
    if let Some(path) = named(place) {
        let found = keychain.add_file(&path, AuthFormat::Config).map_err(failed)?;
        return Ok((keychain, Some(path).filter(|_| !found)));
    }
    if let Some(text) = given.filter(|text| !text.is_empty()) {
        let name = AUTH_VARIABLE.to_string_lossy();
        keychain.add_text(&name, text, AuthFormat::Headers).map_err(failed)?;
    }
    for (path, format) in auth_files(set) {
        keychain.add_file(&path, format).map_err(failed)?;
    }
    Ok((keychain, None))
}

fn named(place: &Place) -> Option<PathBuf> {
    place.registry_auth_file.clone().filter(|path| !path.as_os_str().is_empty())
}

fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Podman's file: gone with the session where there is a folder for that, else one that stays (containers-auth.json(5)).
fn kept_in(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name: &str| variable(name).map(PathBuf::from);
    let lasting = || folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
    Some(folder("XDG_RUNTIME_DIR").or_else(lasting)?.join("containers/auth.json"))
}

/// Where files with credentials may be: Docker's, Podman's (containers-auth.json(5)), that of old Dockers.
fn auth_files(variable: impl Fn(&str) -> Option<OsString>) -> Vec<(PathBuf, AuthFormat)> {
    let folder = |name: &str| variable(name).map(PathBuf::from);
    let home = folder("HOME");
    let below = |path: &str| Some(home.as_ref()?.join(path));
    let config = |path: Option<PathBuf>, name: &str| Some((path?.join(name), AuthFormat::Config));
    let docker = config(folder("DOCKER_CONFIG").or_else(|| below(".docker")), "config.json");
    let running = config(folder("XDG_RUNTIME_DIR"), "containers/auth.json");
    let lasting = config(folder("XDG_CONFIG_HOME").or_else(|| below(".config")), "containers/auth.json");
    let old = below(".dockercfg").map(|path| (path, AuthFormat::Flat));
    [docker, running, lasting, old].into_iter().flatten().collect()
}

/// The certificate authorities to trust, where the user names a file instead of the host's own (`SSL_CERT_FILE`, as
/// OpenSSL reads it). Phases read it with an id that owns nothing of the user's, so it must be open to everybody.
pub(crate) fn certificates() -> Result<Option<PathBuf>, Failure> {
    let named = std::env::var_os("SSL_CERT_FILE").filter(|name| !name.is_empty());
    let Some(path) = named.map(PathBuf::from) else { return Ok(None) };
    let found = path.canonicalize().and_then(|path| Ok((std::fs::metadata(&path)?, path)));
    match found {
        Ok((about, path)) if about.is_file() && about.permissions().mode() & 0o004 != 0 => Ok(Some(path)),
        Ok(_) => Err(Failure::Certificates { path, source: None }),
        Err(error) => Err(Failure::Certificates { path, source: Some(error) }),
    }
}

/// `NAME=VALUE`, or `NAME` for the value that this process has: of files, a line each, and as typed. What comes last counts.
pub(crate) fn variables(
    files: &[PathBuf],
    typed: &[String],
) -> Result<Vec<(String, Zeroizing<String>)>, Failure> {
    let unfit = |name: &str| name.is_empty() || name.contains('/') || name == "." || name == "..";
    let mut found = BTreeMap::new();
    let mut add = |text: &str| match text.split_once('=') {
        Some((name, _)) if unfit(name) => false,
        Some((name, value)) => {
            found.insert(name.to_owned(), Zeroizing::new(value.to_owned())).is_none_or(|_| true)
        }
        None if unfit(text) => false,
        None => std::env::var(text)
            .map_or(true, |value| found.insert(text.to_owned(), Zeroizing::new(value)).is_none_or(|_| true)),
    };
    for path in files {
        let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|source| Failure::EnvFile {
            path: path.clone(),
            source: Some(source),
            line: 0,
        })?;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            if !line.is_empty() && !line.starts_with('#') && !add(line) {
                return Err(Failure::EnvFile { path: path.clone(), source: None, line: number + 1 });
            }
        }
    }
    for (place, text) in typed.iter().enumerate() {
        if !add(text) {
            return Err(Failure::Variable(place + 1));
        }
    }
    Ok(found.into_iter().collect())
}

/// What of the host is the user's, whether or not a variable says so (passwd(5)).
fn user_home() -> Option<PathBuf> {
    let account = || nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    absolute("HOME").or_else(|| Some(account()?.dir))
}

/// The same for an image's configuration or a program's environment, where everybody reads them.
pub(crate) fn shown_variables(typed: &[String]) -> Result<Vec<(String, String)>, Failure> {
    Ok(variables(&[], typed)?.into_iter().map(|(name, value)| (name, value.to_string())).collect())
}

/// Bindings, secrets and volumes, their files read.
pub(crate) fn brought(typed: &args::Brought) -> Result<Brought, Failure> {
    let failed = |source: BindingError| Failure::Library(source.into());
    Ok(Brought {
        bindings: typed.binding.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(failed)?,
        secrets: typed.secret.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(failed)?,
        volumes: typed
            .volume
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, VolumeError>>()
            .map_err(|source| Failure::Library(source.into()))?,
        volume_force: typed.volume_force,
        env_files: typed.env_file.clone(),
        user_home: user_home(),
    })
}

/// What the host says of proxies: registries and buildpacks reach the world as the user does.
pub(crate) fn proxies() -> Vec<(String, String)> {
    let names = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"];
    names.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect()
}
