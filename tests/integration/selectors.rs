//! Label selectors, held against apimachinery's own on whatever chance writes.

use std::{collections::BTreeMap, process::Stdio};

use informerd::object::{LabelSelector, Labels};
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::{
    cluster::{has_go_for, label_selectors},
    support::{seed, succeeded},
};

/// How many selectors are compared.
const SELECTORS: usize = 50_000;

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    error: String,
    printed: String,
    matches: bool,
}

/// What selectors are made of; some of it is wrong, or means something else than it looks like.
const KEYS: [&str; 14] = [
    "app",
    "tier",
    "a.b/c",
    "in",
    "notin",
    "x",
    "A_b-1",
    "kubernetes.io/name",
    "",
    "-a",
    "a/",
    "/a",
    "a/b/c",
    "ä",
];
const VALUES: [&str; 14] = [
    "web",
    "db",
    "",
    "5",
    "12",
    "-3",
    "007",
    "9223372036854775808",
    "a_b.c",
    "in",
    "notin",
    "-",
    "a b",
    "é",
];
const LABELS: [&str; 8] = [
    "app",
    "tier",
    "a.b/c",
    "in",
    "notin",
    "x",
    "A_b-1",
    "kubernetes.io/name",
];
const PIECES: [&str; 22] = [
    "app", "in", "notin", "(", ")", ",", "!", "=", "==", "!=", "<", ">", " ", "  ", "\t", "\n",
    "web", "5", "a.b/c", "()", "é", "!!",
];

fn pick<'a>(rng: &mut fastrand::Rng, of: &[&'a str]) -> &'a str {
    of[rng.usize(..of.len())]
}

fn spaced(rng: &mut fastrand::Rng, text: &str) -> String {
    let space = |rng: &mut fastrand::Rng| match rng.u8(..8) {
        0 => " ",
        1 => "  ",
        2 => "\t",
        _ => "",
    };
    format!("{}{text}{}", space(rng), space(rng))
}

/// Something that is mostly a requirement.
fn requirement(rng: &mut fastrand::Rng) -> String {
    let key = match rng.bool() {
        true => pick(rng, &LABELS),
        false => pick(rng, &KEYS),
    };
    let key = spaced(rng, key);
    match rng.u8(..10) {
        0 => key,
        1 => format!("!{key}"),
        2..=5 => {
            let operator = pick(rng, &["=", "==", "!=", ">", "<"]);
            let value = pick(rng, &VALUES);
            format!("{key}{operator}{}", spaced(rng, value))
        }
        _ => {
            let operator = pick(rng, &["in", "notin"]);
            let values: Vec<String> = (0..rng.usize(..4))
                .map(|_| {
                    let value = pick(rng, &VALUES);
                    spaced(rng, value)
                })
                .collect();
            format!("{key} {operator} ({})", values.join(","))
        }
    }
}

fn selector(rng: &mut fastrand::Rng) -> String {
    if rng.u8(..3) == 0 {
        return (0..rng.usize(..10)).map(|_| pick(rng, &PIECES)).collect();
    }
    let requirements: Vec<_> = (0..=rng.usize(..3)).map(|_| requirement(rng)).collect();
    requirements.join(",")
}

fn labels(rng: &mut fastrand::Rng) -> BTreeMap<&'static str, &'static str> {
    (0..rng.usize(..5))
        .map(|_| (pick(rng, &LABELS), pick(rng, &VALUES)))
        .collect()
}

#[tokio::test]
async fn label_selectors_mean_what_they_mean_to_kubernetes() {
    if !has_go_for("THE COMPARISON OF SELECTORS WITH APIMACHINERY") {
        return;
    }
    let mut rng = fastrand::Rng::with_seed(seed());
    let asked: Vec<_> = (0..SELECTORS)
        .map(|_| (selector(&mut rng), labels(&mut rng)))
        .collect();
    let lines: String = asked
        .iter()
        .map(|(selector, labels)| format!("{}\n", json!({"selector": selector, "labels": labels})))
        .collect();
    let mut program = tokio::process::Command::new(label_selectors().await.unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = program.stdin.take().unwrap();
    // It answers while it reads.
    let writing = tokio::spawn(async move { stdin.write_all(lines.as_bytes()).await });
    let output = program.wait_with_output().await.unwrap();
    writing.await.unwrap().unwrap();
    let told = succeeded(&output);
    let answers: Vec<Answer> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), asked.len());
    let (mut accepted, mut matched) = (0, 0);
    for ((selector, labels), theirs) in asked.iter().zip(&answers) {
        let of = || format!("{selector:?} of {labels:?}: apimachinery says {theirs:?}");
        match selector.parse::<LabelSelector>() {
            Err(error) => assert!(!theirs.error.is_empty(), "{}, and we say: {error}", of()),
            Ok(ours) => {
                assert_eq!(theirs.error, "", "{}", of());
                assert_eq!(ours.to_string(), theirs.printed, "{}", of());
                let labels: Labels = labels.iter().collect();
                assert_eq!(ours.matches(&labels), theirs.matches, "{}", of());
                accepted += 1;
                matched += usize::from(theirs.matches);
            }
        }
    }
    println!("{SELECTORS} selectors compared, {accepted} are some, {matched} match");
    assert!(
        accepted > SELECTORS / 5 && SELECTORS - accepted > SELECTORS / 5 && matched > accepted / 10
    );
}
