//! What the programs of a buildpack, `bin/detect` and `bin/build`, find around them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use coracle_cnb::{ApiVersion, BuildpackToml, RunImageTarget};

use crate::detect::Module;
use crate::env::{self, Env};
use crate::file::FileError;

/// Where the programs and what they read lie.
#[derive(Debug)]
pub struct Surroundings<'input> {
    pub buildpacks_dir: PathBuf,
    pub extensions_dir: PathBuf,
    pub app_dir: PathBuf,
    pub platform_dir: PathBuf,
    pub build_config_dir: PathBuf,
    /// A folder for the programs' plan files; it must exist.
    pub scratch_dir: PathBuf,
    pub target: Option<&'input RunImageTarget>,
    /// Since Platform API 0.15: what the image is for.
    pub exec_env: Option<&'input str>,
    /// The environment of the phase, of which the programs get a part.
    pub outer_env: &'input Env,
}

impl Surroundings<'_> {
    /// Where modules of this kind lie.
    pub(crate) fn dir_of(&self, module: &Module) -> &Path {
        if module.extension { &self.extensions_dir } else { &self.buildpacks_dir }
    }

    /// A program of the module that lies in `dir`, with the environment that it gets: `inherited`, what the user and the
    /// operator set, and `paths`, which have names since Buildpack API 0.8.
    pub(crate) fn command(
        &self,
        program: &Path,
        (module, dir, toml): (&Module, &Path, &BuildpackToml),
        inherited: Env,
        paths: &[(&str, &Path)],
    ) -> Result<Command, FileError> {
        let mut env = inherited;
        if !toml.buildpack.clear_env {
            env::add_platform_env(&mut env, &self.platform_dir)?;
        }
        env::add_operator_env(&mut env, &self.build_config_dir)?;
        let own = if module.extension { "CNB_EXTENSION_DIR" } else { "CNB_BUILDPACK_DIR" };
        env.insert(own.into(), dir.into());
        if toml.api >= ApiVersion::new(0, 8) {
            env.insert("CNB_PLATFORM_DIR".into(), self.platform_dir.as_path().into());
            env.extend(paths.iter().map(|(name, path)| ((*name).into(), (*path).into())));
        }
        if toml.api >= ApiVersion::new(0, 10) {
            add_target(&mut env, self.target);
        }
        env::add_exec_env(&mut env, toml.api, self.exec_env);
        let mut command = Command::new(program);
        command.current_dir(&self.app_dir).env_clear().envs(env).stdin(Stdio::null());
        Ok(command)
    }
}

/// `CNB_TARGET_*`, for buildpacks of API 0.10 and later.
fn add_target(env: &mut Env, target: Option<&RunImageTarget>) {
    let Some(target) = target else { return };
    env.insert("CNB_TARGET_OS".into(), (&target.os).into());
    env.insert("CNB_TARGET_ARCH".into(), (&target.arch).into());
    let (name, version) =
        target.distro.iter().map(|distro| (&*distro.name, &*distro.version)).next().unwrap_or_default();
    for (variable, value) in [
        ("CNB_TARGET_ARCH_VARIANT", &*target.arch_variant),
        ("CNB_TARGET_DISTRO_NAME", name),
        ("CNB_TARGET_DISTRO_VERSION", version),
    ] {
        if !value.is_empty() {
            env.insert(variable.into(), value.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_cnb::Distro;

    use super::*;

    /// A run image may have one of the labels that name a distribution.
    #[test]
    fn what_is_not_known_of_the_target_has_no_variable() {
        let names = |target: &RunImageTarget| {
            let mut env = Env::new();
            add_target(&mut env, Some(target));
            let name = |name: &std::ffi::OsString| name.to_string_lossy().replace("CNB_TARGET_", "");
            env.keys().map(name).collect::<Vec<_>>().join(" ")
        };
        let bare = RunImageTarget { os: "linux".into(), arch: "amd64".into(), ..RunImageTarget::default() };
        let with = |name: &str, version: &str| RunImageTarget {
            distro: Some(Distro { name: name.into(), version: version.into() }),
            ..bare.clone()
        };
        assert_eq!(names(&bare), "ARCH OS");
        assert_eq!(names(&with("", "")), "ARCH OS");
        assert_eq!(names(&with("debian", "")), "ARCH DISTRO_NAME OS");
        assert_eq!(names(&with("", "12")), "ARCH DISTRO_VERSION OS");
        assert_eq!(names(&with("debian", "12")), "ARCH DISTRO_NAME DISTRO_VERSION OS");
        let variant = RunImageTarget { arch_variant: "v8".into(), ..bare.clone() };
        assert_eq!(names(&variant), "ARCH ARCH_VARIANT OS");
    }
}
