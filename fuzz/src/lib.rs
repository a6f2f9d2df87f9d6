//! What hostile bytes are put through: one function for each target, which panics where something does not hold.
//!
//! `targets/` gives each to libFuzzer; `tests/` puts seeds and their mutations through all of them without it.

mod documents;
mod layers;
mod names;
mod overlay;

pub use documents::{dockerfile, image, json, toml};
pub use layers::{archive, layer, pax};
pub use names::{challenge, credentials, reference, token};
pub use overlay::whiteouts;

/// One target.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folder of seeds.
pub const TARGETS: [(&str, Target); 12] = [
    ("archive", archive),
    ("challenge", challenge),
    ("credentials", credentials),
    ("dockerfile", dockerfile),
    ("image", image),
    ("json", json),
    ("layer", layer),
    ("pax", pax),
    ("reference", reference),
    ("token", token),
    ("toml", toml),
    ("whiteouts", whiteouts),
];
