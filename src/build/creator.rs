//! The one container of a trusted builder: all phases, one after the other in one process
//! (docs/decisions/0017-trust-and-the-one-container-it-is-for.md).
//!
//! What of the build phase's container its programs see is as there, and so is the sandbox. Beside it there is what the other phases
//! read and write, and the credentials, and the proxies with their passwords: in sealed memory on the creator's standard input, never a
//! file or a variable.

use std::path::Path;

use coracle_lifecycle::env::BUILD_VARIABLES;
use coracle_runtime::{Access, Bounds, EphemeralFile, Input, PROGRAM, Rootfs, SandboxSpec};

use super::Build;
use super::bounds::watched;
use super::folders::{self, guest};
use super::phase::{Phase, Plan, known_by_name, mount, sandbox, where_images_are};
use crate::error::Error;
use crate::program::{CREATOR_MEMORY, HandedOver};
use crate::sbom;
use crate::stage::CA_BUNDLE;
use crate::watch::Watched;
use crate::worker::{self, Clocks};

/// The name of the container, its folders and its program.
pub(super) const CREATOR: &str = "creator";

/// The host's certificate authorities, where programs of buildpacks do not look: theirs are the builder's.
const AUTHORITIES: &str = "/cnb/lifecycle/ca-certificates.crt";

impl Build<'_> {
    /// Run it to its end. Where the image was published, the answer is the report.
    pub(super) fn create(&self, plan: &Plan) -> Result<Option<String>, Error> {
        self.started(CREATOR);
        let spec = container(plan);
        // Phases that only send, and programs of detection, may say nothing for long.
        let watched = Watched { idle: None, ..watched(Phase::Build, plan, &spec) };
        let since = Clocks::now();
        self.launched(CREATOR, spec, &watched)?;
        self.keep_created(plan, since);
        let report = || {
            let (folders, phase) = (plan.folders.clone(), CREATOR.to_owned());
            self.stage.work(worker::Keep { folders, phase, documents: vec!["report.toml".to_owned()] })
        };
        let texts = plan.publish.then(report).transpose()?;
        Ok(texts.map(|texts| texts.concat()))
    }
}

/// The build phase's container, with what the other phases need.
fn container(plan: &Plan) -> SandboxSpec {
    use Access::{ReadOnly, ReadWrite};
    let build = sandbox(Phase::Build, plan);
    let folders = &plan.folders;
    let program = format!("/cnb/lifecycle/{CREATOR}");
    let mut mounts = build.mounts;
    mounts.retain(|mount| mount.target != Path::new(&build.argv[0]));
    mounts.extend([
        mount(Path::new(PROGRAM), &program, ReadOnly),
        mount(folders.out(CREATOR), guest::OUT, ReadWrite),
    ]);
    if plan.cache_image.is_none() {
        mounts.push(mount(Path::new(folders::CACHE).join(folders::CACHE_DATA), guest::CACHE, ReadWrite));
    }
    // What the builder's image sets beyond that would tell the creator what nobody but the user may: which registries need no TLS, where
    // credentials lie, what time it is.
    let mut env = build.env;
    env.retain(|(name, _)| name == "CNB_PLATFORM_API" || BUILD_VARIABLES.contains(&name.as_str()));
    env.push(("DOCKER_CONFIG".to_owned(), guest::CONTROL.to_owned()));
    if plan.publish {
        if plan.host_files.iter().any(|file| file == Path::new(CA_BUNDLE)) {
            mounts.push(mount(CA_BUNDLE, AUTHORITIES, ReadOnly));
            env.push(("SSL_CERT_FILE".to_owned(), AUTHORITIES.to_owned()));
        }
    } else {
        mounts.push(mount(folders.layout(), guest::LAYOUT, ReadWrite));
    }
    let mut files = build.files;
    let bill = |(name, document): (String, serde_json::Value)| EphemeralFile {
        target: format!("/cnb/lifecycle/{name}").into(),
        content: sbom::text(&document).into_bytes().into(),
    };
    files.extend(sbom::documents().into_iter().map(bill));
    // Detection and the build have their time together, as there.
    let seconds = build.bounds.seconds.map(|seconds| seconds.saturating_mul(2));
    let mut argv = vec![program];
    argv.extend(arguments(plan));
    SandboxSpec {
        id: CREATOR.to_owned(),
        rootfs: Rootfs::Overlay { lower: plan.builder.clone(), scratch: folders.scratch(CREATOR) },
        argv,
        env,
        mounts,
        files,
        input: plan.publish.then(|| handed_over(plan)),
        bounds: Bounds { seconds, ..build.bounds },
        ..build
    }
}

/// What it needs to speak to registries, and programs of buildpacks must not know.
fn handed_over(plan: &Plan) -> Input {
    let proxies = plan.proxies.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let handed = HandedOver { credentials: Some(plan.auth.to_headers()), proxies };
    // Strings: there is nothing that JSON cannot hold.
    let content = serde_json::to_vec(&handed).unwrap_or_default();
    Input { name: CREATOR_MEMORY.into(), content: content.into() }
}

fn arguments(plan: &Plan) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut flag = |name: &str, value: &str| words.extend([format!("-{name}"), value.to_owned()]);
    let control = |name: &str| format!("{}/{name}.toml", guest::CONTROL);
    flag("log-level", if plan.verbose { "debug" } else { "info" });
    flag("order", &if plan.own_order { control("order") } else { "/cnb/order.toml".to_owned() });
    flag("system", &plan.system_toml());
    flag("run", &control("run"));
    flag("run-image", &plan.run_image.to_string());
    flag("project-metadata", &control("project-metadata"));
    match &plan.cache_image {
        None => flag("cache-dir", guest::CACHE),
        Some(image) => flag("cache-image", &image.to_string()),
    }
    flag("compression", &plan.compression.to_string());
    flag("report", &format!("{}/report.toml", guest::OUT));
    flag("scratch", guest::PLANS);
    flag("uid", &plan.user.uid.to_string());
    flag("gid", &plan.user.gid.to_string());
    plan.tags.iter().for_each(|tag| flag("tag", &tag.to_string()));
    plan.process_type.iter().for_each(|kind| flag("process-type", kind));
    if let Some(build_layers) = plan.build_layers.in_one_container() {
        flag("build-layers", build_layers.name());
    }
    plan.shared_layers.iter().for_each(|layer| flag("shared-layer", &layer.to_string()));
    words.push("-times".to_owned());
    words.extend(where_images_are(plan));
    words.extend(known_by_name(plan));
    words.push(plan.image.to_string());
    words
}

#[cfg(test)]
mod tests {
    use coracle_images::AuthFile;

    use super::*;
    use crate::build::phase::tests::{plan, shown};

    #[test]
    fn who_gets_what_where_one_container_does_it_all() {
        let cached = Plan { cache_image: Some("c.example/cache:1".parse().unwrap()), ..plan(true) };
        insta::assert_snapshot!(shown([plan(true), plan(false), cached].map(|plan| container(&plan))));
    }

    #[test]
    fn its_cache_is_watched_as_it_grows_and_no_other_container_has_one() {
        let growing = |spec: &SandboxSpec, plan: &Plan| {
            watched(Phase::Build, plan, spec).disk.map(|limit| limit.growing)
        };
        let plan = plan(true);
        let cache = Path::new(folders::CACHE).join(folders::CACHE_DATA);
        assert_eq!(growing(&container(&plan), &plan), Some(vec![cache]));
        assert_eq!(growing(&sandbox(Phase::Build, &plan), &plan), Some(Vec::new()));
    }

    #[test]
    fn a_builder_s_variables_tell_the_creator_nothing() {
        let mut plan = plan(true);
        for name in ["CNB_INSECURE_REGISTRIES", "CNB_REGISTRY_AUTH", "SOURCE_DATE_EPOCH", "SSL_CERT_DIR"] {
            plan.env.push((name.to_owned(), "of the builder".to_owned()));
        }
        for name in ["SSL_CERT_FILE", "DOCKER_CONFIG", "CNB_PLATFORM_API"] {
            plan.env.push((name.to_owned(), "of the builder".to_owned()));
        }
        assert!(!format!("{:?}", container(&plan).env).contains("of the builder"));
    }

    /// What programs of buildpacks could look into is as in the container of the build phase: no file holds credentials, and process 1
    /// is not root.
    #[test]
    fn credentials_are_on_the_standard_input_alone_and_nobody_is_root() {
        for publish in [true, false] {
            let auth = br#"{"auths":{"r.example":{"auth":"U0VDUkVUOng="}}}"#;
            let plan = Plan { auth: AuthFile::parse(auth).unwrap(), ..plan(publish) };
            let spec = container(&plan);
            let input: Option<HandedOver> =
                spec.input.as_ref().map(|input| serde_json::from_slice(&input.content).unwrap());
            assert_eq!(input.is_some(), publish);
            if let Some(HandedOver { credentials, proxies }) = input {
                assert_eq!(*credentials.unwrap(), r#"{"r.example":"Basic U0VDUkVUOng="}"#);
                let proxies: Vec<_> = proxies.iter().map(|(name, value)| (&**name, value.as_str())).collect();
                assert_eq!(proxies, [("HTTP_PROXY", "http://name:word@proxy")]);
            }
            let files = spec.files.iter().map(|file| String::from_utf8_lossy(&file.content).into_owned());
            let seen = format!("{:?} {:?} {:?}", files.collect::<Vec<_>>(), spec.argv, spec.env);
            assert!(!seen.contains("U0VDUkVU") && !seen.contains("word"), "{seen}");
            assert_eq!((spec.uid, spec.gid), (plan.user.uid, plan.user.gid));
        }
    }
}
