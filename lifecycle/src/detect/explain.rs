//! What became of the groups of an order, for people.

use std::fmt;

use super::Obstacle;

/// One group of the order, composites unfolded, and why it was taken or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried {
    /// Each module by `id@version`, whether it is optional, and what became of it.
    pub results: Vec<(String, bool, Verdict)>,
    /// What stood in the way when the plans of those that passed were put together.
    pub obstacles: Vec<Obstacle>,
    /// Whether nothing but extensions passed.
    pub no_buildpack: bool,
}

/// What became of one module in one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    /// Its program said that it does not take part.
    Failed,
    /// Its program, or the plan that it wrote, is broken.
    Error(Option<String>),
    /// It is not for the run image's system, processor or distribution.
    OtherTarget,
}

impl fmt::Display for Tried {
    /// A line for each module, in the words that people look for in a build's log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "======== Results ========")?;
        for (module, optional, verdict) in &self.results {
            match (verdict, optional) {
                (Verdict::Passed, _) => write!(f, "\npass: {module}")?,
                (Verdict::Failed, true) => write!(f, "\nskip: {module}")?,
                (Verdict::Failed, false) => write!(f, "\nfail: {module}")?,
                (Verdict::OtherTarget, _) => {
                    write!(f, "\nerr:  {module} (does not support the run image's target)")?;
                }
                (Verdict::Error(why), _) => {
                    let why = why.as_deref().map(one_line).filter(|why| !why.is_empty());
                    write!(f, "\nerr:  {module} ({})", why.as_deref().unwrap_or("error"))?;
                }
            }
        }
        for Obstacle { module, left_out, entry, requires } in &self.obstacles {
            let word = if *left_out { "skip:" } else { "fail:" };
            let what = if *requires { "requires" } else { "provides unused" };
            write!(f, "\n{word} {module} {what} {}", one_line(entry))?;
        }
        if self.results.is_empty() {
            write!(f, "\nthe group is empty")?;
        } else if self.no_buildpack {
            write!(f, "\nfail: no buildpack of the group takes part")?;
        }
        Ok(())
    }
}

/// A program's words must not make lines of their own.
fn one_line(text: &str) -> String {
    text.trim().replace('\n', " ").replace(char::is_control, "\u{fffd}")
}
