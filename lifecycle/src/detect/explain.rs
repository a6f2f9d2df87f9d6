//! What became of the groups of an order, for people.

use std::fmt;

use super::Obstacle;

/// One group of the order, composites unfolded, and why it was taken or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried {
    /// Each buildpack by `id@version`, whether it is optional, and what became of it.
    pub results: Vec<(String, bool, Verdict)>,
    /// What stood in the way when the plans of those that passed were put together.
    pub obstacles: Vec<Obstacle>,
}

/// What became of one buildpack in one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    /// Its program said that it does not take part.
    Failed,
    /// Its program, or the plan that it wrote, is broken.
    Error,
    /// It is not for the run image's system, processor or distribution.
    OtherTarget,
}

impl fmt::Display for Tried {
    /// A line for each buildpack, in the words that people look for in a build's log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "======== Results ========")?;
        for (buildpack, optional, verdict) in &self.results {
            let (word, why) = match (verdict, optional) {
                (Verdict::Passed, _) => ("pass:", ""),
                (Verdict::Failed, true) => ("skip:", ""),
                (Verdict::Failed, false) => ("fail:", ""),
                (Verdict::Error, true) => ("skip:", " (error)"),
                (Verdict::Error, false) => ("err: ", ""),
                (Verdict::OtherTarget, _) => ("err: ", " (does not support the run image's target)"),
            };
            write!(f, "\n{word} {buildpack}{why}")?;
        }
        for Obstacle { buildpack, left_out, entry, requires } in &self.obstacles {
            let word = if *left_out { "skip:" } else { "fail:" };
            let what = if *requires { "requires" } else { "provides unused" };
            // The name is a program's: it must not make lines of its own.
            let entry = entry.replace(char::is_control, "\u{fffd}");
            write!(f, "\n{word} {buildpack} {what} {entry}")?;
        }
        if self.results.is_empty() {
            write!(f, "\nthe group is empty")?;
        }
        Ok(())
    }
}
