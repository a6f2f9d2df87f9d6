//! What was read of an image is not asked for again, and stands for nothing but itself.

use super::*;

#[test]
fn an_image_is_known_by_its_digest_in_its_own_repository() {
    let server = Server::start(State::default());
    let first = registry(AuthFile::default());
    round(&server, &first).unwrap();
    // The log is read once: whether there were requests since.
    let was_asked = || !server.log().is_empty();
    let by_tag = server.name("team/app:1");
    let image = first.image(&by_tag, &platform()).unwrap();
    let by_digest = by_tag.with_digest(image.digest.clone());
    assert!(was_asked());
    let again = first.image(&by_digest, &platform()).unwrap();
    assert_eq!((again.config_bytes, again.reference), (image.config_bytes.clone(), Some(by_digest.clone())));
    assert!(!was_asked());
    // A tag may have moved.
    first.image(&by_tag, &platform()).unwrap();
    assert!(was_asked());
    // In another repository it may not be.
    let elsewhere = server.name("other").with_digest(image.digest.clone());
    let _ = first.image(&elsewhere, &platform());
    assert!(was_asked());

    // What one client knows, another can be told, if it has a name.
    let second = registry(AuthFile::default());
    second.know(Image { reference: None, ..image.clone() });
    second.image(&by_digest, &platform()).unwrap();
    assert!(was_asked());
    let third = registry(AuthFile::default());
    first.known().into_iter().for_each(|image| third.know(image));
    assert_eq!(third.image(&by_digest, &platform()).unwrap().manifest_bytes, image.manifest_bytes);
    assert!(!was_asked());
}
