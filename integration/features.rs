//! What buildpacks may ask for (Buildpack API 0.8 to 0.10), seen in a build and in the image that came of it.

use coracle_fixtures::{Builder, Buildpack, DockerRegistry, RunImage};
use serde_json::Value;

use crate::site::Site;

/// Layers with variables and programs of each kind.
const LAYERS: &str = r#"
l="$1/all"
mkdir -p "$l/bin" "$l/env" "$l/env.build" "$l/env.launch/web" "$l/exec.d/web"
put() { printf '%s' "$2" >"$l/$1"; }
put env/PLAIN plain; put env/SET.override set; put env/EMPTY.default default; put env/PATH_LIKE.append /after
put env/PATH_LIKE.prepend /before; put env/PATH_LIKE.delim :
put env.build/OF_BUILD build; put env.launch/OF_LAUNCH launch; put env.launch/web/OF_WEB web
printf '#!/bin/sh\necho tool of the layer\n' >"$l/bin/tool"
printf '#!/bin/sh\nprintf "BY_ALL = \\"all\\"\\n" >&3\n' >"$l/exec.d/10-all"
printf '#!/bin/sh\nprintf "BY_WEB = \\"web\\"\\n" >&3\n' >"$l/exec.d/web/10-web"
chmod +x "$l/bin/tool" "$l/exec.d/10-all" "$l/exec.d/web/10-web"
printf '[types]\nbuild = true\nlaunch = true\n' >"$1/all.toml"
printf '[[unmet]]\nname = "second"\n' >"$1/build.toml"
printf '[metadata]\nkept = "of last time"\n' >"$1/store.toml"
mkdir -p static; echo slice >static/file
"#;

const LABELS_AND_SLICES: &str = r#"
[[labels]]
key = "fixture.label"
value = "of a buildpack"
[[slices]]
paths = ["static/*"]
"#;

/// Prints those of these variables that are set, by name, and runs the layer's program.
const SHOW: &str = "env | grep -E '^(PLAIN|SET|EMPTY|PATH_LIKE|OF_BUILD|OF_LAUNCH|OF_WEB|BY_ALL|BY_WEB|SETTING)=' | sort | tr '\\n' ' '; echo; tool";

/// The first provides what only the second has met, and asks for nothing of the platform's in its environment.
fn pair(api: &str) -> [Buildpack; 2] {
    // Until API 0.8 a command is one text, and direct only where that is said.
    let command = match api {
        "0.8" => format!("command = \"sh\"\nargs = [\"-c\", '''{SHOW}''']\ndirect = true"),
        _ => format!("command = [\"sh\", \"-c\", '''{SHOW}''']"),
    };
    let processes = format!(
        "[[processes]]\ntype = \"web\"\n{command}\ndefault = true\n[[processes]]\ntype = \"other\"\n{command}\n"
    );
    let launch = format!("cat >\"$1/launch.toml\" <<'END'\n{processes}{LABELS_AND_SLICES}END");
    let provides = r#"printf '[[provides]]\nname = "first"\n[[provides]]\nname = "second"\n[[requires]]\nname = "first"\n[[requires]]\nname = "second"\n' >"$2""#;
    let mut first = Buildpack::passing("fixture/first")
        .detect(provides)
        .build("echo \"found: $(cat \"$1/store.toml\" 2>/dev/null | tr -d '\\n')\"")
        .build("echo \"cleared: ${SETTING--} $(cat \"$2/env/SETTING\")\"")
        .build(LAYERS)
        .build(&launch);
    first.api = api.to_owned();
    // The later of two files counts.
    let toml = first.toml().replace("[[targets]]", "clear-env = true\n[[targets]]");
    first = first.file("buildpack.toml", &toml);
    let mut second = Buildpack::passing("fixture/second")
        .plan("second")
        .build("echo \"plan: $(grep name \"$3\" | tr -d ' \\n')\"")
        .build(SHOW);
    second.api = api.to_owned();
    [first, second]
}

#[test]
fn variables_programs_and_documents_of_layers_work_as_each_api_says() {
    for api in ["0.8", "0.9", "0.10"] {
        let registry = DockerRegistry::open();
        let builder = Builder::new(&registry.reference("run")).group(&pair(api));
        let site = Site::of(registry, &RunImage::new().image(), &builder.image());
        let name = site.registry.reference("app");
        let first = site.built(&name, &["--publish", "--env", "SETTING=of the user"]).stdout;
        for line in [
            "found: ",
            "cleared: - of the user",
            "plan: name=\"second\"name=\"second\"",
            "EMPTY=default OF_BUILD=build PATH_LIKE=/before:/after PLAIN=plain SET=set SETTING=of the user ",
            "tool of the layer",
        ] {
            assert!(
                first.lines().any(|found| found == format!("[builder] {line}")),
                "{api}: {line}\n{first}"
            );
        }
        let again = site.built(&name, &["--publish", "--env", "SETTING=of the user"]).stdout;
        assert!(again.contains("[builder] found: [metadata]  kept = \"of last time\"\n"), "{api}: {again}");
        assert!(again.contains("app layer(s)"), "{api}: {again}");

        site.home.ok(&["pull", &name]);
        let web = "BY_ALL=all BY_WEB=web EMPTY=default OF_LAUNCH=launch OF_WEB=web PATH_LIKE=/before:/after PLAIN=plain SET=set \ntool of the layer\n";
        assert_eq!(site.home.ok(&["run", &name]).stdout, web, "{api}");
        let other = web.replace("OF_WEB=web ", "").replace("BY_WEB=web ", "");
        assert_eq!(site.home.ok(&["run", "--entrypoint", "other", &name]).stdout, other, "{api}");
        let given = site.home.ok(&["run", "-e", "EMPTY=given", "-e", "SET=given", &name]).stdout;
        assert!(given.contains("EMPTY=given ") && given.contains(" SET=set "), "{api}: {given}");

        let config: Value = serde_json::from_slice(&site.registry.config("app")).expect("a configuration");
        assert_eq!(config["config"]["Labels"]["fixture.label"], "of a buildpack", "{api}");
        let text = config["config"]["Labels"]["io.buildpacks.lifecycle.metadata"].as_str().expect("a label");
        let metadata: Value = serde_json::from_str(text).expect("metadata");
        assert_eq!(metadata["app"].as_array().map(Vec::len), Some(2), "the slice and the rest: {metadata}");
        let text = config["config"]["Labels"]["io.buildpacks.build.metadata"].as_str().expect("a label");
        let metadata: Value = serde_json::from_str(text).expect("metadata");
        assert_eq!(metadata["buildpacks"][0]["id"], "fixture/first", "{metadata}");
    }
}
