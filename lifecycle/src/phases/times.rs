//! How long each buildpack took, between the lines of buildpacks: for whoever started the phase with `-times`, and keeps these lines
//! from people. A buildpack can write such lines as well; they are shown, and decide nothing.

use std::time::Duration;

const START: &str = "::coracle-took::";

/// The line.
pub(super) fn line(buildpack: &str, took: Duration) -> String {
    format!("{START}{} {buildpack}", took.as_micros())
}

/// The buildpack of such a line, and how long it took.
pub fn took(line: &str) -> Option<(&str, Duration)> {
    let (micros, buildpack) = line.strip_prefix(START)?.split_once(' ')?;
    Some((buildpack, Duration::from_micros(micros.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        let time = Duration::from_micros(1_234_567);
        assert_eq!(took(&line("a/b@1.0", time)), Some(("a/b@1.0", time)));
        for other in ["", "::coracle-took::", "::coracle-took::x y", "::coracle-took::1", "took 1 a"] {
            assert_eq!(took(other), None, "{other}");
        }
    }
}
