//! Buildpacks of the system: what takes part whatever group does (`system.toml`, Platform API 0.15).

use std::path::Path;

use coracle_cnb::{GroupElement, Order, SystemToml};

use crate::file::{self, FileError};

/// Puts the buildpacks that the document names around those of each group that do not have them. None is optional, as with the
/// reference. No document names none.
///
/// # Errors
/// Where it cannot be read.
pub(crate) fn surround(order: &mut Order, system: &Path) -> Result<(), FileError> {
    let document: Option<SystemToml> = file::read_document("system.toml", system)?;
    let system = document.unwrap_or_default().system;
    for group in &mut order.order {
        let new = |buildpacks: &[GroupElement], group: &[GroupElement]| -> Vec<GroupElement> {
            let known = |element: &GroupElement| group.iter().any(|known| known.id == element.id);
            let new = buildpacks.iter().filter(|element| !known(element)).cloned();
            new.map(|element| GroupElement { optional: false, ..element }).collect()
        };
        let (pre, post) =
            (new(&system.pre.buildpacks, &group.group), new(&system.post.buildpacks, &group.group));
        group.group.splice(0..0, pre);
        group.group.extend(post);
    }
    Ok(())
}
