//! `config/metadata.toml` from what each buildpack asked for in its launch.toml.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::Path;

use coracle_cnb::{ApiVersion, Command, Group, GroupElement, LaunchToml, Metadata, Process, ProcessType};

use crate::api::{COMMAND_LISTS, LEGACY_BOM_FILES};
use crate::bom;
use crate::folder::{self, FolderError};

/// Why the metadata could not be composed.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// A launch.toml could not be read.
    #[error("read launch.toml of buildpack `{name}`")]
    File {
        name: String,
        #[source]
        source: FolderError,
    },
    /// The group does not say for which API the buildpack was made.
    #[error("buildpack `{0}` has no API version in group.toml")]
    NoApi(String),
    /// `direct` is decided by the API since 0.9.
    #[error("process `{process}` of buildpack `{name}`: `direct` is not allowed in Buildpack API {api}")]
    Direct { name: String, process: ProcessType, api: ApiVersion },
    /// The command is a list since Buildpack API 0.9, and was text before.
    #[error("process `{process}` of buildpack `{name}`: the command must be {wanted} in Buildpack API {api}")]
    Command { name: String, process: ProcessType, api: ApiVersion, wanted: &'static str },
}

/// Reads the launch.toml of every buildpack of the group from the folders that a build left. No link is followed.
pub fn read_launch(
    layers_dir: BorrowedFd<'_>,
    group: &Group,
) -> Result<Vec<(GroupElement, LaunchToml)>, ComposeError> {
    let read = |element: &GroupElement| {
        let path = Path::new(&element.id.dir()).join("launch.toml");
        let launch = folder::document("launch.toml", layers_dir, &path)
            .map_err(|source| ComposeError::File { name: element.name(), source })?;
        Ok((element.clone(), launch.unwrap_or_default()))
    };
    group.group.iter().map(read).collect()
}

/// Composes the metadata of a group. A later process takes the place of an earlier one of its type; one that is not a default takes
/// the default away with it. Pure.
pub fn compose(built: &[(GroupElement, LaunchToml)], group: &Group) -> Result<Metadata, ComposeError> {
    let plain = |element: &GroupElement| GroupElement { optional: false, ..element.clone() };
    let extensions = group.group_extensions.iter().map(plain).collect();
    let mut metadata = Metadata { extensions, ..Metadata::default() };
    let mut processes: BTreeMap<ProcessType, Process> = BTreeMap::new();
    for (element, launch) in built {
        metadata.buildpacks.push(plain(element));
        metadata.labels.extend(launch.labels.iter().cloned());
        metadata.slices.extend(launch.slices.iter().cloned());
        for process in &launch.processes {
            let kind = process.kind.as_str();
            if process.default {
                kind.clone_into(&mut metadata.buildpack_default_process_type);
            } else if metadata.buildpack_default_process_type == kind {
                metadata.buildpack_default_process_type.clear();
            }
            processes.insert(process.kind.clone(), settled(element, process)?);
        }
    }
    metadata.processes = processes.into_values().collect();
    Ok(metadata)
}

/// API since which a process has a working directory.
const WORKING_DIRS: ApiVersion = ApiVersion::new(0, 8);

/// What [`compose`] did that a buildpack's author may not expect, for people. Pure.
pub fn remarks(built: &[(GroupElement, LaunchToml)]) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut default = None;
    for (element, launch) in built {
        let name = element.name();
        if !launch.bom.is_empty() {
            remarks.push(format!("buildpack `{name}`: [[bom]] in launch.toml is deprecated: bills of materials are files, such as launch.sbom.cdx.json"));
        }
        for process in &launch.processes {
            let kind = &process.kind;
            if process.default {
                default = Some(kind);
            } else if default == Some(kind) {
                default = None;
                remarks.push(format!("buildpack `{name}` redefines the default process type `{kind}` as one that is no default: the image has none until another buildpack names one"));
            }
            let dir = process.working_dir.as_deref().unwrap_or_default();
            if !dir.is_empty() && element.api.is_some_and(|api| api < WORKING_DIRS) {
                remarks.push(format!("buildpack `{name}`: the working directory `{dir}` of process `{kind}` counts for nothing before Buildpack API {WORKING_DIRS}"));
            }
        }
    }
    remarks
}

/// The metadata in the form of a Platform API: before 0.9 it holds the unstructured bill of materials, before 0.10 commands are
/// text, and further words of them go before the arguments. Pure.
pub fn in_form_of(platform_api: ApiVersion, built: &[(GroupElement, LaunchToml)], metadata: &mut Metadata) {
    if platform_api < LEGACY_BOM_FILES {
        metadata.bom = built.iter().flat_map(|(element, launch)| bom::signed(element, &launch.bom)).collect();
    }
    for process in metadata.processes.iter_mut().filter(|_| platform_api < COMMAND_LISTS) {
        let mut words = process.command.words().into_iter();
        process.command = Command::Text(words.next().unwrap_or_default());
        process.args = Some(words.chain(process.args.take().unwrap_or_default()).collect());
    }
}

/// A process with what its buildpack's API leaves open decided.
fn settled(element: &GroupElement, process: &Process) -> Result<Process, ComposeError> {
    let name = element.name();
    let api = element.api.ok_or_else(|| ComposeError::NoApi(name.clone()))?;
    let lists = api >= ApiVersion::new(0, 9);
    let wrong = |name, wanted| ComposeError::Command { name, process: process.kind.clone(), api, wanted };
    let command = match (&process.command, lists) {
        (Command::List(words), true) => Command::List(words.clone()),
        (Command::Text(text), false) => Command::List(vec![text.clone()]),
        (Command::Text(_), true) => return Err(wrong(name, "a list")),
        (Command::Mixed(_), _) => return Err(wrong(name, "a list of texts")),
        (Command::List(words), false) if words.is_empty() => Command::List(Vec::new()),
        (Command::List(_), false) => return Err(wrong(name, "text")),
    };
    if lists && process.direct.is_some() {
        return Err(ComposeError::Direct { name, process: process.kind.clone(), api });
    }
    Ok(Process {
        kind: process.kind.clone(),
        command,
        args: process.args.clone(),
        direct: Some(lists || process.direct.unwrap_or(false)),
        default: false,
        buildpack_id: Some(element.id.clone()),
        working_dir: process.working_dir.clone().filter(|dir| !dir.is_empty() && api >= WORKING_DIRS),
        exec_env: process.exec_env.clone(),
    })
}
