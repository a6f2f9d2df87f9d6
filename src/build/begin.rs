//! Everything before a program of a buildpack runs. What needs the builder's files and what does not is done at once:
//!
//! | the builder | the application and its images |
//! |---|---|
//! | its documents are fetched, if they are not here | |
//! | its layers | names, trust and credentials; the copy of the source; `analyzer` |
//! | the home of its user; `describe-builder`, as soon as there are folders for it | |
//!
//! To stay here, an image also needs the run image's layers: they are fetched after the builder's, before `analyzer`. Another lifecycle
//! may be the builder's: then nothing of the second column begins before the builder is here, and `analyzer` is left to `flow.rs`.
//!
//! Where both columns fail, the first one's failure is told, whichever was quicker.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, ScopedJoinHandle};

use coracle_cnb::{ApiVersion, BUILDER_METADATA_LABEL, BuilderMetadata, StackToml};
use coracle_images::{AuthFile, Image, Reference};
use coracle_runtime::{Network, SandboxSpec};

use super::builder::Builder;
use super::buildpacks::{self, Chosen};
use super::flow::{self, Flow};
use super::folders::{self, Folders};
use super::foreign::{Foreign, LAYOUTS};
use super::phase::{Phase, Plan, sandbox};
use super::run_image::Namer;
use super::{Build, Buildpack, LifecycleChoice, proxies};
use crate::error::Error;
use crate::pull::fetched_and_told;
use crate::run::{environment, host_files, layer_paths};
use crate::watch::Watched;
use crate::worker::{FindUser, LayOut, Prepare, User};

/// Said once in each build whose buildpacks are in the host's network.
const HOST_NETWORK: &str = "buildpacks reach what this machine reaches: services on its loopback, its neighbours, the metadata service of a cloud (169.254.169.254); --network isolated keeps them from this machine and that service, --network none from everything";

/// A build of which everything is there that its phases need.
pub(super) struct Begun {
    pub(super) builder: Builder,
    pub(super) plan: Plan,
    pub(super) flow: Flow,
}

/// What the application's side hears of the builder's.
struct OfBuilder {
    /// Its documents.
    known: Receiver<Image>,
    /// That its layers are here.
    here: Receiver<()>,
}

impl Build<'_> {
    pub(super) fn begin(&self) -> Result<Begun, Error> {
        let ((known, documents), (unpacked, here)) = (channel(), channel());
        let (made, described) = channel();
        thread::scope(|scope| {
            let user = scope.spawn(move || self.builder(known, unpacked, &described));
            let begun = self.application(&OfBuilder { known: documents, here }, made);
            let user = joined(user)?;
            begun.map(|begun| Begun { plan: Plan { user, ..begun.plan }, ..begun })
        })
    }

    /// Have the builder here, and learn from its files. Says who its user is.
    fn builder(
        &self,
        known: Sender<Image>,
        unpacked: Sender<()>,
        description: &Receiver<SandboxSpec>,
    ) -> Result<User, Error> {
        let (request, name) = (self.request, &self.request.builder);
        // The other side may have failed meanwhile; then nobody listens.
        let tell = |image| drop(known.send(image));
        let (policy, insecure, keys) = (request.pull_policy, &request.insecure, Some(&self.keys));
        let image = fetched_and_told(self.stage, &self.store, name, policy, insecure, keys, &tell)?;
        // Heard of before, or not.
        tell(image.clone());
        let _ = unpacked.send(());
        let Builder { uid, gid, .. } = Builder::of(name, &image.config)?;
        let layers = layer_paths(&self.store, &image, self.stage);
        let user = self.stage.work(FindUser { layers, user: format!("{uid}:{gid}") })?;
        // Where the phases share a container none comes.
        if let Ok(container) = description.recv() {
            self.launched(Phase::Describe.title(), container, &Watched::default())?;
        }
        Ok(user)
    }

    /// Everything else. `describe` takes the container that describes the builder, when there are folders for it.
    fn application(&self, builder: &OfBuilder, describe: Sender<SandboxSpec>) -> Result<Begun, Error> {
        let (request, name) = (self.request, &self.request.builder);
        // It fails as well if the builder has not come, and that is what will be told.
        let gone = |_| Error::NoImage(name.to_string());
        let image = builder.known.recv().map_err(gone)?;
        let of = Builder::of(name, &image.config)?;
        let run_image = of.run_image(name, request.run_image.as_ref(), &request.image)?;
        let namer = Namer(format!("the builder {name}"));
        if request.publish {
            self.have_run_image(&run_image, &namer)?;
        }
        let chosen = buildpacks::choose(&request.buildpacks, &metadata_of(&image))?;
        let is_foreign = request.lifecycle != LifecycleChoice::Native;
        if is_foreign {
            builder.here.recv().map_err(gone)?;
        }
        let players = self.players(&image, &run_image)?;
        let mut plan = self.plan(&image, &of, run_image, chosen.is_some(), players)?;
        let (flow, line) = flow::choose(name, &self.circumstances(&of, &plan)?);
        self.note(line);
        plan.auth = thread::scope(|scope| {
            // Helpers may take their time.
            let auth = scope.spawn(|| self.auth(Some(&plan.run_image).filter(|image| self.is_known(image))));
            let prepared = self.prepare(&plan, &of, chosen.as_ref());
            joined(auth).and_then(|auth| prepared.map(|()| auth))
        })?;
        match flow {
            Flow::Creator => drop(describe),
            Flow::Phases => drop(describe.send(sandbox(Phase::Describe, &plan))),
        }
        self.tell_of_networks(&plan);
        if !request.publish {
            if !is_foreign {
                builder.here.recv().map_err(gone)?;
            }
            self.have_run_image(&plan.run_image, &namer)?;
            let images = vec![plan.run_image.clone(), plan.image.clone()];
            let (folders, ids, user) = (plan.folders.clone(), self.stage.ids, plan.user.clone());
            self.stage.work(LayOut { folders, ids, user, images })?;
        }
        if flow == Flow::Phases && plan.foreign.is_none() {
            self.analyze(&plan)?;
        }
        Ok(Begun { builder: of, plan, flow })
    }

    /// All but the credentials.
    fn plan(
        &self,
        image: &Image,
        builder: &Builder,
        run_image: Reference,
        own_order: bool,
        (api, foreign): (ApiVersion, Option<Foreign>),
    ) -> Result<Plan, Error> {
        let request = self.request;
        let folders = Folders { root: self.stage.folder(), tree: self.tree };
        let mut layers = layer_paths(&self.store, image, self.stage);
        layers.push(folders.buildpacks());
        Ok(Plan {
            folders,
            runtime: request.runtime,
            api,
            foreign,
            // Where its home is, its files say.
            user: User { uid: builder.uid, gid: builder.gid, home: "/".to_owned() },
            builder: layers,
            env: environment(&image.config, &[]),
            platform_env: request.env.iter().cloned().chain(self.brought.variables(&request.env)).collect(),
            brought: self.brought.clone(),
            proxies: self.home.proxies().to_vec(),
            image: request.image.clone(),
            tags: request.tags.clone(),
            process_type: request.process_type.clone(),
            publish: request.publish,
            insecure: request.insecure.clone(),
            cache_image: request.cache_image.clone(),
            clear_cache: request.clear_cache || self.makers.of_cache_are_others()?,
            compression: request.compression,
            auth: AuthFile::default(),
            run_image,
            switched: false,
            own_order,
            system_buildpacks: request.system_buildpacks,
            exec_env: request.exec_env.as_str().to_owned(),
            build_layers: request.build_layers,
            shared_layers: request.shared_layers.clone(),
            network: request.network,
            time: request.time,
            idle: request.idle,
            disk: request.disk,
            verbose: request.verbose,
            host_files: host_files(self.home),
        })
    }

    fn tell_of_networks(&self, plan: &Plan) {
        if plan.network == Network::Host {
            self.note(HOST_NETWORK.to_owned());
        }
        if plan.network != Network::None && proxies::for_foreign_code(&plan.proxies).1 {
            self.note(proxies::WITHHELD.to_owned());
        }
        proxies::out_of_reach(&plan.proxies, plan.network).into_iter().for_each(|text| self.note(text));
        self.brought.notices(self.stage.ids, plan.user.uid).into_iter().for_each(|text| self.note(text));
    }

    fn prepare(&self, plan: &Plan, builder: &Builder, chosen: Option<&Chosen>) -> Result<(), Error> {
        let mut control = vec![("run.toml".to_owned(), document(&builder.run)?)];
        if plan.api < LAYOUTS {
            let run_image = builder.run.images.first().cloned().unwrap_or_default();
            control.push(("stack.toml".to_owned(), document(&StackToml { run_image })?));
        }
        let mut buildpacks = Vec::new();
        if let Some(chosen) = chosen {
            control.push(("order.toml".to_owned(), document(&chosen.order)?));
            for (number, wanted) in self.request.buildpacks.iter().enumerate() {
                let element =
                    chosen.folders.iter().find(|(path, _)| *wanted == Buildpack::Folder(path.clone()));
                if let Some((_, element)) = element {
                    let place = folders::place_of_buildpack(&element.id, &element.version);
                    buildpacks.push((PathBuf::from(format!("{}/{number}", folders::BUILDPACKS)), place));
                }
            }
        }
        let (skipped, notes) = self.stage.work(Prepare {
            folders: plan.folders.clone(),
            ids: self.stage.ids,
            user: plan.user.clone(),
            excluded: self.excluded.clone(),
            control,
            buildpacks,
            clear_cache: self.request.clear_cache,
        })?;
        self.explain(notes);
        if skipped > 0 {
            self.note(format!("{skipped} sockets, FIFOs or devices of the source were left out"));
        }
        Ok(())
    }
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The label has been read before; what it lacks is what nobody asked for.
fn metadata_of(image: &Image) -> BuilderMetadata {
    let label = image.config.label(BUILDER_METADATA_LABEL).unwrap_or("{}");
    coracle_cnb::read_json(BUILDER_METADATA_LABEL, label).unwrap_or_default()
}

fn document<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    coracle_cnb::write_toml(value).map_err(Error::Document)
}
