//! User and group ids on both sides of the sandbox, and the one function that shifts them.
//!
//! Three worlds meet here. The *host* is where the user works. The *outer* user namespace holds the stage: its id 0
//! is the user, its ids 1..=65536 are one contiguous range of the user's subordinate ids. The *guest* is the
//! container: its id n is outer n + 1, so no process of a container ever runs with the user's own id.
//! See user_namespaces(7), subuid(5), newuidmap(1).

use serde::{Deserialize, Serialize};

/// How many ids a guest has: 0..=65535, what images expect.
pub const GUEST_IDS: u32 = 65536;

/// A range of `/etc/subuid` or `/etc/subgid`: `count` ids from `start`, as the host counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubordinateRange {
    /// The first host id of the range.
    pub start: u32,
    /// How many ids it has.
    pub count: u32,
}

/// How guest ids become outer ids: guest n is outer n + 1, backed by a subordinate range of each kind. It is part of the key
/// under which unpacked layers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// Host user ids.
    pub uids: SubordinateRange,
    /// Host group ids.
    pub gids: SubordinateRange,
}

/// A guest id that the map has no place for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("id {id} is outside the {GUEST_IDS} ids that a container has here")]
pub struct UnmappedId {
    /// The id as the image or the caller gave it.
    pub id: u64,
}

impl IdMap {
    /// The outer id of guest id `guest`: the single place where the shift by one is made.
    ///
    /// # Errors
    /// [`UnmappedId`] when `guest` is not below [`GUEST_IDS`].
    pub fn outer(&self, guest: u64) -> Result<u32, UnmappedId> {
        let id = u32::try_from(guest).ok().filter(|id| *id < GUEST_IDS);
        id.map(|id| id + 1).ok_or(UnmappedId { id: guest })
    }

    /// The host's user id of guest id `guest`.
    pub fn host(&self, guest: u32) -> Option<u32> {
        (guest < GUEST_IDS).then(|| self.uids.start.checked_add(guest)).flatten()
    }

    /// A name for this map that is safe in a path. Two maps that would give files other owners have other keys.
    pub fn key(&self) -> String {
        format!("sub-{}-{}", self.uids.start, self.gids.start)
    }
}

/// The first range in `text`, a file in the format of subuid(5), that belongs to `user` or `uid` and has room for
/// [`GUEST_IDS`] ids. Lines that do not parse are passed over, as newuidmap(1) does.
pub fn find_range(text: &str, user: &str, uid: u32) -> Option<SubordinateRange> {
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if owner != user && owner.parse() != Ok(uid) {
            return None;
        }
        let start: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        let fits =
            fields.next().is_none() && count >= GUEST_IDS && start > 0 && start.checked_add(count).is_some();
        (fits && !(start..start + count).contains(&uid))
            .then_some(SubordinateRange { start, count: GUEST_IDS })
    })
}

/// A range of [`GUEST_IDS`] ids above all that `text`, in the format of subuid(5), gives out, as usermod(8) takes it.
pub(crate) fn free_range(text: &str) -> String {
    let end = |line: &str| {
        let mut numbers =
            line.trim().split(':').skip(1).map(|field| field.parse::<u32>().ok().map(u64::from));
        Some(numbers.next()?? + numbers.next()??)
    };
    let start = text.lines().filter_map(end).max().unwrap_or(0).max(100_000);
    format!("{start}-{}", start + u64::from(GUEST_IDS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_ids_are_shifted_by_one_and_the_last_one_fits() {
        let range = SubordinateRange { start: 100_000, count: GUEST_IDS };
        let map = IdMap { uids: range, gids: range };
        assert_eq!(map.outer(0), Ok(1));
        assert_eq!(map.outer(65_535), Ok(65_536));
        assert_eq!((map.host(1001), map.host(65_536)), (Some(101_001), None));
        assert_eq!(map.outer(65_536), Err(UnmappedId { id: 65_536 }));
        assert_eq!(map.outer((1 << 32) + 5), Err(UnmappedId { id: (1 << 32) + 5 }));
    }

    #[test]
    fn a_range_is_found_by_name_or_number_and_must_be_whole() {
        let text = "other:1:65536\nbroken\nmara:5:10\n1001:231072:65536\nmara:400000:131072\n";
        assert_eq!(find_range(text, "mara", 7), Some(SubordinateRange { start: 400_000, count: GUEST_IDS }));
        assert_eq!(
            find_range(text, "nobody", 1001),
            Some(SubordinateRange { start: 231_072, count: GUEST_IDS })
        );
        assert_eq!(find_range(text, "nobody", 7), None);
        assert_eq!(find_range("mara:0:65536", "mara", 7), None, "host root is not a subordinate id");
        assert_eq!(find_range("mara:4294967000:65536", "mara", 7), None, "the range must not wrap");
        assert_eq!(find_range("mara:1000:65536", "mara", 1001), None, "the range must not hold the user");
    }

    #[test]
    fn a_free_range_is_above_everybody_s() {
        assert_eq!(free_range(""), "100000-165535");
        assert_eq!(free_range("low:1000:65536\nbroken\n"), "100000-165535");
        assert_eq!(free_range("mara:231072:65536\nother:100000:65536\nhalf:900000\n"), "296608-362143");
    }

    #[test]
    fn maps_with_other_owners_have_other_keys() {
        let a = SubordinateRange { start: 1, count: GUEST_IDS };
        let b = SubordinateRange { start: 2, count: GUEST_IDS };
        let keys = [
            IdMap { uids: a, gids: a }.key(),
            IdMap { uids: a, gids: b }.key(),
            IdMap { uids: b, gids: a }.key(),
        ];
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    }
}
