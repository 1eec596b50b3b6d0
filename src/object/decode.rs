//! From the bytes of an object, as the API server sent them, to an [`Object`]: one pass that checks the JSON,
//! leaves out what the kind's rules drop, and reads identity and selectable values on the way.
//!
//! The result always begins with apiVersion and kind, whether the API server wrote them (watch events), left them
//! out (items of a list) or wrote `PartialObjectMetadata`, so the same object has the same bytes however it came.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use super::{
    Key, Labels, Object, OwnerReference,
    path::Path,
    prune::{IDENTITY, Pruner},
    rules::Node,
    scan::{Scan, ScanError},
    selector::Selectable,
};

/// Reads the objects of one kind.
#[derive(Clone, Debug)]
pub struct Decoder {
    api_version: Box<str>,
    kind: Box<str>,
    namespaced: bool,
    rules: Node,
    slots: usize,
    /// For each selectable path, how many of the slots after [`IDENTITY`] may hold its value.
    selectable: Box<[usize]>,
    /// `{"apiVersion":"v1","kind":"Pod"`
    opening: Box<str>,
}

/// Why an object could not be read, and which one it was as far as that can be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", .key.as_ref().map_or("an object without a readable name", Key::as_str))]
pub struct DecodeError {
    /// What is wrong. Says where, never what the object holds.
    pub message: String,
    /// Its key, where that could be read.
    pub key: Option<Key>,
    /// Its uid, where that could be read.
    pub uid: Option<Box<str>>,
    /// Its resourceVersion, where that could be read.
    pub resource_version: Option<Box<str>>,
}

// The slots in which identity is captured: places in [`IDENTITY`].
const API_VERSION: usize = 0;
const KIND: usize = 1;
const NAME: usize = 2;
const NAMESPACE: usize = 3;
const UID: usize = 4;
const RESOURCE_VERSION: usize = 5;
const GENERATION: usize = 6;
const DELETION_TIMESTAMP: usize = 7;
const LABELS: usize = 8;
const OWNER_REFERENCES: usize = 9;

impl Decoder {
    /// A decoder for the kind that the API server calls `api_version` (`apps/v1`) and `kind` (`Deployment`).
    pub fn new(
        api_version: &str,
        kind: &str,
        namespaced: bool,
        pruner: &Pruner,
        selectable: &Selectable,
    ) -> Self {
        let mut rules = pruner.root();
        // Written anew in front of every object.
        rules.drop_at(&Path::of(IDENTITY[API_VERSION]));
        rules.drop_at(&Path::of(IDENTITY[KIND]));
        let mut slots = 0;
        let mut capture = |path: &Path| {
            rules.capture(path, slots);
            slots += 1;
        };
        IDENTITY.map(Path::of).iter().for_each(&mut capture);
        let mut places = Vec::new();
        for readable in selectable.readable() {
            readable.read.iter().for_each(&mut capture);
            places.push(readable.read.len());
        }
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        Self {
            api_version: api_version.into(),
            kind: kind.into(),
            namespaced,
            rules: rules.finish(),
            slots,
            selectable: places.into(),
            opening: format!(
                r#"{{"apiVersion":{},"kind":{}"#,
                quoted(api_version),
                quoted(kind)
            )
            .into(),
        }
    }

    /// Reads one object. `received_unix_nanos` is when it came, 0 if by a list.
    pub fn decode(&self, raw: &[u8], received_unix_nanos: u64) -> Result<Object, DecodeError> {
        let Ok(text) = str::from_utf8(raw) else {
            let text = String::from_utf8_lossy(raw);
            let mut scan = Scan::new(&text, self.slots);
            // Only for what it captures.
            scan.object(&self.rules).ok();
            return Err(self.error(&scan, "the JSON is not UTF-8".to_owned()));
        };
        let mut scan = Scan::new(text, self.slots);
        self.read(&mut scan, received_unix_nanos)
            .map_err(|wrong| self.error(&scan, wrong.to_string()))
    }

    fn read(&self, scan: &mut Scan<'_>, received_unix_nanos: u64) -> Result<Object, Wrong> {
        let any = scan
            .object(&self.rules)
            .map_err(|error| Wrong::Json(*error))?;
        let type_of = (string(scan, API_VERSION)?, string(scan, KIND)?);
        let (api_version, kind) = (type_of.0.as_deref(), type_of.1.as_deref());
        let partial = (Some("meta.k8s.io/v1"), Some("PartialObjectMetadata"));
        let same = api_version.is_none_or(|it| it == &*self.api_version)
            && kind.is_none_or(|it| it == &*self.kind);
        if !same && (api_version, kind) != partial {
            return Err(Wrong::OtherKind {
                expected: format!("{} {}", self.api_version, self.kind),
            });
        }
        let key = self.key(scan)?;
        let mut slot = IDENTITY.len();
        let fields = self.selectable.iter().map(|places| {
            let value = (slot..slot + places).find_map(|slot| scalar(scan.captured(slot)?));
            slot += places;
            value
        });
        let fields = fields.collect();
        let resource_version = string(scan, RESOURCE_VERSION)?
            .filter(|it| !it.is_empty())
            .ok_or(Wrong::Missing("resourceVersion"))?;
        Ok(Object {
            key,
            uid: string(scan, UID)?.unwrap_or_default().into(),
            resource_version: resource_version.into(),
            generation: parse(scan, GENERATION)?,
            deletion_timestamp: string(scan, DELETION_TIMESTAMP)?.map(Into::into),
            labels: parse(scan, LABELS)?.unwrap_or_default(),
            owner_references: parse::<Vec<Owner<'_>>>(scan, OWNER_REFERENCES)?
                .unwrap_or_default()
                .into_iter()
                .map(OwnerReference::from)
                .collect(),
            fields,
            json: self.json(scan, any),
            stale: false,
            received_unix_nanos,
        })
    }

    /// What stays of the object, in a buffer of just its size.
    fn json(&self, scan: &Scan<'_>, any: bool) -> Bytes {
        let comma: &[u8] = if any { b"," } else { b"" };
        let mut json = Vec::with_capacity(self.opening.len() + comma.len() + scan.len() + 1);
        json.extend_from_slice(self.opening.as_bytes());
        json.extend_from_slice(comma);
        scan.write(&mut json);
        json.push(b'}');
        json.into()
    }

    fn key(&self, scan: &Scan<'_>) -> Result<Key, Wrong> {
        let name = string(scan, NAME)?.unwrap_or_default();
        let namespace = string(scan, NAMESPACE)?.unwrap_or_default();
        if name.is_empty() {
            return Err(Wrong::Missing("name"));
        }
        for (field, part) in [("name", &name), ("namespace", &namespace)] {
            if part.contains(['/', '\0', char::REPLACEMENT_CHARACTER]) {
                return Err(Wrong::NoName(field));
            }
        }
        match (self.namespaced, namespace.is_empty()) {
            (true, true) => Err(Wrong::Missing("namespace")),
            (false, false) => Err(Wrong::Namespace),
            _ => Ok(Key::new(&namespace, &name)),
        }
    }

    fn error(&self, scan: &Scan<'_>, message: String) -> DecodeError {
        let text = |slot| {
            string(scan, slot)
                .ok()
                .flatten()
                .filter(|it| !it.is_empty())
                .map(Into::into)
        };
        DecodeError {
            message,
            key: self.key(scan).ok(),
            uid: text(UID),
            resource_version: text(RESOURCE_VERSION),
        }
    }
}

/// What is wrong with an object.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error(transparent)]
    Json(ScanError),
    #[error("it is of another kind than the {expected} that was asked for")]
    OtherKind { expected: String },
    #[error("metadata.{0} is missing")]
    Missing(&'static str),
    #[error("metadata.{0} has a '/' or another character that no {0} has")]
    NoName(&'static str),
    #[error("metadata.namespace is set on an object of a cluster-scoped kind")]
    Namespace,
    #[error("{field} is not {expected}")]
    Type {
        field: String,
        expected: &'static str,
    },
}

/// A captured string; `None` where it is absent or null.
fn string<'a>(scan: &Scan<'a>, slot: usize) -> Result<Option<Cow<'a, str>>, Wrong> {
    match scan.captured(slot) {
        None | Some("null") => Ok(None),
        Some(raw) => unquote(raw).map(Some).ok_or_else(|| wrong_type(slot)),
    }
}

/// Any captured value; `None` where it is absent or null.
fn parse<'a, T: Deserialize<'a>>(scan: &Scan<'a>, slot: usize) -> Result<Option<T>, Wrong> {
    let Some(raw) = scan.captured(slot) else {
        return Ok(None);
    };
    serde_json::from_str(raw).map_err(|_| wrong_type(slot))
}

fn wrong_type(slot: usize) -> Wrong {
    let expected = match slot {
        GENERATION => "a 64-bit whole number",
        LABELS => "an object of strings",
        OWNER_REFERENCES => "a list of references with apiVersion, kind, name and uid",
        _ => "a string",
    };
    Wrong::Type {
        field: IDENTITY[slot].join("."),
        expected,
    }
}

/// The text of a JSON string.
fn unquote(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// The value that selectors compare: a string's text, a number or boolean as written. Null, an empty string and
/// what has parts count as unset.
fn scalar(raw: &str) -> Option<Box<str>> {
    match raw.as_bytes().first()? {
        b'"' => unquote(raw).filter(|text| !text.is_empty()).map(Into::into),
        b'{' | b'[' | b'n' => None,
        _ => Some(raw.into()),
    }
}

/// An owner reference as it is read; its strings are copied once.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owner<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
    controller: Option<bool>,
}

impl From<Owner<'_>> for OwnerReference {
    fn from(owner: Owner<'_>) -> Self {
        Self {
            api_version: owner.api_version.into(),
            kind: owner.kind.into(),
            name: owner.name.into(),
            uid: owner.uid.into(),
            controller: owner.controller.unwrap_or(false),
        }
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                #[derive(Deserialize)]
                struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

                let mut pairs = Vec::new();
                while let Some((Text(key), Text(value))) =
                    map.next_entry::<Text<'de>, Text<'de>>()?
                {
                    pairs.push((key, value));
                }
                Ok(pairs.into_iter().collect())
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests;
