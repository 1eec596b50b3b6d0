//! Objects in the formats that people ask for.

use std::io::{self, Write};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, value::RawValue};

use super::{Error, Output, table::Table, target::Target};
use crate::{
    columns::{Columns, Row},
    proto::Object,
};

/// How objects are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One line an object
    Table,
    /// Like table, with more columns
    Wide,
    /// The whole objects
    Json,
    /// The whole objects
    Yaml,
    /// KIND/NAME
    Name,
}

impl Format {
    /// Whether objects are printed whole.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Self::Json | Self::Yaml)
    }
}

/// Rows of one kind.
pub(super) struct Rows {
    columns: Columns,
    table: Table,
    wide: bool,
    with_namespace: bool,
    with_event: bool,
}

impl Rows {
    pub(super) fn new(target: &Target, format: Format, with_event: bool) -> Self {
        let columns = if target.metadata_only {
            // The columns of a kind that is not known: they need no more.
            Columns::of("", "")
        } else {
            Columns::of(&target.kind.api_version, &target.kind.kind)
        };
        let wide = format == Format::Wide;
        let with_namespace = target.with_namespace;
        let before = [(with_event, "EVENT"), (with_namespace, "NAMESPACE")];
        let before = before
            .into_iter()
            .filter(|(with, _)| *with)
            .map(|(_, name)| name.to_owned());
        let table = Table::new(before.chain(columns.headers(wide)));
        Self {
            columns,
            table,
            wide,
            with_namespace,
            with_event,
        }
    }

    /// Writes rows; the event is shown only where the table has that column.
    pub(super) fn write<'a>(
        &mut self,
        out: &mut Output<'_>,
        objects: impl IntoIterator<Item = (&'a str, &'a Object)>,
    ) -> Result<(), Error> {
        let now = (out.now)();
        let mut rows = Vec::new();
        for (event, object) in objects {
            let json = parse(object)?;
            let row = Row {
                name: &object.name,
                json: &json,
                now,
            };
            let mut cells = Vec::new();
            if self.with_event {
                cells.push(event.to_owned());
            }
            if self.with_namespace {
                cells.push(object.namespace.clone());
            }
            cells.extend(self.columns.cells(&row, self.wide));
            rows.push(cells);
        }
        Ok(self.table.write(out.out, &rows)?)
    }
}

/// Writes one object, whole.
pub(super) fn one(out: &mut dyn Write, format: Format, object: &Object) -> Result<(), Error> {
    whole(out, format, &parse(object)?)
}

/// Writes a list of objects, whole, as kubectl wraps it.
pub(super) fn list(out: &mut dyn Write, format: Format, objects: &[Object]) -> Result<(), Error> {
    // Found out before anything is written.
    objects
        .iter()
        .try_for_each(|object| raw(object).map(drop))?;
    whole(out, format, &Wrapped(objects))
}

/// Writes `pod/web-0`.
pub(super) fn name(out: &mut dyn Write, target: &Target, object: &Object) -> io::Result<()> {
    let kind = target.kind.kind.to_lowercase();
    match target.kind.api_version.split_once('/') {
        Some((group, _)) => writeln!(out, "{kind}.{group}/{}", object.name),
        None => writeln!(out, "{kind}/{}", object.name),
    }
}

/// Writes `{"type":"ADDED","object":{...}}` in one line.
pub(super) fn event(out: &mut dyn Write, event: &str, object: &Object) -> Result<(), Error> {
    let json = raw(object)?;
    Ok(writeln!(out, "{{\"type\":\"{event}\",\"object\":{json}}}")?)
}

/// Writes anything as indented JSON, or as YAML.
pub(super) fn whole(
    out: &mut dyn Write,
    format: Format,
    what: &impl Serialize,
) -> Result<(), Error> {
    if format == Format::Yaml {
        let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
        let text = serde_saphyr::to_string_with_options(what, options).map_err(io::Error::other)?;
        out.write_all(text.as_bytes())?;
    } else {
        let pretty = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut writer = serde_json::Serializer::with_formatter(&mut *out, pretty);
        what.serialize(&mut writer).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// A `List`, whose objects are parsed one at a time while it is written: thousands of them at once would take
/// several times their size.
struct Wrapped<'a>(&'a [Object]);

struct Item<'a>(&'a Object);

impl Serialize for Wrapped<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Items<'a>(&'a [Object]);
        impl Serialize for Items<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.iter().map(Item))
            }
        }
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("apiVersion", "v1")?;
        map.serialize_entry("items", &Items(self.0))?;
        map.serialize_entry("kind", "List")?;
        map.serialize_entry("metadata", &serde_json::json!({ "resourceVersion": "" }))?;
        map.end()
    }
}

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        parse(self.0)
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

fn parse(object: &Object) -> Result<Value, Error> {
    serde_json::from_slice(&object.object).map_err(|why| unreadable(object, &why))
}

fn raw(object: &Object) -> Result<&RawValue, Error> {
    serde_json::from_slice(&object.object).map_err(|why| unreadable(object, &why))
}

fn unreadable(object: &Object, why: &serde_json::Error) -> Error {
    let name = if object.namespace.is_empty() {
        object.name.clone()
    } else {
        format!("{}/{}", object.namespace, object.name)
    };
    Error::Object {
        name,
        why: why.to_string(),
    }
}
