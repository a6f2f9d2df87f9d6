//! The buildpacks of a builder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coracle_cnb::{
    ApiVersion, BuildpackId, BuildpackToml, Distro, GroupElement, Order, OrderGroup, RunImageTarget,
};

use crate::file::{self, FileError};

/// Every buildpack that an order can reach, by id and version.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    buildpacks: BTreeMap<(BuildpackId, String), BuildpackToml>,
}

/// Why the buildpacks of an order could not be looked up.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The builder does not have it.
    #[error("look up buildpack `{name}`: there is no `{path}`")]
    Missing { name: String, path: PathBuf },
    /// Its API is not spoken here.
    #[error("look up buildpack `{name}`: Buildpack API {api} is not supported (supported: 0.7 to 0.12)")]
    Api { name: String, api: ApiVersion },
    /// Its buildpack.toml could not be read.
    #[error("look up buildpack `{name}`")]
    File {
        name: String,
        #[source]
        source: FileError,
    },
    /// The order has image extensions.
    #[error(
        "image extensions are not supported: order.toml has [[order-extensions]]; remove them or use the builder's own lifecycle"
    )]
    Extensions,
}

impl Catalog {
    /// A catalog of buildpacks already read.
    pub fn of(buildpacks: impl IntoIterator<Item = BuildpackToml>) -> Self {
        let key = |toml: &BuildpackToml| (toml.buildpack.id.clone(), toml.buildpack.version.clone());
        Self { buildpacks: buildpacks.into_iter().map(|toml| (key(&toml), toml)).collect() }
    }

    /// Reads `<buildpacks>/<id>/<version>/buildpack.toml` of everything the order can reach, composites included.
    pub fn read(buildpacks_dir: &Path, order: &Order) -> Result<Self, CatalogError> {
        if !order.order_extensions.is_empty() {
            return Err(CatalogError::Extensions);
        }
        let mut catalog = Self::default();
        let elements =
            |groups: &[OrderGroup]| groups.iter().flat_map(|group| group.group.clone()).collect::<Vec<_>>();
        let mut pending = elements(&order.order);
        while let Some(element) = pending.pop() {
            if catalog.get(&element).is_some() {
                continue;
            }
            let toml = read_one(buildpacks_dir, &element)?;
            pending.extend(elements(&toml.order));
            catalog.buildpacks.insert((element.id, element.version), toml);
        }
        Ok(catalog)
    }

    /// Drops from the order, and from the composites in it, the buildpacks that are not for an execution environment (Buildpack
    /// API, "Execution Environments").
    pub fn leave_out_other_exec_envs(&mut self, order: &mut Order, exec_env: &str) {
        let others: Vec<(BuildpackId, String)> = self
            .buildpacks
            .iter()
            .filter(|(_, toml)| {
                let offered = &toml.buildpack.exec_env;
                toml.api >= crate::api::BUILDPACK_EXECUTION_ENVIRONMENTS
                    && !offered.is_empty()
                    && !offered.iter().any(|offered| offered == "*" || offered == exec_env)
            })
            .map(|(key, _)| key.clone())
            .collect();
        let orders = self.buildpacks.values_mut().map(|toml| &mut toml.order);
        for group in orders.chain([&mut order.order]).flatten() {
            group.group.retain(|element| {
                !others.iter().any(|(id, version)| element.id == *id && element.version == *version)
            });
        }
    }

    /// The buildpack.toml files, in order of id and version.
    pub fn buildpacks(&self) -> impl Iterator<Item = &BuildpackToml> {
        self.buildpacks.values()
    }

    /// The buildpack.toml of one element.
    pub fn get(&self, element: &GroupElement) -> Option<&BuildpackToml> {
        self.buildpacks.get(&(element.id.clone(), element.version.clone()))
    }

    /// All buildpacks with programs, by id and version: composites have none.
    pub(crate) fn components(&self) -> impl Iterator<Item = (&BuildpackId, &str, &BuildpackToml)> {
        let components = self.buildpacks.iter().filter(|(_, toml)| toml.order.is_empty());
        components.map(|((id, version), toml)| (id, version.as_str(), toml))
    }
}

/// Reads the buildpack.toml of one element of an order or group.
pub(crate) fn read_one(buildpacks_dir: &Path, element: &GroupElement) -> Result<BuildpackToml, CatalogError> {
    let path = buildpack_dir(buildpacks_dir, element).join("buildpack.toml");
    let name = element.name();
    let toml: Option<BuildpackToml> = file::read_document("buildpack.toml", &path)
        .map_err(|source| CatalogError::File { name: name.clone(), source })?;
    let toml = toml.ok_or_else(|| CatalogError::Missing { name: name.clone(), path })?;
    if !crate::api::runs_buildpack_api(toml.api) {
        return Err(CatalogError::Api { name, api: toml.api });
    }
    Ok(toml)
}

/// Where a buildpack lies in the builder.
pub(crate) fn buildpack_dir(buildpacks_dir: &Path, element: &GroupElement) -> PathBuf {
    buildpacks_dir.join(element.id.dir()).join(&element.version)
}

/// Whether a buildpack supports the run image's target (Platform API 0.12 and later). `build_distro` stands in for a run
/// image that names no distribution.
pub(crate) fn supports(toml: &BuildpackToml, target: &RunImageTarget, build_distro: Option<&Distro>) -> bool {
    let fits = |wanted: &str, offered: &str| wanted.is_empty() || offered.is_empty() || wanted == offered;
    if toml.targets.is_empty() {
        // Stacks and programs say nothing that would exclude Linux, the only system run here.
        return true;
    }
    let distro = target.distro.as_ref().or(build_distro);
    toml.targets.iter().any(|supported| {
        fits(&supported.os, &target.os)
            && fits(&supported.arch, &target.arch)
            && fits(&supported.variant, &target.arch_variant)
            && (supported.distros.is_empty()
                || distro.is_some_and(|offered| {
                    let same = |wanted: &Distro| {
                        wanted.name == offered.name && fits(&wanted.version, &offered.version)
                    };
                    supported.distros.iter().any(same)
                }))
    })
}
