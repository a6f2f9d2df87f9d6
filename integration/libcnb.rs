//! A buildpack made with libcnb, the demo's: a framework's idea of what a lifecycle hands to buildpacks, and takes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::available_parallelism;

use coracle_fixtures::{DockerRegistry, RunImage, demo, demo_buildpack};
use serde_json::Value;

use crate::harness::{Ran, TestHome};

const LAUNCHER: &str = "/cnb/lifecycle/launcher";

/// A home with the demo's site as `app`, and a builder, `made`, of the demo's buildpack for sites.
struct Kitchen {
    registry: DockerRegistry,
    home: TestHome,
}

impl Kitchen {
    fn new() -> Self {
        let registry = DockerRegistry::open();
        registry.push(&RunImage::new().image(), "base", "latest");
        let home = TestHome::new();
        let (source, app) = (demo("applications/site"), home.path().join("app"));
        let copied = Command::new("cp").arg("-r").args([source, app]).status();
        assert!(copied.expect("start cp").success());
        let (base, config) = (registry.reference("base"), home.path().join("builder.toml"));
        let buildpack = demo_buildpack("site").display().to_string();
        let text = format!(
            "[[buildpacks]]\nuri = \"{buildpack}\"\n[[order]]\n[[order.group]]\nid = \"coracle/site\"\nversion = \"0.1.0\"\n[build]\nimage = \"{base}\"\n[[run.images]]\nimage = \"{base}\"\n"
        );
        fs::write(&config, text).expect("write builder.toml");
        home.ok(&["builder", "create", "made", "--config", config.to_str().expect("a path")]);
        Self { registry, home }
    }

    fn build(&self, image: &str, more: &[&str]) -> Ran {
        let app = self.home.path().join("app").display().to_string();
        let ran = self.home.ok(&[&["build", image, "--path", &app, "--builder", "made"][..], more].concat());
        assert_eq!(self.home.leftovers(), Vec::<String>::new());
        ran
    }

    fn page(&self) -> PathBuf {
        self.home.path().join("app/public/index.html")
    }
}

fn assert_lines(ran: &Ran, lines: &[&str]) {
    for line in lines {
        assert!(ran.stdout.lines().any(|found| found == *line), "{line}\n{}", ran.stdout);
    }
}

/// A web process of the image, which ends with this.
struct Server {
    child: Child,
    lines: BufReader<ChildStdout>,
    port: u16,
    started: String,
}

impl Server {
    fn start(home: &TestHome, image: &str, more: &[&str]) -> Self {
        let args = [&["run", "--env", "PORT=0"][..], more, &[image]].concat();
        let mut child = home.command(&args).stdout(Stdio::piped()).spawn().expect("start coracle");
        let lines = BufReader::new(child.stdout.take().expect("standard output"));
        let mut server = Self { child, lines, port: 0, started: String::new() };
        server.started = server.line();
        let port = server.started.split(' ').nth(3).and_then(|word| word.parse().ok());
        server.port = port.unwrap_or_else(|| panic!("no port in: {}", server.started));
        server
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("read a line");
        line.trim_end().to_owned()
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connect");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("ask");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read the answer");
        answer
    }
}

impl Drop for Server {
    /// Whatever `coracle` started ends with it.
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        assert!(ended.is_ok() || std::thread::panicking(), "could not end coracle: {ended:?}");
    }
}

#[test]
fn layers_and_the_store_come_back_and_are_made_again_when_the_source_changes() {
    let kitchen = Kitchen::new();
    let first = kitchen.build("app", &[]);
    assert_lines(
        &first,
        &[
            "[detector] coracle/site@0.1.0",
            "[builder] ---> for linux amd64 debian 12",
            "[builder] ---> server: adding 0.1.0",
            "[builder] ---> pages: listing public",
            "[builder] ---> files: 2, the last time none",
            "[exporter] Adding layer 'coracle/site:server'",
        ],
    );
    let again = kitchen.build("app", &[]);
    let kept = ["[builder] ---> server: nothing changed", "[exporter] Reusing layer 'coracle/site:server'"];
    assert_lines(&again, &kept);
    assert_lines(
        &again,
        &["[builder] ---> pages: nothing changed", "[builder] ---> files: 2, the last time 2"],
    );
    assert_eq!(first.stdout.lines().last(), again.stdout.lines().last(), "another image");

    fs::write(kitchen.page(), "changed").expect("change a page");
    let changed = kitchen.build("app", &[]);
    assert_lines(&changed, &kept);
    assert_lines(
        &changed,
        &["[builder] ---> pages: listing public", "[exporter] Adding layer 'coracle/site:pages'"],
    );
    let checked = kitchen.home.ok(&["run", "--entrypoint", "check", "app"]);
    assert_eq!(checked.stdout, "2 files as they were built\n");
}

#[test]
fn a_source_without_pages_is_not_detected() {
    let kitchen = Kitchen::new();
    fs::remove_file(kitchen.page()).expect("remove the page");
    let app = kitchen.home.path().join("app").display().to_string();
    let ran = kitchen.home.run(&["build", "app", "--path", &app, "--builder", "made"]);
    assert_eq!(ran.code, Some(20), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn the_web_process_answers_with_what_layers_and_exec_d_set() {
    let kitchen = Kitchen::new();
    kitchen.build("app", &[]);
    let processors = available_parallelism().expect("count processors");
    for runtime in ["youki", "crun", "runc"] {
        let mut server = Server::start(&kitchen.home, "app", &["--runtime", runtime]);
        assert!(server.started.ends_with(&format!(" with {processors} threads")), "{}", server.started);
        let page = server.get("/");
        assert!(page.contains(&format!("served by {processors} threads")), "{runtime}: {page}");
        assert!(page.contains("Content-Type: text/html\r\n"), "{page}");
        assert_eq!(server.line(), "GET / HTTP/1.1 -> 200 OK", "{runtime}: the process's own variable");
    }
    // exec.d sees what the user set; .append and .delim put the layer's behind it; .default gives way.
    let own = ["-e", "SITE_THREADS=3", "-e", "SITE_TYPES=css=text/own", "-e", "SITE_LOG=no"];
    let mut server = Server::start(&kitchen.home, "app", &own);
    assert!(server.get("/?a=b").contains("served by 3 threads"));
    assert!(server.get("/assets/style.css").contains("Content-Type: text/own\r\n"));
    assert!(server.get("/../listing").starts_with("HTTP/1.1 404 "));
    server.child.kill().expect("end coracle");
    assert_eq!(server.line(), "", "nothing is logged");
}

#[test]
fn what_the_image_says_of_itself() {
    let kitchen = Kitchen::new();
    let name = kitchen.registry.reference("site");
    kitchen.build(&name, &["--publish"]);
    let config: Value = serde_json::from_slice(&kitchen.registry.config("site")).expect("a configuration");
    let labels = &config["config"]["Labels"];
    assert_eq!(labels["io.coracle.site.files"], "2");
    let label = |name: &str| -> Value {
        let text = labels[name].as_str().unwrap_or_else(|| panic!("no label {name}"));
        serde_json::from_str(text).expect("a label of JSON")
    };
    let app = label("io.buildpacks.lifecycle.metadata")["app"].clone();
    assert_eq!(app.as_array().map(Vec::len), Some(2), "the slice and the rest: {app}");
    let processes = label("io.buildpacks.build.metadata")["processes"].clone();
    let types: Vec<&str> =
        processes.as_array().into_iter().flatten().filter_map(|p| p["type"].as_str()).collect();
    assert_eq!(types, ["check", "web"]);
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/cnb/process/web"]));

    kitchen.home.ok(&["pull", &name]);
    let script = "cat /layers/sbom/launch/coracle_site/sbom.cdx.json /layers/sbom/launch/coracle_site/server/sbom.cdx.json; \
        echo $PORT ${SITE_TYPES%%,*} $SITE_LISTING ${SITE_LOG-unset}";
    let ran = kitchen.home.ok(&["run", "--entrypoint", LAUNCHER, &name, "--", "sh", "-c", script]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let bills: Vec<Value> = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let names: Vec<&Value> = bills.iter().map(|bill| &bill["components"][0]["name"]).collect();
    assert_eq!(names, ["public", "serve"], "{}", ran.stdout);
    let variables = "8080 html=text/html /layers/coracle_site/pages/listing unset";
    assert_eq!(lines.last(), Some(&variables));
}
