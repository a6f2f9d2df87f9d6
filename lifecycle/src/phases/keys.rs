//! Credentials of a phase: those of `CNB_REGISTRY_AUTH`, those of Docker's configuration, and what the programs say that the
//! configuration names ([credential helpers]). Programs are asked when the phase starts, before it becomes the build's user and before
//! anything foreign runs, and only for images that the phase will speak to registries about.
//!
//! [credential helpers]: https://docs.docker.com/reference/cli/docker/login/#credential-helpers

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use coracle_cnb::{ApiVersion, RunToml};
use coracle_images::{
    AuthDocument, AuthError, AuthFile, Credentials, HelperError, Helpers, Reference, helper_environment,
    is_root_s_alone,
};

use super::documents::run_images;
use super::images::ImagesError;
use super::privileges::User;
use super::table::Phase;
use super::{Arguments, CREDENTIALS_VARIABLE, analyzed};
use crate::env::Env;
use crate::{file, with_causes};

/// Where a phase finds credentials.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// In the variable, which goes before all else.
    given: AuthFile,
    /// Docker's configuration.
    document: AuthDocument,
    place: PathBuf,
    helpers: Helpers,
    /// Where buildpacks write: no helper is below.
    untrusted: Vec<PathBuf>,
    /// Whether the configuration names helpers that root does not ask on its word.
    is_unheard: bool,
}

/// What a phase has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) auth: AuthFile,
    /// What is to be told of helpers that do not answer.
    pub(super) notices: Vec<String>,
    /// The helpers that have answered.
    pub(super) answered: BTreeSet<String>,
}

/// Docker's configuration: in `DOCKER_CONFIG`, else in `HOME/.docker`.
pub(super) fn credentials_file(env: &Env) -> Option<PathBuf> {
    let folder = set(env, "DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(Path::new(set(env, "HOME")?).join(".docker")))?;
    Some(folder.join("config.json"))
}

fn set<'a>(env: &'a Env, name: &str) -> Option<&'a OsStr> {
    env.get(OsStr::new(name)).filter(|value| !value.is_empty()).map(|value| value.as_os_str())
}

impl Keys {
    /// Docker's configuration and the variable (Platform API, "Registry Authentication"). Starts nothing.
    pub(super) fn read(env: &Env, arguments: &Arguments) -> Result<Self, ImagesError> {
        let mut keys = Self::default();
        if let Some(config) = credentials_file(env)
            && let Some(bytes) = file::read_bytes(&config)?
        {
            let path = config.display().to_string();
            keys.document =
                AuthDocument::parse(&bytes).map_err(|source| ImagesError::Auth { path, source })?;
            keys.place = config;
        }
        if let Some(variable) = set(env, CREDENTIALS_VARIABLE) {
            let path = CREDENTIALS_VARIABLE.to_owned();
            let document = AuthDocument::parse_headers(variable.as_encoded_bytes());
            let document = document.map_err(|source| match source {
                AuthError::Headers => ImagesError::Variable,
                source => ImagesError::Auth { path, source },
            })?;
            keys.given = document.auths;
        }
        let folders = ["app", "layers", "platform", "cache-dir", "launch-cache"];
        let folders = folders.into_iter().map(|flag| arguments.path(flag));
        keys.untrusted = folders.filter_map(|folder| folder.canonicalize().ok()).collect();
        let told = helper_environment(env.iter().map(|(name, value)| (name.clone(), value.clone())));
        let helpers = Helpers::new(set(env, "PATH").unwrap_or_default(), told);
        if User::of_process().uid != 0 {
            return Ok(Self { helpers, ..keys });
        }
        if keys.names_helpers() && !is_root_s_alone(&keys.place) {
            keys.is_unheard = true;
            keys.document.helpers.clear();
            keys.document.store = None;
        }
        Ok(Self { helpers: helpers.of_root_alone(), ..keys })
    }

    /// Whether there is a program to ask.
    fn names_helpers(&self) -> bool {
        !self.document.helpers.is_empty() || self.document.store.is_some()
    }

    /// All that is known without asking, and what helpers say for these images. One that is named for a registry goes before what
    /// is in the file, and that before the one for all others, without which a public image can be had.
    pub(super) fn of(&self, images: &[Reference]) -> Result<Found, ImagesError> {
        let mut found = Found { auth: self.document.auths.clone(), ..Found::default() };
        let mut answers = Answers::new();
        if self.is_unheard && !images.is_empty() {
            found.notices.push(format!(
                "`{}` names credential helpers, and others than root can change it or put another in its place: root asks none of them; {CREDENTIALS_VARIABLE} is another way to hand credentials over",
                self.place.display()
            ));
        }
        for image in images {
            let (registry, name) = (image.registry.as_str(), image.name());
            if self.given.entry(&name).is_some() {
                continue;
            }
            if let Some(helper) = self.document.helpers.get(registry) {
                let failed = |source| {
                    let (registry, place) = (registry.to_owned(), self.place.clone());
                    ImagesError::Helper { registry, place, source: Box::new(source) }
                };
                let said = self.ask(helper, registry, &mut answers).map_err(failed)?;
                if found.take(&name, helper, said) {
                    continue;
                }
            }
            let Some(helper) = &self.document.store else { continue };
            if found.auth.entry(&name).is_some() {
                continue;
            }
            match self.ask(helper, registry, &mut answers) {
                Ok(said) => drop(found.take(&name, helper, said)),
                Err(error) => {
                    found.notices.push(format!(
                        "no credentials for {registry} from the credsStore of `{}`, so that only what needs none is reached there; {CREDENTIALS_VARIABLE} is another way to hand them over: {}",
                        self.place.display(),
                        with_causes(&error)
                    ));
                    answers.insert((helper.clone(), registry.to_owned()), None);
                }
            }
        }
        found.auth.extend(self.given.clone());
        Ok(found)
    }

    /// What a helper says of a registry, which it is asked once.
    fn ask(
        &self,
        helper: &str,
        registry: &str,
        answers: &mut Answers,
    ) -> Result<Option<Credentials>, HelperError> {
        let question = (helper.to_owned(), registry.to_owned());
        if let Some(known) = answers.get(&question) {
            return Ok(known.clone());
        }
        let said = self.helpers.get(helper, registry, &self.untrusted)?;
        answers.insert(question, said.clone());
        Ok(said)
    }

    /// What the phase needs, asking whoever must be asked.
    pub(super) fn of_phase(
        &self,
        phase: &Phase,
        arguments: &Arguments,
        api: ApiVersion,
    ) -> Result<Found, ImagesError> {
        let asks = self.names_helpers() || self.is_unheard;
        let images = if asks { images(phase, arguments, api) } else { Vec::new() };
        self.of(&images)
    }
}

impl Found {
    /// Takes over what a helper has said for this name; whether it was anything.
    fn take(&mut self, name: &str, helper: &str, said: Option<Credentials>) -> bool {
        let Some(credentials) = said else { return false };
        self.auth.insert(name, credentials);
        self.answered.insert(helper.to_owned());
        true
    }
}

/// What helpers have said, by helper and registry.
type Answers = BTreeMap<(String, String), Option<Credentials>>;

/// The images that the phase speaks to registries about, as far as can be told before it has read any. A name that is none is for the
/// phase to tell of.
fn images(phase: &Phase, arguments: &Arguments, api: ApiVersion) -> Vec<Reference> {
    let one = |flag: &str| arguments.text(flag).map(|name| name.to_string_lossy().into_owned());
    let mut names: Vec<String> = one("cache-image").into_iter().collect();
    if !arguments.on("layout") {
        names.extend(arguments.images().iter().cloned().chain(arguments.texts("tag")));
        names.extend(
            ["previous-image", "run-image", "image", "build-image"].iter().filter_map(|flag| one(flag)),
        );
        if ["analyzer", "creator"].contains(&phase.name) && one("run-image").is_none() {
            names.extend(names_of(&run_images(api, arguments).unwrap_or_default()));
        }
        if ["restorer", "exporter"].contains(&phase.name) {
            let analyzed = analyzed(arguments).unwrap_or_default();
            if phase.name == "restorer" {
                names.extend(analyzed.run_image.map(|run| run.image));
            } else {
                names.extend(analyzed.run_image.map(|run| run.reference));
                names.extend(analyzed.image.map(|image| image.reference));
            }
        }
    }
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// All names of run images.
pub(super) fn names_of(run: &RunToml) -> impl Iterator<Item = String> {
    run.images.iter().flat_map(|entry| std::iter::once(&entry.image).chain(&entry.mirrors)).cloned()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::table::PHASES;
    use super::*;

    fn arguments(phase: &str, args: &[&str], env: &Env) -> (&'static Phase, Arguments) {
        let phase = PHASES.iter().find(|known| known.name == phase).unwrap();
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        (phase, Arguments::read(phase, ApiVersion::new(0, 13), &args, env).unwrap())
    }

    fn auth(env: &Env) -> Result<AuthFile, ImagesError> {
        let (_, arguments) = arguments("analyzer", &["a.org/app"], env);
        Ok(Keys::read(env, &arguments)?.of(&[])?.auth)
    }

    fn basic(user: &str, password: &str) -> Credentials {
        Credentials::Basic { user: user.into(), password: password.to_owned().into() }
    }

    #[test]
    fn the_variable_goes_before_docker_s_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        std::fs::write(&config, r#"{"auths":{"a.org":{"auth":"YTpi"},"b.org":{"auth":"YTpi"}}}"#).unwrap();
        let mut env: Env = [("DOCKER_CONFIG".into(), dir.path().into())].into();
        env.insert(
            "CNB_REGISTRY_AUTH".into(),
            r#"{"a.org":"Basic eDp5","c.org":"Bearer t","d.org":"X-Identity i"}"#.into(),
        );
        let read = auth(&env).unwrap();
        assert_eq!(read.lookup("a.org"), basic("x", "y"));
        assert_eq!(read.lookup("b.org"), basic("a", "b"));
        assert_eq!(read.lookup("c.org"), Credentials::Bearer("t".to_owned().into()));
        assert_eq!(read.lookup("d.org"), Credentials::Identity("i".to_owned().into()));
        env.insert("CNB_REGISTRY_AUTH".into(), r#"{"a.org":"Digest secret"}"#.into());
        let error = auth(&env).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
        std::fs::write(&config, r#"{"auths":{"a.org":{"auth":"secret!"}}}"#).unwrap();
        let error = auth(&env).unwrap_err();
        assert!(matches!(error, ImagesError::Auth { .. }) && !format!("{error:?}").contains("secret"));
    }

    /// Docker's configuration and helpers, which note what they are asked.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new(config: &str) -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            std::fs::write(place.0.path().join("config.json"), config).unwrap();
            place
        }

        fn helper(self, name: &str, script: &str) -> Self {
            let program = self.0.path().join(format!("docker-credential-{name}"));
            let note = format!("read registry; echo {name} $registry >>{}/asked", self.0.path().display());
            std::fs::write(&program, format!("#!/bin/sh\n{note}\n{script}\n")).unwrap();
            std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
            self
        }

        fn found(&self, phase: &str, args: &[&str], variable: &str) -> Result<Found, ImagesError> {
            let folder = self.0.path().as_os_str();
            let mut env: Env =
                [("DOCKER_CONFIG".into(), folder.into()), ("PATH".into(), folder.into())].into();
            env.insert(CREDENTIALS_VARIABLE.into(), variable.into());
            let (phase, arguments) = arguments(phase, args, &env);
            let mut keys = Keys::read(&env, &arguments)?;
            // Root would refuse what lies in a folder for everybody.
            keys.helpers = Helpers::new(folder, vec![("PATH".into(), "/usr/bin:/bin".into())]);
            keys.of_phase(phase, &arguments, ApiVersion::new(0, 13))
        }

        fn asked(&self) -> Vec<String> {
            let text = std::fs::read_to_string(self.0.path().join("asked")).unwrap_or_default();
            let mut asked: Vec<_> = text.lines().map(ToOwned::to_owned).collect();
            asked.sort();
            asked
        }
    }

    fn answering(user: &str) -> String {
        format!("echo '{{\"Username\":\"{user}\",\"Secret\":\"s\"}}'")
    }

    const BOTH: &str = r#"{"auths":{"b.org":{"auth":"YTpi"}},"credHelpers":{"a.org":"own","x.org":"own"},"credsStore":"all"}"#;

    #[test]
    fn helpers_are_asked_for_what_the_phase_reaches_and_once() {
        let place = Place::new(BOTH).helper("own", &answering("own")).helper("all", &answering("all"));
        let run = place.0.path().join("run.toml");
        std::fs::write(&run, "[[images]]\nimage = \"d.org/run\"\nmirrors = [\"a.org/run\"]\n").unwrap();
        let run = run.to_str().unwrap();
        let args = ["-run", run, "-tag", "a.org/two", "-previous-image", "b.org/old", "a.org/app"];
        let found = place.found("analyzer", &args, r#"{"e.org":"Basic eDp5"}"#).unwrap();
        assert_eq!(place.asked(), ["all d.org", "own a.org"]);
        assert_eq!(found.auth.lookup("a.org/app"), basic("own", "s"));
        assert_eq!(found.auth.lookup("a.org/other"), Credentials::Anonymous);
        assert_eq!(found.auth.lookup("b.org/old"), basic("a", "b"));
        assert_eq!(found.auth.lookup("d.org/run"), basic("all", "s"));
        assert_eq!(found.answered, BTreeSet::from(["all".to_owned(), "own".to_owned()]));
        // What the platform says goes before all, and who has it asks nobody.
        let place = Place::new(BOTH).helper("own", &answering("own"));
        let found =
            place.found("analyzer", &["-run-image", "a.org/run", "a.org/app"], r#"{"a.org":"Basic eDp5"}"#);
        assert_eq!(found.unwrap().auth.lookup("a.org/app"), basic("x", "y"));
        assert_eq!(place.asked(), Vec::<String>::new());
        // In layouts only a cache image is in a registry.
        let layout = ["-layout", "-layout-dir", "/l", "-cache-image", "a.org/cache", "a.org/app"];
        place.found("exporter", &layout, "").unwrap();
        assert_eq!(place.asked(), ["own a.org"]);
        // These speak to no registry.
        place.found("detector", &[], "").unwrap();
        assert_eq!(place.asked(), ["own a.org"]);
    }

    #[test]
    fn who_exports_asks_for_what_was_analyzed() {
        let place = Place::new(BOTH).helper("own", &answering("own")).helper("all", "exit 1");
        let analyzed = place.0.path().join("analyzed.toml");
        std::fs::write(
            &analyzed,
            "[run-image]\nreference = \"x.org/run\"\nimage = \"x.org/run\"\n[image]\nreference = \"a.org/old\"\n",
        )
        .unwrap();
        for (phase, asked) in [("exporter", &["own a.org", "own x.org"][..]), ("restorer", &["own x.org"])] {
            let place = Place::new(BOTH).helper("own", &answering("own"));
            let names: &[&str] = if phase == "exporter" { &["b.org/app"] } else { &[] };
            let args = [&["-analyzed", analyzed.to_str().unwrap()], names].concat();
            place.found(phase, &args, "").unwrap();
            assert_eq!(place.asked(), asked, "{phase}");
        }
    }

    #[test]
    fn a_helper_that_does_not_answer_is_named() {
        let place = Place::new(BOTH);
        let failed = |place: &Place| {
            let error = place.found("rebaser", &["a.org/app"], "").unwrap_err();
            with_causes(&error).replace(place.0.path().to_str().unwrap(), "DIR")
        };
        let start = "could not get the credentials for a.org, for which `DIR/config.json` names a helper; install it where the phase runs, set CNB_REGISTRY_AUTH for this registry, or take it out of credHelpers: ";
        let missing = "docker-credential-own is in no folder of PATH; relative folders and those of the application do not count";
        assert_eq!(failed(&place), format!("{start}{missing}"));
        let place = place.helper("own", "echo hidden-7; exit 3");
        let why = "docker-credential-own failed (exit status: 3); to see why: echo a.org | docker-credential-own get";
        assert_eq!(failed(&place), format!("{start}{why}"));
        // The one for all others is told of once.
        let place = Place::new(BOTH).helper("all", "echo hidden-7; exit 3");
        let found = place.found("rebaser", &["c.org/app", "c.org/app:2"], "").unwrap();
        assert_eq!(place.asked(), ["all c.org"]);
        let text = found.notices.join("\n").replace(place.0.path().to_str().unwrap(), "DIR");
        assert_eq!(
            text,
            "no credentials for c.org from the credsStore of `DIR/config.json`, so that only what needs none is reached there; CNB_REGISTRY_AUTH is another way to hand them over: docker-credential-all failed (exit status: 3); to see why: echo c.org | docker-credential-all get"
        );
    }

    #[test]
    fn no_helper_is_where_buildpacks_write() {
        let place = Place::new(BOTH).helper("own", &answering("own"));
        let layers = place.0.path().to_str().unwrap();
        let error = place.found("exporter", &["-layers", layers, "a.org/app"], "").unwrap_err();
        assert!(with_causes(&error).contains("docker-credential-own is in no folder of PATH"));
        assert_eq!(place.asked(), Vec::<String>::new());
    }
}
