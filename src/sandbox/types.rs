//! What the built-in kinds are made of: the table `types.txt`, made of Kubernetes's own Go types by
//! `tests/clients/informers/wire`.
//!
//! A line of three words before the first message is a kind: its apiVersion, its name, and its message. A message is
//! a line of its own, and below it are its fields: number in protobuf, name in JSON (`-` where the field's own fields
//! stand in its place), and type: `[]` before it for a list, `{}` for a map by strings, `!` behind it where it is
//! in Go's JSON even if it is empty.

use std::{collections::HashMap, sync::LazyLock};

use serde_json::{Map, Value, json};

use crate::kubeapi::Schema;

const TEXT: &str = include_str!("types.txt");

/// The table.
pub(super) static TYPES: LazyLock<Types> = LazyLock::new(|| Types::parse(TEXT));

/// What `types.txt` says.
#[derive(Debug, Default)]
pub(super) struct Types {
    /// By apiVersion and kind.
    roots: HashMap<(&'static str, &'static str), &'static str>,
    /// By name, in the table's order.
    messages: HashMap<&'static str, Vec<Field>>,
}

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// In protobuf.
    pub(super) number: u64,
    /// In JSON.
    pub(super) name: &'static str,
    pub(super) many: Many,
    pub(super) of: Type,
    /// In Go's JSON even where it is empty.
    pub(super) kept: bool,
}

/// How many there are of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Many {
    One,
    List,
    /// By strings.
    Map,
}

/// Of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    String,
    Bool,
    Int,
    /// Base64 in JSON.
    Bytes,
    /// RFC 3339, to the second.
    Time,
    /// The same to the microsecond.
    MicroTime,
    Quantity,
    IntOrString,
    /// A list that is a message of its own in protobuf.
    Strings,
    /// Anything.
    Json,
    /// `core.Container`.
    Message(&'static str),
}

impl Field {
    /// Whether its own fields stand in its place.
    pub(super) fn is_inline(&self) -> bool {
        self.name == "-"
    }
}

impl Types {
    fn parse(text: &'static str) -> Self {
        let mut types = Self::default();
        let mut message = "";
        for line in text.lines() {
            let words: Vec<&'static str> = line.split(' ').collect();
            match words[..] {
                [name] if !name.is_empty() => {
                    message = name;
                    types.messages.insert(name, Vec::new());
                }
                [api_version, kind, name] if message.is_empty() => {
                    types.roots.insert((api_version, kind), name);
                }
                [number, name, of] => {
                    let fields = types.messages.entry(message).or_default();
                    fields.push(Field::parse(number, name, of));
                }
                _ => {}
            }
        }
        types
    }

    /// The message of a kind.
    pub(super) fn root(&self, api_version: &str, kind: &str) -> Option<&'static str> {
        // Every group has its own name for the same options.
        let api_version = match kind {
            "DeleteOptions" => "v1",
            _ => api_version,
        };
        self.roots.get(&(api_version, kind)).copied()
    }

    /// All fields of a message; those of an inline field are below it.
    pub(super) fn fields(&self, message: &str) -> &[Field] {
        self.messages.get(message).map_or(&[], Vec::as_slice)
    }

    /// By its number.
    pub(super) fn numbered(&self, message: &str, number: u64) -> Option<&Field> {
        let mut fields = self.fields(message).iter();
        fields.find(|field| field.number == number)
    }

    /// By its name, whether it is the message's own or an inline one's.
    pub(super) fn named(&self, message: &str, name: &str) -> Option<&Field> {
        let fields = self.fields(message).iter();
        let own = |field: &&Field| !field.is_inline() && field.name == name;
        fields.clone().find(own).or_else(|| {
            let mut inline = fields.filter(|field| field.is_inline());
            inline.find_map(|field| match field.of {
                Type::Message(of) => self.named(of, name),
                _ => None,
            })
        })
    }
}

impl Field {
    fn parse(number: &str, name: &'static str, of: &'static str) -> Self {
        let kept = of.ends_with('!');
        let of = of.trim_end_matches('!');
        let (many, of) = match (of.strip_prefix("[]"), of.strip_prefix("{}")) {
            (Some(of), _) => (Many::List, of),
            (_, Some(of)) => (Many::Map, of),
            _ => (Many::One, of),
        };
        let of = match of {
            "string" => Type::String,
            "bool" => Type::Bool,
            "int" => Type::Int,
            "bytes" => Type::Bytes,
            "time" => Type::Time,
            "microtime" => Type::MicroTime,
            "quantity" => Type::Quantity,
            "intorstring" => Type::IntOrString,
            "strings" => Type::Strings,
            "json" => Type::Json,
            message => Type::Message(message),
        };
        Self {
            number: number.parse().unwrap_or_default(),
            name,
            many,
            of,
            kept,
        }
    }
}

impl Types {
    /// A kind and what it is made of, as OpenAPI has it. `None` of a kind that is not in the table.
    pub(super) fn schema(&self, api_version: &str, kind: &str) -> Option<Schema> {
        let root = self.root(api_version, kind)?;
        let mut schema = Schema {
            name: component(root),
            components: Map::new(),
        };
        self.describe(root, &mut schema.components);
        let own = schema.components.get_mut(&schema.name)?;
        for name in ["apiVersion", "kind"] {
            own["properties"][name] = json!({"type": "string"});
        }
        Some(schema)
    }

    /// Adds a message and those that it is made of.
    fn describe(&self, message: &'static str, components: &mut Map<String, Value>) {
        let name = component(message);
        if components.contains_key(&name) {
            return;
        }
        // It may be in itself.
        components.insert(name.clone(), Value::Null);
        let mut properties = Map::new();
        self.properties(message, &mut properties, components);
        components.insert(name, json!({"type": "object", "properties": properties}));
    }

    fn properties(
        &self,
        message: &'static str,
        into: &mut Map<String, Value>,
        components: &mut Map<String, Value>,
    ) {
        for field in self.fields(message) {
            let of = match field.of {
                Type::Message(of) if field.is_inline() => {
                    self.properties(of, into, components);
                    continue;
                }
                Type::Message(of) => {
                    self.describe(of, components);
                    json!({"$ref": format!("#/components/schemas/{}", component(of))})
                }
                Type::String | Type::Quantity => json!({"type": "string"}),
                Type::Bool => json!({"type": "boolean"}),
                Type::Int => json!({"type": "integer"}),
                Type::Bytes => json!({"type": "string", "format": "byte"}),
                Type::Time | Type::MicroTime => json!({"type": "string", "format": "date-time"}),
                Type::IntOrString => json!({"type": "string", "format": "int-or-string"}),
                Type::Strings => json!({"type": "array", "items": {"type": "string"}}),
                Type::Json => json!({"type": "object"}),
            };
            let property = match field.many {
                Many::One => of,
                Many::List => json!({"type": "array", "items": of}),
                Many::Map => json!({"type": "object", "additionalProperties": of}),
            };
            into.insert(field.name.to_owned(), property);
        }
    }
}

/// The name of a message in OpenAPI.
fn component(message: &str) -> String {
    format!("io.k8s.{message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_described_with_all_that_it_is_made_of() {
        let schema = TYPES.schema("apps/v1", "Deployment").unwrap();
        assert_eq!(schema.name, "io.k8s.apps.Deployment");
        let properties = |name: &str| &schema.components[name]["properties"];
        assert_eq!(properties(&schema.name)["apiVersion"]["type"], "string");
        let containers = &properties("io.k8s.core.PodSpec")["containers"];
        let of = "#/components/schemas/io.k8s.core.Container";
        assert_eq!(*containers, json!({"type": "array", "items": {"$ref": of}}));
        assert!(properties("io.k8s.core.Volume")["emptyDir"].is_object());
    }

    #[test]
    fn fields_are_found_by_number_and_by_name() {
        let root = TYPES.root("v1", "Pod").unwrap();
        assert_eq!(TYPES.numbered(root, 2).unwrap().name, "spec");
        let volumes = TYPES.named("core.PodSpec", "volumes").unwrap();
        assert_eq!(
            (volumes.many, volumes.of),
            (Many::List, Type::Message("core.Volume"))
        );
        let inline = TYPES.named("core.Volume", "emptyDir").unwrap();
        assert_eq!(inline.of, Type::Message("core.EmptyDirVolumeSource"));
        assert!(inline.kept && TYPES.named("core.Volume", "nothing").is_none());
        assert_eq!(
            TYPES.root("apps/v1", "DeleteOptions"),
            Some("meta.DeleteOptions")
        );
        assert_eq!(TYPES.root("v1", "Deployment"), None);
    }

    #[test]
    fn every_message_that_is_named_is_there() {
        let of: Vec<&str> = TYPES
            .messages
            .values()
            .flatten()
            .filter_map(|field| match field.of {
                Type::Message(of) => Some(of),
                _ => None,
            })
            .chain(TYPES.roots.values().copied())
            .collect();
        assert!(of.len() > 300, "{}", of.len());
        for message in of {
            assert!(TYPES.messages.contains_key(message), "{message}");
        }
        assert!(
            TYPES
                .messages
                .values()
                .flatten()
                .all(|field| field.number > 0)
        );
    }
}
