//! Which phase a program was called as: by a name or a link of its own, or as a word after `lifecycle`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::table::{Holds, Phase};
use super::{OF_OURS, PHASES};

/// Where containers have the phases, each at a path of its own.
const FOLDER: &str = "/cnb/lifecycle";

/// The words that `lifecycle` takes for phases, beside the names of their programs.
const VERBS: [(&str, &str); 8] = [
    ("analyze", "analyzer"),
    ("build", "builder"),
    ("create", "creator"),
    ("detect", "detector"),
    ("export", "exporter"),
    ("extend", "extender"),
    ("rebase", "rebaser"),
    ("restore", "restorer"),
];

/// A call of a phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// The phase; `lifecycle` where none was named.
    pub name: OsString,
    /// What follows.
    pub args: Vec<OsString>,
}

impl Called {
    /// The phase that these words call, the first of which is the program's own name; nothing where they call none.
    pub fn by(words: &[OsString]) -> Option<Self> {
        let (program, args) = words.split_first()?;
        let program = Path::new(program);
        let name = program.file_name().unwrap_or_default();
        if name == "lifecycle" {
            return Some(Self::after_lifecycle(args));
        }
        let spoken = |known: &str| name == known;
        let linked = PHASES.iter().any(|phase| spoken(phase.name) && !OF_OURS.contains(&phase.name));
        if linked || program.starts_with(FOLDER) {
            return Some(Self { name: name.to_owned(), args: args.to_vec() });
        }
        let (first, rest) = args.split_first()?;
        let asks = rest.first().is_some_and(|word| ["-h", "--help", "help"].iter().any(|help| word == help));
        (first == "lifecycle" && !asks).then(|| Self::after_lifecycle(rest))
    }

    fn after_lifecycle(words: &[OsString]) -> Self {
        match words.split_first() {
            Some((word, rest)) if !is_version(word) => {
                let known = VERBS.iter().find(|(verb, _)| word == verb);
                let name = known.map_or_else(|| word.clone(), |(_, phase)| (*phase).into());
                Self { name, args: rest.to_vec() }
            }
            _ => Self { name: "lifecycle".into(), args: words.to_vec() },
        }
    }

    /// Whether the phase has any use of credentials: no other is to have them.
    pub fn holds_credentials(&self) -> bool {
        self.is_one(|phase| matches!(phase.holds, Holds::Credentials | Holds::Both))
    }

    /// Whether the phase starts programs of buildpacks, too.
    pub fn holds_both(&self) -> bool {
        self.is_one(|phase| phase.holds == Holds::Both)
    }

    fn is_one(&self, of: impl Fn(&Phase) -> bool) -> bool {
        PHASES.iter().any(|phase| self.name == phase.name && of(phase))
    }
}

/// `-version`, as Go's flags are written.
pub(super) fn is_version(word: &OsStr) -> bool {
    word == "-version" || word == "--version"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(line: &str) -> Option<(String, String)> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let text = |word: &OsString| word.to_string_lossy().into_owned();
        let called = Called::by(&words)?;
        Some((text(&called.name), called.args.iter().map(text).collect::<Vec<_>>().join(" ")))
    }

    #[test]
    fn a_phase_is_called_by_a_link_a_path_or_a_word() {
        for (line, name, args) in [
            ("analyzer -tag a b", "analyzer", "-tag a b"),
            ("/usr/local/bin/exporter x", "exporter", "x"),
            ("./rebaser", "rebaser", ""),
            ("creator", "creator", ""),
            ("/cnb/lifecycle/detect-programs -runs r", "detect-programs", "-runs r"),
            ("/cnb/lifecycle/nonsense", "nonsense", ""),
            ("lifecycle detect -app a", "detector", "-app a"),
            ("/bin/lifecycle -version", "lifecycle", "-version"),
            ("coracle lifecycle restorer -gid 1", "restorer", "-gid 1"),
            ("/opt/coracle lifecycle analyze -version", "analyzer", "-version"),
            ("coracle lifecycle", "lifecycle", ""),
        ] {
            assert_eq!(called(line), Some((name.to_owned(), args.to_owned())), "{line}");
        }
    }

    #[test]
    fn everything_else_is_no_phase() {
        for line in [
            "coracle build app",
            "coracle builder create b",
            "detect-programs",
            "coracle",
            "/cnb/x lifecycles",
            "coracle lifecycle -h",
        ] {
            assert_eq!(called(line), None, "{line}");
        }
        assert_eq!(Called::by(&[]), None);
    }

    #[test]
    fn who_holds_credentials() {
        let holds = |name: &str| Called { name: name.into(), args: Vec::new() }.holds_credentials();
        for name in ["analyzer", "restorer", "exporter", "rebaser", "creator"] {
            assert!(holds(name), "{name}");
            let called = Called { name: name.into(), args: Vec::new() };
            assert_eq!(called.holds_both(), name == "creator", "{name}");
        }
        for name in
            ["detector", "builder", "detect-programs", "describe-builder", "lifecycle", "extender", ""]
        {
            assert!(!holds(name), "{name}");
        }
    }
}
