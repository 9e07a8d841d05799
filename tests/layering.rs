//! The shape of the source: imports only go down, every foreign crate has one home, files stay
//! short, and `unsafe` stays where it is explained.
//!
//! The compiler accepts import loops, so a test has to refuse them. It reads the source as text:
//! comments and strings are blanked first, then every path that starts at the crate root (or
//! climbs there by `super`) must point at a lower rank than the file it stands in.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

#[path = "layering/inner.rs"]
mod inner;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the crate and their ranks; two modules of one rank do not see each other.
const RANKS: [(&str, u8); 14] = [
    ("id", 0),
    ("crypto", 0),
    ("sys", 0),
    ("process", 0),
    ("threads", 0),
    ("keystore", 1),
    ("endpoint", 1),
    ("envelope", 1),
    ("volume", 2),
    ("fuse", 3),
    ("control", 3),
    ("server", 3),
    ("cli", 4),
    ("main", 5),
];

/// The same inside of large rooms: for each the rooms in it and their ranks. A room without a table
/// is not looked into.
const INNER: &[(&str, &[(&str, u8)])] = &[
    (
        "keystore",
        &[
            ("model", 0),
            ("token", 0),
            ("policy", 1),
            ("error", 2),
            ("storage", 3),
            ("records", 4),
            ("audit", 5),
            ("unlock", 5),
            ("custom_store", 5),
            ("access", 6),
            ("engine", 7),
            ("ops", 8),
        ],
    ),
    (
        "server",
        &[
            ("config", 0),
            ("protocol", 0),
            ("transport", 1),
            ("keystores", 1),
            ("identity", 2),
            ("ops", 2),
            ("dispatch", 3),
            ("serve", 4),
        ],
    ),
    (
        "volume",
        &[
            ("model", 0),
            ("backing", 1),
            ("journal", 2),
            ("keys", 3),
            ("content", 3),
            ("session", 4),
            ("access", 5),
            ("namespace", 5),
            ("files", 6),
            ("engine", 7),
            ("ops", 8),
            ("jobs", 9),
        ],
    ),
    ("cli", &[("report", 0), ("args", 1), ("env", 2), ("jobs", 3), ("daemon", 4), ("commands", 5)]),
];

/// The structs that own the state of a room, and to which many of its files add methods: whoever calls
/// one depends on the file that adds it.
const OWNERS: &[(&str, &str)] = &[("keystore", "Keystore"), ("volume", "Volume")];

/// Source files that may lie beside each other in a folder of a room that is looked into.
const MAX_FILES: usize = 15;

/// Where each dependency may be named, as path prefixes under `src`; an empty prefix is anywhere.
const HOMES: &[(&str, &[&str])] = &[
    ("aes", &["crypto/"]),
    ("aes_gcm", &["crypto/"]),
    ("aes_kw", &["crypto/"]),
    ("aes_siv", &["crypto/"]),
    ("argon2", &["crypto/"]),
    ("aws_credential_types", &["endpoint/"]),
    ("aws_lc_rs", &["crypto/"]),
    ("aws_sigv4", &["endpoint/"]),
    ("base16ct", &["id.rs", "crypto/", "keystore/", "endpoint/", "envelope/", "server/"]),
    (
        "base64ct",
        &[
            "crypto/",
            "keystore/",
            "envelope/",
            "endpoint/",
            "volume/keys/remote/",
            "server/",
            "cli/",
        ],
    ),
    ("chacha20", &["crypto/"]),
    ("clap", &["cli/", "main.rs"]),
    ("cmac", &["crypto/"]),
    ("crc32fast", &["crypto/", "envelope/"]),
    ("criterion", &[""]),
    ("cryptoki", &["keystore/token"]),
    ("ed25519_dalek", &["crypto/"]),
    ("env_logger", &["cli/", "main.rs"]),
    ("fuser", &["fuse/"]),
    ("getrandom", &["crypto/"]),
    ("hkdf", &["crypto/"]),
    ("hashbrown", &["volume/namespace/"]),
    ("hmac", &["crypto/"]),
    ("hpke", &["crypto/"]),
    ("http_body_util", &["endpoint/", "server/"]),
    ("hyper", &["endpoint/", "server/"]),
    ("hyper_util", &["endpoint/", "server/"]),
    ("indicatif", &["cli/"]),
    ("jiff", &["keystore/", "endpoint/", "cli/"]),
    ("k256", &["crypto/"]),
    ("landlock", &["cli/daemon/confine.rs"]),
    ("libc", &["sys.rs", "volume/", "fuse/", "control/", "cli/"]),
    (
        "log",
        &[
            "process.rs",
            "threads.rs",
            "keystore/",
            "endpoint/",
            "volume/",
            "fuse/",
            "control/",
            "server/",
            "cli/",
            "main.rs",
        ],
    ),
    ("ml_dsa", &["crypto/"]),
    ("p256", &["crypto/"]),
    ("p384", &["crypto/"]),
    ("p521", &["crypto/"]),
    ("parking_lot", &[""]),
    ("pkcs8", &["crypto/"]),
    ("proptest", &[""]),
    ("rcgen", &["server/"]),
    ("rsa", &["crypto/"]),
    ("rusqlite", &["keystore/storage/", "keystore/audit/"]),
    (
        "rustix",
        &[
            "sys.rs",
            "crypto/random.rs",
            "process.rs",
            "keystore/",
            "endpoint/",
            "volume/",
            "fuse/",
            "control/",
            "server/",
            "cli/",
        ],
    ),
    ("rustls", &["endpoint/", "server/"]),
    ("rustls_native_certs", &["endpoint/"]),
    ("sd_notify", &["cli/"]),
    ("seccompiler", &["cli/daemon/calls.rs"]),
    (
        "serde",
        &[
            "keystore/",
            "endpoint/",
            "envelope/counted.rs",
            "volume/",
            "control/",
            "server/",
            "cli/",
        ],
    ),
    (
        "serde_json",
        &[
            "keystore/",
            "endpoint/",
            "envelope/counted.rs",
            "volume/",
            "control/",
            "server/",
            "cli/",
        ],
    ),
    ("sha1", &["crypto/"]),
    ("sha2", &["crypto/"]),
    ("signal_hook", &["control/", "cli/"]),
    ("subtle", &["crypto/"]),
    ("tokio", &["endpoint/", "server/"]),
    ("tokio_rustls", &["endpoint/", "server/"]),
    ("uuid", &["id.rs", "keystore/audit/", "server/serve/"]),
    ("zeroize", &[""]),
    ("zeroizing_alloc", &["main.rs"]),
];

/// Lines of code a file may have before its inline tests.
const MAX_LINES: usize = 600;

/// The files that may contain `unsafe`.
const UNSAFE_HOMES: [&str; 2] = ["sys.rs", "fuse/received.rs"];

/// System calls that name an entry of a directory.
const NAMING: [&str; 15] = [
    "accessat",
    "chmodat",
    "chownat",
    "linkat",
    "mkdirat",
    "mknodat",
    "openat",
    "openat2",
    "renameat",
    "renameat_with",
    "statat",
    "statx",
    "symlinkat",
    "unlinkat",
    "utimensat",
];

/// The files of the volume that may make them: the names there cannot lead out of their directory.
/// The last two open what a person named, and look at what is above it.
const NAMING_HOMES: [&str; 6] = [
    "volume/backing/beneath.rs",
    "volume/backing/handle.rs",
    "volume/backing/identity.rs",
    "volume/backing/lender.rs",
    "volume/backing/root.rs",
    "volume/access/exposure.rs",
];

/// One source file, comments and strings blanked.
struct Source {
    /// Path under `src`, with forward slashes.
    name: String,
    code: String,
}

impl Source {
    fn new(name: &str, code: &str) -> Self {
        Self { name: name.to_owned(), code: blank(code) }
    }

    /// The crate's module this file belongs to.
    fn module(&self) -> &str {
        let first = self.name.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// How many modules lie between the crate root and the items of this file.
    fn depth(&self) -> usize {
        let parts = self.name.split('/').count();
        if self.name.ends_with("/mod.rs") { parts - 1 } else { parts }
    }

    fn line_of(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }

    /// Code before the inline tests.
    fn before_tests(&self) -> &str {
        self.code.find("#[cfg(test)]\nmod ").map_or(&self.code, |end| &self.code[..end])
    }
}

#[test]
fn imports_only_go_down() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.name != "lib.rs") {
        let own = rank(source.module());
        for (at, target) in crate_paths(source) {
            let Some((_, theirs)) = RANKS.iter().find(|(name, _)| *name == target) else {
                let line = source.line_of(at);
                wrong.push(format!("{}:{line} names crate::{target}, not a module", source.name));
                continue;
            };
            if target != source.module() && *theirs >= own {
                let line = source.line_of(at);
                wrong.push(format!("{}:{line} may not import crate::{target}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "upward or sideways imports:\n{}", wrong.join("\n"));
}

#[test]
fn rooms_inside_of_a_room_only_import_downwards() {
    let sources = sources();
    let mut wrong = Vec::new();
    for (room, ranks) in INNER {
        let rank = |name: &str| {
            let inner = inner::inner_room(name);
            ranks.iter().find(|(known, _)| *known == inner).map(|(_, rank)| *rank)
        };
        for (file, targets) in inner_edges(room, &sources) {
            let within = |target: &&&str| inner::inner_room(target) == inner::inner_room(file);
            for target in targets.iter().filter(|target| !within(target)) {
                // The root of the room has no rank: nothing is defined there, nobody imports it.
                if file != format!("{room}/mod.rs") && rank(target) >= rank(file) {
                    wrong.push(format!("{file} may not import {target}"));
                }
                if rank(target).is_none() {
                    wrong.push(format!("{file} imports {target}, which has no rank"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "upward or sideways imports:\n{}", wrong.join("\n"));
}

#[test]
fn no_files_of_a_room_import_each_other_in_a_circle() {
    let sources = sources();
    for (room, _) in INNER {
        let edges = inner_edges(room, &sources);
        let round = inner::circles(&edges);
        let told: Vec<String> = round
            .iter()
            .map(|file| {
                let on = edges[file].iter().filter(|target| round.contains(*target));
                format!("{file} imports {}", on.copied().collect::<Vec<_>>().join(", "))
            })
            .collect();
        assert!(told.is_empty(), "circles in {room}:\n{}", told.join("\n"));
    }
}

#[test]
fn every_file_of_a_room_has_a_ranked_place_and_no_folder_is_crowded() {
    for (room, ranks) in INNER {
        let mut folders: BTreeMap<String, usize> = BTreeMap::new();
        for source in sources().iter().filter(|source| source.module() == *room) {
            let (folder, _) = source.name.rsplit_once('/').unwrap();
            *folders.entry(folder.to_owned()).or_default() += 1;
            let known = source.name == format!("{room}/mod.rs")
                || ranks.iter().any(|(name, _)| *name == inner::inner_room(&source.name));
            assert!(known, "{} belongs to no ranked room of {room}", source.name);
        }
        for (folder, files) in folders {
            assert!(files <= MAX_FILES, "{folder} has {files} files: make a folder of some");
        }
    }
}

#[test]
fn every_foreign_crate_stays_in_its_home() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (foreign, homes) in HOMES {
            if homes.iter().any(|home| source.name.starts_with(home)) {
                continue;
            }
            let named = words(&source.code)
                .filter(|(at, word)| word == foreign && starts_a_path(&source.code, *at, word))
                .map(|(at, _)| source.line_of(at));
            for line in named {
                wrong.push(format!(
                    "{}:{line} names {foreign}, whose home is {homes:?}",
                    source.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_dependency_has_a_home() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if let (true, Some((name, _))) = (inside, line.split_once('=')) {
            let name = name.trim().replace('-', "_");
            assert!(
                HOMES.iter().any(|(known, _)| *known == name),
                "{name} is in Cargo.toml and has no home in tests/layering.rs"
            );
        }
    }
}

#[test]
fn no_file_is_longer_than_600_lines_of_code() {
    let long: Vec<String> = sources()
        .iter()
        .map(|source| (source, source.before_tests().lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(source, lines)| format!("{} has {lines} lines", source.name))
        .collect();
    assert!(long.is_empty(), "split these: {}", long.join(", "));
}

#[test]
fn unsafe_code_stays_in_its_one_file() {
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|source| !UNSAFE_HOMES.contains(&source.name.as_str()))
        .filter(|source| words(&source.code).any(|(_, word)| word == "unsafe"))
        .map(|source| source.name.clone())
        .collect();
    assert!(wrong.is_empty(), "unsafe outside {UNSAFE_HOMES:?}: {wrong:?}");
}

#[test]
fn entries_of_the_vault_are_named_in_one_place() {
    let mut wrong = Vec::new();
    for source in sources() {
        if !source.name.starts_with("volume/") || NAMING_HOMES.contains(&&*source.name) {
            continue;
        }
        for (at, word) in words(source.before_tests()) {
            if NAMING.contains(&word) {
                wrong.push(format!("{}:{} calls {word}", source.name, source.line_of(at)));
            }
        }
    }
    assert!(wrong.is_empty(), "use volume/backing/beneath.rs:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_of_the_crate_has_a_rank() {
    for source in sources() {
        let known =
            source.name == "lib.rs" || RANKS.iter().any(|(name, _)| *name == source.module());
        assert!(known, "{} belongs to no ranked module", source.name);
    }
}

/// The files of a room with those that they depend on.
fn inner_edges<'a>(room: &str, sources: &'a [Source]) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let files = inner::Room::new(room, sources);
    match OWNERS.iter().find(|(owned, _)| *owned == room) {
        Some((_, owner)) => files.owned_by(owner).edges(),
        None => files.edges(),
    }
}

fn rank(module: &str) -> u8 {
    RANKS.iter().find(|(name, _)| *name == module).map_or(0, |(_, rank)| *rank)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    files
        .into_iter()
        .map(|file| {
            let name = file.strip_prefix(&src).unwrap().to_str().unwrap();
            Source::new(name, &fs::read_to_string(&file).unwrap())
        })
        .collect()
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The modules that paths from the crate root lead to, with the offset of each path. In a group,
/// `crate::{a::x, b}`, each member counts.
fn crate_paths(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let tests_at = source.before_tests().len();
    for (at, word) in words(&source.code) {
        let rest = &source.code[at..];
        let after = match word {
            "crate" => rest.strip_prefix("crate::"),
            "super" if !source.code[..at].ends_with("::") => {
                let climbs = source.depth() + usize::from(at >= tests_at);
                climb(rest, climbs)
            }
            _ => None,
        };
        for target in after.map(heads).unwrap_or_default() {
            found.push((at, target));
        }
    }
    found
}

/// What follows `super::` taken `levels` times; nothing if the path climbs less far.
fn climb(mut rest: &str, levels: usize) -> Option<&str> {
    for _ in 0..levels {
        rest = rest.strip_prefix("super::")?;
    }
    Some(rest)
}

/// The first names of a path or of a group of paths.
fn heads(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else {
        return words(rest).next().map(|(_, word)| vec![word.to_owned()]).unwrap_or_default();
    };
    let mut nesting = 0;
    let mut member = String::new();
    let mut out = Vec::new();
    for letter in group.chars() {
        match letter {
            '{' => nesting += 1,
            '}' if nesting == 0 => break,
            '}' => nesting -= 1,
            ',' if nesting == 0 => out.push(std::mem::take(&mut member)),
            _ if nesting == 0 => member.push(letter),
            _ => {}
        }
    }
    out.push(member);
    out.iter().filter_map(|path| words(path).next().map(|(_, word)| word.to_owned())).collect()
}

/// True where a word begins a path or a plain `use`, as the name of a crate does.
fn starts_a_path(code: &str, at: usize, word: &str) -> bool {
    let before = code[..at].trim_end();
    let after = &code[at + word.len()..];
    let used = before.ends_with("use") && (after.starts_with(';') || after.starts_with(" as "));
    used || (after.starts_with("::") && !before.ends_with("::") && !before.ends_with('.'))
}

/// The identifiers of a text with their offsets.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let inside = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(inside)?;
        let len = text[start..].find(|letter| !inside(letter)).unwrap_or(text.len() - start);
        at = start + len;
        Some((start, &text[start..at]))
    })
}

/// The same text with comments and the insides of strings replaced by blanks, line by line.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let hidden = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(len) = string_len(rest) {
            len
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\''") {
            rest[1..].find('\'').map_or(1, |end| end + 2)
        } else {
            out.push(letter);
            rest = &rest[letter.len_utf8()..];
            continue;
        };
        out.extend(rest[..hidden].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[hidden..];
    }
    out
}

/// The length of the string literal that starts here, raw or plain.
fn string_len(rest: &str) -> Option<usize> {
    if let Some(raw) = rest.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let body = raw[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(2 + hashes + body.find(&end)? + end.len());
    }
    let body = rest.strip_prefix('"')?;
    let mut escaped = false;
    for (at, letter) in body.char_indices() {
        match letter {
            '"' if !escaped => return Some(at + 2),
            _ => escaped = letter == '\\' && !escaped,
        }
    }
    Some(rest.len())
}

#[test]
fn the_scanner_sees_what_it_must() {
    let source = Source::new;
    let paths = |source: &Source| -> Vec<String> {
        crate_paths(source).into_iter().map(|(_, target)| target).collect()
    };
    let grouped = source("volume/io.rs", "use crate::{envelope::{unit, layout}, fuse};");
    assert_eq!(paths(&grouped), ["envelope", "fuse"]);
    let climbing = source("volume/io.rs", "use super::super::fuse::adapter; use super::lock;");
    assert_eq!(paths(&climbing), ["fuse"]);
    let hidden = source("volume/io.rs", "// crate::fuse\nlet x = \"crate::cli\"; /* crate::cli */");
    assert!(paths(&hidden).is_empty());
    assert!(starts_a_path("x: log::Level", 3, "log"));
    assert!(!starts_a_path("self.log::<u8>()", 5, "log"));
    assert!(!starts_a_path("let log = 1;", 4, "log"));
}
