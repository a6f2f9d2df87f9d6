//! Bills of materials of our own programs, in the three forms that platforms know (Platform API, "SBOM").
//!
//! From what `build.rs` found to be linked. The same program always says the same: no time, no place, nothing random.

use serde_json::{Value, json};

/// Packages that the phases are linked of.
const LIFECYCLE: &str = include_str!(env!("CORACLE_LINKED_LIFECYCLE"));

/// Packages that the launcher is linked of.
const LAUNCHER: &str = include_str!(env!("CORACLE_LINKED_LAUNCHER"));

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// SPDX asks for a time; this is the one of all that we make.
const CREATED: &str = crate::import::CREATED;

/// A form: how its files end, and what it is called.
pub(crate) const FORMS: [(&str, &str); 3] = [
    ("sbom.cdx.json", "application/vnd.cyclonedx+json"),
    ("sbom.spdx.json", "application/spdx+json"),
    ("sbom.syft.json", "application/vnd.syft+json"),
];

/// The documents of our two programs: names of files and what is in them.
pub(crate) fn documents() -> Vec<(String, Value)> {
    let programs = [("launcher", LAUNCHER), ("lifecycle", LIFECYCLE)];
    let documents = programs.iter().flat_map(|(program, linked)| {
        let packages: Vec<Package<'_>> = linked.lines().filter_map(Package::read).collect();
        let all = [cyclonedx(program, &packages), spdx(program, &packages), syft(program, &packages)];
        FORMS.iter().zip(all).map(move |((ending, _), document)| (format!("{program}.{ending}"), document))
    });
    documents.collect()
}

/// The launcher's, as files: what images carry.
pub(crate) fn launchers() -> Vec<(String, Vec<u8>)> {
    let own = documents().into_iter().filter(|(name, _)| name.starts_with("launcher."));
    own.map(|(name, document)| (name, text(&document).into_bytes())).collect()
}

/// A document as its file has it.
pub(crate) fn text(document: &Value) -> String {
    format!("{document}\n")
}

struct Package<'a> {
    name: &'a str,
    version: &'a str,
    origin: &'a str,
    licence: &'a str,
}

impl<'a> Package<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut words = line.splitn(4, ' ');
        let (name, version, origin) = (words.next()?, words.next()?, words.next()?);
        Some(Self { name, version, origin, licence: words.next().unwrap_or_default() })
    }

    /// The [package URL](https://github.com/package-url/purl-spec). What is not crates.io's must not be taken for it.
    fn url(&self) -> String {
        let kind = if self.origin == "crate" { "cargo" } else { "generic" };
        format!("pkg:{kind}/{}@{}", self.name, self.version.replace('+', "%2B"))
    }

    /// Of letters, digits, dots and dashes.
    fn id(&self) -> String {
        let fit = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        format!("{}-{}", self.name, self.version).chars().map(fit).collect()
    }
}

/// [CycloneDX 1.5](https://cyclonedx.org/docs/1.5/json/).
fn cyclonedx(program: &str, packages: &[Package<'_>]) -> Value {
    let component = |package: &Package<'_>| {
        let mut component = json!({
            "bom-ref": package.url(),
            "type": "library",
            "name": package.name,
            "version": package.version,
            "purl": package.url(),
        });
        if !package.licence.is_empty() {
            component["licenses"] = json!([{ "expression": package.licence }]);
        }
        component
    };
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": { "bom-ref": program, "type": "application", "name": program, "version": VERSION },
        },
        "components": packages.iter().map(component).collect::<Vec<_>>(),
    })
}

/// [SPDX 2.3](https://spdx.github.io/spdx-spec/v2.3/).
fn spdx(program: &str, packages: &[Package<'_>]) -> Value {
    let stated = |text: &str| if text.is_empty() { "NOASSERTION".to_owned() } else { text.to_owned() };
    let own = json!({
        "SPDXID": format!("SPDXRef-{program}"),
        "name": program,
        "versionInfo": VERSION,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
    });
    let package = |package: &Package<'_>| {
        json!({
            "SPDXID": format!("SPDXRef-Package-{}", package.id()),
            "name": package.name,
            "versionInfo": package.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseDeclared": stated(package.licence),
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": package.url(),
            }],
        })
    };
    let relation = |from: String, kind: &str, to: String| json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to });
    let described = relation("SPDXRef-DOCUMENT".to_owned(), "DESCRIBES", format!("SPDXRef-{program}"));
    let contained = packages.iter().map(|package| {
        relation(format!("SPDXRef-{program}"), "CONTAINS", format!("SPDXRef-Package-{}", package.id()))
    });
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{program}-{VERSION}"),
        "documentNamespace": format!("https://spdx.org/spdxdocs/coracle-{program}-{VERSION}"),
        "creationInfo": { "created": CREATED, "creators": [format!("Tool: coracle-{VERSION}")] },
        "packages": std::iter::once(own).chain(packages.iter().map(package)).collect::<Vec<_>>(),
        "relationships": std::iter::once(described).chain(contained).collect::<Vec<_>>(),
    })
}

/// [Syft's own form](https://github.com/anchore/syft/tree/main/schema/json).
fn syft(program: &str, packages: &[Package<'_>]) -> Value {
    let artifact = |package: &Package<'_>| {
        let licences = (!package.licence.is_empty()).then(|| {
            json!({
                "value": package.licence,
                "spdxExpression": package.licence,
                "type": "declared",
                "urls": [],
                "locations": [],
            })
        });
        json!({
            "id": package.id(),
            "name": package.name,
            "version": package.version,
            "type": if package.origin == "crate" { "rust-crate" } else { "UnknownPackage" },
            "foundBy": "coracle",
            "locations": [],
            "licenses": licences.into_iter().collect::<Vec<_>>(),
            "language": if package.name == "glibc" { "c" } else { "rust" },
            "cpes": [],
            "purl": package.url(),
        })
    };
    json!({
        "artifacts": packages.iter().map(artifact).collect::<Vec<_>>(),
        "artifactRelationships": [],
        "source": {
            "id": program,
            "name": program,
            "version": VERSION,
            "type": "file",
            "metadata": { "path": format!("/cnb/lifecycle/{program}") },
        },
        "distro": {},
        "descriptor": { "name": "coracle", "version": VERSION },
        "schema": {
            "version": "16.0.0",
            "url": "https://raw.githubusercontent.com/anchore/syft/main/schema/json/schema-16.0.0.json",
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn document(name: &str) -> Value {
        documents().into_iter().find(|(known, _)| known == name).unwrap().1
    }

    fn texts<'a>(list: &'a Value, pointer: &str) -> Vec<&'a str> {
        list.as_array().unwrap().iter().map(|item| item.pointer(pointer).unwrap().as_str().unwrap()).collect()
    }

    fn is_url(url: &str) -> bool {
        let rest = url.strip_prefix("pkg:cargo/").or_else(|| url.strip_prefix("pkg:generic/"));
        let fit = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._%".contains(&b))
        };
        rest.and_then(|rest| rest.split_once('@')).is_some_and(|(name, version)| fit(name) && fit(version))
    }

    #[test]
    fn the_three_forms_say_the_same() {
        for program in ["launcher", "lifecycle"] {
            let cdx = document(&format!("{program}.sbom.cdx.json"));
            assert_eq!((&cdx["bomFormat"], &cdx["specVersion"]), (&json!("CycloneDX"), &json!("1.5")));
            assert_eq!(cdx["metadata"]["component"]["name"], program);
            let urls = texts(&cdx["components"], "/purl");
            assert!(urls.iter().all(|url| is_url(url)), "{urls:?}");
            assert_eq!(urls.iter().collect::<BTreeSet<_>>().len(), urls.len(), "one is listed twice");
            assert_eq!(texts(&cdx["components"], "/bom-ref"), urls);
            assert!(texts(&cdx["components"], "/type").iter().all(|kind| *kind == "library"));

            let syft = document(&format!("{program}.sbom.syft.json"));
            assert_eq!(texts(&syft["artifacts"], "/purl"), urls);
            assert_eq!(texts(&syft["artifacts"], "/name"), texts(&cdx["components"], "/name"));
            assert!(syft["source"].is_object() && syft["descriptor"]["name"] == "coracle");
            let version = syft["schema"]["version"].as_str().unwrap();
            assert!(syft["schema"]["url"].as_str().unwrap().ends_with(&format!("schema-{version}.json")));

            let spdx = document(&format!("{program}.sbom.spdx.json"));
            let packages = json!(spdx["packages"].as_array().unwrap()[1..]);
            assert_eq!(texts(&packages, "/externalRefs/0/referenceLocator"), urls);
            assert!(texts(&packages, "/licenseDeclared").iter().all(|licence| !licence.contains('/')));
            let mut ids: BTreeSet<&str> = texts(&spdx["packages"], "/SPDXID").into_iter().collect();
            assert_eq!(ids.len(), urls.len() + 1);
            ids.insert("SPDXRef-DOCUMENT");
            for end in ["/spdxElementId", "/relatedSpdxElement"] {
                assert!(texts(&spdx["relationships"], end).iter().all(|id| ids.contains(id)), "{end}");
            }
            for (field, text) in [("spdxVersion", "SPDX-2.3"), ("dataLicense", "CC0-1.0")] {
                assert_eq!(spdx[field], text);
            }
        }
    }

    #[test]
    fn each_program_lists_what_it_is_linked_of() {
        let names = |program: &str| -> BTreeSet<String> {
            let cdx = document(&format!("{program}.sbom.cdx.json"));
            texts(&cdx["components"], "/name").into_iter().map(str::to_owned).collect()
        };
        let (launcher, lifecycle) = (names("launcher"), names("lifecycle"));
        for name in ["toml", "coracle-cnb", "rust-std"] {
            assert!(launcher.contains(name) && lifecycle.contains(name), "{name}");
        }
        for name in ["rustls", "seccompiler", "coracle-authorities"] {
            assert!(!launcher.contains(name) && lifecycle.contains(name), "{name}");
        }
        // Macros, and what only tests need; the crate that ours stands for.
        for name in ["serde_derive", "syn", "insta", "coracle-fixtures", "rustls-platform-verifier"] {
            assert!(!lifecycle.contains(name), "{name}");
        }
    }

    #[test]
    fn no_document_tells_where_or_when_it_was_made() {
        let all = json!(documents()).to_string();
        for text in [env!("CARGO_MANIFEST_DIR"), "/home/", "/root/", "(*)"] {
            assert!(!all.contains(text), "{text}");
        }
        let times: Vec<&str> = all.matches("created\":").collect();
        assert_eq!(times.len(), 2, "only SPDX asks for one");
    }
}
