//! What a builder offers, read inside its own root filesystem before any program of it has run, so that decisions
//! outside never depend on what such a program claims.

use std::path::{Path, PathBuf};

use coracle_cnb::{ApiVersion, BuildpackToml, Distro, Order};

use crate::detect::{Catalog, CatalogError, Unusable, system};
use crate::file::{self, FileError};

/// A builder's buildpacks and the order in which they are tried.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Description {
    /// With the buildpacks of the system.
    pub order: Order,
    /// Every buildpack that the order can reach.
    pub buildpacks: Vec<BuildpackToml>,
    /// Every image extension, which says the same of itself.
    pub extensions: Vec<BuildpackToml>,
    /// What composites have and cannot be used.
    pub unusable: Vec<Unusable>,
    /// From `/etc/os-release` (os-release(5)); stands in for a run image that names no distribution.
    pub distro: Option<Distro>,
}

/// The documents in which a builder says what to try.
#[derive(Debug)]
pub struct Orders<'a> {
    pub order: &'a Path,
    /// What goes around each group; nothing where it is not there.
    pub system: &'a Path,
}

/// Why a builder could not be described.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// There is no order.
    #[error("there is no `{0}`: the image is not a builder; name one with --builder")]
    NoOrder(PathBuf),
    /// A file could not be read.
    #[error("describe builder")]
    File(#[from] FileError),
    /// A buildpack could not be looked up.
    #[error("describe builder")]
    Catalog(#[from] CatalogError),
}

/// Reads the order and the buildpack.toml of every buildpack that it can reach, whatever its API where `any_api` says so.
///
/// # Errors
/// [`DescribeError`].
pub fn describe(
    orders: &Orders<'_>,
    buildpacks_dir: &Path,
    extensions_dir: &Path,
    os_release: &Path,
    any_api: bool,
) -> Result<Description, DescribeError> {
    let document: Option<Order> = file::read_document("order.toml", orders.order)?;
    let mut document = document.ok_or_else(|| DescribeError::NoOrder(orders.order.to_owned()))?;
    system::surround(&mut document, orders.system)?;
    let speaks: fn(ApiVersion) -> bool = if any_api { |_| true } else { crate::api::runs_buildpack_api };
    let catalog = Catalog::read_of(buildpacks_dir, extensions_dir, &document, speaks)?;
    Ok(Description {
        order: document,
        buildpacks: catalog.buildpacks().cloned().collect(),
        extensions: catalog.extensions().cloned().collect(),
        unusable: catalog.unusable().cloned().collect(),
        distro: file::read_text(os_release)?.as_deref().and_then(distro),
    })
}

/// The distribution of the root filesystem that this process is in.
pub(crate) fn build_distro() -> Result<Option<Distro>, FileError> {
    Ok(file::read_text(Path::new("/etc/os-release"))?.as_deref().and_then(distro))
}

/// `ID` and `VERSION_ID` of os-release(5), as the reference reads them: nothing after both are known counts, nor a line with a second
/// `=`. Quotes of either kind go (docs/decisions/0010-what-older-platforms-get.md).
fn distro(os_release: &str) -> Option<Distro> {
    let mut distro = Distro::default();
    for line in os_release.lines() {
        let Some((key, value)) = line.split_once('=').filter(|(_, value)| !value.contains('=')) else {
            continue;
        };
        let value = value.trim_matches(['"', '\'', ' ']).to_owned();
        match key {
            "ID" => distro.name = value,
            "VERSION_ID" => distro.version = value,
            _ => {}
        }
        if !distro.name.is_empty() && !distro.version.is_empty() {
            break;
        }
    }
    (distro != Distro::default()).then_some(distro)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_builder_without_an_order_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let order = dir.path().join("order.toml");
        let orders = Orders { order: &order, system: &order };
        let refused = describe(&orders, dir.path(), dir.path(), dir.path(), false).unwrap_err().to_string();
        let expected = "there is no `ORDER`: the image is not a builder; name one with --builder";
        assert_eq!(refused, expected.replace("ORDER", &order.display().to_string()));
    }

    #[test]
    fn a_buildpack_of_another_age_is_described_where_another_lifecycle_runs_it() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| file::write(&dir.path().join(path), text.as_bytes()).unwrap();
        write("order.toml", "[[order]]\n[[order.group]]\nid = \"a\"\nversion = \"1\"\n");
        write("a/1/buildpack.toml", "api = \"0.2\"\n[buildpack]\nid = \"a\"\nversion = \"1\"\n");
        let (order, none) = (dir.path().join("order.toml"), dir.path().join("none"));
        let orders = Orders { order: &order, system: &none };
        let of = |any_api| describe(&orders, dir.path(), dir.path(), &none, any_api);
        assert_eq!(of(true).unwrap().buildpacks.len(), 1);
        assert!(crate::with_causes(&of(false).unwrap_err()).contains("--lifecycle builder"));
    }

    #[test]
    fn everything_that_the_order_reaches_is_described() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| file::write(&dir.path().join(path), text.as_bytes()).unwrap();
        write("order.toml", "[[order]]\n[[order.group]]\nid = \"a/all\"\nversion = \"1\"\n");
        let all = "api = \"0.10\"\n[buildpack]\nid = \"a/all\"\nversion = \"1\"\n[[order]]\n[[order.group]]\nid = \"a/one\"\nversion = \"2\"\n";
        write("a_all/1/buildpack.toml", all);
        write("a_one/2/buildpack.toml", "api = \"0.10\"\n[buildpack]\nid = \"a/one\"\nversion = \"2\"\n");
        write("a_two/2/buildpack.toml", "unreachable and broken");
        write("a_last/1/buildpack.toml", "api = \"0.10\"\n[buildpack]\nid = \"a/last\"\nversion = \"1\"\n");
        write(
            "system.toml",
            "[[system.post.buildpacks]]\nid = \"a/last\"\nversion = \"1\"\noptional = true\n",
        );
        write("os-release", "NAME=\"X\"\nID=debian\nVERSION_ID=\"12\"\n");
        let path = |name: &str| dir.path().join(name);
        let (order, system) = (path("order.toml"), path("system.toml"));
        let orders = Orders { order: &order, system: &system };
        let found = describe(&orders, dir.path(), dir.path(), &path("os-release"), false).unwrap();
        let ids: Vec<_> = found.buildpacks.iter().map(|toml| toml.buildpack.id.to_string()).collect();
        assert_eq!(ids, ["a/all", "a/last", "a/one"]);
        assert_eq!(found.order.order[0].group.len(), 2);
        assert!(!found.order.order[0].group[1].optional);
        assert_eq!(found.distro, Some(Distro { name: "debian".into(), version: "12".into() }));
    }

    /// Single quotes go, too, which the reference keeps (docs/decisions/0010-what-older-platforms-get.md); a line `ID` ends it.
    #[test]
    fn the_distribution_is_read_as_the_reference_reads_it() {
        for (os_release, read) in [
            ("nothing", None),
            ("ID\nVERSION_ID=\n", None),
            ("ID=debian\nVERSION_ID=\"12\"\n", Some("debian 12")),
            ("ID='debian'\nVERSION_ID='12'\n", Some("debian 12")),
            ("ID= debian \nVERSION_ID=\"12\" \r\n", Some("debian 12")),
            (" ID=debian\nVERSION_ID = 12\n#ID=x\n", None),
            ("ID==debian\nVERSION_ID=12\n", Some(" 12")),
            ("ID=a\nID=b\nVERSION_ID=1\nVERSION_ID=2\n", Some("b 1")),
            ("ID=\"a\\$b\"\n", Some("a\\$b ")),
        ] {
            let found = distro(os_release).map(|distro| format!("{} {}", distro.name, distro.version));
            assert_eq!(found.as_deref(), read, "{os_release}");
        }
    }
}
