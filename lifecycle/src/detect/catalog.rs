//! The buildpacks and extensions of a builder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coracle_cnb::{ApiVersion, BuildpackToml, ExtensionToml, GroupElement, Order, OrderGroup};
use serde::{Deserialize, Serialize};

use super::Module;
use crate::file::{self, FileError};
use crate::with_causes;

/// Everything that an order can reach.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    modules: BTreeMap<Module, BuildpackToml>,
    unusable: BTreeMap<Module, Unusable>,
}

/// A buildpack within a composite that cannot be used. That matters when it is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unusable {
    pub module: Module,
    /// Why.
    pub why: String,
    /// The phase's exit code where it is needed.
    pub exit: u8,
}

/// Why what an order names could not be looked up.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The builder does not have it.
    #[error("look up {kind} `{name}`: there is no `{path}`")]
    Missing { kind: &'static str, name: String, path: PathBuf },
    /// Its API is not spoken here.
    #[error(
        "look up {kind} `{name}`: Buildpack API {api} is not supported (supported: 0.7 to 0.12): take the builder's own lifecycle (--lifecycle builder)"
    )]
    Api { kind: &'static str, name: String, api: ApiVersion },
    /// It does not say its API, or not in a form that is known.
    #[error(
        "look up {kind} `{name}`: {document} does not say which Buildpack API it is for (api = `{found}`): take another version of it, or the builder's own lifecycle (--lifecycle builder)"
    )]
    NoApi { kind: &'static str, name: String, document: &'static str, found: String },
    /// What it says of itself could not be read.
    #[error("look up {kind} `{name}`")]
    File {
        kind: &'static str,
        name: String,
        #[source]
        source: FileError,
    },
}

impl CatalogError {
    /// The exit code of a phase that cannot start: a builder without what its order names is no failure of detection.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Api { .. } | Self::NoApi { .. } => 12,
            Self::Missing { .. } | Self::File { .. } => 1,
        }
    }

    /// Whether it is for another age, and nothing else is wrong with it.
    pub(crate) fn is_of_api(&self) -> bool {
        matches!(self, Self::Api { .. } | Self::NoApi { .. })
    }
}

impl Catalog {
    /// A catalog of what has been read already.
    pub fn of(
        buildpacks: impl IntoIterator<Item = BuildpackToml>,
        extensions: impl IntoIterator<Item = BuildpackToml>,
        unusable: impl IntoIterator<Item = Unusable>,
    ) -> Self {
        let entry = |extension| {
            move |toml: BuildpackToml| {
                let (id, version) = (toml.buildpack.id.clone(), toml.buildpack.version.clone());
                (Module { id, version, extension }, toml)
            }
        };
        Self {
            modules: buildpacks
                .into_iter()
                .map(entry(false))
                .chain(extensions.into_iter().map(entry(true)))
                .collect(),
            unusable: unusable.into_iter().map(|unusable| (unusable.module.clone(), unusable)).collect(),
        }
    }

    /// Reads `<buildpacks>/<id>/<version>/buildpack.toml`, or `<extensions>/<id>/<version>/extension.toml`, of everything
    /// the order can reach, composites included.
    ///
    /// # Errors
    /// [`CatalogError`] for what the order itself names. What only composites name may never be needed.
    pub fn read(buildpacks: &Path, extensions: &Path, order: &Order) -> Result<Self, CatalogError> {
        Self::read_of(buildpacks, extensions, order, crate::api::runs_buildpack_api)
    }

    /// The same, of APIs for which `speaks` holds: another lifecycle's, where that runs the programs.
    ///
    /// # Errors
    /// As [`Catalog::read`].
    pub fn read_of(
        buildpacks: &Path,
        extensions: &Path,
        order: &Order,
        speaks: fn(ApiVersion) -> bool,
    ) -> Result<Self, CatalogError> {
        let read_one =
            |element: &GroupElement| read_module_of(buildpacks, &Module::buildpack(element), speaks);
        let mut catalog = Self::default();
        for element in elements(&order.order_extensions) {
            let module = Module::extension(&element);
            let toml = read_module_of(extensions, &module, speaks)?;
            catalog.modules.insert(module, toml);
        }
        let mut pending = Vec::new();
        for element in elements(&order.order) {
            let toml = read_one(&element)?;
            pending.extend(elements(&toml.order));
            catalog.modules.insert(Module::buildpack(&element), toml);
        }
        while let Some(element) = pending.pop() {
            let module = Module::buildpack(&element);
            if catalog.modules.contains_key(&module) || catalog.unusable.contains_key(&module) {
                continue;
            }
            match read_one(&element) {
                Ok(toml) => {
                    pending.extend(elements(&toml.order));
                    catalog.modules.insert(module, toml);
                }
                Err(error) => {
                    let exit = if error.is_of_api() { 12 } else { 22 };
                    let unusable = Unusable { module: module.clone(), why: with_causes(&error), exit };
                    catalog.unusable.insert(module, unusable);
                }
            }
        }
        Ok(catalog)
    }

    /// The buildpack.toml files, in order of id and version.
    pub fn buildpacks(&self) -> impl Iterator<Item = &BuildpackToml> {
        self.modules.iter().filter(|(module, _)| !module.extension).map(|(_, toml)| toml)
    }

    /// The extension.toml files, in order of id and version.
    pub fn extensions(&self) -> impl Iterator<Item = &BuildpackToml> {
        self.modules.iter().filter(|(module, _)| module.extension).map(|(_, toml)| toml)
    }

    /// What could not be read.
    pub fn unusable(&self) -> impl Iterator<Item = &Unusable> {
        self.unusable.values()
    }

    /// What a module says of itself.
    pub(crate) fn get(&self, module: &Module) -> Option<&BuildpackToml> {
        self.modules.get(module)
    }

    /// Why a module cannot be used.
    pub(super) fn why_not(&self, module: &Module) -> Option<&Unusable> {
        self.unusable.get(module)
    }
}

fn elements(groups: &[OrderGroup]) -> Vec<GroupElement> {
    groups.iter().flat_map(|group| group.group.clone()).collect()
}

/// Reads the buildpack.toml of one element of an order or group.
pub(crate) fn read_one(buildpacks: &Path, element: &GroupElement) -> Result<BuildpackToml, CatalogError> {
    read_module(buildpacks, &Module::buildpack(element))
}

/// Reads what a module in `dir` says of itself.
pub(crate) fn read_module(dir: &Path, module: &Module) -> Result<BuildpackToml, CatalogError> {
    read_module_of(dir, module, crate::api::runs_buildpack_api)
}

fn read_module_of(
    dir: &Path,
    module: &Module,
    speaks: fn(ApiVersion) -> bool,
) -> Result<BuildpackToml, CatalogError> {
    let (kind, name) = (module.kind(), module.to_string());
    let path = module_dir(dir, module).join(module.document());
    let document = module.document();
    let said = file::read_document::<SaidApi>(document, &path);
    let said = said.map_err(|source| CatalogError::File { kind, name: name.clone(), source })?;
    // Before anything else: of another age the rest may not be understood.
    if let Some(SaidApi { api: found }) = said {
        match found.parse() {
            Err(_) => return Err(CatalogError::NoApi { kind, name, document, found }),
            Ok(api) if !speaks(api) => return Err(CatalogError::Api { kind, name, api }),
            Ok(_) => {}
        }
    }
    let toml: Result<Option<BuildpackToml>, FileError> = if module.extension {
        file::read_document::<ExtensionToml>(document, &path).map(|toml| toml.map(Into::into))
    } else {
        file::read_document(document, &path)
    };
    let toml = toml.map_err(|source| CatalogError::File { kind, name: name.clone(), source })?;
    toml.ok_or_else(|| CatalogError::Missing { kind, name: name.clone(), path })
}

/// The part of a module's document that says whether the rest can be understood.
#[derive(Deserialize)]
struct SaidApi {
    #[serde(default)]
    api: String,
}

/// Where a buildpack lies in the builder.
pub(crate) fn buildpack_dir(buildpacks: &Path, element: &GroupElement) -> PathBuf {
    module_dir(buildpacks, &Module::buildpack(element))
}

/// Where a module lies in the folder of its kind.
pub(crate) fn module_dir(dir: &Path, module: &Module) -> PathBuf {
    dir.join(module.id.dir()).join(&module.version)
}
