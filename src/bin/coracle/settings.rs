//! What was typed, completed from the environment and the user's files.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use coracle::{AuthFile, Config, Policy};

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

/// The user's credentials: `config.json` of `$DOCKER_CONFIG` or `~/.docker`. No file is no credentials.
pub(crate) fn credentials() -> Result<AuthFile, Failure> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")));
    let Some(path) = folder.map(|folder| folder.join("config.json")) else { return Ok(AuthFile::default()) };
    match std::fs::read(&path) {
        Ok(text) => {
            AuthFile::parse(&text).map_err(|source| Failure::Credentials { path, source: Box::new(source) })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(AuthFile::default()),
        Err(error) => Err(Failure::Credentials { path, source: Box::new(error) }),
    }
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

/// `NAME=VALUE`, or `NAME` for the value that this process has.
pub(crate) fn variables(typed: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let unfit = |name: &str| name.is_empty() || name.contains('/') || name == "." || name == "..";
    let split = |text: &String| match text.split_once('=') {
        Some((name, _)) if unfit(name) => Err(Failure::Variable(text.clone())),
        Some((name, value)) => Ok(Some((name.to_owned(), value.to_owned()))),
        None if unfit(text) => Err(Failure::Variable(text.clone())),
        None => Ok(std::env::var(text).ok().map(|value| (text.clone(), value))),
    };
    typed.iter().map(split).filter_map(Result::transpose).collect()
}

/// What the host says of proxies: registries and buildpacks reach the world as the user does.
pub(crate) fn proxies() -> Vec<(String, String)> {
    let names = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"];
    names.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect()
}
