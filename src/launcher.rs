//! The launcher that images start with, carried inside this program (`build.rs` makes it).

use coracle_lifecycle::phases::Launcher;
use serde_json::json;

/// A static program: it runs in any root filesystem.
const PROGRAM: &[u8] = include_bytes!(env!("CORACLE_LAUNCHER"));

/// The launcher, and what images say of it.
pub(crate) fn launcher() -> Launcher<'static> {
    let metadata = json!({ "version": env!("CARGO_PKG_VERSION"), "source": { "git": { "repository": "", "commit": "" } } });
    Launcher { program: PROGRAM, metadata }
}
