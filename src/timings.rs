//! What an operation spent its time on.
//!
//! [`Timings`] listens to the same events as everybody else, and reads the clock; [`Trace`] is what came of it, and turns into
//! text without reading anything.

mod page;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::event::{Event, Observer, Work};

/// Hands every event on, and keeps what took time.
pub struct Timings<'a> {
    to: &'a dyn Observer,
    began: Instant,
    seen: Mutex<(Vec<Span>, Vec<Mark>)>,
}

impl std::fmt::Debug for Timings<'_> {
    /// Without the observer, of which nothing is known.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timings").field("began", &self.began).finish_non_exhaustive()
    }
}

/// Everything that took time, in the order of its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// What was done, for a title.
    pub title: String,
    /// From beginning to end.
    pub total: Duration,
    /// What took time.
    pub spans: Vec<Span>,
    /// What happened at one moment.
    pub marks: Vec<Mark>,
}

/// Something that took time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// What kind of thing.
    pub work: Work,
    /// Which one.
    pub name: String,
    /// When it began, after the operation did.
    pub began: Duration,
    /// How long it took.
    pub took: Duration,
    /// The bytes it moved, where that is what it was for.
    pub bytes: Option<u64>,
}

/// What a phase did with one layer: kept it, took it from somewhere, or made it anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The phase.
    pub phase: String,
    /// Its own words.
    pub text: String,
    /// When it said so, after the operation began.
    pub at: Duration,
}

/// How many of either are kept, and how much of a mark's text: a builder's programs write those of a creator, at their pace.
const MOST: usize = 20_000;
const MARK: usize = 512;

/// The words with which phases of ours begin a line about a layer, and the phases that have layers. In a creator programs of
/// buildpacks can say the same: it is shown, and decides nothing.
const ABOUT_LAYERS: [&str; 3] = ["Reusing ", "Adding ", "Restoring "];
const HAVE_LAYERS: [&str; 4] = ["analyzer", "restorer", "exporter", "creator"];

impl<'a> Timings<'a> {
    /// Begins now.
    #[must_use]
    pub fn new(to: &'a dyn Observer) -> Self {
        Self { to, began: Instant::now(), seen: Mutex::default() }
    }

    /// What was seen until now.
    #[must_use]
    pub fn trace(&self, title: &str) -> Trace {
        let total = self.began.elapsed();
        let seen = self.seen.lock().map(|seen| seen.clone());
        let (spans, marks) = seen.unwrap_or_default();
        Trace { title: title.to_owned(), total, spans, marks }
    }
}

impl Observer for Timings<'_> {
    fn event(&self, event: Event) {
        let now = self.began.elapsed();
        if let Ok(mut seen) = self.seen.lock() {
            match &event {
                Event::Took { work, name, took, bytes } if seen.0.len() < MOST => seen.0.push(Span {
                    work: *work,
                    name: name.clone(),
                    began: now.saturating_sub(*took),
                    took: *took,
                    bytes: *bytes,
                }),
                Event::Line { phase: Some(phase), text, .. }
                    if seen.1.len() < MOST
                        && HAVE_LAYERS.contains(&phase.as_str())
                        && ABOUT_LAYERS.iter().any(|start| text.starts_with(start)) =>
                {
                    seen.1.push(Mark {
                        phase: phase.clone(),
                        text: text.chars().take(MARK).collect(),
                        at: now,
                    });
                }
                _ => {}
            }
        }
        self.to.event(event);
    }
}

impl Trace {
    /// For a terminal: a line for each span in the order of their beginnings, and what lay between them.
    #[must_use]
    pub fn table(&self) -> String {
        let mut spans: Vec<&Span> = self.spans.iter().collect();
        spans.sort_by_key(|span| (span.began, span.work));
        let names: Vec<String> = spans.iter().map(|span| span.title()).collect();
        let width = names.iter().map(String::len).max().unwrap_or(0).max("what".len());
        let mut text =
            format!("{:width$}  {:>9}  {:>9}  {:>5}  {:>9}\n", "what", "began", "took", "share", "size");
        for (span, name) in spans.iter().zip(&names) {
            let size = span.size();
            let line = format!(
                "{name:width$}  {:>9}  {:>9}  {:>4.0}%  {size:>9}",
                milliseconds(span.began),
                milliseconds(span.took),
                100.0 * self.share(span.took),
            );
            text.push_str(line.trim_end());
            text.push('\n');
        }
        let between = self.total.saturating_sub(self.busy());
        let line = |name: &str, took| {
            format!(
                "{name:width$}  {:>9}  {:>9}  {:>4.0}%\n",
                "",
                milliseconds(took),
                100.0 * self.share(took)
            )
        };
        text + &line("between them", between) + &line("all", self.total)
    }

    /// A trace in the [Trace Event Format](https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU),
    /// which Perfetto and the tracing page of Chromium open. Times are microseconds.
    #[must_use]
    pub fn events(&self) -> String {
        let begin = |kind: &str, tid: usize, name: &str, at: Duration, category: Value| json!({"ph": kind, "pid": 1, "tid": tid, "name": name, "ts": micros(at), "cat": category});
        let mut events =
            vec![json!({"ph": "M", "pid": 1, "name": "process_name", "args": {"name": self.title}})];
        for (lane, span) in self.lanes() {
            let mut event = begin("X", lane, &span.title(), span.began, json!(span.work));
            event["dur"] = json!(micros(span.took));
            if let Some(bytes) = span.bytes {
                event["args"] = json!({ "bytes": bytes });
            }
            events.push(event);
        }
        for mark in &self.marks {
            let mut event = begin("i", 0, &mark.text, mark.at, json!(mark.phase));
            event["s"] = json!("p");
            events.push(event);
        }
        json!({"displayTimeUnit": "ms", "traceEvents": events}).to_string()
    }

    /// A page that needs nothing else: each span a bar at its time.
    #[must_use]
    pub fn page(&self) -> String {
        page::page(self)
    }

    /// Spans with the row in which they do not overlap others: first come, first row.
    fn lanes(&self) -> Vec<(usize, &Span)> {
        let mut spans: Vec<&Span> = self.spans.iter().collect();
        spans.sort_by_key(|span| (span.began, std::cmp::Reverse(span.took)));
        let mut ends: Vec<Duration> = Vec::new();
        let lane = |span: &Span, ends: &mut Vec<Duration>| {
            let free = ends.iter().position(|end| *end <= span.began);
            let lane = free.unwrap_or(ends.len());
            let end = span.began + span.took;
            if lane == ends.len() {
                ends.push(end)
            } else {
                ends[lane] = end
            }
            lane
        };
        spans.into_iter().map(|span| (lane(span, &mut ends), span)).collect()
    }

    /// How long at least one span lasted.
    fn busy(&self) -> Duration {
        let mut spans: Vec<(Duration, Duration)> =
            self.spans.iter().map(|span| (span.began, span.began + span.took)).collect();
        spans.sort();
        let busy = spans.into_iter().fold((Duration::ZERO, Duration::ZERO), |(busy, until), (began, end)| {
            let new = end.saturating_sub(began.max(until));
            (busy + new, until.max(end))
        });
        busy.0
    }

    fn share(&self, of: Duration) -> f64 {
        if self.total.is_zero() { 0.0 } else { of.as_secs_f64() / self.total.as_secs_f64() }
    }
}

impl Span {
    /// The bytes it moved, for people; nothing where that is not what it was for.
    fn size(&self) -> String {
        self.bytes.map(|bytes| format!("{:.1} MB", thousandths(bytes / 1000))).unwrap_or_default()
    }

    /// Kind and name, for people.
    fn title(&self) -> String {
        let kind = match self.work {
            Work::Stage => "stage",
            Work::Job => "job",
            Work::Container => "container",
            Work::Detect => "detect",
            Work::Buildpack => "buildpack",
            Work::Layer => "layer",
        };
        let name =
            self.name.strip_prefix("sha256:").map_or(self.name.as_str(), |hex| hex.get(..12).unwrap_or(hex));
        format!("{kind} {name}")
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

#[expect(clippy::cast_precision_loss, reason = "for reading, to one decimal")]
fn thousandths(number: u64) -> f64 {
    number as f64 / 1000.0
}

#[cfg(test)]
mod tests;
