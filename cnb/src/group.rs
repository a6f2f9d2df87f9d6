//! What detect reads and writes: order, buildpack.toml, build plans, group and plan.

use serde::{Deserialize, Serialize};

use crate::{ApiVersion, BuildpackId};

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// `order.toml` (Platform API, "order.toml"): the groups to try, the first that fits is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    #[serde(default)]
    pub order: Vec<OrderGroup>,
    #[serde(default, rename = "order-extensions", skip_serializing_if = "Vec::is_empty")]
    pub order_extensions: Vec<OrderGroup>,
}

/// `system.toml` (Platform API, "system.toml"): buildpacks around those of every group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemToml {
    #[serde(default)]
    pub system: System,
}

/// The `[system]` table of a [`SystemToml`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    #[serde(default)]
    pub pre: SystemBuildpacks,
    #[serde(default)]
    pub post: SystemBuildpacks,
}

/// Buildpacks that go before, or after, those of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemBuildpacks {
    #[serde(default)]
    pub buildpacks: Vec<GroupElement>,
}

impl System {
    /// Whether it has no buildpacks.
    pub fn is_empty(&self) -> bool {
        self.pre.buildpacks.is_empty() && self.post.buildpacks.is_empty()
    }
}

/// One alternative of an [`Order`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderGroup {
    #[serde(default)]
    pub group: Vec<GroupElement>,
}

/// One buildpack of a group: in an order only id, version and `optional` are given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupElement {
    pub id: BuildpackId,
    #[serde(default, deserialize_with = "crate::ids::version")]
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiVersion>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
}

impl GroupElement {
    /// `id@version`, as logs and the history of images name a buildpack.
    pub fn name(&self) -> String {
        format!("{}@{}", self.id, self.version)
    }
}

/// `group.toml` (Platform API, "group.toml").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<GroupElement>,
    #[serde(default, rename = "group-extensions", skip_serializing_if = "Vec::is_empty")]
    pub group_extensions: Vec<GroupElement>,
}

/// `plan.toml` (Platform API, "plan.toml"), and with names and metadata only, a buildpack's own plan file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Entry>,
}

/// What was asked for under one name, and who may provide it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    #[serde(default)]
    pub providers: Vec<Provider>,
    #[serde(default)]
    pub requires: Vec<Require>,
}

/// A buildpack that provides an [`Entry`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    pub id: BuildpackId,
    #[serde(default, deserialize_with = "crate::ids::version")]
    pub version: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub extension: bool,
}

/// The plan a `bin/detect` writes (Buildpack API, "Build Plan").
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(from = "FlatPlan")]
pub struct BuildPlan {
    pub sections: PlanSections,
    pub or: Vec<PlanSections>,
}

/// A [`BuildPlan`] as it is written.
#[derive(Deserialize)]
struct FlatPlan {
    #[serde(default)]
    provides: Vec<Provide>,
    #[serde(default)]
    requires: Vec<Require>,
    #[serde(default)]
    or: Vec<PlanSections>,
}

impl From<FlatPlan> for BuildPlan {
    fn from(FlatPlan { provides, requires, or }: FlatPlan) -> Self {
        Self { sections: PlanSections { provides, requires }, or }
    }
}

/// One alternative of a [`BuildPlan`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct PlanSections {
    #[serde(default)]
    pub provides: Vec<Provide>,
    #[serde(default)]
    pub requires: Vec<Require>,
}

/// Something a buildpack can provide.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Provide {
    #[serde(default)]
    pub name: String,
}

/// Something a buildpack needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Require {
    #[serde(default)]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// One without entries is not none: who wrote it finds it again.
    #[serde(default, deserialize_with = "crate::free_table", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<toml::Table>,
}

/// `buildpack.toml` (Buildpack API, "buildpack.toml").
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildpackToml {
    pub api: ApiVersion,
    pub buildpack: BuildpackInfo,
    #[serde(default)]
    pub order: Vec<OrderGroup>,
    #[serde(default)]
    pub targets: Vec<Target>,
    #[serde(default)]
    pub stacks: Vec<Stack>,
    #[serde(default)]
    pub metadata: toml::Table,
}

/// The `[buildpack]` table of a [`BuildpackToml`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BuildpackInfo {
    pub id: BuildpackId,
    #[serde(default, deserialize_with = "crate::ids::version")]
    pub version: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub homepage: Option<String>,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub keywords: Vec<String>,
    #[serde(default)]
    pub licenses: Vec<License>,
    #[serde(default)]
    pub clear_env: bool,
    #[serde(default)]
    pub sbom_formats: Vec<String>,
    #[serde(default)]
    pub exec_env: Vec<String>,
}

/// `extension.toml` (Image Extension, "extension.toml").
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ExtensionToml {
    pub api: ApiVersion,
    pub extension: BuildpackInfo,
    #[serde(default)]
    pub targets: Vec<Target>,
}

impl From<ExtensionToml> for BuildpackToml {
    /// What an extension says of itself is what a buildpack could say.
    fn from(ExtensionToml { api, extension, targets }: ExtensionToml) -> Self {
        Self {
            api,
            buildpack: extension,
            targets,
            order: Vec::new(),
            stacks: Vec::new(),
            metadata: toml::Table::new(),
        }
    }
}

/// A licence a buildpack names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct License {
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub uri: String,
}

/// A platform a buildpack supports; what is empty fits everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub arch: String,
    #[serde(default, alias = "arch-variant")]
    pub variant: String,
    #[serde(default)]
    pub distros: Vec<Distro>,
}

/// A distribution by name and version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distro {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub version: String,
}

/// A stack of the time before targets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub mixins: Vec<String>,
}
