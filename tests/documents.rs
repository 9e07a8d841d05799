//! The documents against the source and against each other: what one of them cites is there.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Documents for people, beside those in `docs/`.
const AT_THE_ROOT: [&str; 3] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"];
/// Where source lies that cites documents.
const SOURCES: [&str; 6] = ["src", "tests", "docs", "benches", "systemd", "fuzz"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every document, by its path from the root.
fn documents() -> Vec<String> {
    let mut found: Vec<String> = AT_THE_ROOT.map(str::to_owned).into();
    found.extend(files().into_iter().filter(|path| path.starts_with("docs/")));
    found
}

/// Every file that is part of the project's source, by its path from the root.
fn files() -> Vec<String> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = SOURCES.iter().map(|name| root().join(name)).collect();
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("tests/volumes") {
                left.push(path);
            } else if path.is_file() {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The text of every file that may cite a document, without comment signs and line breaks: a
/// citation may be broken over two lines.
fn citing() -> Vec<(String, String)> {
    let written = |path: &String| {
        [".rs", ".md", ".py", ".sh", ".service"].iter().any(|end| path.ends_with(end))
    };
    let paths = files().into_iter().chain(AT_THE_ROOT.map(str::to_owned)).filter(written);
    paths.map(|path| (path.clone(), flowing(&read(&path)))).collect()
}

fn flowing(text: &str) -> String {
    let bare = text.lines().map(|line| line.trim_start().trim_start_matches(['/', '!', '#', '*']));
    bare.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

/// The numbers of the sections of `docs/FORMAT.md`.
fn sections() -> BTreeSet<String> {
    let page = read("docs/FORMAT.md");
    let titles = page.lines().filter(|line| line.starts_with('#'));
    let numbers =
        titles.filter_map(|title| title.trim_start_matches('#').split_whitespace().next());
    numbers.map(|number| number.trim_end_matches('.').to_owned()).collect()
}

/// The numbers of sections that follow the word "section" or "sections" at the beginning of a text.
fn cited(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Some(rest) = text.strip_prefix("sections ").or_else(|| text.strip_prefix("section "))
    else {
        return found;
    };
    for word in rest.split(' ') {
        let number: String = word.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        if !number.is_empty() {
            found.push(number.trim_end_matches('.').to_owned());
        } else if !matches!(word, "and" | "to" | "or") {
            break;
        }
        // A number with anything but a comma behind it ends the list.
        if !number.is_empty() && !matches!(&word[number.len()..], "" | ",") {
            break;
        }
    }
    found
}

#[test]
fn every_section_that_is_cited_exists() {
    let sections = sections();
    assert!(sections.len() > 20, "the sections of the format page are gone");
    let (mut seen, mut wrong) = (0, Vec::new());
    for (path, text) in citing() {
        let sign = if path == "docs/FORMAT.md" { "section" } else { "FORMAT section" };
        for (at, _) in text.match_indices(sign) {
            let from = at + sign.len() - "section".len();
            for number in cited(&text[from..]) {
                seen += 1;
                if !sections.contains(&number) {
                    wrong.push(format!("{path}: section {number}"));
                }
            }
        }
    }
    assert!(seen > 60, "only {seen} citations were found");
    assert!(wrong.is_empty(), "docs/FORMAT.md has no such section:\n{}", wrong.join("\n"));
}

/// The rules on the format page: each one's number and text.
fn rules() -> Vec<(String, String)> {
    let page = read("docs/FORMAT.md");
    let parts = page.split("\n**R").skip(1);
    parts
        .map(|part| {
            let number: String = part.chars().take_while(char::is_ascii_digit).collect();
            (number, part.split("\n\n").next().unwrap_or_default().to_owned())
        })
        .collect()
}

#[test]
fn every_rule_that_is_cited_exists() {
    let rules = rules();
    let numbers: Vec<String> = (1..=rules.len()).map(|number| number.to_string()).collect();
    let given: Vec<&String> = rules.iter().map(|(number, _)| number).collect();
    assert_eq!(given, numbers.iter().collect::<Vec<_>>(), "in order, without a gap");
    let (mut seen, mut wrong) = (0, Vec::new());
    for (path, text) in citing() {
        let words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        for word in words {
            let Some((number, part)) = rule(word) else { continue };
            seen += 1;
            let known = rules.iter().find(|(known, _)| *known == number);
            let has_part = |text: &str| part.is_empty() || text.contains(&format!("({part})"));
            if !known.is_some_and(|(_, text)| has_part(text)) {
                wrong.push(format!("{path}: {word}"));
            }
        }
    }
    assert!(seen > 60, "only {seen} citations were found");
    assert!(wrong.is_empty(), "docs/FORMAT.md has no such rule:\n{}", wrong.join("\n"));
}

/// The number and the part that a word like `R2c` cites.
fn rule(word: &str) -> Option<(&str, &str)> {
    let rest = word.strip_prefix('R')?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, part) = rest.split_at(digits);
    let is_part = part.is_empty() || (part.len() == 1 && part.chars().all(char::is_lowercase));
    ((1..=2).contains(&digits) && is_part).then_some((number, part))
}

/// What stands in backquotes in a document, outside of blocks of code.
fn quoted(text: &str) -> Vec<String> {
    let mut outside = String::new();
    for (n, part) in text.split("```").enumerate() {
        if n % 2 == 0 {
            outside.push_str(part);
        }
    }
    outside.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for document in documents() {
        let text = read(&document);
        for part in text.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            if target.starts_with("http") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let beside = Path::new(&document).parent().unwrap();
            let path = if path.is_empty() { PathBuf::from(&document) } else { beside.join(path) };
            let there = fs::read_to_string(root().join(&path)).ok();
            let has = |text: String| anchor.is_empty() || anchors(&text).contains(anchor);
            if !there.is_some_and(has) {
                wrong.push(format!("{document}: {target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What titles of a document are called in links.
fn anchors(text: &str) -> BTreeSet<String> {
    let titles = text.lines().filter(|line| line.starts_with('#'));
    let plain = |title: &str| -> String {
        let title = title.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    titles.map(plain).collect()
}

#[test]
fn every_document_and_source_file_that_is_named_exists() {
    let files = files();
    let ends =
        |path: &str| files.iter().any(|file| format!("/{file}").ends_with(&format!("/{path}")));
    let mut wrong = Vec::new();
    for document in documents() {
        for name in quoted(&read(&document)) {
            let is_path = |c: char| c.is_alphanumeric() || matches!(c, '/' | '_' | '.' | '-' | '@');
            let of_ours = [".rs", ".py", ".md", ".service", ".socket", ".timer"];
            if of_ours.iter().any(|end| name.ends_with(end)) && name.chars().all(is_path) {
                let there = ends(&name) || root().join(&name).is_file();
                if !there {
                    wrong.push(format!("{document}: {name}"));
                }
            }
        }
    }
    for (path, text) in citing() {
        for (at, _) in text.match_indices("docs/") {
            let word =
                text[at..].split(|c: char| !c.is_alphanumeric() && !"/_.".contains(c)).next();
            let name = word.unwrap_or_default().trim_end_matches('.');
            if name.ends_with(".md") && !root().join(name).is_file() {
                wrong.push(format!("{path}: {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a document promises, something asserts: the tests that documents name are there.
#[test]
fn every_test_that_is_named_exists() {
    let sources: Vec<(Vec<String>, String)> = files()
        .into_iter()
        .filter(|path| path.ends_with(".rs") && !path.starts_with("fuzz/"))
        .map(|path| {
            let parts = path.trim_end_matches(".rs").split('/').map(str::to_owned);
            (parts.collect(), read(&path))
        })
        .collect();
    let (mut seen, mut wrong) = (0, Vec::new());
    for document in documents().into_iter().filter(|name| name.starts_with("docs/")) {
        for name in quoted(&read(&document)) {
            let Some(parts) = test_name(&name) else { continue };
            seen += 1;
            if !sources.iter().any(|(path, text)| is_there(&parts, path, text)) {
                wrong.push(format!("{document}: {name}"));
            }
        }
    }
    assert!(seen > 150, "only {seen} tests are named");
    assert!(wrong.is_empty(), "no such test:\n{}", wrong.join("\n"));
}

/// The parts of the name of a test or of a module of tests; `…` and `*` stand for whatever follows.
fn test_name(name: &str) -> Option<Vec<&str>> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_…*:".contains(c);
    if !name.contains("::") || !name.chars().all(is_name) {
        return None;
    }
    let parts = name.split("::").filter(|part| !matches!(*part, "" | "…" | "*" | "tests"));
    let parts: Vec<&str> = parts.collect();
    parts.iter().all(|part| !part.contains(':')).then_some(parts)
}

/// True if a file is the module with these names, or is in the modules of all but the last and has a
/// function of that name.
fn is_there(parts: &[&str], path: &[String], text: &str) -> bool {
    let within = |parts: &[&str]| {
        let mut path = path.iter();
        parts.iter().all(|part| path.any(|name| name == part))
    };
    let Some((last, above)) = parts.split_last() else { return true };
    let function = || match last.strip_suffix(['…', '*']) {
        Some(begin) => text.contains(&format!("fn {begin}")),
        None => text.contains(&format!("fn {last}(")),
    };
    within(parts) || (within(above) && function())
}

/// What a person runs to check a change, and what everything is built from, is explained.
#[test]
fn every_suite_and_every_dependency_has_a_line() {
    let page = read("CONTRIBUTING.md");
    let firsts: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(quoted)
        .collect();
    let mut wrong = Vec::new();
    for entry in fs::read_dir(root().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let is_suite =
            path.join("main.rs").is_file() || path.extension().is_some_and(|e| e == "rs");
        let name = path.file_stem().unwrap().to_str().unwrap();
        if is_suite && !firsts.contains(name) {
            wrong.push(format!("suite {name}"));
        }
    }
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let mut inside = false;
        for line in read(manifest).lines() {
            if line.starts_with('[') {
                inside = line.ends_with("dependencies]");
            } else if let (true, Some((name, _))) = (inside, line.split_once('=')) {
                let name = name.trim().trim_matches('"');
                if name != "kmsfs" && !firsts.contains(name) {
                    wrong.push(format!("{manifest}: {name}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "CONTRIBUTING.md lacks: {}", wrong.join(", "));
}

/// Whoever is new reads it to the end; what is only looked up stands in `docs/`.
#[test]
fn the_readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 150, "README.md has {lines} lines");
}

/// One command runs it, and one runs its tests.
#[test]
fn the_readme_begins_with_one_command_to_run_and_one_to_test() {
    let readme = read("README.md");
    let mut blocks =
        readme.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let run = "cargo run --release -- mount --create --key-file ~/.kmsfs.key ~/vault ~/private\n";
    assert_eq!(blocks.next(), Some(run));
    assert_eq!(blocks.next(), Some("tests/install-tools.sh && cargo test\n"));
}

#[test]
fn the_readers_of_these_tests_see_what_they_must() {
    assert_eq!(cited("sections 5, 6 and 11.3) and more"), ["5", "6", "11.3"]);
    assert_eq!(cited("section 7.1. A directory"), ["7.1"]);
    assert_eq!(cited("sections 2 to 6), a directory"), ["2", "6"]);
    assert!(cited("sectional 5").is_empty());
    assert_eq!(flowing("//! (FORMAT\n    /// section 12)."), "(FORMAT section 12).");
    assert_eq!(rule("R2c"), Some(("2", "c")));
    assert_eq!((rule("RSA"), rule("R"), rule("R100"), rule("R2dd")), (None, None, None, None));
    assert!(anchors("## Keys from an endpoint\n").contains("keys-from-an-endpoint"));
    let path = ["tests", "mounted", "apps"].map(str::to_owned);
    assert!(is_there(&["mounted", "apps", "git_…"], &path, "fn git_clones()"));
    assert!(!is_there(&["mounted", "apps", "git_…"], &path, "fn tar_packs()"));
    assert!(!is_there(&["namespace", "apps", "git_…"], &path, "fn git_clones()"));
    assert!(is_there(&["mounted", "apps"], &path, ""));
}
