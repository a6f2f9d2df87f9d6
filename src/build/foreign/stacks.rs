//! Before Platform API 0.12 the images of a build and its buildpacks are of one stack, and have the mixins that they ask of one another
//! (Platform specification 0.11, "Stacks" and "Mixins"). That is for platforms to see to, and no lifecycle looks at all of it. Who says
//! nothing of a stack is of any. Pure.

use coracle_cnb::{BuildpackToml, Stack};
use coracle_images::Config;

const STACK_ID_LABEL: &str = "io.buildpacks.stack.id";
const STACK_MIXINS_LABEL: &str = "io.buildpacks.stack.mixins";

/// An image by name, and its stack, if it says one.
#[derive(Debug)]
pub(crate) struct Stacked<'a> {
    pub(crate) name: &'a str,
    pub(crate) stack: Option<&'a Stack>,
}

/// What does not go together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StackError {
    /// A run image for other applications.
    #[error(
        "the run image {run} is of stack `{found}`, and builder {builder} of stack `{wanted}`; name a run image of that stack with --run-image"
    )]
    RunImage { run: String, found: String, builder: String, wanted: String },
    /// A run image with less in it than was there in the build.
    #[error(
        "the run image {run} lacks mixins that builder {builder} has: {lacking}; name a run image that has them with --run-image"
    )]
    RunMixins { run: String, builder: String, lacking: String },
    /// Layers of an image of another stack would be taken over.
    #[error(
        "the image {previous} is of stack `{found}`, and what is built now of stack `{wanted}`, for which its layers were not made; build under another name, or delete it first"
    )]
    Previous { previous: String, found: String, wanted: String },
    /// Its layers may need what is not there any more.
    #[error(
        "the run image {run} lacks mixins that the image {previous} was built on: {lacking}; name a run image that has them with --run-image, or build under another name"
    )]
    PreviousMixins { previous: String, run: String, lacking: String },
    /// A buildpack for other builders.
    #[error(
        "buildpack {buildpack} is for {stacks}, and builder {builder} is of stack `{wanted}`; choose others with --buildpack, or take a builder of its stack"
    )]
    Buildpack { buildpack: String, stacks: String, builder: String, wanted: String },
    /// A buildpack that needs more than images have.
    #[error(
        "buildpack {buildpack} needs mixins that are missing: {lacking}; take images that have them, or choose other buildpacks with --buildpack"
    )]
    BuildpackMixins { buildpack: String, lacking: String },
}

/// What an image says of its stack.
pub(crate) fn of(config: &Config) -> Option<Stack> {
    let id = config.label(STACK_ID_LABEL).filter(|id| !id.is_empty())?.to_owned();
    let mixins = config.label(STACK_MIXINS_LABEL).and_then(|text| serde_json::from_str(text).ok());
    Some(Stack { id, mixins: mixins.unwrap_or_default() })
}

/// Whether images and buildpacks go together.
///
/// # Errors
///
/// The first that does not, with all the mixins that it lacks.
pub(crate) fn check(
    builder: &Stacked<'_>,
    run: &Stacked<'_>,
    previous: &Stacked<'_>,
    buildpacks: &[BuildpackToml],
) -> Result<(), StackError> {
    if let (Some(of_builder), Some(of_run)) = (builder.stack, run.stack) {
        let (run, builder) = (run.name.to_owned(), builder.name.to_owned());
        if of_builder.id != of_run.id {
            let (found, wanted) = (of_run.id.clone(), of_builder.id.clone());
            return Err(StackError::RunImage { run, found, builder, wanted });
        }
        if let Some(lacking) = Stage::Run.lacking(of_run, &of_builder.mixins) {
            return Err(StackError::RunMixins { run, builder, lacking });
        }
    }
    if let (Some(of_previous), Some(of_run)) = (previous.stack, run.stack) {
        let (previous, run) = (previous.name.to_owned(), run.name.to_owned());
        if of_previous.id != of_run.id {
            let (found, wanted) = (of_previous.id.clone(), of_run.id.clone());
            return Err(StackError::Previous { previous, found, wanted });
        }
        if let Some(lacking) = Stage::Run.lacking(of_run, &of_previous.mixins) {
            return Err(StackError::PreviousMixins { previous, run, lacking });
        }
    }
    // One that has targets, or only names others, is for any stack.
    let has_stacks =
        |toml: &&BuildpackToml| !toml.stacks.is_empty() && toml.targets.is_empty() && toml.order.is_empty();
    buildpacks.iter().filter(has_stacks).try_for_each(|toml| check_buildpack(toml, builder, run))
}

fn check_buildpack(toml: &BuildpackToml, builder: &Stacked<'_>, run: &Stacked<'_>) -> Result<(), StackError> {
    let Some(of_builder) = builder.stack else { return Ok(()) };
    let buildpack = format!("{}@{}", toml.buildpack.id, toml.buildpack.version);
    let own: Vec<&Stack> =
        toml.stacks.iter().filter(|stack| stack.id == "*" || stack.id == of_builder.id).collect();
    if own.is_empty() {
        let stacks: Vec<String> = toml.stacks.iter().map(|stack| format!("`{}`", stack.id)).collect();
        let (builder, wanted) = (builder.name.to_owned(), of_builder.id.clone());
        return Err(StackError::Buildpack { buildpack, stacks: stacks.join(", "), builder, wanted });
    }
    let needed: Vec<String> = own.iter().flat_map(|stack| &stack.mixins).cloned().collect();
    let in_builder = Stage::Build.lacking(of_builder, &needed);
    let in_run = run.stack.and_then(|stack| Stage::Run.lacking(stack, &needed));
    let lacking: Vec<String> = [
        in_builder.map(|names| format!("{names} in builder {}", builder.name)),
        in_run.map(|names| format!("{names} in the run image {}", run.name)),
    ]
    .into_iter()
    .flatten()
    .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    Err(StackError::BuildpackMixins { buildpack, lacking: lacking.join("; ") })
}

/// What images are for. A mixin whose name begins with neither is of both.
#[derive(Clone, Copy)]
enum Stage {
    Build,
    Run,
}

impl Stage {
    /// The name of a mixin that images for this have; nothing for one of the others.
    fn own(self, mixin: &str) -> Option<&str> {
        let (own, other) = match self {
            Self::Build => ("build:", "run:"),
            Self::Run => ("run:", "build:"),
        };
        (!mixin.starts_with(other)).then(|| mixin.strip_prefix(own).unwrap_or(mixin))
    }

    /// The names of those that an image does not have, if there are any.
    fn lacking(self, image: &Stack, needed: &[String]) -> Option<String> {
        let has = |name: &str| image.mixins.iter().any(|mixin| self.own(mixin) == Some(name));
        let mut lacking: Vec<String> = needed
            .iter()
            .filter_map(|mixin| self.own(mixin))
            .filter(|name| !has(name))
            .map(|name| format!("`{name}`"))
            .collect();
        lacking.sort();
        lacking.dedup();
        (!lacking.is_empty()).then(|| lacking.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(text: &str) -> Option<Stack> {
        let (id, mixins) = text.split_once(' ').unwrap_or((text, ""));
        let mixins = mixins.split_whitespace().map(str::to_owned).collect();
        (!id.is_empty()).then(|| Stack { id: id.to_owned(), mixins })
    }

    /// Each text a stack: its id, and mixins.
    fn said(builder: &str, run: &str, previous: &str, toml: &str) -> String {
        let toml = format!("api = \"0.9\"\n[buildpack]\nid = \"a/b\"\nversion = \"1\"\n{toml}");
        let toml: BuildpackToml = coracle_cnb::read_toml("buildpack.toml", &toml).unwrap();
        let [of_builder, of_run, of_previous] = [builder, run, previous].map(stack);
        let named = |name, stack| Stacked { name, stack };
        let checked = check(
            &named("r.example/builder:1", of_builder.as_ref()),
            &named("r.example/run:1", of_run.as_ref()),
            &named("r.example/app:1", of_previous.as_ref()),
            &[toml.clone(), toml],
        );
        checked.map_or_else(|error| error.to_string(), |()| "goes together".to_owned())
    }

    #[test]
    fn images_and_buildpacks_are_of_one_stack_and_have_what_they_ask_of_each_other() {
        let needs = |mixins: &str| format!("[[stacks]]\nid = \"s\"\nmixins = {mixins}\n");
        let any = |mixins: &str| needs(mixins).replace("\"s\"", "\"*\"");
        let both = needs("[\"x\"]");
        let cases = [
            ("s", "s", "s", needs("[]")),
            ("s", "s", "", any("[]")),
            ("s", "t", "", String::new()),
            ("s", "", "t", needs("[\"run:x\"]")),
            ("", "s", "", both.clone()),
            ("s x", "s x", "", both.clone()),
            ("s build:x", "s run:x", "", both.clone()),
            ("s build:x", "s", "", both.clone()),
            ("s", "s run:x", "", both.clone()),
            ("s run:x", "s x", "", both),
            ("s", "s", "", any("[\"y\", \"x\", \"run:z\", \"x\"]")),
            ("s build:x", "s", "", needs("[\"build:x\"]")),
            ("s", "s x", "", needs("[\"run:x\"]")),
            ("s", "s x", "", needs("[\"build:x\"]")),
            ("s b a build:c", "s run:b", "", String::new()),
            ("s b a build:c", "s run:b a", "", String::new()),
            ("s", "s", "t", String::new()),
            ("s", "s x", "s x y build:z", String::new()),
            ("s", "s x", "s run:x", String::new()),
            ("s", "s", "", "[[stacks]]\nid = \"t\"\n[[stacks]]\nid = \"u\"\n".to_owned()),
            ("s", "s", "", "[[stacks]]\nid = \"t\"\nmixins = [\"x\"]\n[[stacks]]\nid = \"s\"\n".to_owned()),
            ("s", "s", "", "[[stacks]]\nid = \"t\"\n[[targets]]\nos = \"linux\"\n".to_owned()),
            ("s", "s", "", "[[stacks]]\nid = \"t\"\n[[order]]\ngroup = [{ id = \"c\" }]\n".to_owned()),
        ];
        let lines = cases.map(|(builder, run, previous, toml)| {
            let said = said(builder, run, previous, &toml);
            let toml = toml.replace('\n', " ");
            let toml = toml.trim_end();
            format!("builder `{builder}` run `{run}` previous `{previous}` {toml}\n  {said}\n")
        });
        insta::assert_snapshot!(lines.concat());
    }

    #[test]
    fn an_image_says_its_stack_in_two_labels() {
        let config = |id: &str, mixins: &str| {
            let mut config = Config::default();
            let labels = [(STACK_ID_LABEL, id), (STACK_MIXINS_LABEL, mixins)];
            config.config.labels = labels.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
            config
        };
        assert_eq!(of(&config("s", "[\"x\", \"run:y\"]")), stack("s x run:y"));
        assert_eq!(of(&config("s", "null")), stack("s"));
        assert_eq!(of(&config("", "[\"x\"]")), None);
        assert_eq!(of(&Config::default()), None);
    }
}
