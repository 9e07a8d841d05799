//! The order inside a large room: its inner rooms only import downwards, and no files import each
//! other in a circle.
//!
//! Names are followed to the file that defines them: through `super::` and `self::`, through the
//! imports of the file, and through what a `mod.rs` passes on. That a file passes a name on is no
//! dependency of that file; that it uses the name is. Inline tests do not count. Where one struct owns
//! the state of a room and many files add methods to it, who calls such a method depends on the file
//! that adds it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::{Source, words};

/// The files of one room, and which of them depend on which.
pub(crate) struct Room<'a> {
    files: Vec<&'a Source>,
    by_module: BTreeMap<Vec<String>, usize>,
    /// What the names that a file imports mean.
    imports: Vec<BTreeMap<String, Vec<String>>>,
    /// The struct that owns the state of the room, and which file has which of its methods.
    owner: Option<&'a str>,
    methods: BTreeMap<&'a str, usize>,
}

/// A path in the code of a file.
struct Found {
    /// Segments, as written.
    path: Vec<String>,
    at: usize,
    /// Passed on to others by `pub use`.
    passed_on: bool,
    /// It stands in a `use`.
    imported: bool,
}

impl<'a> Room<'a> {
    pub(crate) fn new(room: &str, sources: &'a [Source]) -> Self {
        let files: Vec<_> = sources.iter().filter(|source| source.module() == room).collect();
        let by_module = files.iter().enumerate().map(|(n, file)| (module_of(file), n)).collect();
        let mut new =
            Self { files, by_module, imports: Vec::new(), owner: None, methods: BTreeMap::new() };
        new.imports = new.files.iter().map(|file| new.imports_of(file)).collect();
        new
    }

    /// The same room, whose state `owner` owns.
    pub(crate) fn owned_by(mut self, owner: &'a str) -> Self {
        for (n, file) in self.files.iter().enumerate() {
            for block in impls(file.before_tests(), owner) {
                let mut before = "";
                for (_, word) in words(&file.code[block]) {
                    if before == "fn" {
                        self.methods.insert(word, n);
                    }
                    before = word;
                }
            }
        }
        self.owner = Some(owner);
        self
    }

    /// Each file with the files that it depends on, by names under `src`.
    pub(crate) fn edges(&self) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let mut edges = BTreeMap::new();
        for (own, file) in self.files.iter().enumerate() {
            let targets: BTreeSet<_> = self.targets(own).into_iter().collect();
            let names = targets.into_iter().filter(|target| *target != own);
            edges.insert(&*file.name, names.map(|target| &*self.files[target].name).collect());
        }
        edges
    }

    fn targets(&self, own: usize) -> Vec<usize> {
        let file = self.files[own];
        let found = paths(file);
        let mut targets = Vec::new();
        for one in &found {
            if one.passed_on && !is_used(file, &found, one) {
                continue;
            }
            let path = self.absolute(file, one).or_else(|| self.through_import(own, one));
            targets.extend(path.and_then(|path| self.resolve(&path, 0)));
        }
        targets.extend(self.called(own));
        targets
    }

    /// The files with the owner's methods that are called in a file: on `self` where that is the
    /// owner, on the type, and on what has its name.
    fn called(&self, own: usize) -> Vec<usize> {
        let Some(owner) = self.owner else { return Vec::new() };
        let code = self.files[own].before_tests();
        let (inside, instance) = (impls(code, owner), owner.to_lowercase());
        let is_owner = |at: usize, word: &str| match word {
            "self" | "Self" => inside.iter().any(|block| block.contains(&at)),
            word => word == owner || word == instance,
        };
        let calls = words(code).filter(|(at, word)| is_owner(*at, word));
        let calls = calls.filter_map(|(at, word)| method(&code[at + word.len()..]));
        calls.filter_map(|name| self.methods.get(name).copied()).collect()
    }

    fn imports_of(&self, file: &Source) -> BTreeMap<String, Vec<String>> {
        let imported = paths(file).into_iter().filter(|one| one.imported);
        let named = imported.filter_map(|one| self.absolute(file, &one));
        named.filter_map(|path| Some((path.last()?.clone(), path))).collect()
    }

    /// The path from the crate root, if the path says itself where it starts.
    fn absolute(&self, file: &Source, one: &Found) -> Option<Vec<String>> {
        let own = module_of(file);
        let (first, rest) = one.path.split_first()?;
        let climbs = one.path.iter().take_while(|segment| *segment == "super").count();
        let base = match &**first {
            "crate" => return Some(rest.to_vec()),
            "self" => return Some([&own[..], rest].concat()),
            "super" => {
                // From an inline module the first steps lead to the file itself.
                let up = climbs.saturating_sub(inline_depth(&file.code, one.at));
                own.get(..own.len().checked_sub(up)?)?.to_vec()
            }
            child => {
                let inner = [&own[..], &[child.to_owned()]].concat();
                return self.by_module.contains_key(&inner).then(|| [&own[..], &one.path].concat());
            }
        };
        Some([&base[..], &one.path[climbs..]].concat())
    }

    /// The path from the crate root, if it starts with a name that the file imports.
    fn through_import(&self, own: usize, one: &Found) -> Option<Vec<String>> {
        let (first, rest) = one.path.split_first()?;
        let base = self.imports[own].get(first)?;
        Some([&base[..], rest].concat())
    }

    /// The file that defines what the path names.
    fn resolve(&self, path: &[String], depth: usize) -> Option<usize> {
        let len = (0..=path.len()).rev().find(|len| self.by_module.contains_key(&path[..*len]))?;
        let file = self.by_module[&path[..len]];
        let Some(name) = path.get(len) else { return Some(file) };
        if depth < 8
            && !defines(self.files[file], name)
            && let Some(passed_on) = self.imports[file].get(name)
        {
            return self.resolve(&[passed_on, &path[len + 1..]].concat(), depth + 1);
        }
        Some(file)
    }
}

/// The files that depend on themselves by way of others.
pub(crate) fn circles<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let returns = |file: &&str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![*file]);
        while let Some(one) = next.pop() {
            next.extend(edges[one].iter().copied().filter(|target| seen.insert(*target)));
        }
        seen.contains(file)
    };
    edges.keys().copied().filter(returns).collect()
}

/// The inner room that a file belongs to: the folder, or the file, below the room.
pub(crate) fn inner_room(name: &str) -> &str {
    let below = name.split_once('/').map_or(name, |(_, below)| below);
    let first = below.split('/').next().unwrap_or(below);
    first.strip_suffix(".rs").unwrap_or(first)
}

fn module_of(file: &Source) -> Vec<String> {
    let path = file.name.strip_suffix(".rs").unwrap();
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').map(str::to_owned).collect()
}

/// All paths of the code before the tests.
fn paths(file: &Source) -> Vec<Found> {
    let code = file.before_tests();
    let mut found = Vec::new();
    let mut end = 0;
    for (at, word) in words(code) {
        let before = code[..at].trim_end();
        if at < end || before.ends_with("::") || before.ends_with("(in") {
            continue;
        }
        if word == "use" {
            end = at + code[at..].find(';').unwrap_or(0);
            let passed_on = before.ends_with("pub") || before.ends_with(')');
            let tree = &code[at + word.len()..end];
            let imported = expand(tree).into_iter();
            found.extend(imported.map(|path| Found { path, at, passed_on, imported: true }));
        } else if code[at + word.len()..].starts_with("::") {
            let path = plain(&code[at..]);
            found.push(Found { path, at, passed_on: false, imported: false });
        }
    }
    found
}

/// Where methods are added to a type.
fn impls(code: &str, name: &str) -> Vec<Range<usize>> {
    let head = format!("impl {name} {{");
    let block = |(start, _)| {
        let mut nesting = 0_usize;
        let end = code[start..].char_indices().find(|(_, letter)| {
            nesting += usize::from(*letter == '{');
            nesting -= usize::from(*letter == '}');
            *letter == '}' && nesting == 0
        });
        start..end.map_or(code.len(), |(at, _)| start + at)
    };
    code.match_indices(&head).map(block).collect()
}

/// The name of the method that is called on what ends here.
fn method(rest: &str) -> Option<&str> {
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('.').or_else(|| rest.strip_prefix("::"))?.trim_start();
    let (_, name) = words(rest).next().filter(|(at, _)| *at == 0)?;
    rest[name.len()..].starts_with('(').then_some(name)
}

/// The segments of a path that starts here.
fn plain(code: &str) -> Vec<String> {
    let mut path = Vec::new();
    let mut rest = code;
    while let Some((0, word)) = words(rest).next() {
        path.push(word.to_owned());
        match rest[word.len()..].strip_prefix("::") {
            Some(more) => rest = more,
            None => break,
        }
    }
    path
}

/// The paths of a tree of imports: `a::{b, c::{self, d}}`. Other names for them are left out.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let (prefix, group) = match tree.split_once('{') {
        Some((prefix, group)) => (prefix, Some(&group[..group.rfind('}').unwrap_or(group.len())])),
        None => (tree.split(" as ").next().unwrap_or(tree), None),
    };
    let prefix: Vec<String> = words(prefix).map(|(_, word)| word.to_owned()).collect();
    let Some(group) = group else {
        let itself = prefix.last().is_some_and(|last| last == "self") && prefix.len() > 1;
        return vec![prefix[..prefix.len() - usize::from(itself)].to_vec()];
    };
    let (mut nesting, mut start, mut out) = (0, 0, Vec::new());
    for (at, letter) in group.char_indices().chain([(group.len(), ',')]) {
        match letter {
            '{' => nesting += 1,
            '}' => nesting -= 1,
            ',' if nesting == 0 => {
                let member = group[start..at].trim();
                start = at + 1;
                if member == "self" {
                    out.push(prefix.clone());
                } else if !member.is_empty() {
                    out.extend(
                        expand(member).into_iter().map(|path| [&prefix[..], &path].concat()),
                    );
                }
            }
            _ => {}
        }
    }
    out
}

/// Is what a file passes on also used in it?
fn is_used(file: &Source, found: &[Found], one: &Found) -> bool {
    let Some(name) = one.path.last() else { return false };
    let in_imports = found.iter().filter(|other| other.imported);
    let imported = in_imports.flat_map(|other| &other.path).filter(|segment| *segment == name);
    let named = words(file.before_tests()).filter(|(_, word)| word == name);
    named.count() > imported.count()
}

fn defines(file: &Source, name: &str) -> bool {
    const KEYWORDS: [&str; 8] = ["struct", "enum", "fn", "trait", "type", "const", "static", "mod"];
    let mut before = "";
    words(file.before_tests()).any(|(_, word)| {
        let defined = word == name && KEYWORDS.contains(&before);
        before = word;
        defined
    })
}

/// How many inline modules stand around a place.
fn inline_depth(code: &str, at: usize) -> usize {
    let mut around = 0;
    let (mut nesting, mut inside) = (0_usize, Vec::new());
    for (place, letter) in code[..at].char_indices() {
        match letter {
            '{' => {
                nesting += 1;
                let mut last = code[..place].trim_end().rsplit(|c: char| c.is_whitespace());
                if last.next().is_some() && last.next() == Some("mod") {
                    inside.push(nesting);
                    around += 1;
                }
            }
            '}' => {
                if inside.last() == Some(&nesting) {
                    inside.pop();
                    around -= 1;
                }
                nesting = nesting.saturating_sub(1);
            }
            _ => {}
        }
    }
    around
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files that `from` depends on, in a room of these files.
    fn depends<'a>(files: &'a [Source], from: &str) -> Vec<&'a str> {
        Room::new("room", files).edges()[from].iter().copied().collect()
    }

    fn files(all: &[(&str, &str)]) -> Vec<Source> {
        all.iter().map(|(name, code)| Source::new(name, code)).collect()
    }

    #[test]
    fn a_name_is_followed_to_the_file_that_defines_it() {
        let files = files(&[
            ("room/mod.rs", "mod low; mod high; pub use low::deep::Thing;"),
            ("room/low/mod.rs", "pub mod deep; pub use deep::{Other, Thing as Named};"),
            ("room/low/deep.rs", "pub struct Thing; pub struct Other; pub fn make() {}"),
            ("room/high/mod.rs", "mod a; mod b; mod c; mod d; mod e; mod f;"),
            ("room/high/a.rs", "use crate::room::low::{self, Other};"),
            ("room/high/b.rs", "use crate::room::Thing;"),
            ("room/high/c.rs", "use super::super::low; fn f() { low::deep::make() }"),
            ("room/high/d.rs", "fn f() -> super::a::Gone { crate::room::low::Other }"),
            ("room/high/e.rs", "pub(in crate::room) struct E; use std::{fmt, low::deep};"),
            ("room/high/f.rs", "mod g { use super::E; fn f() { super::super::e::E } } struct E;"),
        ]);
        let (low, deep) = ("room/low/mod.rs", "room/low/deep.rs");
        assert_eq!(depends(&files, "room/high/a.rs"), [deep, low]);
        assert_eq!(depends(&files, "room/high/b.rs"), [deep]);
        assert_eq!(depends(&files, "room/high/c.rs"), [deep, low]);
        assert_eq!(depends(&files, "room/high/d.rs"), ["room/high/a.rs", deep]);
        assert!(depends(&files, "room/high/e.rs").is_empty());
        assert_eq!(depends(&files, "room/high/f.rs"), ["room/high/e.rs"]);
        assert!(depends(&files, low).is_empty(), "it only passes on");
    }

    #[test]
    fn circles_are_found_through_what_is_passed_on() {
        let whole = [
            ("room/mod.rs", "mod a; mod b; mod c; mod d; pub use a::A;"),
            ("room/a.rs", "use super::b::B; pub struct A;"),
            ("room/b.rs", "use super::c; pub struct B;"),
            ("room/c.rs", "fn f(a: crate::room::A) {}"),
            ("room/d.rs", "use super::a::A; #[cfg(test)]\nmod tests { use super::super::e::E; }"),
        ];
        let found = files(&whole);
        let edges = Room::new("room", &found).edges();
        let round: Vec<_> = circles(&edges).into_iter().collect();
        assert_eq!(round, ["room/a.rs", "room/b.rs", "room/c.rs"]);
        let open = files(&whole[..3]);
        assert!(circles(&Room::new("room", &open).edges()).is_empty());
    }

    #[test]
    fn who_calls_a_method_depends_on_the_file_that_adds_it_to_the_owner() {
        let files = files(&[
            ("room/mod.rs", "mod a; mod b; mod c; mod owner;"),
            ("room/owner.rs", "pub struct Owner; impl Owner { pub fn own(&self) {} }"),
            ("room/a.rs", "impl Owner { fn first(&self) { self.own().second() } }"),
            ("room/b.rs", "impl Owner { fn second(&self) { self\n.first() } }"),
            ("room/c.rs", "struct C; impl C { fn f(&self) { self.first(); self.owner.second() } }"),
            ("room/d.rs", "fn f(x: X) { Owner::own(x); x.first(); x.owner.second }"),
        ]);
        let edges = Room::new("room", &files).owned_by("Owner").edges();
        let depends = |from: &str| edges[from].iter().copied().collect::<Vec<_>>();
        assert_eq!(depends("room/a.rs"), ["room/owner.rs"]);
        assert_eq!(depends("room/b.rs"), ["room/a.rs"]);
        assert_eq!(depends("room/c.rs"), ["room/b.rs"]);
        assert_eq!(depends("room/d.rs"), ["room/owner.rs"]);
        assert!(Room::new("room", &files).edges()["room/b.rs"].is_empty());
    }

    #[test]
    fn a_file_that_uses_what_it_passes_on_depends_on_it() {
        let files = files(&[
            ("room/mod.rs", "mod a; pub use a::A; pub struct B(A);"),
            ("room/a.rs", "use super::B; pub struct A;"),
        ]);
        assert_eq!(circles(&Room::new("room", &files).edges()).len(), 2);
        assert_eq!(inner_room("room/a.rs"), "a");
        assert_eq!(inner_room("room/a/b/c.rs"), "a");
    }
}
