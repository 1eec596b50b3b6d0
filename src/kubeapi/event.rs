//! The lines of a watch.
//!
//! What a change of the journal is to all who see both sides of it is made once, kept beside the journal's
//! segment, and shared; only who has a selector that the object comes into or leaves gets a line of its own.

use std::sync::Arc;

use super::{accept::MetaVersion, shape, table::Table};
use crate::{
    cache::{Encoded, Entry, ProjectionId, Segment},
    object::Object,
};

/// What a watch sends of each object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Object,
    Metadata(MetaVersion),
}

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Added,
    Modified,
    Deleted,
}

/// The numbers under which lines are kept; gRPC's count up from 0.
const OBJECTS: ProjectionId = ProjectionId(u32::MAX);
const METADATA: ProjectionId = ProjectionId(u32::MAX - 1);

impl Type {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }

    /// To a reader who holds the object where it was wanted before, and shall where it is wanted now.
    pub(super) fn of(was_wanted: bool, is_wanted: bool) -> Option<Self> {
        match (was_wanted, is_wanted) {
            (false, false) => None,
            (false, true) => Some(Self::Added),
            (true, true) => Some(Self::Modified),
            (true, false) => Some(Self::Deleted),
        }
    }
}

/// Whether the entry changes nothing that a reader of the protocol could see: the mark that a newer version could
/// not be read.
pub(super) fn is_silent(entry: &Entry<Object>) -> bool {
    match (&entry.before, &entry.after) {
        (Some(before), Some(after)) => {
            before.uid == after.uid && before.resource_version == after.resource_version
        }
        (before, after) => before.is_none() && after.is_none(),
    }
}

/// Appends a line for an object. `version` replaces its own: that of a deletion, or of leaving a selector.
pub(super) fn line(
    what: Type,
    object: &Object,
    version: Option<u64>,
    form: Form,
    out: &mut Vec<u8>,
) {
    open(what.as_str(), out);
    match (form, version) {
        (Form::Object, None) => out.extend_from_slice(&object.json),
        (Form::Object, Some(version)) => shape::with_version(&object.json, version, out),
        (Form::Metadata(meta), None) => {
            shape::partial(shape::metadata(&object.json), meta, out);
        }
        (Form::Metadata(meta), Some(version)) => {
            let mut json = Vec::with_capacity(object.json.len());
            shape::with_version(&object.json, version, &mut json);
            shape::partial(shape::metadata(&json), meta, out);
        }
    }
    close(out);
}

/// Begins a line; the object follows.
pub(super) fn open(what: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(what.as_bytes());
    out.extend_from_slice(br#"","object":"#);
}

/// Ends a line.
pub(super) fn close(out: &mut Vec<u8>) {
    out.extend_from_slice(b"}\n");
}

/// Appends the line of an entry for a reader who is told `what`.
fn entry_line(entry: &Entry<Object>, what: Type, form: Form, out: &mut Vec<u8>) {
    if let Some((object, version)) = told(entry, what) {
        line(what, object, version, form, out);
    }
}

/// What an entry is to a reader who is told `what`: the object, and the version that takes the place of its own,
/// where that is the version at which it went.
pub(super) fn told(entry: &Entry<Object>, what: Type) -> Option<(&Arc<Object>, Option<u64>)> {
    match (what, &entry.before, &entry.after) {
        // A kind without order has no version to tell.
        (Type::Deleted, Some(before), _) => {
            let version = Some(entry.revision).filter(|revision| *revision != 0);
            Some((before, version))
        }
        (_, _, Some(after)) => Some((after, None)),
        _ => None,
    }
}

/// Makes a watch's own lines.
pub(super) struct Lines {
    pub(super) form: Form,
    /// Where it has tables, and whether it has had one.
    pub(super) table: Option<(Table, bool)>,
}

impl Lines {
    /// Whether its lines are those that others have too.
    pub(super) fn are_shared(&self) -> bool {
        self.table.is_none()
    }

    /// Appends a line for an object, as [`line`] does.
    pub(super) fn append(
        &mut self,
        what: Type,
        object: &Object,
        version: Option<u64>,
        out: &mut Vec<u8>,
    ) {
        let Some((table, headed)) = &mut self.table else {
            return line(what, object, version, self.form, out);
        };
        open(what.as_str(), out);
        let mut changed = Vec::new();
        let (json, own) = match version {
            Some(version) => {
                shape::with_version(&object.json, version, &mut changed);
                (&*changed, version.to_string())
            }
            None => (&*object.json, object.resource_version.to_string()),
        };
        let metadata = serde_json::json!({ "resourceVersion": own }).to_string();
        table.head(metadata.as_bytes(), !*headed, out);
        *headed = true;
        table.row(object, json, out);
        out.extend_from_slice(b"]}");
        close(out);
    }

    /// A bookmark at this revision, on a watch of this kind.
    pub(super) fn bookmark(
        &mut self,
        api_version: &str,
        kind: &str,
        revision: u64,
        initial_end: bool,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        let mut metadata = format!(r#"{{"resourceVersion":"{revision}""#);
        if initial_end {
            metadata += r#","annotations":{"k8s.io/initial-events-end":"true"}"#;
        }
        metadata.push('}');
        open("BOOKMARK", &mut out);
        match (&mut self.table, self.form) {
            (Some((table, headed)), _) => {
                let of_table = format!(r#"{{"resourceVersion":"{revision}"}}"#);
                table.head(of_table.as_bytes(), !*headed, &mut out);
                *headed = true;
                table.bookmark_row(&metadata, &mut out);
                out.extend_from_slice(b"]}");
            }
            (None, Form::Metadata(version)) => shape::partial(&metadata, version, &mut out),
            (None, Form::Object) => {
                out.extend_from_slice(br#"{"kind":"#);
                shape::string(kind, &mut out);
                out.extend_from_slice(br#","apiVersion":"#);
                shape::string(api_version, &mut out);
                out.extend_from_slice(br#","metadata":"#);
                out.extend_from_slice(metadata.as_bytes());
                out.push(b'}');
            }
        }
        close(&mut out);
        out
    }
}

/// All entries of a segment, each as it is told to those who want the object before and after.
pub(super) fn lines(segment: &Arc<Segment<Object>>, form: Form) -> Encoded {
    let id = match form {
        Form::Object => OBJECTS,
        Form::Metadata(MetaVersion::V1) => METADATA,
        Form::Metadata(MetaVersion::V1Beta1) => return encode(segment, form),
    };
    segment.encoded(id, |segment| encode(segment, form))
}

fn encode(segment: &Segment<Object>, form: Form) -> Encoded {
    let mut bytes = Vec::new();
    let mut ends = Vec::with_capacity(segment.entries.len());
    for entry in &segment.entries {
        if !is_silent(entry)
            && let Some(what) = Type::of(entry.before.is_some(), entry.after.is_some())
        {
            entry_line(entry, what, form, &mut bytes);
        }
        ends.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    }
    Encoded {
        bytes: bytes.into(),
        head: 0,
        ends: ends.into(),
    }
}
