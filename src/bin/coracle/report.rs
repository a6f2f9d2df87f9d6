//! The only file that prints.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;

use coracle::{Event, Observer, Stream};
use indicatif::{ProgressBar, ProgressStyle};

/// What the user asked to be told: on standard output.
pub(crate) fn result(text: &str) {
    out(text);
}

/// What went wrong: on standard error. It quotes strangers: names of their files, what their documents hold.
pub(crate) fn error(text: &str) {
    let lines: Vec<String> = text.split('\n').map(printable).collect();
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

/// Says nothing.
pub(crate) struct Quiet;

impl Observer for Quiet {
    fn event(&self, _: Event) {}
}

/// A bar on a terminal, plain lines elsewhere.
pub(crate) struct Terminal {
    bar: Mutex<Option<Bar>>,
    is_terminal: bool,
}

struct Bar {
    bar: ProgressBar,
    layers: BTreeMap<usize, u64>,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        Self { bar: Mutex::new(None), is_terminal: std::io::stderr().is_terminal() }
    }
}

impl Observer for Terminal {
    fn event(&self, event: Event) {
        let Ok(mut slot) = self.bar.lock() else { return };
        // The bar makes room for whatever comes after it.
        if !matches!(event, Event::LayerProgress { .. })
            && let Some(done) = slot.take_if(|_| !matches!(event, Event::LayerReady { .. }))
        {
            done.bar.finish_and_clear();
        }
        match event {
            Event::PullStarted { image, layers: 0, .. } => err(&format!("{image}: all layers are here")),
            Event::PullStarted { image, layers, bytes } if self.is_terminal => {
                let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}");
                let bar = ProgressBar::new(bytes).with_message(format!("{image} ({layers} layers)"));
                *slot = Some(Bar {
                    bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())),
                    layers: BTreeMap::new(),
                });
            }
            Event::PullStarted { image, layers, bytes } => {
                err(&format!("{image}: fetching {layers} layers, {:.1} MB", megabytes(bytes)));
            }
            Event::LayerProgress { layer, bytes } => {
                if let Some(bar) = slot.as_mut() {
                    bar.layers.insert(layer, bytes);
                    bar.bar.set_position(bar.layers.values().sum());
                }
            }
            Event::LayerReady { layer, skipped } => {
                if skipped > 0 {
                    let text = format!(
                        "layer {layer}: {skipped} device files were left out; containers get their own"
                    );
                    slot.as_ref().map_or_else(|| err(&text), |bar| bar.bar.suspend(|| err(&text)));
                }
            }
            Event::PhaseStarted { phase } => out(&format!("===> {}", phase.to_uppercase())),
            Event::Output { stream: Stream::Out, bytes } => raw(&mut std::io::stdout().lock(), &bytes),
            Event::Output { stream: Stream::Err, bytes } => raw(&mut std::io::stderr().lock(), &bytes),
            Event::Notice { text } => err(&printable(&text)),
            Event::Line { stream, phase, text } => {
                let prefix = phase.map(|phase| format!("[{phase}] ")).unwrap_or_default();
                let line = format!("{prefix}{}", printable(&text));
                match stream {
                    Stream::Out => out(&line),
                    Stream::Err => err(&line),
                }
            }
        }
    }
}

/// A stranger's line without what would move the cursor, write the clipboard, rename the window or turn the order of
/// letters around: every control character but the tab is replaced, and so are the overrides of direction (Unicode
/// Standard Annex 9, "Explicit Directional Formatting Characters").
fn printable(text: &str) -> String {
    let drives = |c: char| {
        c.is_control() && c != '\t' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if drives(c) { '\u{fffd}' } else { c }).collect()
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
        assert_eq!(
            printable("a\tb\u{1b}]52;c;x\u{7}\r\u{9b}2Jé"),
            "a\tb\u{fffd}]52;c;x\u{fffd}\u{fffd}\u{fffd}2Jé"
        );
        assert_eq!(printable("a\u{202e}b\u{2066}c \u{5d0}"), "a\u{fffd}b\u{fffd}c \u{5d0}");
    }
}
