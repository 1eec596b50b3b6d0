//! The bytes of objects, sliced from the JSON that is cached: nothing is parsed into a tree, nothing is serialized
//! again.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{accept::MetaVersion, read::Resource};
use crate::object::Object;

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    resource_version: &'a RawValue,
}

/// `metadata` as it stands in the object; `{}` where there is none, which the cache does not hold.
pub(super) fn metadata(json: &[u8]) -> &str {
    serde_json::from_slice::<Document<'_>>(json).map_or("{}", |document| document.metadata.get())
}

/// Appends the object, with another `metadata.resourceVersion`.
pub(super) fn with_version(json: &[u8], version: u64, out: &mut Vec<u8>) {
    let place = || {
        let document: Document<'_> = serde_json::from_slice(json).ok()?;
        let metadata: Metadata<'_> = serde_json::from_str(document.metadata.get()).ok()?;
        let text = metadata.resource_version.get();
        // Both are slices of `json`.
        let start = (text.as_ptr() as usize).checked_sub(json.as_ptr() as usize)?;
        Some((json.get(..start)?, json.get(start + text.len()..)?))
    };
    match place() {
        Some((before, after)) => {
            out.extend_from_slice(before);
            out.push(b'"');
            number(version, out);
            out.push(b'"');
            out.extend_from_slice(after);
        }
        None => out.extend_from_slice(json),
    }
}

/// Appends the object as metadata only.
pub(super) fn partial(metadata: &str, version: MetaVersion, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":""#);
    out.extend_from_slice(version.api_version().as_bytes());
    out.extend_from_slice(br#"","metadata":"#);
    out.extend_from_slice(metadata.as_bytes());
    out.push(b'}');
}

/// How the objects of a resource begin, where they are written by our own decoder.
#[derive(Debug)]
pub(super) struct Opening(Option<Vec<u8>>);

impl Opening {
    /// Of a resource whose lists leave out the type of their items; those of CRDs do not.
    pub(super) fn of(resource: &Resource) -> Self {
        if resource.custom {
            return Self(None);
        }
        let identity = &resource.identity;
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let opening = format!(
            r#"{{"apiVersion":{},"kind":{},"#,
            text(&identity.api_version()),
            text(&identity.kind)
        );
        Self(Some(opening.into_bytes()))
    }

    /// Appends the object as an item of a list.
    pub(super) fn item(&self, object: &Object, out: &mut Vec<u8>) {
        let rest = self
            .0
            .as_ref()
            .and_then(|opening| object.json.strip_prefix(opening.as_slice()));
        match rest {
            Some(rest) => {
                out.push(b'{');
                out.extend_from_slice(rest);
            }
            None => out.extend_from_slice(&object.json),
        }
    }
}

/// Appends a number.
pub(super) fn number(value: u64, out: &mut Vec<u8>) {
    // Writing to a Vec does not fail.
    let _ = std::io::Write::write_fmt(out, format_args!("{value}"));
}

/// Appends a JSON string.
pub(super) fn string(text: &str, out: &mut Vec<u8>) {
    // A text is always JSON, and writing to a Vec does not fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &[u8] = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"resourceVersion":"7"},"resourceVersion":"7","name":"a"},"spec":{"resourceVersion":"7"}}"#;

    #[test]
    fn only_the_objects_own_version_is_exchanged() {
        let mut out = Vec::new();
        with_version(POD, 1234, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"resourceVersion":"7"},"resourceVersion":"1234","name":"a"},"spec":{"resourceVersion":"7"}}"#
        );
    }

    #[test]
    fn metadata_is_a_slice_of_the_object() {
        let text = metadata(POD);
        assert_eq!(
            text,
            r#"{"labels":{"resourceVersion":"7"},"resourceVersion":"7","name":"a"}"#
        );
        assert!(POD.as_ptr_range().contains(&text.as_ptr()));
        assert_eq!(metadata(b"[]"), "{}");
    }
}
