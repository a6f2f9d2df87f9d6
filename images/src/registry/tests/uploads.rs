//! Where registries want content to be sent.

use super::*;

fn pushed(uploads: &'static str) -> (Server, Result<Pushed, String>) {
    let state = State { uploads: Some(uploads), basic: Some(BASIC.to_owned()), ..State::default() };
    let server = Server::start(state);
    let registry = registry(with_basic(&server.host));
    let pushed = registry.push_bytes(&server.name("app:1"), b"content").map_err(|error| {
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    });
    (server, pushed)
}

#[test]
fn content_goes_where_the_registry_says_and_the_password_to_the_registry_alone() {
    // By its path, and with what it wants to hear again.
    let (server, taken) = pushed("/v2/app/blobs/uploads/2?state=a%2Fb");
    assert_eq!(taken, Ok(Pushed::Sent));
    let log = server.log();
    assert!(
        log[log.len() - 1].starts_with("PUT /v2/app/blobs/uploads/2?state=a%2Fb&digest=sha256"),
        "{log:?}"
    );
    // Elsewhere.
    let other = Server::start(State::default());
    let place: &'static str = format!("http://{}/v2/app/blobs/uploads/3", other.host).leak();
    assert_eq!(pushed(place).1, Ok(Pushed::Sent));
    assert_eq!(other.state.lock().unwrap().authorizations, [""]);
}

#[test]
fn what_is_no_place_for_content_is_refused_by_name() {
    let (server, refused) = pushed("");
    let start = format!("cannot send content to `{}`: ", server.name("app:1"));
    let expected = "it began an upload and did not say where (its answer has no Location)";
    assert_eq!(refused, Err(format!("{start}OCI distribution spec violation: {expected}")));
    let refused = pushed("file:///etc/passwd").1.unwrap_err();
    assert!(
        refused.ends_with("it wants content to be sent to file:///etc/passwd, which is no web address"),
        "{refused}"
    );
}
