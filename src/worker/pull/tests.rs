use std::collections::BTreeMap;
use std::io::{self, Cursor};
use std::sync::atomic::AtomicUsize;

use coracle_images::{Descriptor, media};
use coracle_runtime::SubordinateRange;

use super::*;

/// An archive without entries, of this length, as one zstd frame with a window of 16 MiB (RFC 8878, section 3.1.1).
fn layer(length: u32) -> (Layer, Vec<u8>) {
    let block = (length << 3) | 0b011;
    let bytes = [&[0x28, 0xb5, 0x2f, 0xfd, 0, 0x70][..], &block.to_le_bytes()[..3], &[0]].concat();
    let descriptor = Descriptor::new(media::OCI_LAYER_ZSTD, Digest::of(&bytes), bytes.len() as u64);
    (Layer { descriptor, diff_id: Digest::of(vec![0; length as usize]) }, bytes)
}

/// Content that counts how much of it is open.
struct Counted<'a>(Cursor<Vec<u8>>, &'a AtomicUsize);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

static OPEN: AtomicUsize = AtomicUsize::new(0);

#[test]
fn of_many_layers_three_are_on_their_way_and_each_is_asked_for_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    let range = SubordinateRange { start: 100_000, count: 65_536 };
    let ids = IdMap { uids: range, gids: range };
    let made: Vec<(Layer, Vec<u8>)> = (2..42).map(|blocks| layer(blocks * 512)).collect();
    let bytes: BTreeMap<_, _> =
        made.iter().map(|(layer, bytes)| (layer.descriptor.digest.to_string(), bytes)).collect();
    let layers: Vec<Layer> = made.iter().map(|(layer, _)| layer.clone()).collect();
    let (most, asked) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let fetched = |layer: &Layer| -> Result<Content, AnyError> {
        most.fetch_max(OPEN.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let digest = layer.descriptor.digest.to_string();
        let content = Counted(Cursor::new(bytes[&digest].clone()), &OPEN);
        asked.lock().unwrap().push(digest);
        Ok(Unverified::new(Box::new(content)))
    };
    // One that lies ends it. How many others have come by then, the machine decides.
    let mut with_liar = layers.clone();
    with_liar[10].diff_id = Digest::of("something else");
    let limits = Limits::default();
    take_layers(&store, &with_liar, ids, &limits, &fetched).unwrap_err();
    let before = std::mem::take(&mut *asked.lock().unwrap()).len();
    assert!((11..=layers.len()).contains(&before), "{before}");

    take_layers(&store, &layers, ids, &limits, &fetched).unwrap();
    let mut asked = asked.into_inner().unwrap();
    let count = asked.len();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), count, "each once");
    assert!(count + before >= layers.len(), "{count} after {before}");
    assert!(layers.iter().all(|layer| store.layer_dir(&ids.key(), &layer.diff_id).is_some()));
    assert_eq!(OPEN.load(Ordering::SeqCst), 0);
    assert!(most.load(Ordering::SeqCst) <= PARALLEL_LAYERS, "{most:?}");
}
