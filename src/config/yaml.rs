//! YAML as a tree that remembers where everything stands, and a reader that goes on after a mistake.
//!
//! Not derived structs: those stop at the first mistake, and report it in serde's words.

use std::{fmt, ops::RangeInclusive, str::FromStr, sync::Arc, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

use super::{
    problem::{Place, Problem},
    units,
};

/// A value and its position.
pub(super) type Node = Spanned<Value>;

/// What a node holds.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As printed.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Spanned<String>, Node)>),
}

impl Value {
    /// As an error calls it.
    fn what(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(number) => format!("the number {number}"),
            Self::Text(text) => format!("`{text}`"),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;

        impl<'de> Visitor<'de> for AnyValue {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Number(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Number(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Number(value.to_string()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
                inner.deserialize_any(self)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Value::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
                let mut map = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    map.push(entry);
                }
                Ok(Value::Map(map))
            }
        }

        deserializer.deserialize_any(AnyValue)
    }
}

/// A setting: its value, and its name from the root.
#[derive(Clone)]
pub(super) struct Field<'n> {
    node: &'n Node,
    pub(super) name: String,
}

impl<'n> Field<'n> {
    pub(super) fn root(node: &'n Node) -> Self {
        Self {
            node,
            name: String::new(),
        }
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.node.value, Value::Text(_))
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_) | Value::Null)
    }

    pub(super) fn is_empty_map(&self) -> bool {
        matches!(&self.node.value, Value::Null)
            || matches!(&self.node.value, Value::Map(map) if map.is_empty())
    }

    pub(super) fn is_empty_list(&self) -> bool {
        matches!(&self.node.value, Value::Null)
            || matches!(&self.node.value, Value::List(items) if items.is_empty())
    }
}

/// The settings of a mapping.
pub(super) struct Map<'n> {
    entries: &'n [(Spanned<String>, Node)],
    name: String,
}

impl<'n> Map<'n> {
    /// The setting of that name, unless it is missing.
    pub(super) fn get(&self, key: &str) -> Option<Field<'n>> {
        let (_, node) = self.entries.iter().find(|(own, _)| own.value == key)?;
        Some(Field {
            node,
            name: join(&self.name, key),
        })
    }
}

fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() {
        key.to_owned()
    } else {
        format!("{parent}.{key}")
    }
}

/// Reads settings, and collects what is wrong with them. Each method returns nothing for what is wrong.
pub(super) struct Reader {
    file: Arc<str>,
    pub(super) problems: Vec<Problem>,
}

impl Reader {
    pub(super) fn new(file: Arc<str>) -> Self {
        Self {
            file,
            problems: Vec::new(),
        }
    }

    pub(super) fn place(&self, field: &Field<'_>) -> Place {
        self.place_of(field.node)
    }

    fn place_of<T>(&self, node: &Spanned<T>) -> Place {
        Place::At {
            file: Arc::clone(&self.file),
            line: node.referenced.line(),
            column: node.referenced.column(),
        }
    }

    pub(super) fn refuse(&mut self, field: &Field<'_>, message: impl Into<String>) {
        self.refuse_at(self.place(field), &field.name, message);
    }

    pub(super) fn refuse_at(&mut self, place: Place, setting: &str, message: impl Into<String>) {
        self.problems.push(Problem {
            place,
            setting: setting.to_owned(),
            message: message.into(),
        });
    }

    fn refuse_value(&mut self, field: &Field<'_>, write: &str) {
        let found = field.node.value.what();
        self.refuse(field, format!("{found} cannot stand here: write {write}"));
    }

    /// A mapping; unknown keys are refused, and their values ignored.
    pub(super) fn map<'n>(&mut self, field: &Field<'n>, known: &[&str]) -> Map<'n> {
        let entries: &[(Spanned<String>, Node)] = match &field.node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                self.refuse_value(field, &format!("a mapping of {}", known.join(", ")));
                &[]
            }
        };
        for (at, (key, _)) in entries.iter().enumerate() {
            let first = entries[..at]
                .iter()
                .find(|(other, _)| other.value == key.value);
            let message = match first {
                Some((first, _)) => {
                    format!(
                        "stands at line {} already: remove one of them",
                        first.referenced.line()
                    )
                }
                None if !known.contains(&key.value.as_str()) => {
                    format!("unknown key: {}", instead_of(&key.value, known))
                }
                None => continue,
            };
            self.refuse_at(self.place_of(key), &join(&field.name, &key.value), message);
        }
        Map {
            entries,
            name: field.name.clone(),
        }
    }

    pub(super) fn list<'n>(&mut self, field: &Field<'n>) -> Vec<Field<'n>> {
        match &field.node.value {
            Value::List(items) => {
                let items = items.iter().enumerate();
                items
                    .map(|(at, node)| Field {
                        node,
                        name: format!("{}[{at}]", field.name),
                    })
                    .collect()
            }
            Value::Null => Vec::new(),
            _ => {
                self.refuse_value(field, "a list, as in [a, b]");
                Vec::new()
            }
        }
    }

    pub(super) fn text<'n>(&mut self, field: &Field<'n>) -> Option<&'n str> {
        match &field.node.value {
            Value::Text(text) => Some(text),
            Value::Bool(_) | Value::Number(_) => {
                let found = field.node.value.what();
                self.refuse(
                    field,
                    format!("{found} is not text: put it in quotes if it is meant as such"),
                );
                None
            }
            _ => {
                self.refuse_value(field, "text");
                None
            }
        }
    }

    /// Text that means something, or says itself why not.
    pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, field: &Field<'_>) -> Option<T> {
        let text = self.text(field)?;
        text.parse()
            .map_err(|error: T::Err| self.refuse(field, error.to_string()))
            .ok()
    }

    pub(super) fn boolean(&mut self, field: &Field<'_>) -> Option<bool> {
        match field.node.value {
            Value::Bool(value) => Some(value),
            _ => {
                self.refuse_value(field, "true or false");
                None
            }
        }
    }

    pub(super) fn number(&mut self, field: &Field<'_>, range: RangeInclusive<u64>) -> Option<u64> {
        let number = match &field.node.value {
            Value::Number(number) => number.parse().ok().filter(|number| range.contains(number)),
            _ => None,
        };
        if number.is_none() {
            let write = format!("a whole number from {} to {}", range.start(), range.end());
            self.refuse_value(field, &write);
        }
        number
    }

    pub(super) fn bytes(&mut self, field: &Field<'_>, range: RangeInclusive<u64>) -> Option<u64> {
        let bytes = match &field.node.value {
            Value::Number(text) | Value::Text(text) => units::bytes(text),
            _ => None,
        };
        let bytes = bytes.filter(|bytes| range.contains(bytes));
        if bytes.is_none() {
            let (from, to) = (
                units::show_bytes(*range.start()),
                units::show_bytes(*range.end()),
            );
            self.refuse_value(field, &format!("a size from {from} to {to}, such as 64Mi"));
        }
        bytes
    }

    pub(super) fn duration(
        &mut self,
        field: &Field<'_>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let duration = match &field.node.value {
            Value::Text(text) => units::duration(text),
            _ => None,
        };
        let duration = duration.filter(|duration| range.contains(duration));
        if duration.is_none() {
            let (from, to) = (
                units::show_duration(*range.start()),
                units::show_duration(*range.end()),
            );
            self.refuse_value(
                field,
                &format!("a duration from {from} to {to}, such as 90s, 5m or 1h30m"),
            );
        }
        duration
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, field: &Field<'_>, of: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = of.iter().map(|(word, _)| *word).collect();
        let found = match &field.node.value {
            Value::Text(text) => of.iter().find(|(word, _)| word == text),
            _ => None,
        };
        if found.is_none() {
            let all = match words.as_slice() {
                [some @ .., last] if !some.is_empty() => format!("{} or {last}", some.join(", ")),
                all => all.concat(),
            };
            self.refuse_value(field, &all);
        }
        found.map(|(_, value)| *value)
    }
}

/// Reads a document. `file` is what errors call it.
pub(super) fn parse(file: &Arc<str>, text: &str) -> Result<Node, Problem> {
    // Keys that stand twice are refused by the reader, in its own words.
    // Strictly, only true and false are booleans, and `no` is what kubectl calls nodes.
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
    };
    serde_saphyr::from_str_with_options::<Node>(text, options).map_err(|error| {
        let place = error.location().map_or(Place::Default, |at| Place::At {
            file: Arc::clone(file),
            line: at.line(),
            column: at.column(),
        });
        Problem {
            place,
            setting: String::new(),
            message: words(&error),
        }
    })
}

/// What the error says, without the position, and with what to do about the mistakes that paths invite.
fn words(error: &serde_saphyr::Error) -> String {
    let error = error.without_snippet();
    if matches!(error, serde_saphyr::Error::MultipleDocuments { .. }) {
        return "a second document begins here: a configuration is one, so remove this line or what follows".to_owned();
    }
    let text = error.to_string();
    let said = text.split(" at line ").next().unwrap_or_default();
    let hint = if said.contains("anchor or alias") {
        "; a path with [*] inside [ ] needs quotes, as in ['.spec.containers[*].image']"
    } else {
        ""
    };
    format!("this is not YAML: {said}{hint}")
}

/// The nearest known word, or all of them.
pub(super) fn instead_of(word: &str, known: &[&str]) -> String {
    let likeness = |known: &str| strsim::jaro_winkler(&word.to_lowercase(), &known.to_lowercase());
    let nearest = known
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest {
        Some(nearest) if likeness(nearest) > 0.8 => format!("did you mean `{nearest}`?"),
        _ => format!("write one of {}", known.join(", ")),
    }
}
