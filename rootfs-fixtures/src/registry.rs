//! A real registry: Debian's `docker-registry` on a free port of loopback, with a folder of its own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::image::{Image, MediaTypes};

/// Who may do what, and over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryAccess {
    /// Plain HTTP, everyone.
    Open,
    /// Plain HTTP, one user with a password.
    Password,
    /// HTTPS with a certificate of an authority made for this registry, everyone.
    Tls,
}

/// A running registry; it ends when this is dropped.
#[derive(Debug)]
pub struct DockerRegistry {
    child: Child,
    folder: TempDir,
    port: u16,
    access: RegistryAccess,
}

/// The user of a registry with [`RegistryAccess::Password`].
pub const USER: &str = "tester";
/// That user's password.
pub const PASSWORD: &str = "not-a-secret";

impl DockerRegistry {
    /// Starts a registry and waits until it answers.
    pub fn start(access: RegistryAccess) -> Self {
        let folder = tempfile::Builder::new().prefix("coracle-registry-").tempdir().expect("make a folder");
        match access {
            RegistryAccess::Open => {}
            RegistryAccess::Password => {
                let line = run(Command::new("htpasswd").args(["-Bbn", USER, PASSWORD])).stdout;
                fs::write(folder.path().join("htpasswd"), line).expect("write htpasswd");
            }
            RegistryAccess::Tls => make_certificates(folder.path()),
        }
        // Another process may take the port between its choice and its use.
        for _ in 0..5 {
            let port = free_port();
            let mut child = serve(folder.path(), port, access);
            if answers(&mut child, port) {
                return Self { child, folder, port, access };
            }
            child.kill().and_then(|()| child.wait()).expect("end a registry that does not answer");
        }
        let log = fs::read_to_string(folder.path().join("errors")).unwrap_or_default();
        panic!("docker-registry does not start (scripts/setup installs it):\n{log}");
    }

    /// Without credentials and TLS.
    pub fn open() -> Self {
        Self::start(RegistryAccess::Open)
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `127.0.0.1:PORT/NAME`
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address())
    }

    /// The authority to trust, as PEM; only with [`RegistryAccess::Tls`].
    pub fn ca_bundle(&self) -> Option<PathBuf> {
        (self.access == RegistryAccess::Tls).then(|| self.folder.path().join("certificates/ca.crt"))
    }

    /// The Docker configuration (`config.json`) with this registry's credentials.
    pub fn docker_config(&self) -> String {
        // base64 of "tester:not-a-secret"
        let auth = "dGVzdGVyOm5vdC1hLXNlY3JldA==";
        match self.access {
            RegistryAccess::Password => {
                format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{auth}\"}}}}}}", self.address())
            }
            _ => "{\"auths\":{}}".to_owned(),
        }
    }

    /// One line for each request, in the common log format.
    pub fn access_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("access")).expect("read the access log")
    }

    /// The folder with the registry's content, for tests that damage it.
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("storage/docker/registry/v2")
    }

    /// Pushes an image with `skopeo` as `NAME:TAG`; gives the reference by digest.
    pub fn push(&self, image: &Image, name: &str, tag: &str) -> String {
        let source = tempfile::tempdir_in(self.folder.path()).expect("make a folder");
        image.write_dir(source.path());
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet", "--preserve-digests"]);
        command.args(self.skopeo_flags("dest-"));
        command.arg(format!("dir:{}", source.path().display()));
        command.arg(format!("docker://{}/{name}:{tag}", self.address()));
        run(&mut command);
        format!("{}/{name}@{}", self.address(), image.digest())
    }

    /// Puts an index (a manifest list, in Docker's words) of these images at `NAME:TAG`; an open registry only. The images
    /// are pushed before, and one of another architecture stands before each.
    pub fn push_index(&self, images: &[Image], name: &str, tag: &str) {
        let mut manifests = Vec::new();
        for (number, image) in images.iter().enumerate() {
            let mut other = image.clone();
            other.architecture = "s390x".to_owned();
            for image in [&other, image] {
                self.push(image, name, &format!("part-{number}-{}", image.architecture));
                let platform = json!({ "os": image.os, "architecture": image.architecture });
                let mut entry = image.descriptor();
                entry["platform"] = platform;
                manifests.push(entry);
            }
        }
        let kind = match images.first().map(|image| image.media_types) {
            Some(MediaTypes::Docker) => "application/vnd.docker.distribution.manifest.list.v2+json",
            _ => "application/vnd.oci.image.index.v1+json",
        };
        let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": manifests }).to_string();
        let mut stream = TcpStream::connect(self.address()).expect("reach the registry");
        let head = format!(
            "PUT /v2/{name}/manifests/{tag} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.address(),
            index.len()
        );
        let mut answer = String::new();
        stream.write_all(format!("{head}{index}").as_bytes()).expect("send the index");
        stream.read_to_string(&mut answer).expect("read the registry's answer");
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    /// The manifest of `NAME:TAG` or `NAME@DIGEST` as stored, read with `skopeo`.
    pub fn manifest(&self, name: &str) -> Vec<u8> {
        self.inspect(name, &["--raw"])
    }

    /// The configuration of an image as stored, read with `skopeo`.
    pub fn config(&self, name: &str) -> Vec<u8> {
        self.inspect(name, &["--raw", "--config"])
    }

    fn inspect(&self, name: &str, flags: &[&str]) -> Vec<u8> {
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "inspect"]).args(flags).args(self.skopeo_flags(""));
        command.arg(format!("docker://{}/{name}", self.address()));
        run(&mut command).stdout
    }

    fn skopeo_flags(&self, side: &str) -> Vec<String> {
        match self.access {
            RegistryAccess::Open => vec![format!("--{side}tls-verify=false")],
            RegistryAccess::Password => {
                vec![format!("--{side}tls-verify=false"), format!("--{side}creds={USER}:{PASSWORD}")]
            }
            RegistryAccess::Tls => {
                vec![format!("--{side}cert-dir={}", self.folder.path().join("certificates").display())]
            }
        }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody left to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("take a port of loopback");
    listener.local_addr().expect("the address of a listener").port()
}

fn serve(folder: &Path, port: u16, access: RegistryAccess) -> Child {
    let root = folder.display();
    let mut config = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {root}/storage\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n"
    );
    match access {
        RegistryAccess::Open => {}
        RegistryAccess::Password => config
            .push_str(&format!("auth:\n  htpasswd:\n    realm: coracle tests\n    path: {root}/htpasswd\n")),
        RegistryAccess::Tls => config
            .push_str(&format!("  tls:\n    certificate: {root}/server.crt\n    key: {root}/server.key\n")),
    }
    let path = folder.join("config.yml");
    fs::write(&path, config).expect("write the registry's configuration");
    Command::new("docker-registry")
        .arg("serve")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(File::create(folder.join("access")).expect("make the access log"))
        .stderr(File::create(folder.join("errors")).expect("make the error log"))
        .spawn()
        .unwrap_or_else(|error| panic!("start docker-registry (scripts/setup installs it): {error}"))
}

fn answers(child: &mut Child, port: u16) -> bool {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        if child.try_wait().expect("ask for the registry's status").is_some() {
            return false;
        }
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

/// An authority, and a certificate of its for 127.0.0.1 and localhost.
fn make_certificates(folder: &Path) {
    let certificates = folder.join("certificates");
    fs::create_dir(&certificates).expect("make a folder");
    let openssl = |arguments: &str| {
        run(Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder));
    };
    fs::write(folder.join("san"), "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n")
        .expect("write the certificate's names");
    openssl("ecparam -genkey -name prime256v1 -noout -out ca.key");
    openssl("ecparam -genkey -name prime256v1 -noout -out server.key");
    openssl("req -x509 -new -key ca.key -days 2 -subj /CN=fixture-authority -out certificates/ca.crt");
    openssl("req -new -key server.key -subj /CN=localhost -out server.csr");
    openssl(
        "x509 -req -in server.csr -CA certificates/ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.crt",
    );
}

fn run(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("start {name} (scripts/setup installs it): {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} ended with {}:\n{said}", output.status);
    output
}
