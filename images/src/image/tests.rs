//! Documents that make an image, and those that make none.

use super::*;

fn image() -> Image {
    let layer = Layer {
        descriptor: Descriptor::new(media::DOCKER_LAYER_GZIP, Digest::of("gz"), 2),
        diff_id: Digest::of("tar"),
    };
    let config = Config { architecture: "amd64".into(), os: "linux".into(), ..Config::default() };
    Image::assemble(config, vec![layer]).unwrap()
}

#[test]
fn assembled_can_be_read_again() {
    let made = image();
    let read = Image::from_bytes(None, made.manifest_bytes.clone(), made.config_bytes.clone()).unwrap();
    assert_eq!(read, made);
    assert_eq!(read.layers()[0].diff_id, Digest::of("tar"));
    assert_eq!(read.layers()[0].descriptor.media_type, media::OCI_LAYER_GZIP);
}

#[test]
fn contradictions() {
    let made = image();
    let other = Image::from_bytes(None, made.manifest_bytes.clone(), b"{}".to_vec());
    assert!(matches!(other, Err(ImageError::OtherConfig { .. })));
    let mut both: serde_json::Value = serde_json::from_slice(&made.manifest_bytes).unwrap();
    both["manifests"] = serde_json::json!([]);
    let both = Image::from_bytes(None, both.to_string().into_bytes(), made.config_bytes.clone());
    assert!(matches!(both, Err(ImageError::Ambiguous { .. })));
    let mut fewer = made.manifest.clone();
    fewer.layers.clear();
    let fewer = Image::from_bytes(None, go_json(&fewer).unwrap(), made.config_bytes);
    assert!(matches!(fewer, Err(ImageError::LayerCount { layers: 0, diff_ids: 1, .. })));
}

/// A manifest for any text as configuration; `layers` as JSON.
fn manifest(config: &[u8], layers: &str) -> Vec<u8> {
    let (digest, size) = (Digest::of(config), config.len());
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"c","size":{size},"digest":"{digest}"}},"layers":{layers}}}"#
    )
    .into_bytes()
}

fn text(result: Result<Image, ImageError>) -> String {
    match result {
        Ok(image) => format!("{} layers", image.layers().len()),
        Err(error) => {
            let causes =
                std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
            causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
        }
    }
}

fn read(config: &[u8], layers: &str) -> String {
    text(Image::from_bytes(None, manifest(config, layers), config.to_vec()))
}

fn config(diff_ids: &str) -> String {
    format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":{diff_ids}}}}}"#)
}

#[test]
fn t36_depth() {
    for depth in [1000, 1_000_000] {
        let bomb = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let other = format!(r#"{{"other":{bomb}}}"#);
        let expected = format!(
            "cannot read the image configuration {}: recursion limit exceeded at line 1 column 136",
            Digest::of(&other)
        );
        assert_eq!(read(other.as_bytes(), "[]"), expected);
        let manifest = manifest(b"{}", &bomb);
        let expected = format!(
            "cannot read the manifest {}: recursion limit exceeded at line 1 column ",
            Digest::of(&manifest)
        );
        let found = text(Image::from_bytes(None, manifest, b"{}".to_vec()));
        assert!(found.starts_with(&expected), "{found}");
    }
}

#[test]
fn t36_digests_and_sizes_of_layers() {
    let upper = Digest::of("x").to_string().to_uppercase();
    let long = format!("sha512:{}", "0".repeat(128));
    for digest in ["sha256:../../x", &long, "", "md5:d41d8cd98f00b204e9800998ecf8427e", &upper, "sha256:"] {
        let found = read(b"{}", &format!(r#"[{{"mediaType":"l","size":1,"digest":"{digest}"}}]"#));
        let shown: String = digest.chars().take(100).collect();
        let expected = format!(
            "`{shown}` is not a digest: expected `sha256:` and 64 lower-case hexadecimal digits at line 1 column "
        );
        assert!(found.contains(&expected), "{found}");
    }
    for (size, why) in [
        ("-1", "invalid value: integer `-1`, expected u64"),
        ("1.5", "invalid type: floating point `1.5`, expected u64"),
        ("18446744073709551616", "invalid type: floating point `1.8446744073709552e+19`, expected u64"),
        ("\"1\"", "invalid type: string \"1\", expected u64"),
        ("null", "invalid type: null, expected u64"),
    ] {
        let found =
            read(b"{}", &format!(r#"[{{"mediaType":"l","size":{size},"digest":"{}"}}]"#, Digest::of("x")));
        assert!(found.contains(why), "{found}");
    }
}

#[test]
fn t36_one_document_that_could_be_two() {
    let plain = String::from_utf8(manifest(b"{}", "[]")).unwrap();
    let with = |member: &str| {
        let text = plain.replacen('{', &format!("{{{member},"), 1).into_bytes();
        (Digest::of(&text), text)
    };
    for (member, name) in [
        (r#""manifests":[]"#, "manifests"),
        (r#""Manifests":[]"#, "Manifests"),
        (r#""Layers":[]"#, "Layers"),
        (r#""CONFIG":{}"#, "CONFIG"),
        (r#""fsLayers":[]"#, "fsLayers"),
        (r#""mediatype":"x""#, "mediatype"),
    ] {
        let (digest, bytes) = with(member);
        let expected =
            format!("the manifest {digest} also has `{name}`, as if it were something else; refused");
        assert_eq!(text(Image::from_bytes(None, bytes, b"{}".to_vec())), expected);
    }
    let (digest, bytes) = with(r#""layers":[]"#);
    let found = text(Image::from_bytes(None, bytes, b"{}".to_vec()));
    assert!(
        found.starts_with(&format!("cannot read the manifest {digest}: duplicate field `layers`")),
        "{found}"
    );
    let (digest, bytes) = with(r#""mediaType":"application/vnd.oci.image.index.v1+json""#);
    let expected = format!("the manifest {digest} also has `config`, as if it were something else; refused");
    assert_eq!(text(Image::from_bytes(None, bytes, b"{}".to_vec())), expected);
    let (digest, bytes) = with(r#""mediaType":"application/vnd.docker.distribution.manifest.v1+json""#);
    let expected = format!(
        "the manifest {digest} is of the kind `application/vnd.docker.distribution.manifest.v1+json`, expected an image manifest"
    );
    assert_eq!(text(Image::from_bytes(None, bytes, b"{}".to_vec())), expected);
    // What is unknown and tells nothing else is kept.
    let (_, bytes) = with(r#""subject":{"x":1},"artifactType":"a""#);
    assert_eq!(
        text(Image::from_bytes(None, bytes, config("[]").into_bytes())),
        text(Image::from_bytes(None, plain.clone().into_bytes(), config("[]").into_bytes()))
    );
}

#[test]
fn t36_lengths_and_counts() {
    let large = format!(r#"{{"config":{{"Env":["A={}"]}}}}"#, "x".repeat(50 << 20));
    let expected = format!(
        "the image configuration {} has 52428825 bytes, more than the limit of 16777216",
        Digest::of(&large)
    );
    assert_eq!(read(large.as_bytes(), "[]"), expected);
    let long = manifest(b"{}", &format!("[]{}", " ".repeat(4 << 20)));
    let expected = format!(
        "the manifest {} has {} bytes, more than the limit of 4194304",
        Digest::of(&long),
        long.len()
    );
    assert_eq!(text(Image::from_bytes(None, long, b"{}".to_vec())), expected);

    // Strange, and allowed: layers twice and many of them, addresses nobody asks, a history of other layers.
    let digest = Digest::of("x");
    let layer = format!(r#"{{"mediaType":"l","size":1,"digest":"{digest}","urls":["http://localhost/"]}}"#);
    let list = |one: &str, count: usize| format!("[{}]", vec![one; count].join(","));
    let diff_ids = |count| list(&format!("\"{digest}\""), count);
    assert_eq!(read(config(&diff_ids(500)).as_bytes(), &list(&layer, 500)), "500 layers");
    let more = config(&diff_ids(501));
    let expected = format!(
        "the manifest {} has 501 layers, more than the limit of 500",
        Digest::of(manifest(more.as_bytes(), &list(&layer, 501)))
    );
    assert_eq!(read(more.as_bytes(), &list(&layer, 501)), expected);
    let fewer = config(&diff_ids(1));
    let expected = format!(
        "the manifest {} has 2 layers, but its configuration has 1 diff ids",
        Digest::of(manifest(fewer.as_bytes(), &list(&layer, 2)))
    );
    assert_eq!(read(fewer.as_bytes(), &list(&layer, 2)), expected);
    let lies = config("[]").replace("\"os\"", r#""history":[{"created_by":"a"},{"empty_layer":true}],"os""#);
    assert_eq!(read(lies.as_bytes(), "[]"), "0 layers");
}

#[test]
fn t36_configurations() {
    let with = |execution: &str| {
        read(config("[]").replace("\"os\"", &format!(r#""config":{execution},"os""#)).as_bytes(), "[]")
    };
    // What it means is for others to say: they find no such user, and no such folder.
    assert_eq!(with(r#"{"User":"../../","WorkingDir":"/proc/self","Env":["LD_PRELOAD=/x"]}"#), "0 layers");
    assert!(with(r#"{"User":"a","User":"b"}"#).contains("duplicate field `User`"));
    assert!(with(r#"{"Env":"A=1"}"#).contains("invalid type: string \"A=1\", expected a sequence"));
    assert!(with(r#"{"Labels":{"a":1}}"#).contains("invalid type: integer `1`, expected a string"));
    let twice = config("[]").replace("\"os\"", r#""os":"x","os""#);
    assert!(read(twice.as_bytes(), "[]").contains("duplicate field `os`"));
}
