//! `--timings`: where what an operation spent its time on is written.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use coracle::Trace;

use crate::failure::Failure;
use crate::report;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// A table on standard error.
    Table,
    /// A trace for Perfetto and others.
    Trace(PathBuf),
    /// A page for a browser.
    Page(PathBuf),
}

impl FromStr for Form {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Path::new(text).extension().and_then(|extension| extension.to_str()) {
            _ if text.is_empty() => Ok(Self::Table),
            Some("json") => Ok(Self::Trace(text.into())),
            Some("html") => Ok(Self::Page(text.into())),
            _ => Err("timings are written as a trace to FILE.json or as a page to FILE.html"),
        }
    }
}

/// The flag's value may follow it without `=` where it can hardly be anything else: the ends of these names are no images'.
pub(crate) fn joined(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut out: Vec<OsString> = Vec::new();
    let mut done = false;
    for word in words {
        let is_file = word.to_str().is_some_and(|text| text.ends_with(".json") || text.ends_with(".html"));
        match out.last_mut() {
            Some(last) if !done && is_file && last == "--timings" => {
                last.push("=");
                last.push(word);
            }
            _ => {
                done |= word == "--";
                out.push(word);
            }
        }
    }
    out
}

/// Where it goes: opened before the work begins, so that nobody waits for a build to hear that a folder does not exist.
pub(crate) struct Output {
    form: Form,
    file: Option<File>,
}

impl Output {
    pub(crate) fn open(form: &Form) -> Result<Self, Failure> {
        let file = match form {
            Form::Table => None,
            Form::Trace(path) | Form::Page(path) => {
                let failed = |source| Failure::Timings { path: path.clone(), source };
                Some(File::create(path).map_err(failed)?)
            }
        };
        Ok(Self { form: form.clone(), file })
    }

    pub(crate) fn write(mut self, trace: &Trace) -> Result<(), Failure> {
        let (path, text) = match &self.form {
            Form::Table => {
                report::timings(&trace.table());
                return Ok(());
            }
            Form::Trace(path) => (path, trace.events()),
            Form::Page(path) => (path, trace.page()),
        };
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(text.as_bytes()));
        written.map_err(|source| Failure::Timings { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_follow_the_flag_and_an_image_is_none() {
        let joined = |text: &str| {
            let words = joined(text.split(' ').map(OsString::from));
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(joined("c build --timings t.json app"), "c build --timings=t.json app");
        assert_eq!(joined("c build --timings app"), "c build --timings app");
        assert_eq!(joined("c run app -- --timings x.html"), "c run app -- --timings x.html");
    }

    #[test]
    fn the_form_is_told_by_the_name() {
        assert_eq!("".parse(), Ok(Form::Table));
        assert_eq!("a.json".parse(), Ok(Form::Trace("a.json".into())));
        assert_eq!("b/a.html".parse(), Ok(Form::Page("b/a.html".into())));
        assert_eq!(
            "a.txt".parse::<Form>(),
            Err("timings are written as a trace to FILE.json or as a page to FILE.html")
        );
    }
}
