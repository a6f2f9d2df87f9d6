//! The builds in which attacks are made, under each runtime, and what is looked at from outside.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};

use coracle_fixtures::registry::PASSWORD;
use coracle_fixtures::{Builder, Buildpack, DockerRegistry, RegistryAccess, RunImage};
use serde_json::Value;

use super::evil::{self, ALONE, DETECTING, VARIABLES};
use super::{Attempt, RUNTIMES};
use crate::harness::{Ran, ran};
use crate::site::Site;

/// In the environment of the program itself, and of another process of the same user.
const SECRET: &str = "only-the-user-knows-this-7d1f";

const PROJECT: &str = "[_]\nschema-version = \"0.2\"\n[io.buildpacks]\ninclude = [\"../outside\", \"/etc/passwd\", \"hello\"]\n";

/// Variables that clusters, clouds and runners of CI give to what they start.
const RUNNER: [&str; 4] =
    ["ACTIONS_RUNTIME_TOKEN", "KUBERNETES_SERVICE_HOST", "AWS_SECRET_ACCESS_KEY", "CI_JOB_TOKEN"];

/// What came of every attack under each of [`RUNTIMES`].
pub(super) fn all() -> Vec<Vec<Attempt>> {
    let registry = DockerRegistry::start(RegistryAccess::Password);
    let name = format!("coracle-attacks-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let listener = UnixListener::bind_addr(&address).expect("listen");
    let mut neighbour = Command::new("sleep").arg("600").env("SECRET", SECRET).spawn().expect("start sleep");
    let secret: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    // The home is known once there is one, so the application tells where the store is.
    let given = format!(
        "secret={secret} abstract={name} registry={} store=$(cat home)/.local/share/coracle socket=$(cat home)/agent.sock",
        registry.address()
    );
    let run = registry.reference("run:latest");
    let builder = evil::builder(&run, &given);
    let site = Site::of(registry, &RunImage::new().image(), &builder).logged_in();
    // By another name of this machine as well.
    let config = site.registry.docker_config();
    let entry = config.trim_start_matches("{\"auths\":{").trim_end_matches("}}").to_owned();
    let both = format!("{{\"auths\":{{{entry},{}}}}}", entry.replace("127.0.0.1", "localhost"));
    std::fs::write(site.home.path().join(".docker/config.json"), both).expect("write the credentials");
    std::fs::write(site.home.path().join("outside"), SECRET).expect("write");
    let agent = UnixListener::bind(site.home.path().join("agent.sock")).expect("listen");
    std::fs::write(site.app().join("project.toml"), PROJECT).expect("write");
    std::fs::write(site.app().join("config.json"), evil::STORE).expect("write");
    std::os::unix::fs::symlink("../outside", site.app().join("lead")).expect("make a link");
    std::fs::write(site.app().join(".dockerignore"), "*\n!../outside\n").expect("write");
    std::fs::write(site.app().join("home"), site.home.path().display().to_string()).expect("write");
    let variables = VARIABLES.iter().fold(builder, |image, (name, value)| image.env(name, value));
    site.registry.push(&variables, "variables", "latest");
    let made = std::thread::scope(|scope| {
        let builds = RUNTIMES.map(|runtime| scope.spawn(|| Builds { site: &site, runtime }.all()));
        builds.map(|builds| builds.join().expect("the builds of a runtime")).into()
    });
    neighbour.kill().and_then(|()| neighbour.wait()).expect("end sleep");
    drop((listener, agent));
    made
}

struct Builds<'a> {
    site: &'a Site,
    runtime: &'static str,
}

impl Builds<'_> {
    fn all(&self) -> Vec<Attempt> {
        let mut attempts = self.inside();
        attempts.push(self.variables());
        attempts.extend((0..ALONE.len()).map(|number| self.alone(ALONE[number], &evil::alone(number))));
        attempts.extend(
            (0..DETECTING.len()).map(|number| self.alone(DETECTING[number], &evil::detecting(number))),
        );
        attempts.push(self.proxy());
        attempts.push(self.settings());
        attempts.push(self.flood());
        attempts.extend(self.run_image());
        attempts
    }

    /// A build with the builder of that name; nothing of the user's secrets is in what it says.
    fn build(&self, builder: &str, image: &str, more: &[&str], env: &[(&str, &str)]) -> Ran {
        let app = self.site.app().display().to_string();
        let fixed = ["build", image, "--path", &app, "--builder", builder, "--runtime", self.runtime];
        let mut command = self.site.home.command(&[&fixed[..], more].concat());
        command.env("KNOWN", SECRET).envs(env.iter().copied()).envs(RUNNER.map(|name| (name, SECRET)));
        let ran = ran(command.output().expect("start coracle"));
        for text in [PASSWORD, "dGVzdGVyOm5vdC1hLXNlY3JldA==", SECRET] {
            assert!(!ran.stdout.contains(text) && !ran.stderr.contains(text), "{}{}", ran.stdout, ran.stderr);
        }
        ran
    }

    fn reference(&self, name: &str) -> String {
        self.site.registry.reference(&format!("{name}:{}", self.runtime))
    }

    /// Everything that `fixture/evil` tries in one build, and what is left of it in the image and the log.
    fn inside(&self) -> Vec<Attempt> {
        let more = ["--publish", "--network", "none", "--verbose", "--buildpack", "fixture/evil"];
        let ran = self.build(&self.site.builder, &self.reference("app"), &more, &[]);
        assert_eq!(ran.code, Some(0), "{}\n{}", tail(&ran.stdout), ran.stderr);
        let mut attempts = Vec::new();
        for line in ran.stdout.lines() {
            let Some((_, json)) =
                line.split_once("] ").filter(|(_, rest)| rest.trim_start().starts_with('{'))
            else {
                continue;
            };
            let told: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
            let text = |key: &str| told[key].as_str().unwrap_or_default();
            let attempt = Attempt::new(text("id"), text("tried"), text("result"));
            if !attempts.contains(&attempt) {
                attempts.push(attempt);
            }
        }
        attempts.extend(self.image(&ran));
        attempts.extend(log(&ran.stdout));
        attempts
    }

    fn image(&self, ran: &Ran) -> Vec<Attempt> {
        let name = format!("app:{}", self.runtime);
        let config: Value =
            serde_json::from_slice(&self.site.registry.config(&name)).expect("a configuration");
        let run: Value =
            serde_json::from_slice(&self.site.registry.config("run:latest")).expect("a configuration");
        let digest = coracle_fixtures::layer::digest(&self.site.registry.manifest(&name));
        let labels = config["config"]["Labels"].as_object().expect("labels");
        let metadata: Value = labels["io.buildpacks.lifecycle.metadata"]
            .as_str()
            .map_or(Value::Null, |text| serde_json::from_str(text).expect("a document"));
        let first = |config: &Value| config["rootfs"]["diff_ids"][0].clone();
        let says = |holds: bool, what: &str| if holds { what.to_owned() } else { "SUCCEEDED".to_owned() };
        let group: Vec<&Value> = metadata["buildpacks"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|buildpack| &buildpack["key"])
            .collect();
        let last = ran.stdout.lines().last().unwrap_or_default();
        let said = format!("{}{}", ran.stdout, ran.stderr);
        let read = |file: &str| std::fs::read_to_string(self.site.app().join(file)).unwrap_or_default();
        let odd = labels.keys().any(|label| label.contains('\u{1b}'));
        vec![
            Attempt::new(
                "A15",
                "programs in place of the lifecycle's",
                says(!said.contains("TROJAN"), "never run"),
            ),
            Attempt::new(
                "A13",
                "a credential helper on PATH, in the home folder and in the application",
                says(!said.contains("HELPER-RAN"), "never run"),
            ),
            Attempt::new(
                "A53",
                "settings of the next build in the application's folder",
                says(
                    read("project.toml") == PROJECT && read("hello") == "hello from the application\n",
                    "the source is as it was",
                ),
            ),
            Attempt::new(
                "A18",
                "another run image in /layers/analyzed.toml",
                says(first(&config) == first(&run), "not believed"),
            ),
            Attempt::new(
                "A19",
                "another group in /layers/group.toml",
                says(group == ["fixture/evil"], "not believed"),
            ),
            Attempt::new(
                "A29",
                "a label that drives the terminal",
                says(!odd, "left out, and shown harmlessly"),
            ),
            Attempt::new("A54", "the platform's labels", says(metadata["runImage"].is_object(), "left out")),
            Attempt::new(
                "A54",
                "another digest in /layers/report.toml and in the log",
                says(last.ends_with(&digest), "the registry's is told"),
            ),
        ]
    }

    fn variables(&self) -> Attempt {
        let builder = self.site.registry.reference("variables:latest");
        let ran = self.build(
            &builder,
            &self.reference("variables"),
            &["--publish", "--buildpack", "fixture/quiet"],
            &[],
        );
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
        Attempt::new(
            "A14",
            "variables of the builder for the platform's phases",
            "count nowhere: published as the user",
        )
    }

    /// The builder says that this machine is elsewhere, and whom dynamic programs are to load: who publishes asks the host.
    fn settings(&self) -> Attempt {
        // A repository of its own: the same content sent to one at the same time is more than some registries take.
        let name = self
            .site
            .registry
            .reference(&format!("settings-{}:1", self.runtime))
            .replace("127.0.0.1", "localhost");
        let ran = self.build(&self.site.builder, &name, &["--publish", "--buildpack", "fixture/quiet"], &[]);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        let holds = ran.code == Some(0) && !said.contains("evil.so");
        let result =
            if holds { "count nowhere: published by name".to_owned() } else { format!("SUCCEEDED: {said}") };
        Attempt::new("A16", "settings of linker, name resolution and TLS", result)
    }

    /// The most memory that the program itself takes while a buildpack prints without end.
    fn flood(&self) -> Attempt {
        let app = self.site.app().display().to_string();
        let name = format!("flood-{}", self.runtime);
        let fixed =
            ["build", &name, "--path", &app, "--builder", &self.site.builder, "--runtime", self.runtime];
        let mut command = self.site.home.command(&[&fixed[..], &["--buildpack", "fixture/flood"]].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start coracle");
        let status = format!("/proc/{}/status", child.id());
        let mut most = 0_u64;
        let code = loop {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
            most = most.max(line.trim().trim_end_matches(" kB").parse().unwrap_or_default());
            if let Some(status) = child.try_wait().expect("wait for coracle") {
                break status.code();
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        let holds = code == Some(0) && (1..200 << 10).contains(&most);
        let result =
            if holds { "less than 200 MiB".to_owned() } else { format!("SUCCEEDED: {code:?}, {most} KiB") };
        Attempt::new("A35", "memory of the parent while 40 MB are printed", result)
    }

    /// What a buildpack that tries one thing gets.
    fn alone(&self, (id, tried, _): (&str, &str, &str), buildpack: &str) -> Attempt {
        let name = format!("alone-{}", self.runtime);
        let ran = self.build(&self.site.builder, &name, &["--buildpack", buildpack], &[]);
        let result =
            if ran.code == Some(0) { "the image is built".to_owned() } else { first_error(self.site, &ran) };
        Attempt::new(id, tried, result)
    }

    fn proxy(&self) -> Attempt {
        let proxy = format!("http://name:{SECRET}@127.0.0.1:1");
        let env = [("HTTP_PROXY", proxy.as_str()), ("NO_PROXY", "127.0.0.1")];
        let name = format!("proxy-{}", self.runtime);
        let ran = self.build(&self.site.builder, &name, &["--buildpack", "fixture/proxy"], &env);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let told =
            ran.stdout.lines().find_map(|line| line.strip_prefix("[builder] proxy ")).unwrap_or("none");
        Attempt::new("A44", "the password of the user's proxy", format!("the buildpack sees {told}"))
    }

    /// A stranger's builder names a run image that only the user may read: from a registry of its own, and from the very one that the
    /// image is on and the result goes to.
    fn run_image(&self) -> Vec<Attempt> {
        let (open, shared, private) =
            (DockerRegistry::open(), &self.site.registry, format!("victim-{}/private", self.runtime));
        shared.push(&RunImage::new().image(), &private, "latest");
        let named = shared.reference(&format!("{private}:latest"));
        let quiet = Buildpack::passing("fixture/quiet").process(&["cat", "hello"]);
        let builder = Builder::new(&named).group(&[quiet]).image();
        let name = format!("stranger-{}/builder", self.runtime);
        open.push(&builder, &name, "latest");
        shared.push(&builder, &name, "latest");
        let [elsewhere, beside] = [&open, shared].map(|registry| registry.reference(&name));
        let unqualified = "app".to_owned();
        let (output, published) =
            (open.reference("app"), shared.reference(&format!("victim-{}/app", self.runtime)));
        let mut attempts = Vec::new();
        for (tried, builder, image, more) in [
            ("a run image that only the user may read", &elsewhere, &output, &[][..]),
            ("the same, for an image that is published", &elsewhere, &output, &["--publish"]),
            ("the same, on the builder's registry", &beside, &unqualified, &[]),
            ("the same, published beside that run image", &beside, &published, &["--publish"]),
            ("the same, of a builder elsewhere", &elsewhere, &published, &["--publish"]),
        ] {
            let read = || -> Vec<String> {
                let log = shared.access_log();
                let lines = log.lines().filter(|line| line.contains(&private) && line.contains("\" 200 "));
                lines.map(str::to_owned).collect()
            };
            let before = read();
            let ran = self.build(builder, image, more, &[]);
            let told = format!(
                "error: the run image {named} is named by the builder {builder}:latest alone, so it is read without your credentials, and its registry refuses that; if it is the one you want, name it yourself: --run-image {named}\n"
            );
            let result = match (ran.code, read()) {
                (Some(1..), now) if now == before && ran.stderr.contains(&told) => {
                    "asked for without credentials, and refused by its registry".to_owned()
                }
                (code, now) => {
                    format!("SUCCEEDED: exit code {code:?}, {:?}, {}", &now[before.len()..], ran.stderr)
                }
            };
            attempts.push(Attempt::new("A42", tried, result));
        }
        attempts
    }
}

/// What a CI runner, a terminal or a reader would take for something else.
fn log(stdout: &str) -> Vec<Attempt> {
    let drives = |c: char| c.is_control() && c != '\n' && c != '\t';
    let says = |holds: bool, what: &str| if holds { what.to_owned() } else { "SUCCEEDED".to_owned() };
    let commands = ["##[", "##vso["].iter().any(|mark| stdout.contains(mark))
        || stdout.lines().any(|line| line.trim_start().starts_with("::"));
    let longest = stdout.lines().map(str::len).max().unwrap_or_default();
    let unmarked = stdout.lines().filter(|line| !line.starts_with('[') && !line.starts_with("===> ")).count();
    vec![
        Attempt::new("A36", "sequences that drive a terminal", says(!stdout.contains(drives), "replaced")),
        Attempt::new("A36", "commands for CI runners", says(!commands, "spoilt")),
        Attempt::new(
            "A36",
            "lines as if of the platform",
            says(unmarked == 1, "each has its phase before it"),
        ),
        Attempt::new("A35", "a line of 10 MB", says(longest < 70_000, "in pieces of 64 KiB")),
    ]
}

/// What was said first, and the innermost of its causes, without what differs from run to run.
fn first_error(site: &Site, ran: &Ran) -> String {
    let words = |line: &str, mark: &str| line.split_once(mark).map(|(_, text)| text.trim().to_owned());
    let mut lines = ran.stderr.lines().skip_while(|line| !line.contains("error: "));
    let mut told: Vec<String> = lines.next().and_then(|line| words(line, "error: ")).into_iter().collect();
    told.extend(lines.map_while(|line| words(line, "cause: ")).last());
    let text = told.join(": ").replace(&site.registry.address(), "REGISTRY");
    format!("exit code {}: {text}", ran.code.unwrap_or(-1))
}

fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(3000);
    text.get(start..).unwrap_or(text)
}
