//! Holds the import arrows that `src/lib.rs` draws, by reading the sources as text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Which rooms a room may import from. Tests inside a room are free.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "admin",
        &[
            "api",
            "cache",
            "connections",
            "heartbeat",
            "patience",
            "shutdown",
        ],
    ),
    ("aerospike", &[]),
    (
        "api",
        &[
            "auth",
            "cache",
            "connections",
            "digest",
            "object",
            "patience",
            "planted",
            "proof",
            "proto",
            "readiness",
            "shutdown",
            "tls",
        ],
    ),
    ("args", &["cli"]),
    ("audit", &["args", "cli", "client", "proto", "upstream"]),
    ("auth", &["connections", "quota", "upstream"]),
    ("cache", &["digest", "object", "planted"]),
    (
        "cli",
        &["client", "columns", "kubeconfig", "object", "proto"],
    ),
    ("client", &["digest", "object", "proto"]),
    ("columns", &[]),
    ("connections", &[]),
    ("config", &["args", "digest", "object"]),
    (
        "controller",
        &[
            "aerospike",
            "cache",
            "config",
            "feed",
            "heartbeat",
            "object",
            "readiness",
            "shutdown",
            "upstream",
        ],
    ),
    ("digest", &[]),
    ("discovery", &["columns", "config", "object", "upstream"]),
    (
        "facade",
        &[
            "api",
            "cache",
            "config",
            "discovery",
            "kubeapi",
            "object",
            "proof",
            "proto",
            "upstream",
        ],
    ),
    (
        "feed",
        &["cache", "heartbeat", "object", "planted", "shutdown"],
    ),
    ("heartbeat", &[]),
    (
        "kubeapi",
        &[
            "auth",
            "cache",
            "columns",
            "connections",
            "digest",
            "object",
            "patience",
            "shutdown",
            "tls",
        ],
    ),
    ("kubeconfig", &[]),
    ("object", &[]),
    ("patience", &["shutdown"]),
    ("planted", &[]),
    ("proof", &["cache", "object", "upstream"]),
    ("proto", &[]),
    ("quota", &[]),
    ("readiness", &["cache", "heartbeat", "object", "shutdown"]),
    (
        "sandbox",
        &[
            "aerospike",
            "cache",
            "kubeapi",
            "kubeconfig",
            "object",
            "shutdown",
        ],
    ),
    ("shutdown", &[]),
    (
        "source",
        &[
            "cache",
            "config",
            "discovery",
            "heartbeat",
            "object",
            "planted",
            "upstream",
        ],
    ),
    ("telemetry", &[]),
    ("tls", &["connections"]),
    ("upstream", &["args", "config"]),
];

/// Crates that only some rooms may name.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("tonic", &["admin", "api", "app", "cli", "client", "proto"]),
    ("kube::Client", &["discovery", "upstream"]),
    ("kube::runtime", &["controller", "feed"]),
    ("axum", &["admin"]),
    ("imbl", &["cache"]),
];

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("src is there") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    let room = |path: &PathBuf| {
        let path = path.strip_prefix(&root).expect("below src");
        let first = path.components().next().expect("a file has a name");
        first
            .as_os_str()
            .to_string_lossy()
            .trim_end_matches(".rs")
            .to_owned()
    };
    let is_test = |path: &PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let folder = path.parent().and_then(Path::file_name);
        name.ends_with("tests")
            || ["fake", "fuzzing", "lab", "simulation"].contains(&&*name)
            || folder.is_some_and(|folder| {
                ["fuzzing", "lab", "simulation", "tests"]
                    .iter()
                    .any(|name| folder == *name)
            })
    };
    files.retain(|path| !is_test(path));
    files
        .iter()
        .map(|path| (room(path), fs::read_to_string(path).expect("it is text")))
        .collect()
}

/// The code without comments and without what stands behind the first `#[cfg(test)]` of a module.
fn code(text: &str) -> String {
    let text = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The rooms that `crate::...` names, also in braces.
fn imports(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect()
    };
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(braced) = rest.strip_prefix('{') else {
            rooms.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (at, c) in braced.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && !c.is_whitespace() => {
                    rooms.insert(word(&braced[at..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    rooms.remove("");
    rooms
}

#[test]
fn rooms_import_only_along_the_arrows() {
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (room, text) in sources() {
        if ["app", "main", "lib"].contains(&room.as_str()) {
            continue;
        }
        let Some(allowed) = arrows.get(room.as_str()) else {
            wrong.push(format!("{room}: not in the picture"));
            continue;
        };
        for import in imports(&code(&text)) {
            if import != room && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{room} imports {import}"));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(
        wrong.is_empty(),
        "against the arrows in src/lib.rs: {wrong:#?}"
    );
}

#[test]
fn only_the_rooms_at_the_edges_know_the_outside() {
    let mut wrong = Vec::new();
    for (room, text) in sources() {
        let code = code(&text);
        for (name, allowed) in OUTSIDE {
            if code.contains(&format!("{name}::"))
                && !allowed.contains(&room.as_str())
                && room != "app"
            {
                wrong.push(format!("{room} knows {name}"));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_bug_is_planted_at_one_place_and_no_build_has_them_by_default() {
    let bugs = informerd::planted::Bug::ALL;
    let sources = sources();
    for bug in bugs {
        let planted = format!("planted::is(Bug::{bug:?})");
        let places = sources
            .iter()
            .map(|(_, text)| text.matches(&planted).count());
        assert_eq!(places.sum::<usize>(), 1, "{planted}");
    }
    let all = sources.iter();
    let all = all.map(|(_, text)| text.matches("planted::is(Bug::").count());
    assert_eq!(all.sum::<usize>(), bugs.len(), "each is hunted for");
    let manifest = include_str!("../Cargo.toml");
    let default = manifest.lines().find(|line| line.starts_with("default ="));
    assert!(default.is_some_and(|features| !features.contains("planted")));
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let found =
        imports("use crate::a::X; use crate::{b, c::{D, e}, f::*}; fn g() { crate::h::i() }");
    let found: Vec<_> = found.iter().map(String::as_str).collect();
    assert_eq!(found, ["a", "b", "c", "f", "h"]);
}

#[test]
fn each_promise_of_the_contract_is_held_by_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let contract =
        fs::read_to_string(root.join("docs/contract.md")).expect("the contract is there");
    let mut count = 0;
    for link in contract.split("[`").skip(1) {
        let (test, rest) = link.split_once("`](../").expect("links are to tests");
        let (path, _) = rest.split_once(')').expect("a link ends");
        let source = fs::read_to_string(root.join(path));
        let source = source.unwrap_or_else(|error| panic!("{path}, for {test}: {error}"));
        assert!(
            source.contains(&format!("fn {test}(")),
            "{path} has no test {test}"
        );
        count += 1;
    }
    assert!(count > 50, "{count} links");
}
