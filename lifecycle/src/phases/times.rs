//! How long each buildpack took, between the lines of buildpacks: for whoever started the phase with `-times`, and keeps these lines
//! from people. A buildpack can write such lines as well: what they say decides nothing, and is of one line of a name at most.

use std::time::Duration;

use super::Call;
use crate::detect::Module;

const START: &str = "::coracle-took::";

/// Before a buildpack's name: its program of detection.
const DETECT: &str = "detect ";

/// Microseconds that no program of ours lets one run: a year. Sums of a few of them are still times.
const LONGEST: u64 = 365 * 86_400 * 1_000_000;

/// Bytes of a name with what is before it.
const NAME: usize = 512;

/// What a line says: whose program took how long, and whether it is that of detection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Took<'a> {
    /// Whether it was `bin/detect`, and not `bin/build`.
    pub detect: bool,
    /// ID@VERSION.
    pub buildpack: &'a str,
    /// From its start to its end.
    pub took: Duration,
}

/// The line.
pub(super) fn line(Took { detect, buildpack, took }: &Took<'_>) -> String {
    format!("{START}{} {}{buildpack}", took.as_micros(), if *detect { DETECT } else { "" })
}

/// Writes the line of a program of detection, where `-times` asks for it.
pub(super) fn tell(call: &Call<'_>, module: &Module, took: Duration) {
    if call.arguments.on("times") {
        call.say(&line(&Took { detect: true, buildpack: &module.to_string(), took }));
    }
}

/// What such a line says.
pub fn took(line: &str) -> Option<Took<'_>> {
    let (micros, name) = line.strip_prefix(START)?.split_once(' ')?;
    let took = Duration::from_micros(micros.parse().ok().filter(|micros| *micros < LONGEST)?);
    if name.len() > NAME {
        return None;
    }
    Some(match name.strip_prefix(DETECT) {
        Some(buildpack) => Took { detect: true, buildpack, took },
        None => Took { detect: false, buildpack: name, took },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        let time = Duration::from_micros(1_234_567);
        for detect in [false, true] {
            let said = Took { detect, buildpack: "a/b@1.0", took: time };
            assert_eq!(took(&line(&said)), Some(said));
        }
        let long = format!("{START}1 {}", "a".repeat(NAME + 1));
        let never = format!("{START}{} a", u64::MAX);
        for other in
            ["", "::coracle-took::", "::coracle-took::x y", "::coracle-took::1", "took 1 a", &long, &never]
        {
            assert_eq!(took(other), None, "{other}");
        }
    }
}
