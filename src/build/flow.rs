//! Whether the phases of a build share one container, and the order of those that do not.
//!
//! Only a trusted builder's may, and only where nobody else's programs run beside its own
//! (docs/decisions/0017-trust-and-the-one-container-it-is-for.md).

use coracle_images::Reference;
use coracle_runtime::Network;

use super::builder::Builder;
use super::foreign::{ANALYZES_FIRST, LAYOUTS};
use super::phase::{Phase, Plan};
use super::{Build, BuildLayers, Buildpack};
use crate::error::Error;
use crate::trust::Trust;

/// What a flow is chosen by.
#[derive(Debug, Clone)]
pub(super) struct Circumstances<'a> {
    pub(super) trust: &'a Trust,
    pub(super) buildpacks: &'a [Buildpack],
    pub(super) build_layers: BuildLayers,
    /// Whether programs of buildpacks have another network than the phases that speak to registries.
    pub(super) other_network: bool,
    /// Whether a cache image is written, but not read.
    pub(super) new_cache_image: bool,
    /// Whether the user brings secrets.
    pub(super) has_secrets: bool,
    /// Whether another lifecycle plays phases.
    pub(super) is_foreign: bool,
    /// Whether the builder's order has image extensions.
    pub(super) has_extensions: bool,
    /// Whether the cache has layers that can stay unpacked.
    pub(super) layers_stay: bool,
    /// Whether others made the image, or the cache image, that is there.
    pub(super) made_by_others: bool,
}

/// How the phases of a build run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// In one container.
    Creator,
    /// Each in one of its own.
    Phases,
}

/// The flow, and the line of the log that says why.
pub(super) fn choose(builder: &Reference, circumstances: &Circumstances<'_>) -> (Flow, String) {
    const OWN: &str = "each phase has a container of its own";
    let why = match circumstances.trust {
        Trust::Untrusted { why } => {
            return (Flow::Phases, format!("{builder} is not trusted ({why}): {OWN}"));
        }
        Trust::Trusted { why } => why,
    };
    match circumstances.against_one_container() {
        Some(reason) => (Flow::Phases, format!("{builder} is trusted ({why}), but {OWN}: {reason}")),
        None => (Flow::Creator, format!("{builder} is trusted ({why}): its phases share one container")),
    }
}

impl Circumstances<'_> {
    fn against_one_container(&self) -> Option<&'static str> {
        // Who trusts a builder does not trust what somebody brings along.
        if self.buildpacks.iter().any(|buildpack| matches!(buildpack, Buildpack::Folder(_))) {
            return Some("--buildpack brings a buildpack that is not the builder's");
        }
        if self.has_secrets {
            return Some("--secret is for the build alone, and not for detection");
        }
        if self.is_foreign {
            return Some(
                "another lifecycle was chosen, and only Coracle's keeps programs from credentials there",
            );
        }
        if self.build_layers == BuildLayers::Strict {
            return Some("--build-layers strict gives each buildpack one");
        }
        if self.has_extensions {
            return Some("its order has image extensions");
        }
        if self.other_network {
            return Some("the network of --network is not for the phases that speak to registries");
        }
        if self.new_cache_image {
            return Some("--clear-cache keeps the cache image from the restorer alone");
        }
        if self.made_by_others {
            return Some(
                "the image was made with another builder or other buildpacks before, which is looked at between phases",
            );
        }
        if self.layers_stay {
            return Some("cached layers stay unpacked, and are looked at between phases");
        }
        None
    }
}

impl Build<'_> {
    /// What the flow of this build is chosen by.
    pub(super) fn circumstances(&self, builder: &Builder, plan: &Plan) -> Result<Circumstances<'_>, Error> {
        Ok(Circumstances {
            trust: &self.request.trust,
            buildpacks: &self.request.buildpacks,
            build_layers: self.request.build_layers,
            other_network: self.request.publish && self.request.network != Network::Host,
            new_cache_image: self.request.cache_image.is_some() && self.request.clear_cache,
            has_secrets: !self.brought.secrets.is_empty(),
            is_foreign: plan.foreign.is_some(),
            has_extensions: builder.has_extensions,
            layers_stay: plan.folders.tree && self.cache_has_layers,
            made_by_others: self.makers.of_image_are_others()? || self.makers.of_cache_are_others()?,
        })
    }

    /// Run the phases, each in a container of its own. Where the image was published, the answer is the report.
    pub(super) fn phases(&self, builder: &Builder, plan: &mut Plan) -> Result<Option<String>, Error> {
        if plan.api < LAYOUTS {
            self.check_stacks(builder, plan)?;
        }
        // Ours was in time for the beginning.
        if plan.foreign.is_some() && plan.api >= ANALYZES_FIRST {
            self.analyze(plan)?;
        }
        let (buildpacks, extended) = self.detect(plan)?;
        if extended {
            self.extensions(builder, plan)?;
        }
        if plan.api < ANALYZES_FIRST {
            self.analyze(plan)?;
        }
        let reused = self.reuse_layers(plan)?;
        self.restore(plan)?;
        match plan.build_layers {
            BuildLayers::Strict => self.steps(&buildpacks, plan)?,
            BuildLayers::Snapshot | BuildLayers::Shared => self.phase(Phase::Build, plan)?,
        }
        self.compose(plan)?;
        let workspace = self.check_layers(plan, reused)?;
        self.makers.begin()?;
        self.phase(Phase::Export, plan)?;
        self.keep_layers(plan, workspace);
        plan.publish.then(|| self.keep(plan, Phase::Export, "report.toml")).transpose()
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn the_log_says_which_flow_is_taken_and_why() {
        let trusted = Trust::Trusted { why: "--trust-builder".to_owned() };
        let untrusted = Trust::Untrusted { why: "it is not one of the trusted builders".to_owned() };
        let of_builder = [Buildpack::OfBuilder("a/b".parse().unwrap(), None)];
        let folder = [Buildpack::Folder("/own".into())];
        let plain = Circumstances {
            trust: &trusted,
            buildpacks: &[],
            build_layers: BuildLayers::Snapshot,
            other_network: false,
            new_cache_image: false,
            has_secrets: false,
            is_foreign: false,
            has_extensions: false,
            layers_stay: false,
            made_by_others: false,
        };
        let all = [
            plain.clone(),
            Circumstances { buildpacks: &of_builder, build_layers: BuildLayers::Shared, ..plain.clone() },
            Circumstances { buildpacks: &folder, ..plain.clone() },
            Circumstances { build_layers: BuildLayers::Strict, ..plain.clone() },
            Circumstances { has_secrets: true, ..plain.clone() },
            Circumstances { is_foreign: true, ..plain.clone() },
            Circumstances { has_extensions: true, ..plain.clone() },
            Circumstances { other_network: true, ..plain.clone() },
            Circumstances { new_cache_image: true, ..plain.clone() },
            Circumstances { layers_stay: true, ..plain.clone() },
            Circumstances { trust: &untrusted, ..plain },
        ];
        let builder = "r.example/builder:1".parse().unwrap();
        let lines = all.map(|circumstances| {
            let (flow, line) = choose(&builder, &circumstances);
            format!("{flow:?}: {line}\n")
        });
        insta::assert_snapshot!(lines.concat());
    }
}
