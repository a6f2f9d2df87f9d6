//! The container of a phase that another lifecycle plays. Pure; snapshots of every Platform API hold it.

use std::path::Path;

use coracle_images::Reference;
use coracle_runtime::{Access, EphemeralFile, Mount, Network, Rootfs, SandboxSpec};

use super::interface::{ANALYZES_FIRST, RESTORER_ASKS, arguments};
use super::{Foreign, Place};
use crate::build::bounds::bounds;
use crate::build::folders::{self, guest};
use crate::build::phase::{self, Own, Phase, Plan, mount};
use crate::build::proxies;

/// Where a lifecycle lies in a guest (Platform specification, "Builder").
const LIFECYCLE: &str = "/cnb/lifecycle";

/// The container of one phase.
pub(crate) fn sandbox(phase: Phase, plan: &Plan, foreign: &Foreign) -> SandboxSpec {
    let name = phase.title();
    let place = foreign.place(phase);
    let in_builder = phase.runs_foreign_code() || *place == Place::InBuilder;
    let mut lower = if in_builder { plan.builder.clone() } else { Vec::new() };
    if let Place::Layer(layer) = place {
        lower.push(layer.clone());
    }
    let mut bounds = bounds(phase, plan);
    if !phase.runs_foreign_code() {
        bounds.network = if asks_registries(phase, plan) { Network::Host } else { Network::None };
        // Exporters write layers there on their way.
        bounds.writes_below = Some(vec!["/tmp".into()]);
    }
    let mut argv = vec![format!("{LIFECYCLE}/{name}")];
    argv.extend(arguments(phase, plan));
    let own = Own {
        name,
        rootfs: Rootfs::Overlay { lower, scratch: plan.folders.scratch(name) },
        argv,
        env: environment(phase, plan, bounds.network != Network::None),
        mounts: mounts_of(phase, plan),
        files: files_of(phase, plan),
        bounds,
    };
    phase::assembled(phase, plan, own, !phase.runs_foreign_code())
}

/// The images that a phase asks registries for. Phases with foreign code ask for none.
fn reached(phase: Phase, plan: &Plan) -> Vec<&Reference> {
    let mut images = phase::reached(phase, plan);
    if phase == Phase::Restore && plan.api >= RESTORER_ASKS {
        images.push(&plan.run_image);
    }
    images
}

/// Whether the phase speaks to registries, and so has credentials.
fn asks_registries(phase: Phase, plan: &Plan) -> bool {
    plan.publish && !reached(phase, plan).is_empty()
}

fn mounts_of(phase: Phase, plan: &Plan) -> Vec<Mount> {
    use Access::{ReadOnly, ReadWrite};
    let folders = &plan.folders;
    let control = mount(folders.control(), guest::CONTROL, ReadOnly);
    let out = mount(folders.out(phase.title()), guest::OUT, ReadWrite);
    let layers = mount(folders.layers(), guest::LAYERS, ReadWrite);
    let workspace = |access| mount(folders.workspace(), guest::WORKSPACE, access);
    // Whoever opens a cache makes folders in it, also to read.
    let cache = || {
        let folder = Path::new(folders::CACHE).join(folders::CACHE_DATA);
        plan.cache_image.is_none().then(|| mount(folder, guest::CACHE, ReadWrite))
    };
    let layout = |access| (!plan.publish).then(|| mount(folders.layout(), guest::LAYOUT, access));
    match phase {
        Phase::Describe | Phase::Generate => Vec::new(),
        Phase::Analyze if plan.api < ANALYZES_FIRST => {
            [control, out, layers].into_iter().chain(cache()).collect()
        }
        Phase::Analyze => [control, out, layers].into_iter().chain(layout(ReadOnly)).collect(),
        Phase::Detect => vec![control, out, workspace(ReadWrite)],
        Phase::Restore => [control, out, layers].into_iter().chain(cache()).chain(layout(ReadOnly)).collect(),
        Phase::Build => vec![control, layers, workspace(ReadWrite)],
        Phase::Export => {
            let own = [control, out, layers, workspace(ReadOnly)];
            own.into_iter().chain(cache()).chain(layout(ReadWrite)).collect()
        }
    }
}

/// As with our own phases: credentials only where a registry is spoken to and nothing foreign runs, and in a file.
fn files_of(phase: Phase, plan: &Plan) -> Vec<EphemeralFile> {
    if phase.runs_foreign_code() {
        return phase::files_for_programs(phase, plan);
    }
    if asks_registries(phase, plan) {
        vec![phase::credentials_for(&reached(phase, plan), plan)]
    } else {
        Vec::new()
    }
}

fn environment(phase: Phase, plan: &Plan, online: bool) -> Vec<(String, String)> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut env = phase::base_environment(plan.api, plan, phase.runs_foreign_code());
    if online {
        env.extend(proxies::known_to(phase, plan));
    }
    if !phase.runs_foreign_code() {
        // Layouts are an experiment to other lifecycles, and forbidden without this.
        env.push(pair("CNB_EXPERIMENTAL_MODE", "quiet"));
        if !plan.publish {
            // Ours hears it, where it is driven as another: an image here is the one that would be published.
            env.push(pair("CORACLE_LAYOUT_BY_NAME", "true"));
        }
        // Credentials are what the file has, and not what a cloud's machine would give to whoever asks.
        for cloud in ["AMAZON", "AZURE"] {
            env.push((format!("CNB_REGISTRY_AUTH_KEYCHAIN_SKIP_{cloud}"), "true".to_owned()));
        }
    }
    if asks_registries(phase, plan) {
        env.push(phase::where_credentials_are());
    }
    env
}

#[cfg(test)]
mod tests {
    use coracle_cnb::ApiVersion;

    use super::*;
    use crate::build::folders::Folders;
    use crate::build::phase::tests::{plan, shown};

    const PHASES: [Phase; 5] = [Phase::Analyze, Phase::Detect, Phase::Restore, Phase::Build, Phase::Export];

    fn of(minor: u32, publish: bool, privileged: Place) -> (Plan, Foreign) {
        let plan = Plan {
            api: ApiVersion::new(0, minor),
            process_type: (minor > 2).then(|| "web".to_owned()),
            folders: Folders { root: "/work/op".into(), tree: false },
            ..plan(publish)
        };
        let with_buildpacks = match &privileged {
            Place::InBuilder => Place::InBuilder,
            Place::Layer(_) => Place::Layer("/work/op/lifecycle".into()),
        };
        (plan, Foreign { with_buildpacks, privileged, native: Vec::new() })
    }

    fn layer() -> Place {
        Place::Layer("/work/op/lifecycle".into())
    }

    #[test]
    fn what_each_phase_is_called_with_at_each_platform_api() {
        let (mut text, mut before) = (String::new(), [Vec::new(), Vec::new()]);
        for (minor, publish) in (2..=15).flat_map(|minor| [(minor, true), (minor, false)]) {
            if !publish && minor < 12 {
                continue;
            }
            let (plan, foreign) = of(minor, publish, layer());
            let order = if minor < 7 { [1, 0, 2, 3, 4] } else { [0, 1, 2, 3, 4] };
            let lines = order.map(|number| sandbox(PHASES[number], &plan, &foreign).argv.join(" "));
            text.push_str(&format!("0.{minor}{}\n", if publish { "" } else { ", the image stays here" }));
            for line in &lines {
                let name = line.split(' ').next().unwrap_or_default();
                let same = before[usize::from(publish)].contains(line);
                text.push_str(&if same { format!("  {name} as before\n") } else { format!("  {line}\n") });
            }
            before[usize::from(publish)] = lines.to_vec();
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn who_gets_what_of_a_lifecycle_that_detects_first() {
        let (plan, foreign) = of(3, true, layer());
        insta::assert_snapshot!(shown(PHASES.map(|phase| sandbox(phase, &plan, &foreign))));
    }

    #[test]
    fn who_gets_what_of_a_lifecycle_whose_restorer_asks_registries() {
        let (plan, foreign) = of(15, true, layer());
        insta::assert_snapshot!(shown(PHASES.map(|phase| sandbox(phase, &plan, &foreign))));
    }

    #[test]
    fn who_gets_what_where_the_image_stays_here() {
        let (plan, foreign) = of(13, false, layer());
        insta::assert_snapshot!(shown(PHASES.map(|phase| sandbox(phase, &plan, &foreign))));
    }

    #[test]
    fn who_gets_what_of_the_builder_s_own() {
        let (plan, foreign) = of(13, true, Place::InBuilder);
        insta::assert_snapshot!(shown(PHASES.map(|phase| sandbox(phase, &plan, &foreign))));
    }

    #[test]
    fn credentials_are_a_file_of_phases_without_foreign_code() {
        for (minor, publish) in (2..=15).map(|minor| (minor, true)).chain([(13, false)]) {
            for place in [layer(), Place::InBuilder] {
                let (plan, foreign) = of(minor, publish, place);
                for phase in PHASES {
                    let spec = sandbox(phase, &plan, &foreign);
                    let has_file = spec
                        .files
                        .iter()
                        .any(|file| file.target == std::path::Path::new("/run/coracle/config.json"));
                    assert_eq!(has_file, asks_registries(phase, &plan), "0.{minor}, {phase:?}");
                    assert!(!(has_file && phase.runs_foreign_code()), "0.{minor}, {phase:?}");
                    assert!(publish || !has_file, "0.{minor}, {phase:?}");
                    let named = spec.env.iter().any(|(name, _)| name == "DOCKER_CONFIG");
                    assert_eq!(named, has_file, "0.{minor}, {phase:?}");
                    assert!(
                        !format!("{:?} {:?}", spec.argv, spec.env).contains("SECRET"),
                        "0.{minor}, {phase:?}"
                    );
                    assert!(
                        spec.env.iter().all(|(name, _)| name != "CNB_REGISTRY_AUTH"),
                        "0.{minor}, {phase:?}"
                    );
                }
            }
        }
    }
}
