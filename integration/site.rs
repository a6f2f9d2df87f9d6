//! A registry with a builder and its run image, a home, and an application.

use std::path::PathBuf;

use coracle_fixtures::{Builder, Buildpack, DockerRegistry, Image, RegistryAccess, RunImage};

use crate::harness::{Ran, TestHome};

pub(crate) struct Site {
    pub(crate) registry: DockerRegistry,
    pub(crate) home: TestHome,
    pub(crate) builder: String,
}

impl Site {
    /// An open registry whose builder tries `buildpacks` as one group; the application is one file, `hello`.
    pub(crate) fn new(buildpacks: &[Buildpack]) -> Self {
        Self::with(DockerRegistry::open(), buildpacks)
    }

    /// The same behind a password, which the home's user has; the builder has the probe.
    pub(crate) fn with_password(buildpacks: &[Buildpack]) -> Self {
        Self::with(DockerRegistry::start(RegistryAccess::Password), buildpacks).logged_in()
    }

    /// The home's user has the registry's password, if it has one.
    pub(crate) fn logged_in(self) -> Self {
        let docker = self.home.path().join(".docker");
        std::fs::create_dir(&docker).expect("make .docker");
        std::fs::write(docker.join("config.json"), self.registry.docker_config()).expect("write config.json");
        self
    }

    fn with(registry: DockerRegistry, buildpacks: &[Buildpack]) -> Self {
        let named = registry.reference("run:latest");
        let builder = Builder::new(&named).group(buildpacks).probe();
        Self::of(registry, &RunImage::new().image(), &builder.image())
    }

    /// A registry with these two images as `run` and `builder`; the builder names its run image itself.
    pub(crate) fn of(registry: DockerRegistry, run: &Image, builder: &Image) -> Self {
        registry.push(run, "run", "latest");
        registry.push(builder, "builder", "latest");
        let site = Self { home: TestHome::new(), builder: registry.reference("builder:latest"), registry };
        std::fs::create_dir(site.app()).expect("make the application's folder");
        std::fs::write(site.app().join("hello"), "hello from the application\n")
            .expect("write the application");
        site
    }

    /// Build; succeed and leave nothing.
    pub(crate) fn built(&self, image: &str, more: &[&str]) -> Ran {
        let args = self.args(image, more);
        let ran = self.home.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(self.home.leftovers(), Vec::<String>::new());
        ran
    }

    /// Build; fail with this exit code and leave nothing. Gives what was said on standard error.
    pub(crate) fn refused(&self, code: i32, image: &str, more: &[&str]) -> String {
        let args = self.args(image, more);
        let ran = self.home.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(ran.code, Some(code), "{}\n{}", ran.stdout, ran.stderr);
        assert_eq!(self.home.leftovers(), Vec::<String>::new());
        ran.stderr
    }

    pub(crate) fn app(&self) -> PathBuf {
        self.home.path().join("app")
    }

    /// The arguments of a build of `image`, and `more`.
    pub(crate) fn args(&self, image: &str, more: &[&str]) -> Vec<String> {
        let app = self.app().display().to_string();
        let fixed = ["build", image, "--path", &app, "--builder", &self.builder];
        fixed.iter().chain(more).map(|word| (*word).to_owned()).collect()
    }
}
