//! Whose cache it is, whether layers stay unpacked between builds, and the steps of a build that see to it
//! (docs/decisions/0022-the-layers-tree-stays.md).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use coracle_images::Digest;
use coracle_lifecycle::cache::COMMITTED;
use coracle_lifecycle::signature::tells_of_changes;
use coracle_runtime::IdMap;

use super::folders::CACHE_DATA;
use super::phase::Plan;
use super::{Build, BuildRequest, Buildpack, LifecycleChoice};
use crate::error::Error;
use crate::home::CacheFolder;
use crate::stage::Stage;
use crate::worker::{CheckLayers, Clocks, KeepCreated, KeepLayers, LeaveLayers, ReuseLayers};

/// How cached layers come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restore {
    /// They stay unpacked between builds, and what was not changed need not come back. Where the file system cannot tell of
    /// changes, as [`Restore::Copy`].
    #[default]
    Tree,
    /// They are unpacked from the cache each time.
    Copy,
}

/// Why layers of this build do not stay, if so: they do with our own phases, a cache in a folder, and a file system that tells of changes.
pub(super) fn against(request: &BuildRequest, cache: &CacheFolder) -> Result<Option<&'static str>, Error> {
    let path = cache.open();
    if request.restore == Restore::Copy {
        return Ok(Some("--restore copy unpacks them each time"));
    }
    if request.cache_image.is_some() {
        return Ok(Some("--cache-image keeps them in a registry"));
    }
    if request.lifecycle != LifecycleChoice::Native {
        return Ok(Some("another lifecycle was chosen"));
    }
    let tells = tells_of_changes(&path).map_err(Error::folder("use the cache", &path))?;
    Ok((!tells).then_some(
        "the cache's file system is none of ext4, XFS, Btrfs, F2FS and bcachefs, which tell of every change, or lets no program run from there",
    ))
}

/// What `--verbose` says of that.
pub(super) fn do_not_stay(why: &str) -> String {
    format!("cached layers do not stay unpacked: {why}")
}

/// Whether the cache seems to have layers: guests own what lies there, so that nothing but speed may follow from it.
pub(super) fn has_layers(cache: &CacheFolder) -> bool {
    let data = cache.open().join(CACHE_DATA);
    let archives = || fs::read_dir(data.join(COMMITTED)).into_iter().flatten().flatten();
    let is_archive = |name: OsString| Path::new(&name).extension() == Some(OsStr::new("tar"));
    archives().any(|entry| is_archive(entry.file_name()))
}

/// After a build that failed: what it left is looked at when the next one begins.
pub(super) fn leave_layers(stage: &Stage<'_>) {
    // Where that is not possible, the next build does it.
    let _ = stage.work(LeaveLayers {});
}

impl Build<'_> {
    /// Before layers are restored. Says when it was.
    pub(super) fn reuse_layers(&self, plan: &Plan) -> Result<Option<Clocks>, Error> {
        if !plan.folders.tree {
            return Ok(None);
        }
        let (folders, ids, user) = (plan.folders.clone(), self.stage.ids, plan.user.clone());
        let (now, notes) = self.stage.work(ReuseLayers { folders, ids, user })?;
        self.explain(notes);
        Ok(Some(now))
    }

    /// Before layers are exported. No foreign program runs any more. Says by what the workspace is known, if it is what it was.
    pub(super) fn check_layers(&self, plan: &Plan, reused: Option<Clocks>) -> Result<Option<Digest>, Error> {
        let Some(since) = reused else { return Ok(None) };
        let (folders, ids, user) = (plan.folders.clone(), self.stage.ids, plan.user.clone());
        let (notes, workspace) = self.stage.work(CheckLayers { folders, ids, user, since })?;
        self.explain(notes);
        Ok(workspace)
    }

    /// After the image was made. What goes wrong only makes the next build slower.
    pub(super) fn keep_layers(&self, plan: &Plan, workspace: Option<Digest>) {
        if !plan.folders.tree {
            return;
        }
        let (folders, ids, user) = (plan.folders.clone(), self.stage.ids, plan.user.clone());
        match self.stage.work(KeepLayers { folders, ids, user, workspace }) {
            Ok(notes) => self.explain(notes),
            Err(error) => self.note(format!("layers do not stay unpacked: {error}")),
        }
    }

    /// After the one container of a trusted builder. Nothing that was in there has a say on what stays.
    pub(super) fn keep_created(&self, plan: &Plan, since: Clocks) {
        if !plan.folders.tree {
            return;
        }
        let (folders, ids, user) = (plan.folders.clone(), self.stage.ids, plan.user.clone());
        match self.stage.work(KeepCreated { folders, ids, user, since }) {
            Ok(notes) => self.explain(notes),
            Err(error) => self.note(format!("layers do not stay unpacked: {error}")),
        }
    }

    pub(super) fn explain(&self, notes: Vec<String>) {
        notes.into_iter().filter(|_| self.request.verbose).for_each(|note| self.note(note));
    }
}

/// Whoever decides what is in the cache: the builder, the buildpacks brought along, and the ids that own its files.
pub(super) fn makers_of_cache(request: &BuildRequest) -> Result<String, Error> {
    let ids = coracle_runtime::id_map_of_user().map_err(coracle_runtime::SessionError::from)?;
    Ok(with_ids(makers(request), &ids))
}

/// Behind the builder, which is always there.
fn with_ids(mut makers: Vec<String>, ids: &IdMap) -> String {
    makers.insert(1, ids.key());
    makers.join("\n")
}

/// The builder, the lifecycle and the buildpacks brought along.
pub(super) fn makers(request: &BuildRequest) -> Vec<String> {
    let buildpacks = request.buildpacks.iter().map(|buildpack| match buildpack {
        Buildpack::Folder(path) => format!("{:?}", path.canonicalize().as_deref().unwrap_or(path)),
        named => format!("{named:?}"),
    });
    // A builder's own lifecycle is its own; any other may be anybody's.
    let lifecycle = match &request.lifecycle {
        LifecycleChoice::Native | LifecycleChoice::Builder => None,
        other => Some(format!("{other:?}")),
    };
    std::iter::once(request.builder.to_string()).chain(lifecycle).chain(buildpacks).collect()
}

#[cfg(test)]
mod tests {
    use coracle_runtime::SubordinateRange;

    use super::*;

    /// Files keep the ids that a build gave them: in another range they are somebody else's.
    #[test]
    fn a_user_with_other_subordinate_ids_is_another_maker() {
        let range = |start| SubordinateRange { start, count: 65536 };
        let makers = |uids, gids| {
            with_ids(
                vec!["builder".to_owned(), "buildpack".to_owned()],
                &IdMap { uids: range(uids), gids: range(gids) },
            )
        };
        assert_eq!(makers(100_000, 200_000), "builder\nsub-100000-200000\nbuildpack");
        assert_ne!(makers(100_000, 200_000), makers(165_536, 200_000));
        assert_ne!(makers(100_000, 200_000), makers(100_000, 265_536));
    }
}
