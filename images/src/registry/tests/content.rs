//! Content in pieces, broken off, or another than was promised.

use std::io::Read;

use super::*;

fn large() -> Vec<u8> {
    (0..3_000_000u32).flat_map(u32::to_le_bytes).take(3_000_000).collect()
}

fn read_blob(server: &Server, descriptor: &Descriptor) -> std::io::Result<Vec<u8>> {
    let mut blob = registry(AuthFile::default()).blob(&server.name("app"), descriptor).unwrap();
    let mut bytes = Vec::new();
    blob.read_to_end(&mut bytes).map(|_| bytes)
}

#[test]
fn broken_connections_are_resumed() {
    let digest = Digest::of(large());
    let descriptor = Descriptor::new("x", digest.clone(), large().len() as u64);
    for ranges in [true, false] {
        let blobs = BTreeMap::from([(digest.to_string(), large())]);
        let server = Server::start(State { blobs, cuts: 2, ranges, ..State::default() });
        assert_eq!(read_blob(&server, &descriptor).unwrap(), large(), "ranges: {ranges}");
        assert_eq!(server.log().iter().filter(|line| line.contains("/blobs/")).count(), 3);
        // Each time from where it broke, half of what was left.
        let asked = server.state.lock().unwrap().ranges_asked.clone();
        assert_eq!(asked, ["bytes=1500000-", if ranges { "bytes=2250000-" } else { "bytes=1500000-" }]);
    }
    let blobs = BTreeMap::from([(digest.to_string(), large())]);
    let server = Server::start(State { blobs, troubles: 2, ..State::default() });
    assert_eq!(read_blob(&server, &descriptor).unwrap(), large());
}

/// Each answer is half of what is left. A connection that brings something each time may break often, one that does not may not.
#[test]
fn a_large_layer_may_break_often_and_one_that_does_not_come_only_a_few_times() {
    for (size, cuts, comes) in [(16 << 20, 8, true), (1 << 10, 8, false)] {
        let content = vec![7; size];
        let descriptor = Descriptor::new("x", Digest::of(&content), size as u64);
        let blobs = BTreeMap::from([(descriptor.digest.to_string(), content.clone())]);
        let server = Server::start(State { blobs, cuts, ranges: true, ..State::default() });
        assert_eq!(read_blob(&server, &descriptor).ok(), comes.then_some(content));
        let asked = server.log().iter().filter(|line| line.contains("/blobs/")).count();
        assert_eq!(asked, if comes { 1 + cuts } else { 1 + PAUSES.len() });
    }
}

#[test]
fn other_content_is_an_error() {
    let digest = Digest::of(large());
    let mut wrong = large();
    wrong[7] ^= 1;
    for (content, size) in [
        (wrong, large().len() as u64),
        (large(), large().len() as u64 - 1),
        ([large(), vec![0]].concat(), large().len() as u64),
    ] {
        let blobs = BTreeMap::from([(digest.to_string(), content)]);
        let server = Server::start(State { blobs, ..State::default() });
        let error = read_blob(&server, &Descriptor::new("x", digest.clone(), size)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
    }
}
