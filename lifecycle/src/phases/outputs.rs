//! The names under which a phase leaves an image: those that follow the flags, and those of `-tag`.

use std::collections::BTreeSet;

use coracle_images::Reference;

use super::arguments::{ArgumentError, Arguments};

/// The names, as they are and as they were written.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) names: Vec<Reference>,
    pub(super) texts: Vec<String>,
}

impl Outputs {
    /// Fails where one registry cannot hold them all.
    pub(super) fn of(arguments: &Arguments) -> Result<Self, ArgumentError> {
        let texts = [arguments.images(), &arguments.texts("tag")].concat();
        let names = texts.iter().map(|text| reference(text)).collect::<Result<Vec<_>, _>>()?;
        let registries: BTreeSet<&str> = names.iter().map(|name| name.registry.as_str()).collect();
        if registries.len() > 1 {
            let all = registries.into_iter().collect::<Vec<_>>().join(", ");
            return Err(ArgumentError::Registries(all));
        }
        Ok(Self { names, texts })
    }
}

/// The name of an image.
pub(super) fn reference(text: &str) -> Result<Reference, ArgumentError> {
    text.parse().map_err(ArgumentError::Image)
}
