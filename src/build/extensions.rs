//! Where image extensions take part: what their programs ask for, and another run image if that is all
//! (docs/decisions/0015-extensions-that-choose-and-those-that-extend.md).

use coracle_images::Reference;
use coracle_lifecycle::phases::offers;
use coracle_runtime::Outcome;

use super::Build;
use super::bounds::watched;
use super::builder::Builder;
use super::phase::{Phase, Plan, sandbox};
use super::run_image::Namer;
use crate::error::Error;
use crate::event::{Event, Stream};
use crate::worker::{Generate, Generated, SwitchRunImage};

/// The exit code for an image that could not be extended (Platform API, "Exit Codes").
const EXTEND: i32 = 102;

impl Build<'_> {
    /// Have extensions say what they ask for, and go on with the run image that they choose.
    pub(super) fn extensions(&self, builder: &Builder, plan: &mut Plan) -> Result<(), Error> {
        let spec = sandbox(Phase::Generate, plan);
        let watched = watched(Phase::Generate, plan, &spec);
        self.launched(Phase::Generate.title(), spec, &watched)?;
        let line = |text: String| {
            let phase = Some(Phase::Generate.title().to_owned());
            self.observer.event(Event::Line { stream: Stream::Out, phase, text });
        };
        match self.stage.work(Generate { folders: plan.folders.clone() })? {
            Generated::Nothing => Ok(()),
            Generated::Extended(dockerfiles) => {
                dockerfiles.into_iter().for_each(|text| line(format!("images would be extended by {text}")));
                Err(Error::Phase { phase: "extender", outcome: Outcome::Exited(EXTEND) })
            }
            Generated::RunImage(name) => {
                let run_image: Reference =
                    name.parse().map_err(|source| Error::ChosenRunImage { name, source })?;
                line(format!("extensions choose the run image {run_image}"));
                self.switch(run_image, builder, plan)
            }
        }
    }

    fn switch(&self, run_image: Reference, builder: &Builder, plan: &mut Plan) -> Result<(), Error> {
        let request = self.request;
        let offered = offers(&builder.run, &run_image.to_string());
        // Foreign programs have run: what they name is not read with credentials of the user's, and what the builder offers
        // as far as its word counts.
        let is_known = offered && self.is_known(&run_image);
        plan.auth = self.auth(is_known.then_some(&run_image))?;
        if !offered {
            if plan.auth.entry(&run_image.name()).is_some() {
                let registry = run_image.registry.clone();
                return Err(Error::NotOffered { registry, image: run_image.to_string() });
            }
            self.note(format!(
                "the builder does not offer the run image {run_image}, which an extension chooses: it is read without credentials"
            ));
        }
        if offered {
            self.have_run_image(&run_image, &Namer(format!("the builder {}", request.builder)))?;
        } else if !plan.publish {
            self.image_with(&run_image, None)?;
        }
        self.stage.work(SwitchRunImage {
            folders: plan.folders.clone(),
            ids: self.stage.ids,
            user: plan.user.clone(),
            run_image: run_image.clone(),
            layout: !plan.publish,
        })?;
        (plan.run_image, plan.switched) = (run_image, true);
        Ok(())
    }
}
