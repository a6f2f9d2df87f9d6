//! Passwords: shown to the registry and to its own token server, and to nobody else.

use super::*;

/// As another machine, as far as anyone can tell.
fn elsewhere(server: &Server) -> String {
    format!("http://{}", server.host.replace("127.0.0.1", "0.0.0.0"))
}

fn refusal(server: &Server) -> String {
    let (registry, name) = (registry(with_basic(&server.host)), server.name("team/app:1"));
    let error = registry.image(&name, &platform()).unwrap_err();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[test]
fn token_servers_of_strangers_get_nothing() {
    let stranger = Server::start(State::default());
    let realm = Some(format!("{}/token", elsewhere(&stranger)));
    let server = Server::start(State { basic: Some(BASIC.into()), bearer: true, realm, ..State::default() });
    let expected = format!(
        "{} names the token server {}, and that is another machine: the password was not sent; an access token (`registrytoken`) is shown to the registry alone",
        server.host,
        elsewhere(&stranger)
    );
    let text = refusal(&server);
    assert!(text.ends_with(&expected), "{text}");
    assert_eq!(stranger.log(), Vec::<String>::new());
}

/// What a registry says first is what counts, whatever it says when it is asked again.
#[test]
fn a_registry_that_changes_its_mind_sends_nobody_to_a_stranger() {
    for basic in [Some(BASIC.to_owned()), None] {
        let stranger = Server::start(State::default());
        let realm = Some(format!("{}/token", elsewhere(&stranger)));
        // For reading and for writing; who has no password does not ask.
        let (honest, greetings) = (Some(1), usize::from(basic.is_some()));
        let server = Server::start(State { basic: basic.clone(), realm, honest, ..State::default() });
        let auth = if basic.is_some() { with_basic(&server.host) } else { AuthFile::default() };
        round(&server, &registry(auth)).unwrap();
        assert_eq!(stranger.log(), Vec::<String>::new(), "{basic:?}");
        assert_eq!(server.log().iter().filter(|line| *line == "GET /v2/").count(), greetings, "{basic:?}");
    }
}

#[test]
fn who_has_no_password_is_not_sent_to_a_stranger_either() {
    let stranger = Server::start(State::default());
    let realm = Some(format!("{}/token", elsewhere(&stranger)));
    let server = Server::start(State { bearer: true, realm, ..State::default() });
    let (registry, name) = (registry(AuthFile::default()), server.name("team/app:1"));
    let said = |error: RegistryError| {
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    };
    let expected = format!(
        "{} names the token server {}, and that is another machine: the request for access was not sent; an access token (`registrytoken`) is shown to the registry alone",
        server.host,
        elsewhere(&stranger)
    );
    for error in [
        registry.image(&name, &platform()).unwrap_err(),
        registry.push_image(&name, &image()).unwrap_err(),
        registry.check_write(&name).unwrap_err(),
    ] {
        let text = said(error);
        assert!(text.ends_with(&expected), "{text}");
    }
    assert_eq!(stranger.log(), Vec::<String>::new());
}

/// A token server of the registry's own that leads elsewhere.
#[test]
fn who_has_no_password_is_not_sent_on() {
    let stranger = Server::start(State::default());
    let realm = Some(format!("http://{}/token", stranger.host));
    let door = Server::start(State { token_status: Some(307), realm, ..State::default() });
    let realm = Some(format!("http://{}/token", door.host));
    let server = Server::start(State { bearer: true, realm, ..State::default() });
    let error = registry(AuthFile::default()).image(&server.name("team/app:1"), &platform()).unwrap_err();
    assert!(error.is_denied(), "{error:?}");
    assert_eq!(door.log(), ["GET /token?scope=repository%3Ateam%2Fapp%3Apull&service=x"]);
    assert_eq!(stranger.log(), Vec::<String>::new());
}

#[test]
fn a_password_is_not_sent_on() {
    let stranger = Server::start(State::default());
    let realm = Some(format!("{}/token", elsewhere(&stranger)));
    let door = Server::start(State { token_status: Some(307), realm, ..State::default() });
    let realm = Some(format!("http://{}/token", door.host));
    let server = Server::start(State { basic: Some(BASIC.into()), bearer: true, realm, ..State::default() });
    let text = refusal(&server);
    let expected = format!(
        "the token server http://{} gives no access for the password (307 Temporary Redirect); an access token (`registrytoken`) is shown to the registry alone",
        door.host
    );
    assert!(text.ends_with(&expected), "{text}");
    assert_eq!(stranger.log(), Vec::<String>::new());
}

#[test]
fn a_password_that_is_not_taken() {
    let server = Server::start(State { basic: Some("another".into()), bearer: true, ..State::default() });
    let text = refusal(&server);
    let expected = format!(
        "the token server http://{} refuses the password (401 Unauthorized); log in again",
        server.host
    );
    assert!(text.ends_with(&expected), "{text}");
}

/// What comes of logging in, and what was asked for.
fn logged_in(state: State) -> (Result<bool, String>, Vec<String>, Vec<String>) {
    let server = Server::start(state);
    let registry = registry(with_basic(&server.host));
    let answer = registry.log_in(&server.name("any")).map_err(|error| {
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ").replace(&server.host, "HOST")
    });
    let shown = std::mem::take(&mut server.state.lock().unwrap().authorizations);
    (answer, server.log(), shown)
}

#[test]
fn a_password_is_shown_to_whom_asks_for_it() {
    let basic = || Some(BASIC.to_owned());
    let (answer, log, shown) = logged_in(State { basic: basic(), ..State::default() });
    assert_eq!((answer, log), (Ok(true), vec!["GET /v2/".to_owned(); 3]));
    assert_eq!(shown, ["", "", BASIC]);
    let (answer, log, _) = logged_in(State { basic: basic(), bearer: true, ..State::default() });
    assert_eq!((answer, log), (Ok(true), vec!["GET /v2/".to_owned(), "GET /token?service=x".to_owned()]));
    // Who lets everybody in cannot tell, and is shown nothing.
    let (answer, _, shown) = logged_in(State::default());
    assert_eq!((answer, shown), (Ok(false), vec![String::new(); 2]));
}

#[test]
fn a_login_that_fails_says_who_refused_what() {
    let wrong = || Some("another".to_owned());
    for (state, expected) in [
        (
            State { basic: wrong(), ..State::default() },
            "cannot log in to `HOST`: HOST refuses the name or the password (401 Unauthorized)",
        ),
        (
            State { basic: wrong(), bearer: true, ..State::default() },
            "cannot log in to `HOST`: the token server http://HOST refuses the password (401 Unauthorized); log in again",
        ),
        (
            State { gone: true, ..State::default() },
            "cannot log in to `HOST`: HOST answers 404 Not Found when asked who may come in; is it a registry?",
        ),
    ] {
        assert_eq!(logged_in(state).0, Err(expected.to_owned()));
    }
}

#[test]
fn where_content_is_elsewhere_nothing_is_shown_there() {
    for bearer in [false, true] {
        let (storage, image) = (Server::start(State::default()), image());
        let server = Server::start(State { basic: Some(BASIC.into()), bearer, ..State::default() });
        let registry = registry(with_basic(&server.host));
        registry.push_image(&server.name("team/app:1"), &image).unwrap();
        std::mem::swap(&mut storage.state.lock().unwrap().blobs, &mut server.state.lock().unwrap().blobs);
        server.state.lock().unwrap().elsewhere = Some(format!("http://{}", storage.host));
        let read = registry.image(&server.name("team/app:1"), &platform()).unwrap();
        assert_eq!(read.config_bytes, image.config_bytes);
        assert_eq!(storage.state.lock().unwrap().authorizations, [""]);
        assert!(server.state.lock().unwrap().authorizations.iter().any(|shown| !shown.is_empty()));
    }
}

#[test]
fn access_is_asked_for_once() {
    let server = Server::start(State { basic: Some(BASIC.into()), bearer: true, ..State::default() });
    let registry = registry(with_basic(&server.host));
    round(&server, &registry).unwrap();
    let asked: Vec<String> =
        server.log().into_iter().filter(|line| line.contains("/token") || line.ends_with("/v2/")).collect();
    let token = |acts: &str| format!("GET /token?scope=repository%3Ateam%2Fapp%3A{acts}&service=x");
    assert_eq!(asked, ["GET /v2/".to_owned(), token("pull"), token("pull%2Cpush")]);
}

/// Where the token server is, who has no password learns from the refusal of what it wanted.
#[test]
fn who_has_no_password_asks_for_no_more_than_it_wants() {
    let image = image();
    for bearer in [false, true] {
        let server = Server::start(State { bearer, ..State::default() });
        let (client, name) = (registry(AuthFile::default()), server.name("team/app:1"));
        client.push_image(&name, &image).unwrap();
        server.log();
        let client = registry(AuthFile::default());
        assert_eq!(client.image(&name, &platform()).unwrap().digest, image.digest);
        client.check_write(&name).unwrap();
        let digest = &image.manifest.config.digest;
        let empty = Digest::of("{}").as_str().replace(':', "%3A");
        let manifest = "GET /v2/team/app/manifests/1".to_owned();
        let token = |acts: &str| format!("GET /token?scope=repository%3Ateam%2Fapp%3A{acts}&service=x");
        let mut expected = vec![manifest.clone()];
        if bearer {
            expected.extend([token("pull"), manifest]);
        }
        expected.push(format!("GET /v2/team/app/blobs/{digest}"));
        expected.extend(bearer.then(|| token("pull%2Cpush")));
        expected.push(format!("POST /v2/team/app/blobs/uploads/?mount={empty}&from=team%2Fapp"));
        let log = server.log();
        assert_eq!(log[..log.len() - 1], expected, "{bearer}");
        assert!(log[log.len() - 1].starts_with("PUT /v2/app/blobs/uploads/1?digest="), "{log:?}");
    }
}
