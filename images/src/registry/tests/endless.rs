//! Registries whose answers have no end: what is read of them, and what is said.

use super::*;

/// More than what is read and what lies in the buffers of the connection, much less than what would come.
const FEW: u64 = 32 << 20;

/// How the digest of `content` ends.
const CONTENT: &str = "297b9ec9f73";

fn flooded(end: &'static str, status: u16, state: State) -> (Server, Registry) {
    let server = Server::start(State { endless: Some((end, status)), ..state });
    let registry = registry(AuthFile::default());
    (server, registry)
}

fn text(error: &RegistryError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn few(server: &Server) {
    let flood = server.state.lock().unwrap().flood;
    assert!(flood < FEW, "{flood} bytes");
}

#[test]
fn a_manifest_is_read_to_its_limit() {
    let (server, registry) = flooded("/manifests/1", 200, State::default());
    let name = server.name("app:1");
    let error = registry.image(&name, &platform()).unwrap_err();
    assert_eq!(
        text(&error),
        format!("the registry sends more than 4194304 bytes, the limit, as the manifest of `{name}`")
    );
    few(&server);
    // Whether it is there is seen without it.
    assert!(registry.can_read(&name).unwrap());
    few(&server);
}

#[test]
fn a_complaint_is_read_to_its_limit() {
    for (status, expected) in [(404, "the registry does not have it"), (403, "the registry refuses access")] {
        let (server, registry) = flooded("/manifests/1", status, State::default());
        let error = registry.image(&server.name("app:1"), &platform()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        few(&server);
    }
    let (server, registry) = flooded(CONTENT, 404, State::default());
    let descriptor = Descriptor::new("x", Digest::of("content"), 9);
    assert!(descriptor.digest.as_str().ends_with(CONTENT));
    let error = registry.blob(&server.name("app"), &descriptor).map(drop).unwrap_err();
    assert!(error.is_missing(), "{error}");
    few(&server);
}

#[test]
fn what_a_token_server_says_is_read_to_its_limit() {
    let (server, registry) = flooded("service=x", 200, State { bearer: true, ..State::default() });
    let error = registry.image(&server.name("app:1"), &platform()).unwrap_err();
    assert!(
        text(&error)
            .ends_with(&format!("the token server http://{} answers without an access token", server.host)),
        "{}",
        text(&error)
    );
    few(&server);
}

#[test]
fn what_is_said_to_who_writes_is_read_to_its_limit() {
    let name = |server: &Server| server.name("app:1");
    let digest = Digest::of("content");
    for (end, status, expected) in
        [("uploads/", 403, "refuses access"), ("uploads/", 500, ""), ("/manifests/1", 403, "refuses access")]
    {
        let (server, registry) = flooded(end, status, State::default());
        let error = match end {
            "uploads/" => registry.push_bytes(&name(&server), b"content").unwrap_err(),
            _ => registry.push_manifest(&name(&server), b"{}", "x/y").unwrap_err(),
        };
        assert!(error.to_string().contains(expected), "{error}");
        few_for_each_attempt(&server);
    }
    let (server, registry) = flooded(CONTENT, 400, State::default());
    assert!(registry.push_bytes(&name(&server), b"content").is_err());
    few(&server);
    let (server, registry) = flooded("&from=other", 403, State::default());
    let error = registry.mount_blob(&name(&server), &server.name("other"), &digest).unwrap_err();
    assert!(error.is_denied(), "{error}");
    few(&server);
}

/// What may pass is tried again.
fn few_for_each_attempt(server: &Server) {
    let flood = server.state.lock().unwrap().flood;
    assert!(flood < FEW * (PAUSES.len() as u64 + 1) / 2, "{flood} bytes");
}
