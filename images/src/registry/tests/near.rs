//! Names that lead to this machine, its cloud or its network, in a network of their own: what a name means there, this test says.

use std::io::Read as _;
use std::process::Command;

use super::*;

/// Set for a test that runs in a network of its own.
const INSIDE: &str = "CORACLE_TEST_INSIDE";

const HOSTS: &str = "203.0.113.5 registry.example
127.0.0.1 machine.registry.example near.example proxy.example
169.254.169.254 cloud.registry.example
10.0.0.9 private.registry.example private.example auth.private.example
203.0.113.6 many.registry.example
127.0.0.1 many.registry.example
";

const SCRIPT: &str = r#"set -e
mount --bind "$1" /etc/hosts
ip link set lo up
for address in 203.0.113.5 203.0.113.6 169.254.169.254 10.0.0.9; do ip address add "$address/32" dev lo; done
exec "$2" --exact "registry::tests::near::$3" --nocapture"#;

/// Whether this is a network of its own. If not, the test of this name was run in one.
fn is_apart(test: &str, proxy: Option<&str>) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let hosts = tempfile::NamedTempFile::new().unwrap();
    fs::write(hosts.path(), HOSTS).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", SCRIPT, "sh"]);
    command.arg(hosts.path()).arg(std::env::current_exe().unwrap()).arg(test).env(INSIDE, "");
    command.envs(proxy.map(|proxy| ("http_proxy", proxy)));
    let output = command.output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// A registry that is known by a name.
struct Named {
    server: Server,
    host: String,
}

impl Named {
    fn new(address: &str, name: &str, state: State) -> Self {
        let server = Server::start_at(address, state);
        let host = server.host.replace(address, name);
        Self { server, host }
    }

    fn client(&self, auth: AuthFile) -> Registry {
        let insecure = vec![self.host.clone()];
        Registry::new(RegistryOptions { insecure, auth, ..RegistryOptions::default() }).unwrap()
    }

    fn name(&self) -> Reference {
        format!("{}/app:1", self.host).parse().unwrap()
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let descriptor = Descriptor::new("x", Digest::of("content"), 7);
        let mut blob = self.client(AuthFile::default()).blob(&self.name(), &descriptor).map_err(shown)?;
        blob.read_to_end(&mut bytes).map(|_| bytes).map_err(|error| error.to_string())
    }

    fn write(&self) -> Result<Pushed, String> {
        self.client(AuthFile::default()).push_bytes(&self.name(), b"other").map_err(shown)
    }
}

fn shown(error: RegistryError) -> String {
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Whom a registry leads to, with its address under a name.
fn neighbour(address: &str, name: &str) -> (Server, String) {
    let blobs = BTreeMap::from([(Digest::of("content").to_string(), b"content".to_vec())]);
    let server = Server::start_at(address, State { blobs, ..State::default() });
    let place = format!("http://{}", server.host.replace(address, name));
    (server, place)
}

#[test]
fn a_name_leads_nowhere_where_its_registry_is_not() {
    if !is_apart("a_name_leads_nowhere_where_its_registry_is_not", None) {
        return;
    }
    for (address, name, what) in [
        ("127.0.0.1", "machine.registry.example", "an address of this machine"),
        ("169.254.169.254", "cloud.registry.example", "a link-local address or a cloud's own"),
        ("10.0.0.9", "private.registry.example", "an address of a private network"),
    ] {
        let (there, place) = neighbour(address, name);
        let of = |state| Named::new("203.0.113.5", "registry.example", state);
        let read = of(State { elsewhere: Some(place.clone()), ..State::default() }).read();
        let upload = format!("{place}/v2/app/blobs/uploads/1").leak();
        let sent = of(State { uploads: Some(upload), ..State::default() }).write();
        let may_store = address == "10.0.0.9";
        if may_store {
            assert_eq!((read, sent), (Ok(b"content".to_vec()), Ok(Pushed::Sent)));
            assert_eq!(there.log().len(), 2);
        } else {
            let end =
                format!("registry.example leads to {name}, and {address} is {what}: nothing was asked there");
            for text in [read.unwrap_err(), sent.unwrap_err()] {
                assert!(text.ends_with(&end), "{text}");
            }
        }
        for shown_there in ["request for access", "password"] {
            let access =
                of(State { realm: Some(format!("{place}/token")), bearer: true, ..State::default() });
            let auth = if shown_there == "password" { with_basic(&access.host) } else { AuthFile::default() };
            let denied = access.client(auth).image(&access.name(), &platform()).map_err(shown).unwrap_err();
            let why = match may_store {
                true => "its name leads into a private network, where the registry is not",
                false => "its name leads to this machine or its neighbour",
            };
            let end = format!(
                "{} names the token server {place}, and {why}: the {shown_there} was not sent; an access token (`registrytoken`) is shown to the registry alone",
                access.host
            );
            assert!(denied.ends_with(&end), "{denied}");
            // Once: that does not pass.
            assert_eq!(access.server.log().len(), 1);
        }
        assert_eq!(there.log(), Vec::<String>::new());
    }
}

#[test]
fn a_registry_leads_to_what_is_as_near_as_itself() {
    if !is_apart("a_registry_leads_to_what_is_as_near_as_itself", None) {
        return;
    }
    for (address, name, neighbour_s) in [
        ("127.0.0.1", "near.example", "machine.registry.example"),
        ("10.0.0.9", "private.example", "private.registry.example"),
    ] {
        let (_there, place) = neighbour(address, neighbour_s);
        let registry = Named::new(address, name, State { elsewhere: Some(place), ..State::default() });
        assert_eq!(registry.read(), Ok(b"content".to_vec()));
    }
    let (_there, place) = neighbour("10.0.0.9", "auth.private.example");
    let state = State { realm: Some(format!("{place}/token")), bearer: true, ..State::default() };
    let access = Named::new("10.0.0.9", "private.example", state);
    for auth in [AuthFile::default(), with_basic(&access.host)] {
        assert_eq!(access.client(auth).find_image(&access.name(), &platform()).unwrap(), None);
    }
}

#[test]
fn of_two_addresses_of_a_name_the_near_one_is_not_tried() {
    if !is_apart("of_two_addresses_of_a_name_the_near_one_is_not_tried", None) {
        return;
    }
    // Nobody answers at the other.
    let (there, place) = neighbour("127.0.0.1", "many.registry.example");
    let state = State { elsewhere: Some(place), ..State::default() };
    assert!(Named::new("203.0.113.5", "registry.example", state).read().is_err());
    assert_eq!(there.log(), Vec::<String>::new());
}

#[test]
fn a_registry_s_own_name_does_not_lead_nearer_the_next_time() {
    if !is_apart("a_registry_s_own_name_does_not_lead_nearer_the_next_time", None) {
        return;
    }
    let registry = Named::new("203.0.113.5", "registry.example", State::default());
    let client = registry.client(AuthFile::default());
    assert!(!client.can_read(&registry.name()).unwrap());
    let port = registry.host.rsplit_once(':').unwrap().1;
    let here = std::net::TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
    let (asked, were_asked) = std::sync::mpsc::channel();
    // Whoever comes is sent away.
    thread::spawn(move || here.incoming().try_for_each(|_| asked.send(())));
    fs::write("/etc/hosts", "127.0.0.1 registry.example\n").unwrap();
    let text = client.can_read(&registry.name()).map_err(shown).unwrap_err();
    let end = "registry.example leads to registry.example, and 127.0.0.1 is an address of this machine: nothing was asked there";
    assert!(text.ends_with(end), "{text}");
    assert_eq!(were_asked.try_iter().count(), 0);
}

#[test]
fn a_proxy_is_where_the_user_says() {
    if !is_apart("a_proxy_is_where_the_user_says", Some("http://proxy.example:3128")) {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:3128").unwrap();
    let (asked, were_asked) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = [0; 28];
            let _ = stream.read_exact(&mut line);
            asked.send(String::from_utf8_lossy(&line).into_owned()).unwrap();
        }
    });
    let registry = Named::new("203.0.113.5", "registry.example", State::default());
    let _ = registry.client(AuthFile::default()).can_read(&registry.name());
    assert!(were_asked.try_iter().any(|line| line.contains(" http://registry.exampl")));
}
