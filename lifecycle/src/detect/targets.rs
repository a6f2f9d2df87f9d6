//! For which systems, processors and distributions a module is (Buildpack API, "Targets").

use coracle_cnb::{ApiVersion, BuildpackToml, Distro, RunImageTarget, Target};

/// The stack that named its distribution before there were targets.
const BIONIC: &str = "io.buildpacks.stacks.bionic";

/// Whether a module is for the run image's target. What one of both leaves open fits.
pub(super) fn supports(toml: &BuildpackToml, target: &RunImageTarget) -> bool {
    let named = named_by_stacks(toml);
    let targets = if toml.targets.is_empty() { &named } else { &toml.targets };
    // Without targets a program says that it is for Linux, the only system run here.
    targets.is_empty() || targets.iter().any(|supported| fits(supported, target))
}

fn fits(supported: &Target, target: &RunImageTarget) -> bool {
    let same = |one: &str, other: &str| one.is_empty() || other.is_empty() || one == other;
    let is_of = |distro: &Distro| {
        let offered = target.distro.as_ref();
        offered.is_some_and(|offered| {
            same(&distro.name, &offered.name) && same(&distro.version, &offered.version)
        })
    };
    same(&supported.os, &target.os)
        && same(&supported.arch, &target.arch)
        && same(&supported.variant, &target.arch_variant)
        && (supported.distros.is_empty() || supported.distros.iter().any(is_of))
}

fn named_by_stacks(toml: &BuildpackToml) -> Vec<Target> {
    let alone = toml.api >= ApiVersion::new(0, 10) || toml.stacks.len() == 1;
    let named = toml.stacks.iter().filter_map(|stack| match stack.id.as_str() {
        BIONIC if alone => Some(Target {
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
            distros: vec![Distro { name: "ubuntu".to_owned(), version: "18.04".to_owned() }],
            ..Target::default()
        }),
        "*" => Some(Target::default()),
        _ => None,
    });
    named.collect()
}

/// The target of the run image with what it leaves open as it is here, where the build runs: `build_distro` is the
/// distribution of the build image.
pub fn complete(target: Option<&RunImageTarget>, build_distro: Option<&Distro>) -> RunImageTarget {
    let mut target = target.cloned().unwrap_or_default();
    if target.distro.is_none() {
        let host = coracle_images::Platform::host();
        let or = |text: String, otherwise: String| if text.is_empty() { otherwise } else { text };
        target.os = or(target.os, host.os);
        target.arch = or(target.arch, host.architecture);
        target.distro = build_distro.cloned();
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(text: &str) -> BuildpackToml {
        coracle_cnb::read_toml("buildpack.toml", &format!("api = \"0.10\"\n{text}")).unwrap()
    }

    fn target(distro: Option<(&str, &str)>) -> RunImageTarget {
        let distro = distro.map(|(name, version)| Distro { name: name.into(), version: version.into() });
        RunImageTarget { os: "linux".into(), arch: "amd64".into(), distro, ..RunImageTarget::default() }
    }

    #[test]
    fn what_is_left_open_fits() {
        let of = |targets: &str| module(&format!("[buildpack]\nid = \"a\"\nversion = \"1\"\n{targets}"));
        let debian = target(Some(("debian", "12")));
        for (targets, expected) in [
            ("", true),
            ("[[targets]]\n", true),
            ("[[targets]]\nos = \"windows\"\n", false),
            ("[[targets]]\nos = \"windows\"\n[[targets]]\nos = \"linux\"\n", true),
            ("[[targets]]\narch = \"arm64\"\n", false),
            ("[[targets]]\narch = \"amd64\"\nvariant = \"v3\"\n", true),
            ("[[targets]]\n[[targets.distros]]\nname = \"debian\"\n", true),
            ("[[targets]]\n[[targets.distros]]\nname = \"debian\"\nversion = \"11\"\n", false),
            ("[[targets]]\n[[targets.distros]]\nversion = \"12\"\n", true),
            ("[[stacks]]\nid = \"io.buildpacks.stacks.bionic\"\n", false),
            ("[[stacks]]\nid = \"io.buildpacks.stacks.bionic\"\n[[stacks]]\nid = \"*\"\n", true),
            ("[[stacks]]\nid = \"other\"\n", true),
        ] {
            assert_eq!(supports(&of(targets), &debian), expected, "{targets}");
        }
        let distro = of("[[targets]]\n[[targets.distros]]\nname = \"debian\"\n");
        assert!(!supports(&distro, &target(None)));
    }

    #[test]
    fn what_the_run_image_leaves_open_is_as_it_is_here() {
        let here = Distro { name: "debian".into(), version: "12".into() };
        let completed = complete(None, Some(&here));
        assert_eq!((completed.os.as_str(), completed.distro), ("linux", Some(here.clone())));
        assert!(!completed.arch.is_empty());
        let named = target(Some(("alpine", "3")));
        assert_eq!(complete(Some(&named), Some(&here)), named);
    }
}
