//! What a table shows of each kind: kubectl's columns for the common kinds, name and age for the rest.
//!
//! The API server makes these tables for kubectl; informerd does not hold them, so they are made here from the
//! objects, for its own command line and for kubectl. Cells read fields where they stand in the JSON: a field that was pruned shows as if it were not set.

use jiff::Timestamp;
use serde_json::Value;

mod core;
mod network;
mod pod;
mod storage;
pub mod time;
mod workload;

/// The columns of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    columns: &'static [Column],
    cells: fn(&Row<'_>) -> Vec<String>,
}

/// A column: its name as the API server writes it, whether only the wide table has it, and what its cells are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column(pub &'static str, pub bool, pub Cell);

/// What the cells of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// The object's name.
    Name,
    /// A text.
    Text,
    /// A whole number.
    Integer,
    /// A whole number in a column that says it has texts, as the API server has it.
    Number,
    /// True or False, as a text.
    Boolean,
    /// A time, as it is.
    Date,
}

const NARROW: bool = false;
const WIDE: bool = true;

/// A column of a CRD.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrinterColumn {
    /// `Size`.
    pub name: String,
    /// `integer`, `number`, `string`, `boolean` or `date`.
    pub r#type: String,
    /// OpenAPI format.
    #[serde(default)]
    pub format: String,
    /// For a person.
    #[serde(default)]
    pub description: String,
    /// 0 in the narrow table.
    #[serde(default)]
    pub priority: i32,
    /// Where the value is: `.spec.size`.
    pub json_path: String,
}

/// One object, to be read into cells.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Its name.
    pub name: &'a str,
    /// All that is known of it.
    pub json: &'a Value,
    /// What ages are measured against.
    pub now: Timestamp,
}

impl Columns {
    /// The columns for a kind; of an unknown one NAME and AGE.
    pub fn of(api_version: &str, kind: &str) -> Self {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        match (group, kind) {
            ("", "Pod") => pod::POD,
            ("", "Node") => core::NODE,
            ("", "Namespace") => core::NAMESPACE,
            ("", "ConfigMap") => core::CONFIG_MAP,
            ("", "Secret") => core::SECRET,
            ("" | "events.k8s.io", "Event") => core::EVENT,
            ("apiextensions.k8s.io", "CustomResourceDefinition") => core::CRD,
            ("", "Service") => network::SERVICE,
            ("networking.k8s.io", "Ingress") => network::INGRESS,
            ("discovery.k8s.io", "EndpointSlice") => network::ENDPOINT_SLICE,
            ("", "PersistentVolume") => storage::VOLUME,
            ("", "PersistentVolumeClaim") => storage::CLAIM,
            ("apps", "Deployment") => workload::DEPLOYMENT,
            ("apps", "ReplicaSet") => workload::REPLICA_SET,
            ("apps", "StatefulSet") => workload::STATEFUL_SET,
            ("apps", "DaemonSet") => workload::DAEMON_SET,
            ("batch", "Job") => workload::JOB,
            ("batch", "CronJob") => workload::CRON_JOB,
            _ => core::ANY,
        }
    }

    /// Name and age, which metadata tells of every kind.
    pub fn of_metadata() -> Self {
        core::ANY
    }

    /// All columns, those of the wide table too.
    pub fn all(&self) -> &'static [Column] {
        self.columns
    }

    /// The headers as people see them.
    pub fn headers(&self, wide: bool) -> impl Iterator<Item = String> {
        self.columns
            .iter()
            .filter(move |column| wide || !column.1)
            .map(|column| column.0.to_uppercase())
    }

    /// One cell for each header.
    pub fn cells(&self, row: &Row<'_>, wide: bool) -> Vec<String> {
        let cells = (self.cells)(row);
        debug_assert_eq!(cells.len(), self.columns.len());
        let shown = self.columns.iter().zip(cells);
        shown
            .filter(|(column, _)| wide || !column.1)
            .map(|(_, cell)| cell)
            .collect()
    }
}

impl Row<'_> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    /// Age by creationTimestamp.
    fn age(&self) -> String {
        self.since("/metadata/creationTimestamp")
            .unwrap_or_else(|| UNKNOWN.into())
    }

    /// Time since the one at this place.
    fn since(&self, pointer: &str) -> Option<String> {
        Some(time::between(self.time(pointer)?, self.now))
    }

    fn time(&self, pointer: &str) -> Option<Timestamp> {
        self.json.text(pointer)?.parse().ok()
    }

    fn is_being_deleted(&self) -> bool {
        self.json.text("/metadata/deletionTimestamp").is_some()
    }

    /// The text at this place, or none.
    fn text_or(&self, pointer: &str, none: &str) -> String {
        self.json.text(pointer).unwrap_or(none).into()
    }

    fn number(&self, pointer: &str) -> String {
        self.json.int(pointer).to_string()
    }
}

/// Reads JSON where it may lack anything.
trait Read {
    /// A text that is not empty.
    fn text(&self, pointer: &str) -> Option<&str>;
    /// 0 where there is none.
    fn int(&self, pointer: &str) -> i64;
    fn flag(&self, pointer: &str) -> bool;
    fn has(&self, pointer: &str) -> bool;
    /// Empty where there is none.
    fn list(&self, pointer: &str) -> &[Value];
    /// `k=v,...`, sorted; none if empty.
    fn labels(&self, pointer: &str) -> Option<String>;
    /// How many entries a map has.
    fn entries(&self, pointer: &str) -> usize;
    /// The texts at `field` of each entry of a list, joined by commas.
    fn joined(&self, pointer: &str, field: &str) -> String;
    /// A LabelSelector as people write it; none if empty.
    fn selector(&self, pointer: &str) -> Option<String>;
    /// The condition of this type.
    fn condition(&self, kind: &str) -> Option<&Value>;
    fn condition_is_true(&self, kind: &str) -> bool {
        self.condition(kind)
            .is_some_and(|it| it.text("/status") == Some("True"))
    }
}

impl Read for Value {
    fn text(&self, pointer: &str) -> Option<&str> {
        self.pointer(pointer)?.as_str().filter(|it| !it.is_empty())
    }

    fn int(&self, pointer: &str) -> i64 {
        self.pointer(pointer)
            .and_then(Value::as_i64)
            .unwrap_or_default()
    }

    fn flag(&self, pointer: &str) -> bool {
        self.pointer(pointer)
            .and_then(Value::as_bool)
            .unwrap_or_default()
    }

    fn has(&self, pointer: &str) -> bool {
        self.pointer(pointer).is_some_and(|it| !it.is_null())
    }

    fn list(&self, pointer: &str) -> &[Value] {
        self.pointer(pointer)
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    fn labels(&self, pointer: &str) -> Option<String> {
        let labels = self.pointer(pointer)?.as_object()?;
        let mut pairs: Vec<String> = labels
            .iter()
            .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
            .collect();
        pairs.sort();
        (!pairs.is_empty()).then(|| pairs.join(","))
    }

    fn entries(&self, pointer: &str) -> usize {
        self.pointer(pointer)
            .and_then(Value::as_object)
            .map_or(0, serde_json::Map::len)
    }

    fn joined(&self, pointer: &str, field: &str) -> String {
        let texts = self
            .list(pointer)
            .iter()
            .map(|it| it.text(field).unwrap_or_default());
        texts.collect::<Vec<_>>().join(",")
    }

    fn selector(&self, pointer: &str) -> Option<String> {
        let selector = self.pointer(pointer)?;
        let mut parts = Vec::new();
        if let Some(labels) = selector.pointer("/matchLabels").and_then(Value::as_object) {
            for (key, value) in labels {
                parts.push((
                    key.as_str(),
                    format!("{key}={}", value.as_str().unwrap_or_default()),
                ));
            }
        }
        for expression in selector.list("/matchExpressions") {
            let key = expression.text("/key").unwrap_or_default();
            let mut values: Vec<_> = expression
                .list("/values")
                .iter()
                .filter_map(Value::as_str)
                .collect();
            values.sort_unstable();
            let values = values.join(",");
            let text = match expression.text("/operator") {
                Some("In") => format!("{key} in ({values})"),
                Some("NotIn") => format!("{key} notin ({values})"),
                Some("Exists") => key.to_owned(),
                Some("DoesNotExist") => format!("!{key}"),
                _ => return Some("<error>".into()),
            };
            parts.push((key, text));
        }
        parts.sort_by_key(|(key, _)| *key);
        let parts: Vec<String> = parts.into_iter().map(|(_, text)| text).collect();
        (!parts.is_empty()).then(|| parts.join(","))
    }

    fn condition(&self, kind: &str) -> Option<&Value> {
        self.list("/status/conditions")
            .iter()
            .find(|it| it.text("/type") == Some(kind))
    }
}

const NONE: &str = "<none>";
const UNSET: &str = "<unset>";
const UNKNOWN: &str = "<unknown>";

/// At most three of a list, and how many more there are.
fn first_three(list: &[String]) -> Option<String> {
    let (first, more) = list.split_at(list.len().min(3));
    let first = first.join(",");
    match more.len() {
        0 => (!first.is_empty()).then_some(first),
        more => Some(format!("{first} + {more} more...")),
    }
}

#[cfg(test)]
mod tests;
