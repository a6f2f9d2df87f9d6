//! What a lifecycle says of itself: in `lifecycle.toml` of its archive (RFC 0011, "Lifecycle Descriptor"), in labels of its
//! image, in the metadata of a builder.

use coracle_cnb::{ApiVersion, BUILDER_METADATA_LABEL};
use coracle_images::Config;
use serde::Deserialize;

use super::LifecycleError;

/// The Platform APIs that are known here: the first, the last, and all between.
pub(super) const KNOWN: (ApiVersion, ApiVersion) = (ApiVersion::new(0, 2), ApiVersion::new(0, 15));

/// The label of a lifecycle's image with the APIs it speaks.
const APIS_LABEL: &str = "io.buildpacks.lifecycle.apis";
/// The label of a lifecycle's image with its version.
const VERSION_LABEL: &str = "io.buildpacks.lifecycle.version";

/// A lifecycle, by its own word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Described {
    /// Empty where nothing is said of it.
    pub(crate) version: String,
    /// The Platform APIs it speaks.
    pub(crate) platform: Vec<ApiVersion>,
}

/// The part of `lifecycle.toml`, and of a builder's metadata, that tells.
#[derive(Debug, Default, Deserialize)]
struct Descriptor {
    #[serde(default)]
    apis: Option<Apis>,
    #[serde(default)]
    api: Oldest,
    #[serde(default)]
    lifecycle: Option<Version>,
    /// A builder's metadata say it here.
    #[serde(default)]
    version: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Apis {
    #[serde(default)]
    platform: Versions,
}

/// Go writes an empty list as `null`.
#[derive(Debug, Default, Deserialize)]
struct Versions {
    #[serde(default)]
    deprecated: Option<Vec<String>>,
    #[serde(default)]
    supported: Option<Vec<String>>,
}

/// Before there were lists, the one API of each kind; since then the oldest.
#[derive(Debug, Default, Deserialize)]
struct Oldest {
    #[serde(default)]
    platform: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Version {
    #[serde(default)]
    version: Option<String>,
}

impl Described {
    /// By `lifecycle.toml`.
    pub(crate) fn of_toml(text: &str) -> Result<Self, coracle_cnb::DocumentError> {
        Ok(Self::of(coracle_cnb::read_toml("lifecycle.toml", text)?))
    }

    /// By the labels of a lifecycle's image.
    pub(crate) fn of_image(config: &Config) -> Result<Self, coracle_cnb::DocumentError> {
        let mut said = Self::of_builder(config)?.unwrap_or_default();
        if let Some(label) = config.label(APIS_LABEL) {
            let apis: Apis = coracle_cnb::read_json(APIS_LABEL, label)?;
            said.platform = apis.platform.versions();
        }
        if let Some(version) = config.label(VERSION_LABEL) {
            version.clone_into(&mut said.version);
        }
        Ok(said)
    }

    /// By the metadata of a builder, which may have none.
    pub(crate) fn of_builder(config: &Config) -> Result<Option<Self>, coracle_cnb::DocumentError> {
        #[derive(Deserialize)]
        struct Builder {
            #[serde(default)]
            lifecycle: Option<Descriptor>,
            #[serde(default)]
            api: Oldest,
        }
        let Some(label) = config.label(BUILDER_METADATA_LABEL) else { return Ok(None) };
        let builder: Builder = coracle_cnb::read_json(BUILDER_METADATA_LABEL, label)?;
        let Some(mut descriptor) = builder.lifecycle else { return Ok(None) };
        // An image of a lifecycle has it beside what a builder has within.
        descriptor.api.platform = descriptor.api.platform.or(builder.api.platform);
        Ok(Some(Self::of(descriptor)))
    }

    fn of(descriptor: Descriptor) -> Self {
        let oldest = || descriptor.api.platform.iter().filter_map(|text| text.parse().ok()).collect();
        let listed = descriptor.apis.map(|apis| apis.platform.versions()).filter(|list| !list.is_empty());
        let within = descriptor.lifecycle.and_then(|lifecycle| lifecycle.version);
        Self {
            version: descriptor.version.or(within).unwrap_or_default(),
            platform: listed.unwrap_or_else(oldest),
        }
    }

    /// The highest Platform API that is spoken here, there, and by `other` where that plays other phases.
    ///
    /// # Errors
    /// [`LifecycleError::NoApi`].
    pub(crate) fn highest(&self, name: &str, other: Option<&Self>) -> Result<ApiVersion, LifecycleError> {
        let (first, last) = KNOWN;
        let spoken = |api: &ApiVersion| {
            (first..=last).contains(api) && other.is_none_or(|other| other.platform.contains(api))
        };
        self.platform.iter().copied().filter(spoken).max().ok_or_else(|| LifecycleError::NoApi {
            name: name.to_owned(),
            offered: list(&self.platform),
            first,
            last,
        })
    }
}

impl Versions {
    /// What is spoken. What is no version is nobody's.
    fn versions(self) -> Vec<ApiVersion> {
        let all = self.deprecated.into_iter().chain(self.supported).flatten();
        all.filter_map(|text| text.parse().ok()).collect()
    }
}

fn list(versions: &[ApiVersion]) -> String {
    let names: Vec<String> = versions.iter().map(ToString::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(minor: u32) -> ApiVersion {
        ApiVersion::new(0, minor)
    }

    fn config(labels: &[(&str, &str)]) -> Config {
        let mut config = Config::default();
        let pair = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        config.config.labels = labels.iter().map(pair).collect();
        config
    }

    #[test]
    fn an_archive_says_what_it_speaks_in_the_form_of_its_time() {
        let old = "[api]\nplatform = \"0.2\"\nbuildpack = \"0.2\"\n[lifecycle]\nversion = \"0.6.1\"\n";
        let old = Described::of_toml(old).unwrap();
        assert_eq!(old, Described { version: "0.6.1".to_owned(), platform: vec![api(2)] });
        let new = "[apis.platform]\ndeprecated = [\"0.3\"]\nsupported = [\"0.7\", \"0.20\", \"new\"]\n[api]\nplatform = \"0.3\"\n[lifecycle]\nversion = \"0.17.0\"\n";
        let new = Described::of_toml(new).unwrap();
        assert_eq!(new.platform, [api(3), api(7), api(20)]);
        assert_eq!(new.highest("it", None).unwrap(), api(7), "0.20 is not known here");
        assert_eq!(Described::of_toml("").unwrap(), Described::default());
        assert!(Described::of_toml("[").is_err());
    }

    #[test]
    fn an_image_and_a_builder_say_it_in_labels() {
        let apis = r#"{"buildpack":{"deprecated":null,"supported":["0.9"]},"platform":{"deprecated":null,"supported":["0.12","0.13"]}}"#;
        let own = r#"{"lifecycle":{"version":"0.20.1"},"api":{"platform":"0.7","buildpack":"0.7"}}"#;
        let image = config(&[(BUILDER_METADATA_LABEL, own), (APIS_LABEL, apis)]);
        let said = Described::of_image(&image).unwrap();
        assert_eq!(said, Described { version: "0.20.1".to_owned(), platform: vec![api(12), api(13)] });
        let image = config(&[(BUILDER_METADATA_LABEL, own), (VERSION_LABEL, "0.20.2")]);
        let said = Described::of_image(&image).unwrap();
        assert_eq!(said, Described { version: "0.20.2".to_owned(), platform: vec![api(7)] });
        let metadata =
            format!(r#"{{"lifecycle":{{"version":"1.2.3","api":{{"platform":"0.2"}},"apis":{apis}}}}}"#);
        let builder =
            Described::of_builder(&config(&[(BUILDER_METADATA_LABEL, &metadata)])).unwrap().unwrap();
        assert_eq!(builder, Described { version: "1.2.3".to_owned(), platform: vec![api(12), api(13)] });
        assert_eq!(Described::of_builder(&config(&[(BUILDER_METADATA_LABEL, "{}")])).unwrap(), None);
        assert_eq!(Described::of_builder(&config(&[])).unwrap(), None);
        assert!(Described::of_builder(&config(&[(BUILDER_METADATA_LABEL, "{")])).is_err());
    }

    #[test]
    fn what_nobody_speaks_is_refused_with_both_lists() {
        let of = |list: &[u32]| Described {
            version: String::new(),
            platform: list.iter().map(|n| api(*n)).collect(),
        };
        assert_eq!(of(&[12, 13, 15]).highest("it", Some(&of(&[7, 13, 14]))).unwrap(), api(13));
        let refused = of(&[1, 16]).highest("the lifecycle x", None).unwrap_err().to_string();
        assert_eq!(
            refused,
            "the lifecycle x speaks Platform API 0.1, 0.16, and none of them is known here (known: 0.2 to 0.15); take --lifecycle native"
        );
    }
}
