//! From the bytes of a response to items, events and revisions.
//!
//! A watch is framed into lines and a list into its items, by looking for newlines, strings and brackets only, so
//! that one bad object, even one that is not UTF-8, costs itself and nothing else. A list is taken apart as it
//! arrives: neither a page nor a list of everything is ever in memory as a whole. What is decoded owns exactly its
//! own bytes; the buffers here are let go.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use super::{
    extent::{Extent, member},
    request::Revision,
};
use crate::upstream::ApiStatus;

/// More than etcd takes of one object (1.5 MiB by default) by far.
pub const MAX_ITEM_BYTES: usize = 32 << 20;

/// A response that is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// An event or an item that is larger than any object.
    #[error("one object of the API server's response is larger than {MAX_ITEM_BYTES} bytes")]
    TooLarge,
    /// Not the JSON of a list.
    #[error("the API server's list is wrong at byte {at}: {expected} expected")]
    List {
        /// From the start of the page.
        at: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// The end is missing.
    #[error("the API server's list ended in the middle")]
    Partial,
    /// Its metadata is not that of a list.
    #[error("the metadata of the API server's list cannot be read: {0}")]
    Metadata(#[source] serde_json::Error),
    /// Something else was sent.
    #[error("the API server sent a {found}, not a {expected}")]
    Kind {
        /// What it calls itself.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// A line that is no watch event.
    #[error("the API server sent a line that is no watch event")]
    Event,
}

/// Takes a watch's body apart.
#[derive(Debug, Default)]
pub struct Lines {
    /// The beginning of a line whose end has not come.
    held: BytesMut,
    rest: Bytes,
}

impl Lines {
    /// Some more of the body. All lines until now must have been taken.
    pub fn push(&mut self, frame: Bytes) {
        debug_assert!(self.rest.is_empty(), "lines were left");
        self.rest = frame;
    }

    /// The next line, without its end. Empty ones are skipped.
    pub fn take(&mut self) -> Result<Option<Bytes>, DecodeError> {
        loop {
            let Some(end) = memchr::memchr(b'\n', &self.rest) else {
                if self.held.len() + self.rest.len() > MAX_ITEM_BYTES {
                    return Err(DecodeError::TooLarge);
                }
                // Copied, so that a few bytes do not keep a whole buffer.
                self.held.extend_from_slice(&std::mem::take(&mut self.rest));
                return Ok(None);
            };
            let mut line = self.rest.split_to(end + 1);
            line.truncate(end);
            if !self.held.is_empty() {
                self.held.extend_from_slice(&line);
                line = std::mem::take(&mut self.held).freeze();
            }
            if line.len() > MAX_ITEM_BYTES {
                return Err(DecodeError::TooLarge);
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    /// Whether the body may end here.
    pub fn is_whole(&self) -> bool {
        self.held.trim_ascii().is_empty() && self.rest.is_empty()
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// It is new.
    Added,
    /// It was changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// A watch event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// An object was changed.
    Change {
        /// How.
        r#type: EventType,
        /// Its JSON, if it is JSON.
        object: &'a [u8],
    },
    /// All up to this revision was told; `end_mark` if also all that there was at the beginning.
    Bookmark {
        /// The revision.
        revision: Revision,
        /// Whether it has the annotation of WatchList.
        end_mark: bool,
    },
    /// The watch failed.
    Error(ApiStatus),
}

impl<'a> Event<'a> {
    /// Reads a line as the API server writes it; the object is taken to be all the rest.
    pub fn read(line: &'a [u8]) -> Result<Self, DecodeError> {
        const TYPE: &[u8] = br#"{"type":""#;
        const OBJECT: &[u8] = br#"","object":"#;
        let line = line.trim_ascii();
        if let Some(rest) = line.strip_prefix(TYPE)
            && let Some(end) = memchr::memchr(b'"', rest)
            && let Some(object) = rest[end..].strip_prefix(OBJECT)
            && let Some(object) = object.strip_suffix(b"}")
        {
            return Self::of(&rest[..end], object);
        }
        Self::read_any(line)
    }

    /// Reads a line in which type and object may stand anywhere.
    pub fn read_any(line: &'a [u8]) -> Result<Self, DecodeError> {
        let verb =
            member(line, b"type").and_then(|verb| verb.strip_prefix(b"\"")?.strip_suffix(b"\""));
        match (verb, member(line, b"object")) {
            (Some(verb), Some(object)) => Self::of(verb, object),
            _ => Err(DecodeError::Event),
        }
    }

    fn of(verb: &[u8], object: &'a [u8]) -> Result<Self, DecodeError> {
        let r#type = match verb {
            b"ADDED" => EventType::Added,
            b"MODIFIED" => EventType::Modified,
            b"DELETED" => EventType::Deleted,
            b"BOOKMARK" => {
                let bookmark: Bookmark<'_> =
                    serde_json::from_slice(object).map_err(|_| DecodeError::Event)?;
                return Ok(bookmark.into());
            }
            b"ERROR" => {
                let status = ApiStatus::from_json(object).unwrap_or_else(|| ApiStatus {
                    code: 500,
                    message: "the watch ended with an error that does not say what it is"
                        .to_owned(),
                    ..ApiStatus::default()
                });
                return Ok(Self::Error(status));
            }
            _ => return Err(DecodeError::Event),
        };
        Ok(Self::Change { r#type, object })
    }
}

#[derive(Deserialize)]
struct Bookmark<'a> {
    #[serde(borrow)]
    metadata: BookmarkMetadata<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMetadata<'a> {
    #[serde(borrow)]
    resource_version: Cow<'a, str>,
    #[serde(borrow, default)]
    annotations: Option<Annotations<'a>>,
}

#[derive(Deserialize)]
struct Annotations<'a> {
    #[serde(borrow, rename = "k8s.io/initial-events-end", default)]
    initial_events_end: Option<Cow<'a, str>>,
}

impl From<Bookmark<'_>> for Event<'_> {
    fn from(bookmark: Bookmark<'_>) -> Self {
        let end = bookmark
            .metadata
            .annotations
            .and_then(|annotations| annotations.initial_events_end);
        Self::Bookmark {
            revision: Revision::parse(&bookmark.metadata.resource_version),
            end_mark: end.is_some_and(|end| end == "true"),
        }
    }
}

/// What an object calls itself; empty where that cannot be read.
pub fn kind_of(object: &[u8]) -> Cow<'_, str> {
    member(object, b"kind")
        .and_then(|kind| kind.strip_prefix(b"\"")?.strip_suffix(b"\""))
        .map(String::from_utf8_lossy)
        .unwrap_or_default()
}

/// Takes a page of a list apart while it arrives.
#[derive(Debug, Default)]
pub struct Page {
    bytes: Vec<u8>,
    /// Bytes of the page before `bytes`.
    before: usize,
    /// All before this has been looked at.
    at: usize,
    place: Place,
    extent: Extent,
    /// Where the value that is being looked at begins.
    value: usize,
    kind: Option<String>,
    metadata: Option<ListMeta>,
    items: bool,
}

/// Where in a page one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    /// Before a key, or the end of an object without any.
    FirstKey,
    Key,
    InKey,
    Colon(Field),
    Value(Field),
    InValue(Field),
    AfterValue,
    /// Before an item, or the end of a list without any.
    FirstItem,
    Item,
    InItem,
    AfterItem,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Kind,
    Metadata,
    Items,
    Other,
}

/// What a complete page says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageEnd {
    /// Of the list.
    pub revision: Revision,
    /// The token for the next page, if there is one.
    pub next: Option<String>,
    /// About how many items are still to come, where the API server knows.
    pub remaining: Option<u64>,
    /// What the list calls itself; empty if nothing.
    pub kind: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: Option<String>,
    r#continue: Option<String>,
    remaining_item_count: Option<i64>,
}

impl Page {
    /// Some more of the page; every item that is complete is handed out.
    pub fn push(&mut self, frame: &[u8], mut item: impl FnMut(&[u8])) -> Result<(), DecodeError> {
        self.bytes.extend_from_slice(frame);
        while self.advance(&mut item)? {}
        // Keep what has begun and not ended.
        let inside = matches!(self.place, Place::InKey | Place::InValue(_) | Place::InItem);
        let done = if inside { self.value } else { self.at };
        self.bytes.drain(..done);
        self.before += done;
        self.at -= done;
        self.value = 0;
        if self.bytes.len() > MAX_ITEM_BYTES {
            return Err(DecodeError::TooLarge);
        }
        Ok(())
    }

    /// One step; whether there may be another.
    fn advance(&mut self, item: &mut impl FnMut(&[u8])) -> Result<bool, DecodeError> {
        match self.place {
            Place::InKey | Place::InValue(_) | Place::InItem => {
                if !self.extent.scan(&self.bytes, &mut self.at) {
                    return Ok(false);
                }
                let value = &self.bytes[self.value..self.at];
                self.place = match self.place {
                    Place::InKey => Place::Colon(match value {
                        br#""kind""# => Field::Kind,
                        br#""metadata""# => Field::Metadata,
                        br#""items""# => Field::Items,
                        _ => Field::Other,
                    }),
                    Place::InValue(field) => {
                        match field {
                            Field::Kind => self.kind = serde_json::from_slice(value).ok(),
                            Field::Metadata => {
                                let metadata = serde_json::from_slice(value);
                                self.metadata = Some(metadata.map_err(DecodeError::Metadata)?);
                            }
                            // `null`, which is how Go writes an empty list.
                            Field::Items => self.items = true,
                            Field::Other => {}
                        }
                        Place::AfterValue
                    }
                    _ => {
                        item(value);
                        Place::AfterItem
                    }
                };
                return Ok(true);
            }
            _ => {}
        }
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        let Some(&byte) = self.bytes.get(self.at) else {
            return Ok(false);
        };
        let (place, taken) = match (self.place, byte) {
            (Place::Start, b'{') => (Place::FirstKey, 1),
            (Place::FirstKey | Place::AfterValue, b'}') => (Place::End, 1),
            (Place::FirstKey | Place::Key, b'"') => (Place::InKey, 0),
            (Place::Colon(field), b':') => (Place::Value(field), 1),
            (Place::Value(Field::Items), b'[') if !self.items => {
                self.items = true;
                (Place::FirstItem, 1)
            }
            (Place::Value(Field::Items), b'n') if !self.items => (Place::InValue(Field::Items), 0),
            (Place::Value(Field::Items), _) => return Err(self.wrong("one array of items")),
            (Place::Value(_), b',' | b'}' | b']' | b':') => return Err(self.wrong("a value")),
            (Place::Value(field), _) => (Place::InValue(field), 0),
            (Place::AfterValue, b',') => (Place::Key, 1),
            (Place::FirstItem | Place::AfterItem, b']') => (Place::AfterValue, 1),
            (Place::FirstItem | Place::Item, b',' | b'}' | b']' | b':') => {
                return Err(self.wrong("an item"));
            }
            (Place::FirstItem | Place::Item, _) => (Place::InItem, 0),
            (Place::AfterItem, b',') => (Place::Item, 1),
            (Place::Start, _) => return Err(self.wrong("'{'")),
            (Place::FirstKey | Place::Key, _) => return Err(self.wrong("a key")),
            (Place::Colon(_), _) => return Err(self.wrong("':'")),
            (Place::AfterValue, _) => return Err(self.wrong("',' or '}'")),
            (Place::AfterItem, _) => return Err(self.wrong("',' or ']'")),
            (Place::End | Place::InKey | Place::InValue(_) | Place::InItem, _) => {
                return Err(self.wrong("the end"));
            }
        };
        self.value = self.at;
        self.at += taken;
        self.place = place;
        self.extent = Extent::default();
        Ok(true)
    }

    fn wrong(&self, expected: &'static str) -> DecodeError {
        DecodeError::List {
            at: self.before + self.at,
            expected,
        }
    }

    /// The body has ended.
    pub fn finish(self) -> Result<PageEnd, DecodeError> {
        if self.place != Place::End {
            return Err(DecodeError::Partial);
        }
        let kind = self.kind.unwrap_or_default();
        if !self.items || !(kind.is_empty() || kind.ends_with("List")) {
            let found = if kind.is_empty() {
                "document without items".to_owned()
            } else {
                kind
            };
            return Err(DecodeError::Kind {
                found,
                expected: "list",
            });
        }
        let metadata = self.metadata.unwrap_or_default();
        Ok(PageEnd {
            revision: Revision::parse(&metadata.resource_version.unwrap_or_default()),
            next: metadata.r#continue.filter(|token| !token.is_empty()),
            remaining: metadata
                .remaining_item_count
                .and_then(|count| count.try_into().ok()),
            kind,
        })
    }
}

#[cfg(test)]
mod tests;
