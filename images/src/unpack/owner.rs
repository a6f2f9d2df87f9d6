//! Whose files are.

/// Who on this machine stands for a user and group of the image.
pub trait OwnerMap {
    /// The ids to give a file; `uid` and `gid` are as in the archive, not yet checked against any range.
    ///
    /// # Errors
    ///
    /// When nobody here stands for them.
    fn owner(&self, uid: u64, gid: u64) -> Result<(u32, u32), OwnerError>;
}

/// Nobody here stands for these ids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the image's user {uid} and group {gid} have no place here: {why}")]
pub struct OwnerError {
    /// User in the archive.
    pub uid: u64,
    /// Group in the archive.
    pub gid: u64,
    /// What is missing, and how to get it.
    pub why: String,
}

/// Everything belongs to one user: the only map where no other ids are to be had.
#[derive(Debug, Clone, Copy)]
pub struct SingleOwner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl OwnerMap for SingleOwner {
    fn owner(&self, _: u64, _: u64) -> Result<(u32, u32), OwnerError> {
        Ok((self.uid, self.gid))
    }
}
