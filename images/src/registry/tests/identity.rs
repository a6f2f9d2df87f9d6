//! Identity tokens: exchanged with the registry's own token server, and shown to nobody else.

use super::*;

const SECRET: &str = "identity-of-somebody";

fn holder(host: &str) -> Registry {
    let mut auth = AuthFile::default();
    auth.insert(host, Credentials::Identity(SECRET.to_owned().into()));
    registry(auth)
}

fn server(identity: (&'static str, &'static str)) -> Server {
    Server::start(State { basic: Some(BASIC.into()), bearer: true, identity, ..State::default() })
}

fn forms(server: &Server) -> Vec<String> {
    server.state.lock().unwrap().forms.clone()
}

/// The error and its causes, as text. Nothing that may be printed holds the secret.
fn refusal(registry: &Registry, name: &Reference) -> String {
    let error = registry.image(name, &platform()).unwrap_err();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    let all = format!("{text} {error:?} {registry:?}");
    assert!(!all.contains(SECRET) && !all.contains("opaque"), "{all}");
    text
}

#[test]
fn access_is_for_one_repository_and_asked_for_once() {
    let server = server((SECRET, r#"{"access_token":"opaque","expires_in":300}"#));
    let registry = holder(&server.host);
    round(&server, &registry).unwrap();
    let form = |acts: &str| {
        let scope = format!("repository%3Ateam%2Fapp%3A{acts}");
        let who = format!("grant_type=refresh_token&client_id=coracle&refresh_token={SECRET}");
        format!("{who}&scope={scope}&service=x")
    };
    let mut seen = forms(&server);
    seen.sort();
    assert_eq!(seen, [form("pull%2Cpush"), form("pull")]);
    assert!(registry.can_read(&server.name("other:1")).unwrap());
    assert_eq!(forms(&server).len(), 3);
    assert!(!server.log().iter().any(|line| line.starts_with("GET /token")), "{:?}", server.log());
}

#[test]
fn access_that_ends_is_asked_for_again_with_the_token_that_came_last() {
    let server = server((SECRET, r#"{"token":"opaque","expires_in":0,"refresh_token":"newer"}"#));
    let (registry, name) = (holder(&server.host), server.name("team/app:1"));
    assert_eq!(registry.find_image(&name, &platform()).unwrap(), None);
    server.state.lock().unwrap().identity.0 = "newer";
    assert_eq!(registry.find_image(&name, &platform()).unwrap(), None);
    let renewed = |form: &String| form.contains("refresh_token=newer");
    assert_eq!(forms(&server).iter().map(renewed).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn access_for_longer_than_any_clock_runs_is_access() {
    let server = server((SECRET, r#"{"access_token":"opaque","expires_in":18446744073709551615}"#));
    assert_eq!(holder(&server.host).find_image(&server.name("team/app:1"), &platform()).unwrap(), None);
}

#[test]
fn a_token_that_is_not_taken() {
    let server = server(("of somebody else", "{}"));
    let (registry, name) = (holder(&server.host), server.name("team/app:1"));
    let text = refusal(&registry, &name);
    let expected = format!(
        "cannot read the manifest of `{name}`: the token server http://{} refuses the identity token \
         (400 Bad Request); log in again",
        server.host
    );
    assert_eq!(text, expected);
    assert!(!registry.can_write(&name).unwrap() && !registry.can_read(&name).unwrap());
}

#[test]
fn token_servers_of_strangers_get_nothing() {
    // Another machine, as far as anyone can tell: it is reached as 0.0.0.0.
    let stranger = Server::start(State::default());
    let elsewhere = format!("http://{}/token", stranger.host.replace("127.0.0.1", "0.0.0.0"));
    let server = server((SECRET, "{}"));
    server.state.lock().unwrap().realm = Some(elsewhere.clone());
    let text = refusal(&holder(&server.host), &server.name("team/app:1"));
    let expected = format!(
        "{} names the token server {}, and that is another machine: the identity token was not sent; \
         log in with a password",
        server.host,
        elsewhere.trim_end_matches("/token")
    );
    assert!(text.ends_with(&expected), "{text}");
    assert_eq!(stranger.log(), Vec::<String>::new());
}

#[test]
fn the_token_is_not_sent_on() {
    let stranger = Server::start(State::default());
    let door = Server::start(State {
        token_status: Some(307),
        realm: Some(format!("http://{}/token", stranger.host)),
        ..State::default()
    });
    let server = server((SECRET, "{}"));
    server.state.lock().unwrap().realm = Some(format!("http://{}/token", door.host));
    let text = refusal(&holder(&server.host), &server.name("team/app:1"));
    let expected = "gives no access for the identity token (307 Temporary Redirect); log in with a password";
    assert!(text.ends_with(expected), "{text}");
    assert_eq!(stranger.log(), Vec::<String>::new());
    assert_eq!(door.log(), ["POST /token"]);
}

#[test]
fn registries_that_know_no_tokens() {
    for (bearer, identity, expected) in [
        (
            false,
            (SECRET, "{}"),
            "names no token server, so an identity token is of no use there; log in with a password",
        ),
        (true, (SECRET, r#"{"expires_in":1}"#), "answers without an access token"),
    ] {
        let server = Server::start(State { basic: Some(BASIC.into()), bearer, identity, ..State::default() });
        let text = refusal(&holder(&server.host), &server.name("team/app:1"));
        assert!(text.ends_with(expected), "{text}");
    }
}

#[test]
fn a_registry_that_does_not_answer_with_tls() {
    let server = server((SECRET, "{}"));
    // Not loopback by its name, and so spoken to in TLS.
    let host = server.host.replace("127.0.0.1", "127.1");
    let name: Reference = format!("{host}/team/app:1").parse().unwrap();
    let text = refusal(&holder(&host), &name);
    let expected = format!(
        "{host} does not answer when asked for access: it does not answer with TLS; \
         if {host} speaks plain HTTP: --insecure-registry {host}"
    );
    assert!(text.contains(&expected), "{text}");
    assert_eq!(forms(&server), Vec::<String>::new());
}
