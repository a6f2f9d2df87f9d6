//! What each phase of ours is called with (Platform API 0.7 to 0.15; flags without a variable are ours alone).

use coracle_cnb::ApiVersion;

use super::{Phase, Plan, VERIFIED};
use crate::build::folders::{KNOWN_IMAGES, PACKED, UNCHANGED, guest};
use crate::build::foreign::LAYOUTS;

/// Everything after the program's name.
pub(super) fn arguments(phase: Phase, plan: &Plan) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut flag = |name: &str, value: &str| words.extend([format!("-{name}"), value.to_owned()]);
    flag("log-level", if plan.verbose { "debug" } else { "info" });
    let control: fn(&str) -> String = |name| format!("{}/{name}", guest::CONTROL);
    let out: fn(&str) -> String = |name| format!("{}/{name}", guest::OUT);
    let order = |flag: &mut dyn FnMut(&str, &str)| {
        if plan.own_order {
            flag("order", &control("order.toml"));
        } else {
            flag("order", "/cnb/order.toml");
        }
        flag("system", &plan.system_toml());
    };
    let run = if plan.api < LAYOUTS { "stack" } else { "run" };
    match phase {
        Phase::Describe => {
            order(&mut flag);
            flag("description", &out("builder.json"));
            // Whoever runs the buildpacks knows which it can.
            if plan.foreign_for(Phase::Detect).is_some() && plan.foreign_for(Phase::Build).is_some() {
                words.push("-any-api".to_owned());
            }
            return words;
        }
        Phase::Analyze => {
            flag("analyzed", &out("analyzed.toml"));
            if plan.has_known_images() {
                flag("known-images", &out(KNOWN_IMAGES));
            }
            flag(run, &control(&format!("{run}.toml")));
            flag("run-image", &plan.run_image.to_string());
            plan.tags.iter().for_each(|tag| flag("tag", &tag.to_string()));
            plan.cache_image.iter().for_each(|image| flag("cache-image", &image.to_string()));
        }
        Phase::Detect => {
            order(&mut flag);
            flag("analyzed", &control("analyzed.toml"));
            flag("runs", &out("detect-runs.toml"));
            flag("scratch", guest::PLANS);
            words.push("-times".to_owned());
            return words;
        }
        Phase::Generate => {
            for name in ["analyzed", "group", "plan"] {
                flag(name, &control(&format!("{name}.toml")));
            }
            flag("generated", &out("generated"));
            flag("chosen", &out("chosen.toml"));
            flag("scratch", guest::PLANS);
            return words;
        }
        Phase::Restore => {
            // What the restorer finds of another run image it writes where it has read of it.
            let analyzed = if plan.switched { out } else { control };
            flag("analyzed", &analyzed("analyzed.toml"));
            flag("group", &control("group.toml"));
            match &plan.cache_image {
                None => flag("cache-dir", guest::CACHE),
                Some(_) if plan.clear_cache => {}
                Some(image) => flag("cache-image", &image.to_string()),
            }
            flag("verified", &out(VERIFIED));
            if plan.folders.tree {
                flag("unchanged", &control(UNCHANGED));
            }
            if plan.switched || plan.cache_image.is_some() {
                words.extend(where_images_are(plan));
            }
            return words;
        }
        Phase::Build => {
            if plan.api >= LAYOUTS {
                flag("analyzed", &control("analyzed.toml"));
            }
            flag("group", &control("group.toml"));
            flag("plan", &control("plan.toml"));
            flag("scratch", guest::PLANS);
            words.push("-times".to_owned());
            let mut flag = |name: &str, value: &str| words.extend([format!("-{name}"), value.to_owned()]);
            if let Some(build_layers) = plan.build_layers.in_one_container() {
                flag("build-layers", build_layers.name());
            }
            plan.shared_layers.iter().for_each(|layer| flag("shared-layer", &layer.to_string()));
            return words;
        }
        Phase::Export => {
            for name in ["analyzed", "group", "metadata", run] {
                flag(name, &control(&format!("{name}.toml")));
            }
            flag("project-metadata", &control("project-metadata.toml"));
            // Nobody has extended anything, and buildpacks can write where it is looked for otherwise.
            flag("extended", &control("extended"));
            flag("report", &out("report.toml"));
            match &plan.cache_image {
                None => flag("cache-dir", guest::CACHE),
                Some(image) => flag("cache-image", &image.to_string()),
            }
            flag("compression", &plan.compression.to_string());
            flag("verified", &control(VERIFIED));
            if plan.has_known_images() {
                flag("known-images", &format!("{}/{KNOWN_IMAGES}", guest::ANALYZER));
            }
            if plan.folders.tree {
                flag("unchanged", &control(UNCHANGED));
                flag("packed", &out(PACKED));
            }
            flag("scratch", guest::SCRATCH);
            flag("uid", &plan.user.uid.to_string());
            flag("gid", &plan.user.gid.to_string());
            plan.process_type.iter().for_each(|kind| flag("process-type", kind));
        }
    }
    words.extend(where_images_are(plan));
    words.extend(known_by_name(plan));
    words.push(plan.image.to_string());
    if phase == Phase::Export {
        words.extend(plan.tags.iter().map(ToString::to_string));
    }
    words
}

/// A folder of the build means nothing to whoever reads the image's labels later.
pub(in crate::build) fn known_by_name(plan: &Plan) -> Option<String> {
    (!plan.publish).then(|| "-by-name".to_owned())
}

/// In registries, or in folders.
pub(in crate::build) fn where_images_are(plan: &Plan) -> Vec<String> {
    if !plan.publish {
        return ["-layout-dir", guest::LAYOUT, "-layout"].map(str::to_owned).to_vec();
    }
    let insecure = plan.insecure.iter().filter(|_| plan.api >= ApiVersion::new(0, 13));
    insecure.flat_map(|registry| ["-insecure-registry".to_owned(), registry.clone()]).collect()
}
