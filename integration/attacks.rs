//! The corpus of attacks, made under every runtime, and the table of it: docs/security/attacks.md.

mod builds;
mod defences;
mod evil;
mod named;

use std::collections::{BTreeMap, BTreeSet};

use crate::architecture::{read, sources, workspace};

pub(crate) const RUNTIMES: [&str; 3] = ["youki", "crun", "runc"];

/// One attempt: its number in the corpus, what was tried, what it got.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attempt {
    id: String,
    tried: String,
    result: String,
}

impl Attempt {
    fn new(id: &str, tried: &str, result: impl Into<String>) -> Self {
        Self { id: id.to_owned(), tried: tried.to_owned(), result: result.into() }
    }
}

const HEAD: &str = "# Attacks

Made by `integration/attacks.rs` in real builds; `scripts/attacks` writes this page, and the test fails where it is not what came of
them. Numbers from A are those of a corpus for builders of Cloud Native Buildpacks, those from B are our own. All was made as a plain
user with a range of subordinate ids; there is no mode with a single id. A name in capitals is the error that the attempt got. Which functions stand
in the way is at the end.

";

/// The whole page.
fn page(attempts: &BTreeMap<(String, String), BTreeMap<String, Vec<&str>>>) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("## Made here\n\n| attack | tried | result | runtime |\n|---|---|---|---|\n");
    let cell = |text: &str| text.replace('|', "\\|");
    for ((id, tried), results) in attempts {
        for (result, runtimes) in results {
            let under = if runtimes.len() == RUNTIMES.len() { "all".to_owned() } else { runtimes.join(", ") };
            page.push_str(&format!("| {id} | {} | {} | {under} |\n", cell(tried), cell(result)));
        }
    }
    page.push_str("\n## Made by other tests\n\n| attack | tried | tests |\n|---|---|---|\n");
    for (id, tried, tests) in named::ELSEWHERE {
        let tests: Vec<String> = tests.iter().map(|test| format!("`{test}`")).collect();
        page.push_str(&format!("| {id} | {tried} | {} |\n", tests.join(", ")));
    }
    page.push_str("\n## Lines of defence\n\nWithout these functions the attack would get further; which test fails then, docs/defences.md says.\n\n| attack | file and function |\n|---|---|\n");
    for (id, _) in defences::DEFENCES {
        page.push_str(&format!("| {id} | {} |\n", defences::of(id)));
    }
    page
}

#[test]
fn every_attack_ends_as_the_table_says() {
    let mut attempts: BTreeMap<(String, String), BTreeMap<String, Vec<&str>>> = BTreeMap::new();
    let mut succeeded = Vec::new();
    for (runtime, made) in RUNTIMES.iter().zip(builds::all()) {
        for Attempt { id, tried, result } in made {
            if result.contains("SUCCEEDED") {
                succeeded.push(format!("{runtime}: {id}, {tried}: {result}"));
            }
            attempts.entry((id, tried)).or_default().entry(result).or_default().push(runtime);
        }
    }
    assert!(succeeded.is_empty(), "{succeeded:#?}");
    let made = page(&attempts);
    // Where this page is to be written, scripts/attacks says.
    if let Some(path) = std::env::var_os("CORACLE_ATTACKS").filter(|path| !path.is_empty()) {
        std::fs::write(path, &made).expect("write the page");
        return;
    }
    let kept = read(&workspace().join("docs/security/attacks.md"));
    let lines = |text: &str| -> BTreeSet<String> { text.lines().map(str::to_owned).collect() };
    let (is, was) = (lines(&made), lines(&kept));
    assert!(
        made == kept,
        "docs/security/attacks.md is stale; if this is right, run scripts/attacks\nnow: {:#?}\nthere: {:#?}",
        is.difference(&was),
        was.difference(&is)
    );
}

#[test]
fn every_number_of_the_corpus_is_accounted_for_and_every_test_exists() {
    let page = read(&workspace().join("docs/security/attacks.md"));
    // Its last part has every number.
    let (made, _) = page.split_once("\n## Lines of defence\n").expect("has that part");
    for number in 1..=55 {
        assert!(made.contains(&format!("| A{number:02} |")), "A{number:02} is nowhere");
    }
    for (id, functions) in defences::DEFENCES {
        assert!(!functions.is_empty(), "{id}");
        for (file, function) in *functions {
            let text = read(&workspace().join(file));
            let is_there = ["(", "<"].iter().any(|next| text.contains(&format!("fn {function}{next}")));
            assert!(is_there, "{id}: {file} has no function {function}");
        }
    }
    // Numbers of attacks are what lines of the tables begin with.
    let made = page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | ")).map(|(id, _)| id);
    for id in made.filter(|id| id.len() == 3 && id.starts_with(['A', 'B'])) {
        assert!(!defences::of(id).is_empty(), "{id} has no line of defence");
    }
    let mut code = String::new();
    for folder in ["integration", "src", "runtime", "lifecycle", "images", "cnb"] {
        sources(folder).iter().for_each(|path| code.push_str(&read(&workspace().join(path))));
    }
    for (id, _, tests) in named::ELSEWHERE {
        for test in *tests {
            let is_there = code.contains(&format!("fn {test}(")) || code.contains(&format!("(\"{test}\","));
            assert!(is_there, "{id}: there is no test {test}");
        }
    }
}
