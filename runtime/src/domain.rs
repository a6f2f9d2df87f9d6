//! The Landlock domain of a container's processes. The namespaces and the filter depend on none of it; a kernel without
//! Landlock, or with an older one, enforces what it knows. See landlock(7).

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

/// Folders in which every program writes: terminals, shared memory, and what the kernel lets a process say of itself.
const EVERYBODY_S: [&str; 2] = ["/dev", "/proc"];

/// The domain could not be entered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DomainError {
    #[error(transparent)]
    Folder(#[from] PathFdError),
    #[error(transparent)]
    Ruleset(#[from] RulesetError),
}

/// Enter a domain: no device files, no abstract sockets of and no signals to processes outside, no look into their /proc
/// entries, which any domain implies, and where `writes_below` names folders, no change outside of them.
///
/// Every domain also denies links and renames from one folder into another unless that is granted, and buildpacks do
/// rename; so where the kernel cannot grant it (before 5.19), there is no domain. The scopes need 6.12.
///
/// # Errors
/// [`DomainError`], where the kernel has all of this and refuses.
pub(crate) fn enter(writes_below: Option<&[PathBuf]>) -> Result<(), DomainError> {
    let refer = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let Ok(ruleset) = refer.handle_access(AccessFs::Refer) else { return Ok(()) };
    // Of the rights to write, those of files and folders; that of speaking to devices came later and is not handled.
    let writes = AccessFs::from_write(ABI::V3);
    let devices: BitFlags<AccessFs> = AccessFs::MakeChar | AccessFs::MakeBlock;
    let (handled, granted) = match writes_below {
        Some(_) => (writes, writes & !devices),
        None => (devices | AccessFs::Refer, AccessFs::Refer.into()),
    };
    let mut ruleset = ruleset
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?;
    let everywhere = [PathBuf::from("/")];
    for folder in writes_below.unwrap_or(&everywhere) {
        ruleset = grant(ruleset, folder, granted)?;
    }
    if writes_below.is_some() {
        for folder in EVERYBODY_S {
            ruleset = grant(ruleset, Path::new(folder), granted)?;
        }
    }
    ruleset.restrict_self()?;
    Ok(())
}

/// What is not there, nobody can write to; in place of a folder there may be a file.
fn grant(
    ruleset: RulesetCreated,
    folder: &Path,
    granted: BitFlags<AccessFs>,
) -> Result<RulesetCreated, DomainError> {
    let opened = match PathFd::new(folder) {
        Ok(opened) => opened,
        Err(PathFdError::OpenCall { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(ruleset);
        }
        Err(error) => return Err(error.into()),
    };
    let of_files = AccessFs::from_file(ABI::V3);
    let granted = if folder.is_dir() { granted } else { granted & of_files };
    Ok(ruleset.add_rule(PathBeneath::new(opened, granted))?)
}
