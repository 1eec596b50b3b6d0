//! Selectors, held against apimachinery's own on whatever chance writes.

use std::{collections::BTreeMap, process::Stdio};

use informerd::object::{
    Decoder, FieldSelector, LabelSelector, Labels, PruneRules, Pruner, Selectable,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::{
    cluster::{has_go_for, selectors},
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

/// What apimachinery says to each of these.
async fn ask(questions: impl Iterator<Item = Value>) -> Vec<Answer> {
    let lines: String = questions.map(|question| format!("{question}\n")).collect();
    let mut program = tokio::process::Command::new(selectors().await.unwrap())
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
    told.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// That enough of what was compared is a selector, and enough is none.
fn is_telling(kind: &str, accepted: usize, matched: usize) {
    println!("{SELECTORS} {kind} selectors compared, {accepted} are some, {matched} match");
    assert!(
        accepted > SELECTORS / 5 && SELECTORS - accepted > SELECTORS / 5 && matched > accepted / 10
    );
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
    let questions = asked.iter();
    let answers =
        ask(questions.map(|(selector, labels)| json!({"selector": selector, "labels": labels})))
            .await;
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
    is_telling("label", accepted, matched);
}

/// What a pod is selected by here.
const FIELDS: [&str; 4] = [
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "status.phase",
];
const FIELD_VALUES: [&str; 12] = [
    "a", "b", "", "Running", "x y", "a,b", "a=b", "c\\d", "(a)", "é", "in", "!",
];
/// Escaped or not, and some that are nothing.
const FIELD_PIECES: [&str; 22] = [
    "metadata.name",
    "spec.nodeName",
    "status.phase",
    "=",
    "==",
    "!=",
    "!",
    ",",
    ",,",
    "\\",
    "\\\\",
    "\\,",
    "\\=",
    "\\a",
    "a",
    "b",
    "é",
    "x y",
    ".",
    "(",
    ")",
    "spec.noSuch",
];

fn field_term(rng: &mut fastrand::Rng) -> String {
    let value = pick(rng, &FIELD_VALUES);
    let escaped = value
        .replace('\\', r"\\")
        .replace(',', r"\,")
        .replace('=', r"\=");
    let value = match rng.u8(..8) {
        0 => value,
        _ => &escaped,
    };
    let operator = pick(rng, &["=", "==", "!=", "!="]);
    format!("{}{operator}{value}", pick(rng, &FIELDS))
}

fn field_selector(rng: &mut fastrand::Rng) -> String {
    if rng.u8(..3) == 0 {
        return (0..rng.usize(..10))
            .map(|_| pick(rng, &FIELD_PIECES))
            .collect();
    }
    let terms: Vec<_> = (0..=rng.usize(..3)).map(|_| field_term(rng)).collect();
    terms.join(",")
}

fn fields(values: [&str; 4]) -> BTreeMap<&'static str, &str> {
    FIELDS.into_iter().zip(values).collect()
}

/// Kubernetes knows no white space around a path, no sets, and no path that begins with a dot: all are taken here
/// besides.
fn is_ours_alone(selector: &str) -> bool {
    let spaced = selector.contains(|c: char| c.is_ascii_whitespace());
    spaced || selector.split(',').any(|term| term.starts_with('.'))
}

#[tokio::test]
async fn field_selectors_mean_what_they_mean_to_kubernetes() {
    if !has_go_for("THE COMPARISON OF SELECTORS WITH APIMACHINERY") {
        return;
    }
    let mut rng = fastrand::Rng::with_seed(seed());
    let selectable = Selectable::builtin("", "pods");
    let pruner = Pruner::new(&PruneRules::nothing()).unwrap();
    let decoder = Decoder::new("v1", "Pod", true, &pruner, &selectable);
    let asked: Vec<_> = (0..SELECTORS)
        .map(|_| {
            let mut values = FIELDS.map(|_| pick(&mut rng, &FIELD_VALUES));
            // No pod is without a name and a namespace.
            for value in &mut values[..2] {
                *value = if value.is_empty() { "a" } else { value };
            }
            (field_selector(&mut rng), values)
        })
        .collect();
    let printed = |selector: &str| {
        let ours: FieldSelector = selector.parse().ok()?;
        ours.to_kubernetes()
    };
    // And once more as it would be sent upstream.
    let questions = asked.iter().flat_map(|(selector, values)| {
        let sent = printed(selector).unwrap_or_default();
        [selector.clone(), sent].map(|it| json!({"selector": it, "fields": fields(*values)}))
    });
    let answers = ask(questions).await;
    assert_eq!(answers.len(), 2 * asked.len());
    let (mut accepted, mut matched) = (0, 0);
    for ((selector, values), theirs) in asked.iter().zip(answers.chunks(2)) {
        let [theirs, of_sent] = theirs else {
            unreachable!("there are two of each")
        };
        let of = || format!("{selector:?} of {values:?}: apimachinery says {theirs:?}");
        let ours: Result<FieldSelector, _> = selector.parse();
        match ours.and_then(|ours| ours.resolve(&selectable)) {
            Err(error) => assert!(!theirs.error.is_empty(), "{}, and we say: {error}", of()),
            Ok(_) if !theirs.error.is_empty() => assert!(is_ours_alone(selector), "{}", of()),
            Ok(ours) => {
                let [name, namespace, node, phase] = values;
                let pod = json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"name": name, "namespace": namespace, "uid": "u", "resourceVersion": "1"},
                    "spec": {"nodeName": node}, "status": {"phase": phase},
                });
                let pod = decoder.decode(pod.to_string().as_bytes(), 0).unwrap();
                assert_eq!(ours.matches(&pod), theirs.matches, "{}", of());
                assert_eq!(
                    (&*of_sent.error, of_sent.matches),
                    ("", theirs.matches),
                    "{}",
                    of()
                );
                accepted += 1;
                matched += usize::from(theirs.matches);
            }
        }
    }
    is_telling("field", accepted, matched);
}
