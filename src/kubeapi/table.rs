//! Tables: the rows and columns that kubectl prints.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    accept::MetaVersion,
    options::Query,
    read::{PrinterColumn, Resource},
    shape,
    status::Status,
};
use crate::{
    columns::{Cell, Columns, Row, time},
    object::Object,
};

/// How a table is made.
#[derive(Clone, Debug)]
pub(super) struct Table {
    version: MetaVersion,
    include: Include,
    columns: Source,
}

/// Where columns come from.
#[derive(Clone, Debug)]
enum Source {
    Known(Columns),
    Crd(Vec<PrinterColumn>),
}

/// How much of each object goes with its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Table {
    /// As `includeObject` and the resource have it.
    pub(super) fn new(
        resource: &Resource,
        query: &Query<'_>,
        version: MetaVersion,
    ) -> Result<Self, Status> {
        let include = match query.get("includeObject").unwrap_or_default() {
            "None" => Include::Nothing,
            "" | "Metadata" => Include::Metadata,
            "Object" => Include::Object,
            other => {
                let message = format!(
                    "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be \
                     'Metadata', 'Object', 'None', or empty"
                );
                return Err(Status::bad_request(message));
            }
        };
        let identity = &resource.identity;
        let columns = match &resource.columns {
            _ if resource.kind.metadata_only => Source::Known(Columns::of_metadata()),
            Some(columns) => Source::Crd(columns.clone()),
            None => Source::Known(Columns::of(&identity.api_version(), &identity.kind)),
        };
        Ok(Self {
            version,
            include,
            columns,
        })
    }

    /// Up to the opening bracket of the rows. Later tables of a watch have no definitions.
    pub(super) fn head(&self, metadata: &[u8], definitions: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"kind":"Table","apiVersion":""#);
        out.extend_from_slice(self.version.api_version().as_bytes());
        out.extend_from_slice(br#"","metadata":"#);
        out.extend_from_slice(metadata);
        out.extend_from_slice(br#","columnDefinitions":"#);
        let definitions = definitions.then(|| self.definitions());
        let definitions = definitions.map_or(Value::Null, Value::Array);
        out.extend_from_slice(definitions.to_string().as_bytes());
        out.extend_from_slice(br#","rows":["#);
    }

    fn definitions(&self) -> Vec<Value> {
        let definition = |name: &str, of: &str, format: &str, description: &str, priority: i32| {
            serde_json::json!({
                "name": name,
                "type": of,
                "format": format,
                "description": description,
                "priority": priority,
            })
        };
        match &self.columns {
            Source::Known(columns) => columns
                .all()
                .iter()
                .map(|column| {
                    let (of, format) = match column.2 {
                        Cell::Name => ("string", "name"),
                        Cell::Text | Cell::Number => ("string", ""),
                        Cell::Integer => ("integer", ""),
                        Cell::Boolean => ("boolean", ""),
                        Cell::Date => ("date", ""),
                    };
                    definition(column.0, of, format, "", column.1.into())
                })
                .collect(),
            Source::Crd(columns) => {
                let name = definition("Name", "string", "name", "", 0);
                let own = columns.iter().map(|column| {
                    definition(
                        &column.name,
                        &column.r#type,
                        &column.format,
                        &column.description,
                        column.priority,
                    )
                });
                [name].into_iter().chain(own).collect()
            }
        }
    }

    /// Appends a row. `json` is the object's, perhaps with another version.
    pub(super) fn row(&self, object: &Object, json: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"cells":"#);
        let cells = self.cells(object, json);
        out.extend_from_slice(Value::Array(cells).to_string().as_bytes());
        out.extend_from_slice(br#","object":"#);
        match self.include {
            Include::Nothing => out.extend_from_slice(b"null"),
            Include::Metadata => shape::partial(shape::metadata(json), self.version, out),
            Include::Object => out.extend_from_slice(json),
        }
        out.push(b'}');
    }

    /// Appends the row of a bookmark, which is of no object.
    pub(super) fn bookmark_row(&self, metadata: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"cells":[],"object":"#);
        shape::partial(metadata, self.version, out);
        out.push(b'}');
    }

    fn cells(&self, object: &Object, json: &[u8]) -> Vec<Value> {
        // The cache holds nothing else than objects; an unreadable one has empty cells.
        let json: Value = serde_json::from_slice(json).unwrap_or_default();
        let now = Timestamp::now();
        match &self.columns {
            Source::Known(columns) => {
                let row = Row {
                    name: object.key.name(),
                    json: &json,
                    now,
                };
                let cells = columns.cells(&row, true);
                let typed = columns.all().iter().zip(cells);
                typed
                    .map(|(column, cell)| match column.2 {
                        Cell::Integer | Cell::Number => cell
                            .parse::<i64>()
                            .map_or_else(|_| cell.clone().into(), Value::from),
                        _ => cell.into(),
                    })
                    .collect()
            }
            Source::Crd(columns) => {
                let name = Value::from(object.key.name());
                let own = columns.iter().map(|column| crd_cell(column, &json, now));
                [name].into_iter().chain(own).collect()
            }
        }
    }
}

/// A CRD's cell: the value at its path, in its type; null where there is none.
fn crd_cell(column: &PrinterColumn, json: &Value, now: Timestamp) -> Value {
    let found = json_path(&column.json_path, json);
    let Some(first) = found.first() else {
        return Value::Null;
    };
    match column.r#type.as_str() {
        "integer" => first
            .as_i64()
            .or_else(|| first.as_f64().map(|number| number as i64))
            .map_or(Value::Null, Value::from),
        "number" => match first {
            Value::Number(_) => (*first).clone(),
            _ => Value::Null,
        },
        "boolean" => match first {
            Value::Bool(_) => (*first).clone(),
            _ => Value::Null,
        },
        "date" => match first.as_str().map(str::parse::<Timestamp>) {
            Some(Ok(at)) => time::between(at, now).into(),
            Some(Err(_)) => "<invalid>".into(),
            None => Value::Null,
        },
        _ => {
            let texts = found.iter().map(|value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            texts.collect::<Vec<_>>().join(" ").into()
        }
    }
}

/// What a CRD's path finds: names, indices, `[*]`, `['a.b']` and `[?(@.type=="Ready")]`.
fn json_path<'a>(path: &str, json: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![json];
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}');
    while !rest.is_empty() {
        let (step, after) = Step::take(rest);
        found = found.into_iter().flat_map(|value| step.of(value)).collect();
        rest = after;
    }
    found
}

/// One step of a path.
enum Step<'a> {
    Field(String),
    All,
    Index(i64),
    /// Items whose value at a path is this.
    Where(&'a str, Value),
    /// Not understood: finds nothing.
    Nothing,
}

impl<'a> Step<'a> {
    /// The first step, and what follows.
    fn take(path: &'a str) -> (Self, &'a str) {
        if let Some(rest) = path.strip_prefix('[') {
            let quoted = rest.starts_with(['\'', '"']);
            let end = match rest.chars().next() {
                Some(quote) if quoted => rest[1..].find(quote).map(|at| at + 2),
                _ if rest.starts_with("?(") => rest.find(")]").map(|at| at + 1),
                _ => rest.find(']'),
            };
            let Some(end) = end.filter(|end| rest[*end..].starts_with(']')) else {
                return (Self::Nothing, "");
            };
            return (Self::bracket(&rest[..end]), &rest[end + 1..]);
        }
        let path = path.strip_prefix('.').unwrap_or(path);
        let mut name = String::new();
        let mut chars = path.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                '.' | '[' => return (Self::field(name), &path[at..]),
                c => name.push(c),
            }
        }
        (Self::field(name), "")
    }

    fn field(name: String) -> Self {
        match name.as_str() {
            "*" => Self::All,
            "" => Self::Nothing,
            _ => Self::Field(name),
        }
    }

    fn bracket(inner: &'a str) -> Self {
        if inner == "*" {
            return Self::All;
        }
        if let Ok(index) = inner.parse() {
            return Self::Index(index);
        }
        let unquoted = |text: &str| {
            let text = text.trim();
            ['\'', '"'].iter().find_map(|quote| {
                let text = text.strip_prefix(*quote)?.strip_suffix(*quote)?;
                Some(text.to_owned())
            })
        };
        if let Some(name) = unquoted(inner) {
            return Self::Field(name);
        }
        let filter = inner
            .strip_prefix("?(")
            .and_then(|filter| filter.strip_suffix(')'));
        let sides = filter.and_then(|filter| filter.split_once("=="));
        let Some((path, value)) = sides else {
            return Self::Nothing;
        };
        let Some(path) = path.trim().strip_prefix('@') else {
            return Self::Nothing;
        };
        match unquoted(value) {
            Some(text) => Self::Where(path, text.into()),
            None => match serde_json::from_str(value.trim()) {
                Ok(value) => Self::Where(path, value),
                Err(_) => Self::Nothing,
            },
        }
    }

    fn of<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Self::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Self::All, Value::Object(map)) => map.values().collect(),
            (Self::All, Value::Array(items)) => items.iter().collect(),
            (Self::Index(index), Value::Array(items)) => {
                let at = match usize::try_from(*index) {
                    Ok(at) => Some(at),
                    Err(_) => usize::try_from(-*index)
                        .ok()
                        .and_then(|back| items.len().checked_sub(back)),
                };
                at.and_then(|at| items.get(at)).into_iter().collect()
            }
            (Self::Where(path, wanted), Value::Array(items)) => items
                .iter()
                .filter(|item| json_path(path, item).contains(&wanted))
                .collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn column(of: &str, path: &str) -> PrinterColumn {
        PrinterColumn {
            name: "X".to_owned(),
            r#type: of.to_owned(),
            format: String::new(),
            description: String::new(),
            priority: 0,
            json_path: path.to_owned(),
        }
    }

    #[test]
    fn the_cells_of_a_crd_are_read_by_its_paths() {
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let object = json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a.b/c": "x"}},
            "spec": {"size": 3, "on": true, "ratio": 0.5, "list": [1, 2, 3], "empty": ""},
            "status": {"conditions": [
                {"type": "Synced", "status": "False"},
                {"type": "Ready", "status": "True"},
            ]},
        });
        for (of, path, expected) in [
            ("integer", ".spec.size", json!(3)),
            ("string", ".spec.size", json!("3")),
            ("boolean", ".spec.on", json!(true)),
            ("number", ".spec.ratio", json!(0.5)),
            ("date", ".metadata.creationTimestamp", json!("60m")),
            ("date", ".spec.empty", json!("<invalid>")),
            ("string", ".metadata.labels.a\\.b/c", json!("x")),
            ("string", ".metadata.labels['a.b/c']", json!("x")),
            ("integer", ".spec.list[-1]", json!(3)),
            ("string", ".spec.list[*]", json!("1 2 3")),
            (
                "string",
                r#".status.conditions[?(@.type=="Ready")].status"#,
                json!("True"),
            ),
            (
                "string",
                ".status.conditions[?(@.type=='Other')].status",
                json!(null),
            ),
            ("string", ".spec.none.deeper", json!(null)),
            ("integer", ".spec.on", json!(null)),
            ("string", ".spec[", json!(null)),
            ("string", ".spec[?(@.a)]", json!(null)),
        ] {
            assert_eq!(
                crd_cell(&column(of, path), &object, now),
                expected,
                "{of} {path}"
            );
        }
    }
}
