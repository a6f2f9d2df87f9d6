//! How long a phase's process takes to confine itself, each time in a process of its own: times for scripts/benchmark/table.py.
//! Usage: cargo bench -p coracle-runtime --bench confine -- [RUNS]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use coracle_runtime::confine::{enter_domain, load_filter};
use serde_json::json;

/// Names the process that is timed.
const TIMED: &str = "CORACLE_BENCH_TIMED";

/// As many folders as the programs of a builder may write below.
const FOLDERS: [&str; 6] = ["/tmp", "/var/tmp", "/home", "/usr", "/etc", "/run"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::var_os(TIMED).is_some() {
        let times = timed()?;
        return Ok(writeln!(std::io::stdout(), "{} {} {}", times[0], times[1], times[2])?);
    }
    // Cargo adds options of its own.
    let runs = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(100);
    let mut all = [const { Vec::new() }; 3];
    for _ in 0..runs {
        let output = Command::new(std::env::current_exe()?).env(TIMED, "").output()?;
        let text = String::from_utf8(output.stdout)?;
        let times = text.split_whitespace().map(str::parse::<f64>).collect::<Result<Vec<_>, _>>()?;
        if times.len() != all.len() {
            return Err(format!("not confined: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        for (all, time) in all.iter_mut().zip(times) {
            all.push(time);
        }
    }
    let [domain, filter, both] = all;
    let named = [("Landlock domain", domain), ("system call filter", filter), ("both", both)];
    let results = named.map(|(name, times)| json!({ "command": name, "times": times }));
    Ok(writeln!(std::io::stdout(), "{}", json!({ "results": results }))?)
}

/// Seconds for the domain, for the filter, and for both.
fn timed() -> Result<[f64; 3], Box<dyn std::error::Error>> {
    nix::sys::prctl::set_no_new_privs()?;
    let folders = FOLDERS.map(PathBuf::from);
    let start = Instant::now();
    enter_domain(&folders)?;
    let domain = start.elapsed();
    load_filter()?;
    let both = start.elapsed();
    Ok([domain, both - domain, both].map(|time| time.as_secs_f64()))
}
