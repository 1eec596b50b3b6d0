//! Verdicts beside those of kstatus (sigs.k8s.io/cli-utils), on the corpus in tests/clients/kstatus.
//!
//! What kstatus says is kept there as data, so that this holds without Go; `tests/integration/kstatus.rs` asks the real
//! one whether it still says so. The differences are listed, each with its reason, and the list is the table in
//! docs/readiness.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{service, workload};
use crate::{
    controller::opinion::Opinion,
    object::{Decoder, Object, PruneRules, Pruner, Selectable},
    readiness::{Parts, State},
};

/// A file of the corpus: the objects of one kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kind {
    api_version: String,
    kind: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    object: Value,
    /// Of a Service: its EndpointSlices.
    #[serde(default)]
    slices: Vec<Value>,
}

/// A row of the table in docs/readiness.md.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    /// Which objects, in words.
    object: String,
    /// What kstatus says of them.
    kstatus: String,
    /// `NOT_READY` or `UNKNOWN`, and the reason where it is always the same.
    here: String,
    why: String,
    /// Which objects, by kind.
    cases: BTreeMap<String, BTreeSet<String>>,
}

/// Kind and name of a case.
type Id = (String, String);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/kstatus")
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> T {
    let text = fs::read_to_string(path).expect("the file is there");
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn decode(api_version: &str, kind: &str, mut object: Value) -> Result<Object, String> {
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    object["metadata"]["name"] = json!("it");
    object["metadata"]["uid"] = json!("1");
    object["metadata"]["resourceVersion"] = json!("1");
    let pruner = Pruner::new(&PruneRules::default()).expect("the default rules");
    let decoder = Decoder::new(api_version, kind, false, &pruner, &Selectable::default());
    let decoded = decoder.decode(object.to_string().as_bytes(), 0);
    decoded.map_err(|error| error.to_string())
}

fn judge(resource: &str, kind: &Kind, case: &Case) -> Opinion {
    let object = match decode(&kind.api_version, &kind.kind, case.object.clone()) {
        Ok(object) => object,
        Err(error) => panic!("{resource}: {}: {error}", case.name),
    };
    if resource != "services" {
        return workload::decide(resource, &object, &Parts::default()).opinion;
    }
    let slices = case.slices.iter().map(|slice| {
        let mut slice = slice.clone();
        slice["metadata"] = json!({});
        let slice = decode("discovery.k8s.io/v1", "EndpointSlice", slice);
        std::sync::Arc::new(slice.expect("a slice"))
    });
    service::decide(&object, &slices.collect::<Vec<_>>()).opinion
}

/// What is thought of each object of the corpus.
fn opinions() -> BTreeMap<Id, Opinion> {
    let mut opinions = BTreeMap::new();
    for file in fs::read_dir(folder().join("corpus")).expect("the corpus is there") {
        let path = file.expect("it can be read").path();
        let resource = path.file_stem().expect("it has a name").to_string_lossy();
        let kind: Kind = read(&path);
        for case in &kind.cases {
            let id = (resource.clone().into_owned(), case.name.clone());
            let before = opinions.insert(id.clone(), judge(&resource, &kind, case));
            assert!(before.is_none(), "{id:?} stands twice");
        }
    }
    opinions
}

/// What kstatus says of each.
fn answers() -> BTreeMap<Id, String> {
    let answers: BTreeMap<String, BTreeMap<String, String>> = read(&folder().join("answers.json"));
    let of_kind = |(resource, answers): (String, BTreeMap<String, String>)| {
        let id = move |(name, answer)| ((resource.clone(), name), answer);
        answers.into_iter().map(id)
    };
    answers.into_iter().flat_map(of_kind).collect()
}

fn differences() -> Vec<Difference> {
    read(&folder().join("differences.yaml"))
}

fn state(opinion: &Opinion) -> String {
    opinion.state.as_str().to_uppercase()
}

/// Whether both come to the same. What kstatus cannot make anything of is to be unknown here, and is listed.
fn agree(kstatus: &str, opinion: &Opinion) -> bool {
    match kstatus {
        "Current" => opinion.state == State::Ready,
        "InProgress" | "Failed" | "Terminating" => opinion.state == State::NotReady,
        _ => false,
    }
}

#[test]
fn where_the_two_differ_is_listed_and_here_is_the_safer() {
    let (opinions, answers) = (opinions(), answers());
    assert!(opinions.len() >= 150, "{} objects", opinions.len());
    assert!(
        opinions.keys().eq(answers.keys()),
        "answers.json is of another corpus: run tests/clients/kstatus/generate.sh"
    );
    let mut listed = BTreeMap::new();
    for row in &differences() {
        for (resource, names) in &row.cases {
            for name in names {
                let id = (resource.clone(), name.clone());
                let said = (row.kstatus.clone(), row.here.clone());
                assert!(listed.insert(id.clone(), said).is_none(), "{id:?}");
            }
        }
    }
    let mut wrong = Vec::new();
    for (id, opinion) in &opinions {
        let kstatus = &answers[id];
        if kstatus != "Current" && opinion.state == State::Ready {
            wrong.push(format!("{id:?} is ready here, and {kstatus} by kstatus"));
        }
        let here = state(opinion);
        let with_reason = format!("{here}, {}", opinion.reason);
        match listed.remove(id) {
            None if agree(kstatus, opinion) => {}
            None => wrong.push(format!("{id:?}: {kstatus}, here {with_reason}: not listed")),
            Some(_) if agree(kstatus, opinion) => {
                wrong.push(format!("{id:?} is listed, and both say {here}"));
            }
            Some((said, ours)) if said == *kstatus && (ours == here || ours == with_reason) => {}
            Some(said) => wrong.push(format!(
                "{id:?}: {kstatus}, here {with_reason}: listed as {said:?}"
            )),
        }
    }
    wrong.extend(
        listed
            .keys()
            .map(|id| format!("{id:?} is listed, and not in the corpus")),
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_in_the_documentation_is_the_list() {
    let rows = differences().into_iter().map(|row| {
        let Difference {
            object,
            kstatus,
            here,
            why,
            ..
        } = row;
        format!("| {object} | {kstatus} | {here} | {why} |\n")
    });
    let table = String::from("| object | kstatus | here | why |\n|---|---|---|---|\n")
        + &rows.collect::<String>();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/readiness.md");
    let text = fs::read_to_string(path).expect("it is there");
    assert!(
        text.contains(&table),
        "docs/readiness.md should have this table:\n{table}"
    );
}
