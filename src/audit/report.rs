//! What was found, for a person and for a script.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    Part,
    compare::{Difference, Held, What},
};
use crate::cli::Table;

/// Of one kind.
pub(super) struct Report<'a> {
    resource: &'a str,
    parts: Vec<Part>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    resource: &'a str,
    same: bool,
    /// One for each shard.
    parts: Vec<JsonPart<'a>>,
    differences: Vec<JsonDifference<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonPart<'a> {
    namespace: &'a str,
    revision: &'a str,
    objects: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonDifference<'a> {
    what: &'static str,
    namespace: &'a str,
    name: &'a str,
    informerd: Option<JsonHeld<'a>>,
    api_server: Option<JsonHeld<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonHeld<'a> {
    uid: &'a str,
    resource_version: &'a str,
}

impl<'a> Report<'a> {
    pub(super) fn new(resource: &'a str, parts: Vec<Part>) -> Self {
        Self { resource, parts }
    }

    pub(super) fn is_same(&self) -> bool {
        self.differences().next().is_none()
    }

    fn differences(&self) -> impl Iterator<Item = &Difference> {
        self.parts.iter().flat_map(|part| &part.differences)
    }

    /// A table of what differs, and a line that says how much was compared.
    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let headers = ["DIFFERENCE", "NAMESPACE", "NAME", "INFORMERD", "API SERVER"];
        let rows: Vec<_> = self.differences().map(row).collect();
        Table::new(headers).write(out, &rows)?;
        let objects: usize = self.parts.iter().map(|part| part.objects).sum();
        let revisions = self.parts.iter().map(|part| match part.namespace.as_str() {
            "" => part.revision.clone(),
            namespace => format!("{namespace}={}", part.revision),
        });
        let revisions = revisions.collect::<Vec<_>>().join(",");
        let resource = self.resource;
        match rows.len() {
            0 => writeln!(
                out,
                "{resource}: the same in informerd and at the API server: {objects} objects at revision {revisions}"
            ),
            differ => writeln!(
                out,
                "{resource}: {differ} differ; informerd has {objects} objects at revision {revisions}"
            ),
        }
    }

    pub(super) fn print_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let json = Json {
            resource: self.resource,
            same: self.is_same(),
            parts: self.parts.iter().map(JsonPart::of).collect(),
            differences: self.differences().map(JsonDifference::of).collect(),
        };
        serde_json::to_writer_pretty(&mut *out, &json)?;
        writeln!(out)
    }
}

/// Versions, and uids where those differ.
fn row(difference: &Difference) -> Vec<String> {
    let side = |held: &Option<Held>| match held {
        None => "<none>".to_owned(),
        Some(held) if difference.what == What::Uid => {
            format!("{} (uid {})", held.resource_version, held.uid)
        }
        Some(held) => held.resource_version.clone(),
    };
    let namespace = match difference.namespace.as_str() {
        "" => "<none>",
        namespace => namespace,
    };
    vec![
        difference.what.as_str().to_owned(),
        namespace.to_owned(),
        difference.name.clone(),
        side(&difference.cached),
        side(&difference.live),
    ]
}

impl<'a> JsonPart<'a> {
    fn of(part: &'a Part) -> Self {
        Self {
            namespace: &part.namespace,
            revision: &part.revision,
            objects: part.objects,
        }
    }
}

impl<'a> JsonDifference<'a> {
    fn of(difference: &'a Difference) -> Self {
        let held = |held: &'a Option<Held>| {
            held.as_ref().map(|held| JsonHeld {
                uid: &held.uid,
                resource_version: &held.resource_version,
            })
        };
        Self {
            what: difference.what.as_str(),
            namespace: &difference.namespace,
            name: &difference.name,
            informerd: held(&difference.cached),
            api_server: held(&difference.live),
        }
    }
}
