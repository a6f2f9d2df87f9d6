//! `coracle prune`.

use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Prune {
    /// Delete every image and every cache too
    #[arg(long, conflicts_with = "older_than")]
    pub(crate) all: bool,
    /// Say what would be deleted, and delete nothing of it
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Delete the caches of applications that were not built for longer than this: a number with m, h or d
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = age)]
    pub(crate) older_than: Duration,
}

fn age(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(['m', 'h', 'd']);
    let unit = match &text[number.len()..] {
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86400),
        _ => None,
    };
    let seconds =
        number.parse::<u64>().ok().zip(unit).and_then(|(number, unit): (u64, u64)| number.checked_mul(unit));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "write a number of minutes, hours or days, such as 90m, 12h or 30d".to_owned())
}
