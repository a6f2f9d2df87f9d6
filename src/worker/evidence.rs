//! What many entries were, as digests of what the kernel says of each: 32 bytes an entry, in memory and on the disk.

use std::io::Read;

/// One entry.
pub(super) type Entry = [u8; 32];

/// A set of them, in order once it is complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Evidence(Vec<Entry>);

impl Evidence {
    pub(super) fn of(mut entries: Vec<Entry>) -> Self {
        entries.sort_unstable();
        entries.dedup();
        entries.shrink_to_fit();
        Self(entries)
    }

    pub(super) fn contains(&self, entry: &Entry) -> bool {
        self.0.binary_search(entry).is_ok()
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_flattened()
    }

    /// So many bytes of a file: nothing where they are not all there, or no set that was complete.
    pub(super) fn read(file: &mut impl Read, length: u64) -> Option<Self> {
        let length = usize::try_from(length).ok()?;
        let mut entries = vec![Entry::default(); length / size_of::<Entry>()];
        if entries.as_flattened().len() != length {
            return None;
        }
        file.read_exact(entries.as_flattened_mut()).ok()?;
        entries.is_sorted_by(|one, next| one < next).then_some(Self(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_its_bytes_and_no_others_are_one() {
        let all = Evidence::of([3, 1, 2, 1].map(|byte| [byte; 32]).to_vec());
        assert_eq!((all.len(), all.as_bytes().len()), (3, 96));
        assert!(all.contains(&[2; 32]) && !all.contains(&[4; 32]));
        let read = |mut bytes: &[u8], length| Evidence::read(&mut bytes, length);
        assert_eq!(read(all.as_bytes(), 96).as_ref(), Some(&all));
        assert_eq!(read(all.as_bytes(), 95), None);
        assert_eq!(read(&all.as_bytes()[..95], 96), None);
        assert_eq!(read([[2; 32], [1; 32]].as_flattened(), 64), None);
        assert!(read(&[], 0).is_some_and(|none| none.is_empty()));
    }
}
