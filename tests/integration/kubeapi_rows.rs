//! Reads the rows of the table from `kubeapi_rows.txt`: text, so that a row needs no compiler.

use std::{fs, path::Path};

/// A request, and in what the two answers differ.
#[derive(Clone, Debug)]
pub struct Row {
    /// `GET`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The form that is asked for.
    pub accept: String,
    /// The beginning of a place in the answers, and why it is not the same.
    pub differs: Vec<(String, String)>,
}

/// The `Accept` header of a form.
fn header(form: &str) -> Option<&'static str> {
    Some(match form {
        "Json" => "application/json",
        "Any" => "*/*",
        "Metadata" => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        "MetadataList" => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        "Table" => "application/json;as=Table;g=meta.k8s.io;v=v1",
        "TableV1Beta1" => "application/json;as=Table;g=meta.k8s.io;v=v1beta1",
        "TableOrJson" => "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        // As typed clients ask, but for a type that neither server has.
        "UnknownOrAny" => "application/vnd.unknown, */*",
        "UnknownForm" => "application/json;as=Poem;g=meta.k8s.io;v=v1",
        "Html" => "text/html",
        "Aggregated" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        _ => return None,
    })
}

impl Row {
    /// Without differences.
    pub fn get(target: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            target: target.to_owned(),
            accept: "application/json".to_owned(),
            differs: Vec::new(),
        }
    }
}

/// All of them, with what differs where this server is under test (`facade`, `sandbox`), and the differences that any
/// row may have.
pub fn all(server: &str) -> (Vec<Row>, Vec<(String, String)>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/kubeapi_rows.txt");
    let text = fs::read_to_string(file).expect("the rows are there");
    let mut rows: Vec<Row> = Vec::new();
    let mut anywhere = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        // Of both servers, or of the one that is named.
        let difference = |text: &str| {
            let (place, why) = text.split_once("  ").expect("a place and a reason");
            let place = match place.split_once(' ') {
                Some((of, place)) => (of == server).then_some(place)?,
                None => place,
            };
            Some((place.to_owned(), why.to_owned()))
        };
        if let Some(text) = line.strip_prefix("ANY ") {
            anywhere.extend(difference(text));
            continue;
        }
        if let Some(text) = line.strip_prefix("    ") {
            let row = rows.last_mut().expect("a row before it");
            row.differs.extend(difference(text));
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let [method, target, form] = words[..] else {
            assert!(line.is_empty(), "not a row: {line}");
            continue;
        };
        rows.push(Row {
            method: method.to_owned(),
            target: target.to_owned(),
            accept: header(form).expect(form).to_owned(),
            differs: Vec::new(),
        });
    }
    (rows, anywhere)
}
