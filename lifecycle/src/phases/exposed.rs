//! Credentials that programs of buildpacks can read whatever this process does: who started it is told where they lie.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use coracle_images::AuthFile;

use super::CREDENTIALS_VARIABLE;
use crate::file;

/// A process's environment is never larger (`execve(2)`, a quarter of 8 MiB of stack).
const MAX_ENVIRONMENT: u64 = 2 * 1024 * 1024;

/// What is said of Docker's configuration, if this process can read credentials in it: then so can whatever it starts.
pub(super) fn file(config: &Path) -> Option<String> {
    let bytes = file::read_bytes(config).ok()??;
    let auth = AuthFile::parse(&bytes).ok()?;
    (auth != AuthFile::default()).then(|| {
        format!(
            "programs of buildpacks can read the credentials in `{}`: hand them over in {CREDENTIALS_VARIABLE}, or in a file that only root can read",
            config.display()
        )
    })
}

/// What is said of a credential helper that this process has asked: so can whatever it starts.
pub(super) fn helper(name: &str) -> String {
    format!(
        "programs of buildpacks can ask docker-credential-{name} as this process did: hand credentials over in {CREDENTIALS_VARIABLE}, or have root start the creator, with -uid and -gid and a helper that answers nobody else"
    )
}

/// What is said of each process in `proc` whose environment this process can read and that holds the credentials, as a shell that
/// started it does.
pub(super) fn processes(proc: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten().map(|entry| entry.path());
    let process = |path: &Path| path.file_name().and_then(OsStr::to_str)?.parse::<u32>().ok();
    let mut found: Vec<_> = entries.filter_map(|path| Some((process(&path)?, path))).collect();
    found.sort();
    found.retain(|(_, path)| holds_credentials(&path.join("environ")));
    let told = |(process, path): &(u32, std::path::PathBuf)| {
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        format!(
            "programs of buildpacks can read {CREDENTIALS_VARIABLE} of process {process} ({}): have it start the creator in its place (`exec`)",
            name.trim().escape_default()
        )
    };
    found.iter().map(told).collect()
}

fn holds_credentials(environ: &Path) -> bool {
    let mut bytes = Vec::new();
    let read = File::open(environ).and_then(|file| file.take(MAX_ENVIRONMENT).read_to_end(&mut bytes));
    let value = |entry: &[u8]| {
        let value = entry.strip_prefix(CREDENTIALS_VARIABLE.as_bytes())?.strip_prefix(b"=")?;
        Some(!value.is_empty())
    };
    read.is_ok()
        && bytes
            .split(|byte| *byte == 0)
            .any(|entry| value(OsStr::from_bytes(entry).as_bytes()) == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_that_programs_can_read_credentials_in() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        assert_eq!(file(&config), None);
        std::fs::write(&config, r#"{"auths":{},"credsStore":"desktop"}"#).unwrap();
        assert_eq!(file(&config), None);
        std::fs::write(&config, r#"{"auths":{"a.org":{"auth":"YTpi"}}}"#).unwrap();
        let said = file(&config).unwrap();
        assert!(said.contains(&config.display().to_string()) && said.contains("CNB_REGISTRY_AUTH"), "{said}");
        assert!(!said.contains("YTpi"), "{said}");
    }

    #[test]
    fn processes_are_named_that_hold_credentials() {
        let proc = tempfile::tempdir().unwrap();
        let process = |name: &str, environ: &str| {
            let dir = proc.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join("environ"), environ).unwrap();
            std::fs::write(dir.join("comm"), "s\x1bh\n").unwrap();
        };
        process("1", "PATH=/bin\0CNB_REGISTRY_AUTH={}\0");
        process("20", "CNB_REGISTRY_AUTH=\0XCNB_REGISTRY_AUTH=x\0");
        process("self", "CNB_REGISTRY_AUTH={}\0");
        std::fs::create_dir(proc.path().join("300")).unwrap();
        let said = processes(proc.path());
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("of process 1 (s\\u{1b}h): "), "{said:?}");
    }
}
