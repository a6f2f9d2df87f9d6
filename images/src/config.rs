//! The image configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::document::nullable;

/// An image configuration. See [config.md]; members come in the order Go programs write them.
///
/// [config.md]: https://github.com/opencontainers/image-spec/blob/main/config.md
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Processor, in Go's words.
    #[serde(default)]
    pub architecture: String,
    /// Who made the image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Docker's id of the container the image was made in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// When, as RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The Docker version that made the image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    /// What made each layer, lowest first.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// Operating system, in Go's words.
    #[serde(default)]
    pub os: String,
    /// The layers' contents.
    #[serde(default)]
    pub rootfs: RootFs,
    /// How a container of this image starts.
    #[serde(default, deserialize_with = "nullable")]
    pub config: Execution,
    /// Version of the operating system.
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Variant of the processor.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Needed features of the operating system.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// Members this program has no use for, kept.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// One step in the making of an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Who.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// When, as RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what command.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether the step made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// The layers by the digests of their uncompressed archives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the uncompressed archives, lowest first.
    #[serde(default, deserialize_with = "nullable")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// An empty object, as JSON writes the members of a Go set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// How a container of the image starts: the `config` member of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    /// Default arguments.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// How to ask whether the container is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Value>,
    /// The program.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Environment, `NAME=VALUE`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Docker's name of the image this one was made from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Free-form notes.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// User and group, by name or number, `USER[:GROUP]`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Folders with a life of their own.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Where the program starts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Ports, `PORT[/PROTOCOL]`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Signal that asks the program to end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Members this program has no use for, kept.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Config {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.config.labels.get(name).map(String::as_str)
    }

    /// The value of an environment variable; of two, the last counts.
    #[must_use]
    pub fn env(&self, name: &str) -> Option<&str> {
        self.config
            .env
            .iter()
            .rev()
            .find_map(|e| e.split_once('=').filter(|(n, _)| *n == name).map(|(_, v)| v))
    }

    /// Sets an environment variable in place, or adds it at the end.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let entry = format!("{name}={value}");
        let same = |e: &&mut String| e.split_once('=').map_or(e.as_str(), |(n, _)| n) == name;
        match self.config.env.iter_mut().find(same) {
            Some(old) => *old = entry,
            None => self.config.env.push(entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::go_json;

    #[test]
    fn order_and_unknown_members_survive() {
        let digest = Digest::of("");
        let text = format!(
            r#"{{"architecture":"amd64","author":"a","created":"1980-01-01T00:00:01Z","history":[{{"created":"1980-01-01T00:00:01Z","created_by":"x \u003c y"}},{{"empty_layer":true}}],"os":"linux","rootfs":{{"type":"layers","diff_ids":["{digest}"]}},"config":{{"Cmd":["c"],"Entrypoint":["e"],"Env":["A=1"],"Labels":{{"a":"b"}},"User":"1:2","Volumes":{{"/v":{{}}}},"WorkingDir":"/w","ExposedPorts":{{"80/tcp":{{}}}},"Shell":["sh"]}},"variant":"v1","x-own":{{"z":1}}}}"#
        );
        let config: Config = serde_json::from_str(&text).unwrap();
        assert_eq!(String::from_utf8(go_json(&config).unwrap()).unwrap(), text);
        assert_eq!((config.label("a"), config.env("A")), (Some("b"), Some("1")));
    }

    #[test]
    fn nulls_and_env() {
        let text = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":null},"config":null}"#;
        let mut config: Config = serde_json::from_str(text).unwrap();
        assert!(config.rootfs.diff_ids.is_empty());
        config.set_env("A", "1");
        config.set_env("AB", "2");
        config.set_env("A", "3=4");
        assert_eq!(config.config.env, ["A=3=4", "AB=2"]);
        assert_eq!(config.env("A"), Some("3=4"));
    }
}
