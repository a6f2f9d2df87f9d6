//! What registries hold and how they are reached, from the program's own command line.

use coracle_fixtures::{
    Builder, Buildpack, Compression, DockerRegistry, Entry, Gate, Image, MediaTypes, RegistryAccess, RunImage,
};

use crate::harness::{Ran, TestHome, coracle, ran};
use crate::site::Site;

/// An image that says which one it is, in a layer of its own.
fn image(kind: &str) -> Image {
    RunImage::new().file(Entry::file("etc/kind", kind)).image()
}

fn said(home: &TestHome, name: &str) -> String {
    home.ok(&["run", name, "cat", "/etc/kind"]).stdout
}

#[test]
fn images_of_every_media_type_and_compression_are_pulled_and_run() {
    let (registry, home) = (DockerRegistry::open(), TestHome::new());
    let kinds = [
        (MediaTypes::Oci, Compression::None),
        (MediaTypes::Oci, Compression::Gzip),
        (MediaTypes::Oci, Compression::Zstd),
        (MediaTypes::Docker, Compression::None),
        (MediaTypes::Docker, Compression::Gzip),
    ];
    for (media_types, compression) in kinds {
        let kind = format!("{media_types:?}-{compression:?}");
        let mut image = image(&kind).compressed(compression);
        image.media_types = media_types;
        registry.push(&image, "team/kind", &kind);
        let name = registry.reference(&format!("team/kind:{kind}"));
        assert_eq!(home.ok(&["pull", &name]).stdout, format!("{}\n", image.digest()));
        assert_eq!(said(&home, &name), kind);
    }
}

#[test]
fn of_an_index_the_image_for_this_machine_is_taken() {
    let (registry, home) = (DockerRegistry::open(), TestHome::new());
    for (tag, image) in [("oci", image("oci")), ("docker", image("docker").docker())] {
        registry.push_index(std::slice::from_ref(&image), "indexed", tag);
        let name = registry.reference(&format!("indexed:{tag}"));
        assert_eq!(home.ok(&["pull", &name]).stdout, format!("{}\n", image.digest()));
        assert_eq!(said(&home, &name), tag);
    }
    let mut foreign = image("foreign");
    foreign.architecture = "riscv64".to_owned();
    registry.push_index(&[foreign], "indexed", "foreign");
    let ran = home.run(&["pull", &registry.reference("indexed:foreign")]);
    assert!(
        ran.stderr.contains("is not made for linux/amd64; it is for: linux/s390x, linux/riscv64"),
        "{}",
        ran.stderr
    );
}

#[test]
fn content_that_breaks_off_is_fetched_to_its_end() {
    let (registry, home) = (DockerRegistry::open(), TestHome::new());
    registry.push(&image("broken"), "base", "latest");
    let gate = Gate::breaking(&registry, 3);
    let name = gate.reference("base");
    home.ok(&["pull", &name]);
    assert_eq!(said(&home, &name), "broken");
    // The configuration and two layers, and one more for each that broke off.
    let requests = gate.log().iter().filter(|line| line.contains("/blobs/")).count();
    assert!(requests >= 4, "{:?}", gate.log());
}

#[test]
fn a_layer_with_one_other_byte_is_refused_even_where_it_unpacks_to_the_same() {
    let (registry, home) = (DockerRegistry::open(), TestHome::new());
    let image = image("flipped").compressed(Compression::Gzip);
    registry.push(&image, "base", "latest");
    let name = registry.reference("base");
    let manifest: serde_json::Value =
        serde_json::from_slice(&registry.manifest("base:latest")).expect("a manifest");
    let layer = manifest["layers"].as_array().and_then(|layers| layers.last()).expect("a layer");
    let (digest, size) =
        (layer["digest"].as_str().expect("a digest"), layer["size"].as_u64().expect("a size"));
    let hex = digest.trim_start_matches("sha256:");
    let blob = registry.storage().join("blobs/sha256").join(&hex[..2]).join(hex).join("data");
    let right = std::fs::read(&blob).expect("read the registry's copy");
    let mut wrong = right.clone();
    // The time in the header of gzip (RFC 1952, section 2.3).
    wrong[4] ^= 1;
    std::fs::write(&blob, &wrong).expect("change the registry's copy");
    let refused = home.run(&["pull", &name]);
    let found = coracle_fixtures::layer::digest(&wrong);
    let expected = format!("the layer {digest} arrived as {found} with {size} bytes; nothing of it was kept");
    assert!(refused.code == Some(1) && refused.stderr.contains(&expected), "{}", refused.stderr);
    assert_eq!(home.files_with(b"flipped"), Vec::<String>::new());
    let stored = home.path().join(".local/share/coracle/store/blobs/sha256");
    assert!(!stored.join(hex).exists() && !stored.join(&found["sha256:".len()..]).exists());
    std::fs::write(&blob, &right).expect("restore the registry's copy");
    home.ok(&["pull", &name]);
    assert_eq!(said(&home, &name), "flipped");
}

/// A registry with a builder that names its run image as `reference` says.
fn with_builder(registry: &DockerRegistry, reference: impl Fn(&str) -> String) -> Builder {
    let greeter = Buildpack::passing("fixture/greeter").process(&["cat", "hello"]);
    let builder = Builder::new(&reference("run:latest")).group(&[greeter]);
    registry.push(&RunImage::new().image(), "run", "latest");
    registry.push(&builder.image(), "builder", "latest");
    builder
}

/// A home with an application, and a build of it that publishes.
fn publish(home: &TestHome, reference: impl Fn(&str) -> String, more: &[&str], env: &[(&str, &str)]) -> Ran {
    let app = home.path().join("app");
    std::fs::create_dir_all(&app).expect("make the application's folder");
    std::fs::write(app.join("hello"), "hello\n").expect("write the application");
    let (image, builder) = (reference("team/app"), reference("builder"));
    let app = app.display().to_string();
    let fixed = ["build", &image, "--path", &app, "--builder", &builder, "--publish"];
    let mut command = home.command(&[&fixed[..], more].concat());
    ran(command.envs(env.iter().copied()).output().expect("start coracle"))
}

fn digest(ran: &Ran) -> String {
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    ran.stdout.trim_end().rsplit_once('@').expect("a digest").1.to_owned()
}

#[test]
fn a_registry_that_wants_tokens_gets_them_from_its_server() {
    let (registry, home) = (DockerRegistry::open(), TestHome::new());
    let gate = Gate::with_tokens(&registry);
    with_builder(&registry, |name| gate.reference(name));
    let refused = home.run(&["pull", &gate.reference("run")]);
    assert!(refused.stderr.contains("the registry refuses access; log in to it"), "{}", refused.stderr);
    let docker = home.path().join(".docker");
    std::fs::create_dir(&docker).expect("make .docker");
    std::fs::write(docker.join("config.json"), gate.docker_config()).expect("write config.json");
    let built = digest(&publish(&home, |name| gate.reference(name), &[], &[]));
    assert!(gate.log().iter().any(|line| line.starts_with("GET /token")), "{:?}", gate.log());
    assert_eq!(coracle_fixtures::layer::digest(&registry.manifest("team/app:latest")), built);
}

#[test]
fn a_registry_that_is_not_on_loopback_is_spoken_to_in_plain_http_only_where_that_is_said() {
    let (registry, home) = (DockerRegistry::open(), TestHome::new());
    let gate = Gate::unspecified(&registry);
    with_builder(&registry, |name| gate.reference(name));
    let refused = publish(&home, |name| gate.reference(name), &[], &[]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    assert!(!gate.log().iter().any(|line| line.contains("/v2/")), "{:?}", gate.log());
    let host = gate.reference("").trim_end_matches('/').to_owned();
    let hint = format!("if {host} speaks plain HTTP: --insecure-registry {host}");
    assert!(refused.stderr.contains(&hint), "{}", refused.stderr);
    let built = digest(&publish(&home, |name| gate.reference(name), &["--insecure-registry", &host], &[]));
    assert_eq!(coracle_fixtures::layer::digest(&registry.manifest("team/app:latest")), built);
    home.ok(&["pull", &gate.reference("team/app"), "--insecure-registry", &host]);
    assert_eq!(home.ok(&["run", &gate.reference("team/app")]).stdout, "hello\n");
}

#[test]
fn a_registry_whose_authority_only_the_user_knows_is_reached_by_every_phase() {
    let (registry, home) = (DockerRegistry::start(RegistryAccess::Tls), TestHome::new());
    // Another way to write the address, which no shortcut for loopback knows.
    let reference = |name: &str| registry.reference(name).replace("127.0.0.1", "127.1");
    with_builder(&registry, reference);
    let refused = publish(&home, reference, &[], &[]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    assert!(refused.stderr.contains("SSL_CERT_FILE"), "{}", refused.stderr);
    let bundle = registry.ca_bundle().expect("an authority").display().to_string();
    let built = digest(&publish(&home, reference, &[], &[("SSL_CERT_FILE", &bundle)]));
    assert_eq!(coracle_fixtures::layer::digest(&registry.manifest("team/app:latest")), built);
    let unfit = publish(&home, reference, &[], &[("SSL_CERT_FILE", "/nowhere/ca.pem")]);
    assert_eq!(
        unfit.stderr,
        "error: could not use the certificates in /nowhere/ca.pem (SSL_CERT_FILE): it must be a file that everybody may read\n  cause: No such file or directory (os error 2)\n"
    );
}

#[test]
fn authorities_are_looked_for_only_where_tls_is_spoken() {
    let (plain, tls) = (DockerRegistry::open(), DockerRegistry::start(RegistryAccess::Tls));
    plain.push(&RunImage::new().image(), "run", "latest");
    let folder = tempfile::tempdir().expect("make a folder");
    let analyze = |reference: &dyn Fn(&str) -> String, variables: &[(&str, &str)]| {
        let mut command = std::process::Command::new(coracle());
        command.args(["lifecycle", "analyzer", "-layers"]).arg(folder.path());
        command.args(["-run-image", &reference("run"), &reference("app")]);
        command.env_clear().env("CNB_PLATFORM_API", "0.13").envs(variables.iter().copied());
        ran(command.output().expect("start the analyzer"))
    };
    let nowhere = [("SSL_CERT_FILE", "/nowhere/ca.pem"), ("SSL_CERT_DIR", "/nowhere/certs")];
    let found = analyze(&|name| plain.reference(name), &nowhere);
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    let refused = analyze(&|name| tls.reference(name).replace("127.0.0.1", "127.1"), &nowhere);
    let expected = "no certificate authorities were found; looked in /nowhere/ca.pem, /nowhere/certs \
        (as SSL_CERT_FILE and SSL_CERT_DIR say); install them (package ca-certificates), or name a file with them in \
        SSL_CERT_FILE";
    assert!(refused.code == Some(32) && refused.stderr.contains(expected), "{}", refused.stderr);
}

#[test]
fn a_registry_that_may_be_read_but_not_written_is_told_before_anything_is_built() {
    let registry = DockerRegistry::start(RegistryAccess::Password);
    let open = DockerRegistry::open();
    let greeter = Buildpack::passing("fixture/greeter").build("echo built").process(&["cat", "hello"]);
    let builder = Builder::new(&open.reference("run:latest")).group(&[greeter]);
    let site = Site::of(open, &RunImage::new().image(), &builder.image());
    let error = site.refused(32, &registry.reference("team/app"), &["--publish"]);
    assert!(error.contains("[analyzer] error: "), "{error}");
    assert!(error.contains("the registry refuses access; log in to it and try again"), "{error}");
    let last = "error: the analyzer failed with exit code 32; its messages are above\n";
    assert!(error.ends_with(last), "{error}");
}

#[test]
fn a_registry_behind_a_proxy_is_reached_through_it_by_every_process() {
    let (registry, home) = (DockerRegistry::open(), TestHome::new());
    let gate = Gate::for_any_host(&registry);
    // No server of names knows this one.
    let reference = |name: &str| format!("registry.invalid:5000/{name}");
    with_builder(&registry, reference);
    let insecure = ["--insecure-registry", "registry.invalid:5000"];
    let built = digest(&publish(&home, reference, &insecure, &[("HTTP_PROXY", &gate.proxy())]));
    assert_eq!(coracle_fixtures::layer::digest(&registry.manifest("team/app:latest")), built);
    let image = reference("team/app");
    let mut pull = home.command(&["pull", &image, "--insecure-registry", "registry.invalid:5000"]);
    let pulled = ran(pull.env("http_proxy", gate.proxy()).output().expect("start coracle"));
    assert_eq!(pulled.stdout, format!("{built}\n"), "{}", pulled.stderr);
    for request in
        ["GET http://registry.invalid:5000/v2/builder/", "PUT http://registry.invalid:5000/v2/team/app/"]
    {
        assert!(gate.log().iter().any(|line| line.starts_with(request)), "{request}: {:?}", gate.log());
    }
}

/// What the log says of the proxy's password is so in the one container of a trusted builder, too.
#[test]
fn a_creator_knows_the_password_of_a_proxy_and_programs_beside_it_do_not() {
    let (registry, home) = (DockerRegistry::open(), TestHome::new());
    let gate = Gate::for_any_host(&registry);
    let reference = |name: &str| format!("registry.invalid:5000/{name}");
    let look = r#"echo "proxy $HTTP_PROXY"; cat /proc/*/environ 2>/dev/null | tr '\0' '\n' | grep -i proxy"#;
    let asking = Buildpack::passing("fixture/asking").build(look).process(&["cat", "hello"]);
    registry.push(&RunImage::new().image(), "run", "latest");
    registry.push(&Builder::new(&reference("run:latest")).group(&[asking]).image(), "builder", "latest");
    let proxy = gate.proxy().replace("http://", "http://name:word@");
    let more = ["--insecure-registry", "registry.invalid:5000", "--trust-builder"];
    let ran = publish(&home, reference, &more, &[("HTTP_PROXY", &proxy)]);
    digest(&ran);
    let told = format!("{}{}", ran.stdout, ran.stderr);
    assert!(told.contains("its phases share one container"), "{told}");
    assert!(told.contains("the name and password of the proxy are kept from buildpacks"), "{told}");
    assert!(told.contains(&format!("proxy {}\n", gate.proxy())) && !told.contains("name:word"), "{told}");
    // base64 of `name:word`.
    let put = "Basic bmFtZTp3b3Jk PUT http://registry.invalid:5000/v2/team/app/manifests/latest";
    assert!(gate.introduced().iter().any(|line| line == put), "{:?}", gate.introduced());
}
