//! A registry with a builder and its run image, a home, and an application.

use std::path::PathBuf;

use coracle_fixtures::{Builder, Buildpack, DockerRegistry, RegistryAccess, RunImage};

use crate::harness::TestHome;

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
        let site = Self::with(DockerRegistry::start(RegistryAccess::Password), buildpacks);
        let docker = site.home.path().join(".docker");
        std::fs::create_dir(&docker).expect("make .docker");
        std::fs::write(docker.join("config.json"), site.registry.docker_config()).expect("write config.json");
        site
    }

    fn with(registry: DockerRegistry, buildpacks: &[Buildpack]) -> Self {
        registry.push(&RunImage::new().image(), "run", "latest");
        let builder = Builder::new(&registry.reference("run:latest")).group(buildpacks).probe();
        registry.push(&builder.image(), "builder", "latest");
        let site = Self { home: TestHome::new(), builder: registry.reference("builder:latest"), registry };
        std::fs::create_dir(site.app()).expect("make the application's folder");
        std::fs::write(site.app().join("hello"), "hello from the application\n")
            .expect("write the application");
        site
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
