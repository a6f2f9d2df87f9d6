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

/// Content that takes a while over one connection, and the registry that has it.
fn slow(size: usize, state: State) -> (Server, Descriptor, Vec<u8>) {
    let content: Vec<u8> = (0..size).map(|place| (place / 251 % 253) as u8).collect();
    let descriptor = Descriptor::new("x", Digest::of(&content), size as u64);
    let blobs = BTreeMap::from([(descriptor.digest.to_string(), content.clone())]);
    let pace = Some(std::time::Duration::from_millis(8));
    (Server::start(State { blobs, pace, ..state }), descriptor, content)
}

const MIB: usize = 1 << 20;

#[test]
fn what_comes_slowly_comes_by_ranges_each_byte_once() {
    let size = 30 * MIB + 12_345;
    let (server, descriptor, content) = slow(size, State { ranges: true, ..State::default() });
    assert!(read_blob(&server, &descriptor).unwrap() == content);
    let mut asked: Vec<(usize, usize)> = server
        .state
        .lock()
        .unwrap()
        .ranges_asked
        .iter()
        .map(|range| {
            let (from, last) = range.trim_start_matches("bytes=").split_once('-').unwrap();
            (from.parse().unwrap(), last.parse::<usize>().unwrap() + 1)
        })
        .collect();
    asked.sort_unstable();
    assert!(asked.len() >= 5, "{asked:?}");
    assert!(asked.windows(2).all(|two| two[0].1 == two[1].0), "{asked:?}");
    assert!(asked.iter().all(|(from, to)| to - from <= 2 * MIB) && asked.last().unwrap().1 == size);
    let requests = server.log().iter().filter(|line| line.contains("/blobs/")).count();
    assert_eq!(requests, 1 + asked.len());
}

#[test]
fn a_registry_without_ranges_goes_on_with_what_it_had_begun() {
    let (server, descriptor, content) = slow(24 * MIB, State::default());
    assert!(read_blob(&server, &descriptor).unwrap() == content);
    let requests = server.log().iter().filter(|line| line.contains("/blobs/")).count();
    // Three were tried at once, once; the first answer ends those that have not arrived by then.
    let ranges = server.state.lock().unwrap().ranges_asked.len();
    assert!((1..=3).contains(&ranges) && requests == 1 + ranges, "{requests} {ranges}");
}

#[test]
fn ranges_that_break_off_are_resumed_over_one_connection() {
    for part_cuts in [1, 2, 20] {
        let state = State { ranges: true, part_cuts, ..State::default() };
        let (server, descriptor, content) = slow(24 * MIB, state);
        assert!(read_blob(&server, &descriptor).unwrap() == content, "{part_cuts}");
        // The first that breaks ends all of them.
        let asked = server.state.lock().unwrap().ranges_asked.clone();
        assert_eq!(asked.iter().filter(|range| range.ends_with('-')).count(), 1, "{asked:?}");
    }
}

#[test]
fn of_all_that_is_read_at_once_so_many_ranges_are_on_their_way() {
    let (server, descriptor, content) = slow(24 * MIB, State { ranges: true, ..State::default() });
    let registry = registry(AuthFile::default());
    let all = Arc::clone(&registry.ranges);
    let before = all.available_permits();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut blob = registry.blob(&server.name("app"), &descriptor).unwrap();
                let mut bytes = Vec::new();
                blob.read_to_end(&mut bytes).unwrap();
                assert!(bytes == content);
            });
        }
    });
    // Given back, every one.
    assert_eq!((before, all.available_permits()), (3, 3));
    // Who ends early gives them back, too.
    let mut blob = registry.blob(&server.name("app"), &descriptor).unwrap();
    blob.read_exact(&mut vec![0; 16 * MIB]).unwrap();
    drop(blob);
    assert_eq!(all.available_permits(), 3);
}

#[test]
fn other_content_is_an_error() {
    let digest = Digest::of(large());
    let mut wrong = large();
    wrong[7] ^= 1;
    let other = format!("the registry sent {} for {digest}", Digest::of(&wrong));
    let more = |size: u64| format!("the registry sent more than {size} bytes for {digest}");
    for (content, size, expected) in [
        (wrong, 3_000_000, other),
        (large(), 2_999_999, more(2_999_999)),
        ([large(), vec![0]].concat(), 3_000_000, more(3_000_000)),
    ] {
        let blobs = BTreeMap::from([(digest.to_string(), content)]);
        let server = Server::start(State { blobs, ..State::default() });
        let error = read_blob(&server, &Descriptor::new("x", digest.clone(), size)).unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (std::io::ErrorKind::InvalidData, expected));
    }
}

/// An index with one image, or another index, for our platform.
fn index_of(digest: Digest) -> Vec<u8> {
    let entry = Descriptor { platform: Some(platform()), ..Descriptor::new(media::OCI_MANIFEST, digest, 1) };
    serde_json::to_vec(&Index { manifests: vec![entry], ..Index::default() }).unwrap()
}

#[test]
fn t36_indexes_that_lead_to_indexes() {
    let entry = |media: &str, bytes: Vec<u8>| (Digest::of(&bytes).to_string(), (media.to_owned(), bytes));
    let image = image();
    let mut state = State::default();
    state.blobs.insert(image.manifest.config.digest.to_string(), image.config_bytes.clone());
    state.manifests.extend([entry(media::OCI_MANIFEST, image.manifest_bytes.clone())]);
    let mut last = image.digest.clone();
    for depth in 1..=4 {
        let index = index_of(last);
        last = Digest::of(&index);
        state.manifests.insert(format!("depth-{depth}"), (media::OCI_INDEX.to_owned(), index.clone()));
        state.manifests.extend([entry(media::OCI_INDEX, index)]);
    }
    // One that names itself: no bytes hold their own digest, so what comes is not what was named.
    let named = Digest::of("itself");
    for name in ["itself", named.as_ref()] {
        state.manifests.insert(name.to_owned(), (media::OCI_INDEX.to_owned(), index_of(named.clone())));
    }
    let server = Server::start(state);
    let read = |tag: &str| {
        let name = server.name(&format!("team/app:{tag}"));
        let read = registry(AuthFile::default()).image(&name, &platform());
        read.map(|image| image.digest).map_err(|error| error.to_string().replace(&name.to_string(), "IMAGE"))
    };
    for depth in [1, 2] {
        assert_eq!(read(&format!("depth-{depth}")), Ok(image.digest.clone()));
    }
    for depth in [3, 4] {
        server.log();
        let expected = "the image `IMAGE` is an index of indexes, too deep to follow";
        assert_eq!(read(&format!("depth-{depth}")).unwrap_err(), expected);
        let asked = server.log().iter().filter(|line| line.contains("/manifests/")).count();
        assert_eq!(asked, 3);
    }
    let sent = Digest::of(index_of(named.clone()));
    let repository = server.name("team/app");
    let repository = format!("{}/{}", repository.registry, repository.repository);
    let expected =
        format!("the registry sent the manifest {sent} for `{repository}@{named}`, expected {named}");
    assert_eq!(read("itself").unwrap_err(), expected);
}
