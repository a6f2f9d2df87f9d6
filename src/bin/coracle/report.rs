//! The only file that prints.

use std::collections::{BTreeMap, VecDeque};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;

use coracle::{Event, Observer, Pruned, Stream, Work};
use indicatif::{ProgressBar, ProgressStyle};

/// What the user asked to be told: on standard output.
pub(crate) fn result(text: &str) {
    out(text);
}

/// A question, or what is typed in answer to it: on standard error, without the end of the line.
pub(crate) fn prompt(text: &str) {
    raw(&mut std::io::stderr().lock(), text.as_bytes());
}

/// A text of a file or a stranger that is a part of a result, without what would drive the terminal.
pub(crate) fn plain(text: &str) -> String {
    printable(text, false)
}

/// Rows of results, each column as wide as its longest text.
pub(crate) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    for row in rows {
        let cells = row.iter().zip(widths).map(|(text, width)| format!("{text:width$}"));
        out(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// What prune has deleted, or would.
pub(crate) fn pruned(pruned: &Pruned, dry_run: bool) {
    let verb = if dry_run { "would delete" } else { "deleted" };
    pruned.images.iter().for_each(|name| out(&format!("{verb} the image {}", plain(name))));
    let Pruned { layers, blobs, caches, abandoned, bytes, .. } = pruned;
    let things = [
        (*layers, "unpacked layers"),
        (*blobs, "blobs"),
        (*caches, "caches of applications"),
        (*abandoned, "work folders of killed operations"),
    ];
    for (count, things) in things.iter().filter(|(count, _)| *count > 0) {
        out(&format!("{verb} {things}: {count}"));
    }
    out(&format!("{} {}", if dry_run { "would free" } else { "freed" }, indicatif::DecimalBytes(*bytes)));
}

/// What took how long: on standard error, for results are on the other. Names in it are strangers'.
pub(crate) fn timings(table: &str) {
    table.lines().for_each(|line| err(&printable(line, false)));
}

/// What went wrong: on standard error. It quotes strangers: names of their files, what their documents hold.
pub(crate) fn error(text: &str) {
    let lines: Vec<String> = text.split('\n').map(|line| printable(line, false)).collect();
    err(&format!("error: {}", lines.join("\n")));
}

/// Whoever reads may have gone (`| head`); the operation goes on, and its exit status tells.
fn out(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// The user's own program speaks: as it is, and at once.
fn raw(to: &mut dyn Write, bytes: &[u8]) {
    let _ = to.write_all(bytes).and_then(|()| to.flush());
}

fn err(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Says nothing, but keeps what the phase that runs has said: if it fails, that is the reason.
#[derive(Default)]
pub(crate) struct Quiet {
    lines: Mutex<VecDeque<String>>,
}

/// The most lines that are kept of a phase, the last ones.
const KEPT_LINES: usize = 1000;

impl Quiet {
    /// On standard error, what the last phase said.
    pub(crate) fn tell(&self) {
        let Ok(lines) = self.lines.lock() else { return };
        lines.iter().for_each(|line| err(line));
    }
}

impl Observer for Quiet {
    fn event(&self, event: Event) {
        let Ok(mut lines) = self.lines.lock() else { return };
        match event {
            Event::PhaseStarted { .. } => lines.clear(),
            Event::Line { phase: Some(phase), text, .. } => {
                if lines.len() == KEPT_LINES {
                    lines.pop_front();
                }
                lines.push_back(format!("[{phase}] {}", printable(&text, false)));
            }
            _ => {}
        }
    }
}

/// A bar on a terminal, plain lines elsewhere.
pub(crate) struct Terminal {
    bar: Mutex<Option<Bar>>,
    is_terminal: bool,
    /// Whether standard output and standard error show colours.
    colours: [bool; 2],
}

struct Bar {
    bar: ProgressBar,
    layers: BTreeMap<usize, u64>,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        // https://no-color.org
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let wanted = set("NO_COLOR").is_none() && set("TERM").is_none_or(|terminal| terminal != "dumb");
        let (out, err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        Self { bar: Mutex::new(None), is_terminal: err, colours: [wanted && out, wanted && err] }
    }
}

impl Observer for Terminal {
    fn event(&self, event: Event) {
        let Ok(mut slot) = self.bar.lock() else { return };
        // The bar makes room for what is said meanwhile, and goes when its pull has ended or another begins.
        let has_ended = match &event {
            Event::PullStarted { .. } => true,
            Event::Took { work: Work::Job, name, .. } => name == "Pull",
            _ => false,
        };
        if let Some(done) = slot.take_if(|_| has_ended) {
            done.bar.finish_and_clear();
        }
        match event {
            Event::PullStarted { image, layers, bytes, .. } if self.is_terminal && layers > 0 => {
                let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}");
                let bar = ProgressBar::new(bytes).with_message(format!("{image} ({layers} layers)"));
                *slot = Some(Bar {
                    bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())),
                    layers: BTreeMap::new(),
                });
            }
            Event::LayerProgress { layer, bytes } => {
                if let Some(bar) = slot.as_mut() {
                    bar.layers.insert(layer, bytes);
                    bar.bar.set_position(bar.layers.values().sum());
                }
            }
            said => match slot.as_ref() {
                Some(bar) => bar.bar.suspend(|| self.show(said)),
                None => self.show(said),
            },
        }
    }
}

impl Terminal {
    /// What is one line, or more.
    fn show(&self, event: Event) {
        match event {
            Event::Took { .. } | Event::LayerProgress { .. } | Event::LayerReady { skipped: 0, .. } => {}
            Event::PullStarted { image, layers: 0, .. } => err(&format!("{image}: all layers are here")),
            Event::PullStarted { image, layers, bytes, .. } => {
                err(&format!("{image}: fetching {layers} layers, {:.1} MB", megabytes(bytes)));
            }
            Event::LayerReady { layer, skipped } => {
                err(&format!(
                    "layer {layer}: {skipped} device files were left out; containers get their own"
                ));
            }
            Event::PhaseStarted { phase } => out(&format!("===> {}", phase.to_uppercase())),
            Event::Output { stream: Stream::Out, bytes } => raw(&mut std::io::stdout().lock(), &bytes),
            Event::Output { stream: Stream::Err, bytes } => raw(&mut std::io::stderr().lock(), &bytes),
            Event::Notice { text } => err(&printable(&text, false)),
            Event::Line { stream, phase, text } => {
                let prefix = phase.map(|phase| format!("[{phase}] ")).unwrap_or_default();
                let line = |colours| format!("{prefix}{}", printable(&text, colours));
                match stream {
                    Stream::Out => out(&line(self.colours[0])),
                    Stream::Err => err(&line(self.colours[1])),
                }
            }
        }
    }
}

/// A stranger's line without what would move the cursor, write the clipboard, rename the window or turn the order of
/// letters around: every control character but the tab is replaced, and so are the overrides of direction (Unicode
/// Standard Annex 9, "Explicit Directional Formatting Characters"). What would be a command to a CI runner that reads
/// along gets a space into its mark, see [`command`]. Colours (ECMA-48, "SGR") are kept where they are
/// shown, and end with the line; elsewhere they are left out.
fn printable(text: &str, colours: bool) -> String {
    let drives = |c: char| {
        c.is_control() && c != '\t'
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let (mut line, mut rest, mut coloured, mut blank) =
        (String::with_capacity(text.len()), text, false, true);
    while let Some(next) = rest.chars().next() {
        if let Some(length) = colour(rest) {
            if colours {
                line.push_str(&rest[..length]);
                (coloured, blank) = (true, false);
            }
            rest = &rest[length..];
            continue;
        }
        line.push(if drives(next) { '\u{fffd}' } else { next });
        if command(rest, blank) {
            line.push(' ');
        }
        blank &= next.is_whitespace();
        rest = &rest[next.len_utf8()..];
    }
    if coloured {
        line.push_str("\u{1b}[0m");
    }
    line
}

/// Whether `text` begins with the mark of a command to a CI runner, two characters and what follows them: GitHub's
/// `::name` at the start of a line, and anywhere in it GitHub's `##[name]`, Azure Pipelines' `##vso[` and TeamCity's
/// `##teamcity[`. GitLab's sections need control characters, which are gone.
fn command(text: &str, starts_line: bool) -> bool {
    match text.get(..2) {
        Some("##") => ["[", "vso[", "teamcity["].iter().any(|name| text[2..].starts_with(name)),
        Some("::") => starts_line && text[2..].starts_with(|next: char| next.is_ascii_alphabetic()),
        _ => false,
    }
}

/// The length of the colour that `text` begins with: the control sequence of digits, `;` and `:` that ends with `m`.
fn colour(text: &str) -> Option<usize> {
    let numbers = text.strip_prefix("\u{1b}[")?;
    let end = numbers.find(|c: char| !(c.is_ascii_digit() || c == ';' || c == ':'))?;
    numbers[end..].starts_with('m').then_some(2 + end + 1)
}

#[expect(clippy::cast_precision_loss, reason = "for reading, to one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_strangers_line_cannot_drive_the_terminal() {
        for colours in [true, false] {
            assert_eq!(
                printable("a\tb\u{1b}]52;c;x\u{7}\r\u{9b}2Jé\u{1b}[2J\u{1b}[", colours),
                "a\tb\u{fffd}]52;c;x\u{fffd}\u{fffd}\u{fffd}2Jé\u{fffd}[2J\u{fffd}["
            );
            assert_eq!(printable("a\u{202e}b\u{2066}c \u{5d0}", colours), "a\u{fffd}b\u{fffd}c \u{5d0}");
        }
    }

    #[test]
    fn a_strangers_line_is_no_command_to_a_ci_runner() {
        for (text, shown) in [
            ("::add-mask::x", ": :add-mask::x"),
            (" \t::set-output name=a::b", " \t: :set-output name=a::b"),
            ("a ##[add-mask]x", "a # #[add-mask]x"),
            ("###vso[task.setvariable]x", "## #vso[task.setvariable]x"),
            ("##teamcity[x]", "# #teamcity[x]"),
            ("section_start:1:a\r\u{1b}[0Kx", "section_start:1:a\u{fffd}\u{fffd}[0Kx"),
            ("::1 localhost", "::1 localhost"),
            ("std::io, ## [x] ##", "std::io, ## [x] ##"),
        ] {
            assert_eq!(printable(text, false), shown);
        }
        // Behind a colour that is shown a line does not start.
        assert_eq!(printable("\u{1b}[0m::error::x", true), "\u{1b}[0m::error::x\u{1b}[0m");
        assert_eq!(printable("\u{1b}[0m::error::x", false), ": :error::x");
    }

    #[test]
    fn colours_are_shown_or_left_out_and_end_with_their_line() {
        let text = "\u{1b}[1;34mblue\u{1b}[m and \u{1b}[38:5:1mred";
        assert_eq!(printable(text, true), format!("{text}\u{1b}[0m"));
        assert_eq!(printable(text, false), "blue and red");
        assert_eq!(printable("plain", true), "plain");
    }
}
