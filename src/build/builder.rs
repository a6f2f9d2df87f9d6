//! What a builder image says of itself (Platform specification, "Builder").

use coracle_cnb::{BUILDER_METADATA_LABEL, BuilderMetadata, RunImageEntry, RunToml, Stack};
use coracle_images::{Config, Reference};

use super::foreign::stacks;
use crate::error::Error;

/// A builder, read from its configuration.
#[derive(Debug)]
pub(crate) struct Builder {
    /// The phases' user, by number.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The run images it names, best first.
    pub(crate) run: RunToml,
    /// Whether image extensions are in it.
    pub(crate) has_extensions: bool,
    /// The stack it says it is of.
    pub(crate) stack: Option<Stack>,
}

impl Builder {
    /// Read it.
    ///
    /// # Errors
    /// [`Error::NotABuilder`], with what is missing.
    pub(crate) fn of(name: &Reference, config: &Config) -> Result<Self, Error> {
        let refused = |why: String| Error::NotABuilder { image: name.to_string(), why };
        let id = |variable: &str| {
            let text = config.env(variable).ok_or_else(|| refused(format!("it does not set {variable}")))?;
            match text.parse() {
                Ok(0) => {
                    Err(refused(format!("it sets {variable} to 0, and buildpacks are never run as root")))
                }
                Ok(number) => Ok(number),
                Err(_) => Err(refused(format!("it sets {variable} to `{text}`, which is not a number"))),
            }
        };
        let (uid, gid) = (id("CNB_USER_ID")?, id("CNB_GROUP_ID")?);
        let label = config.label(BUILDER_METADATA_LABEL);
        let label = label.ok_or_else(|| refused(format!("it has no label {BUILDER_METADATA_LABEL}")))?;
        let metadata: BuilderMetadata = coracle_cnb::read_json(BUILDER_METADATA_LABEL, label)
            .map_err(|error| refused(coracle_runtime::with_causes(&error)))?;
        let has_extensions = has_extensions(&metadata, config);
        Ok(Self { uid, gid, run: run_images(&metadata), has_extensions, stack: stacks::of(config) })
    }

    /// The run image for an application that is to be `image`: the one asked for, else the builder's first, or the mirror
    /// of it that is on the same registry as the output.
    ///
    /// # Errors
    /// [`Error::NoRunImage`], or a name that is none.
    pub(crate) fn run_image(
        &self,
        builder: &Reference,
        wanted: Option<&Reference>,
        image: &Reference,
    ) -> Result<Reference, Error> {
        if let Some(wanted) = wanted {
            return Ok(wanted.clone());
        }
        let none = || Error::NoRunImage(builder.to_string());
        let first = self.run.images.first().ok_or_else(none)?;
        let names = std::iter::once(&first.image).chain(&first.mirrors);
        let parsed: Vec<Reference> =
            names.map(|name| name.parse()).collect::<Result<_, _>>().map_err(|source| {
                Error::NotABuilder {
                    image: builder.to_string(),
                    why: format!("its run image cannot be used: {source}"),
                }
            })?;
        let near = parsed.iter().find(|reference| reference.registry == image.registry);
        near.or(parsed.first()).cloned().ok_or_else(none)
    }
}

/// The label with the order of image extensions.
const ORDER_EXTENSIONS_LABEL: &str = "io.buildpacks.buildpack.order-extensions";

/// Go writes an empty list as `null`.
fn has_extensions(metadata: &BuilderMetadata, config: &Config) -> bool {
    let listed = metadata.rest.get("extensions").and_then(|list| list.as_array());
    let order =
        config.label(ORDER_EXTENSIONS_LABEL).is_some_and(|order| !matches!(order, "" | "null" | "[]"));
    order || listed.is_some_and(|list| !list.is_empty())
}

/// The newer form of the label has a list; the older one a stack.
fn run_images(metadata: &BuilderMetadata) -> RunToml {
    let stack = &metadata.stack.run_image;
    let mut images = metadata.images.clone();
    if images.is_empty() && !stack.image.is_empty() {
        images.push(RunImageEntry { image: stack.image.clone(), mirrors: stack.mirrors.clone() });
    }
    RunToml { images }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(env: &[&str], label: Option<&str>) -> Config {
        let mut config = Config::default();
        config.config.env = env.iter().map(|text| (*text).to_owned()).collect();
        config.config.labels =
            label.map(|text| (BUILDER_METADATA_LABEL.to_owned(), text.to_owned())).into_iter().collect();
        config
    }

    const IDS: [&str; 2] = ["CNB_USER_ID=1001", "CNB_GROUP_ID=1002"];

    #[test]
    fn what_is_no_builder_says_what_it_lacks() {
        let name = "r.example/b".parse().unwrap();
        let refused = |env: &[&str], label| Builder::of(&name, &config(env, label)).unwrap_err().to_string();
        let start = "image r.example/b:latest is not a builder: ";
        let end = "; name a builder image with --builder";
        assert_eq!(refused(&[], None), format!("{start}it does not set CNB_USER_ID{end}"));
        assert_eq!(
            refused(&["CNB_USER_ID=0"], None),
            format!("{start}it sets CNB_USER_ID to 0, and buildpacks are never run as root{end}")
        );
        assert_eq!(
            refused(&["CNB_USER_ID=cnb"], None),
            format!("{start}it sets CNB_USER_ID to `cnb`, which is not a number{end}")
        );
        assert_eq!(
            refused(&IDS, None),
            format!("{start}it has no label io.buildpacks.builder.metadata{end}")
        );
        let damaged =
            "parse label io.buildpacks.builder.metadata: EOF while parsing an object at line 1 column 1";
        assert_eq!(refused(&IDS, Some("{")), format!("{start}{damaged}{end}"));
    }

    #[test]
    fn run_images_are_the_wanted_one_or_the_nearest() {
        let label = r#"{"images":[{"image":"a.example/run","mirrors":["b.example/run"]}]}"#;
        let name: Reference = "a.example/builder".parse().unwrap();
        let builder = Builder::of(&name, &config(&IDS, Some(label))).unwrap();
        let run = |wanted: Option<&Reference>, image: &str| {
            builder.run_image(&name, wanted, &image.parse().unwrap()).unwrap().to_string()
        };
        assert_eq!(run(None, "c.example/app"), "a.example/run:latest");
        assert_eq!(run(None, "b.example/app"), "b.example/run:latest");
        assert_eq!(run(Some(&"x.example/run:1".parse().unwrap()), "b.example/app"), "x.example/run:1");
    }

    #[test]
    fn image_extensions_are_seen_in_either_label() {
        let name = "r.example/b".parse().unwrap();
        let seen = |metadata: &str, order: Option<&str>| {
            let mut config = config(&IDS, Some(metadata));
            config
                .config
                .labels
                .extend(order.map(|text| (ORDER_EXTENSIONS_LABEL.to_owned(), text.to_owned())));
            Builder::of(&name, &config).unwrap().has_extensions
        };
        assert!(seen(r#"{"extensions":[{"id":"a/b","version":"1"}]}"#, None));
        assert!(seen("{}", Some(r#"[{"group":[{"id":"a/b"}]}]"#)));
        for (metadata, order) in [("{}", None), (r#"{"extensions":null}"#, Some("null")), ("{}", Some("[]"))]
        {
            assert!(!seen(metadata, order), "{metadata} {order:?}");
        }
    }

    #[test]
    fn an_older_label_names_the_run_image_of_a_stack() {
        let label = r#"{"stack":{"runImage":{"image":"a.example/run","mirrors":null}}}"#;
        let name: Reference = "a.example/builder".parse().unwrap();
        let builder = Builder::of(&name, &config(&IDS, Some(label))).unwrap();
        assert_eq!(builder.run.images[0].image, "a.example/run");
        let none = Builder::of(&name, &config(&IDS, Some("{}"))).unwrap();
        let refused = none.run_image(&name, None, &name).unwrap_err().to_string();
        assert_eq!(refused, "builder a.example/builder:latest names no run image; name one with --run-image");
    }
}
