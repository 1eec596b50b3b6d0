//! LIST: one state, all of it or a page.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;

use super::{
    accept::{Form, MetaVersion},
    body::{self, Body, BodyError},
    holds::{Held, Holds, Rest},
    options::Query,
    read::{Proven, Reader, Resource},
    shape::{self, Opening},
    status::Status,
    table::Table,
    token::{After, Continue},
};
use crate::{
    auth::Snapshot,
    cache::{Cursor, Select, Selection, State, Step, Use},
    object::{Key, Object},
};

/// About so many bytes are made at once.
const BUDGET: usize = 256 << 10;

/// A page: its objects, and where the next one begins.
pub(super) struct Page {
    pub(super) items: Vec<Arc<Object>>,
    /// The last key of the page, where there is more.
    pub(super) more_after: Option<Key>,
    /// How many are left, where that can be told.
    pub(super) remaining: Option<usize>,
}

/// At most `limit` selected objects, from `after` on.
pub(super) fn page(
    state: &State<Object>,
    scope: &Selection,
    after: Option<&After>,
    limit: Option<usize>,
) -> Page {
    let (from, first) = match after {
        None => (None, None),
        Some(After::Key(key)) => (Some(key), None),
        // The scan goes on after a key; what is right at it is looked at first.
        Some(After::From(key)) => (Some(key), state.objects.get_key_value(key)),
    };
    let first = first.filter(|(key, _)| scope.in_scope(key));
    let mut rest = first.into_iter().chain(state.scan(scope, from));
    let mut items = Vec::with_capacity(limit.unwrap_or_default().min(1000));
    for (key, slot) in rest.by_ref() {
        if !scope.has(&slot.item) {
            continue;
        }
        items.push(slot.item.clone());
        if Some(items.len()) == limit {
            let left = rest.count();
            return Page {
                items,
                more_after: (left > 0).then(|| key.clone()),
                remaining: (left > 0 && scope.selector().is_everything()).then_some(left),
            };
        }
    }
    Page {
        items,
        more_after: None,
        remaining: None,
    }
}

/// How objects are written in a list.
pub(super) enum Items {
    Objects(Opening),
    Metadata(MetaVersion),
    Rows(Table),
}

impl Items {
    pub(super) fn of(form: Form, resource: &Resource, query: &Query<'_>) -> Result<Self, Status> {
        Ok(match form {
            Form::Object => Self::Objects(Opening::of(resource)),
            Form::Metadata { version, .. } => Self::Metadata(version),
            Form::Table { version } => Self::Rows(Table::new(resource, query, version)?),
        })
    }

    fn append(&self, object: &Object, out: &mut Vec<u8>) {
        match self {
            Self::Objects(opening) => opening.item(object, out),
            Self::Metadata(version) => {
                shape::partial(shape::metadata(&object.json), *version, out);
            }
            Self::Rows(table) => table.row(object, &object.json, out),
        }
    }

    /// Up to the opening bracket of the items.
    fn head(&self, resource: &Resource, meta: &ListMeta, out: &mut Vec<u8>) {
        let identity = &resource.identity;
        let mut metadata = Vec::with_capacity(128);
        // Lists of custom resources always have one.
        let always = resource.custom && matches!(self, Self::Objects(_));
        meta.append(always, &mut metadata);
        let (kind, api_version) = match self {
            Self::Objects(_) => (format!("{}List", identity.kind), identity.api_version()),
            Self::Metadata(version) => (
                "PartialObjectMetadataList".to_owned(),
                version.api_version().to_owned(),
            ),
            Self::Rows(table) => return table.head(&metadata, true, out),
        };
        out.extend_from_slice(br#"{"kind":"#);
        shape::string(&kind, out);
        out.extend_from_slice(br#","apiVersion":"#);
        shape::string(&api_version, out);
        out.extend_from_slice(br#","metadata":"#);
        out.extend_from_slice(&metadata);
        out.extend_from_slice(br#","items":["#);
    }
}

/// The metadata of a list.
pub(super) struct ListMeta {
    pub(super) revision: u64,
    pub(super) continue_token: Option<String>,
    pub(super) remaining: Option<usize>,
}

impl ListMeta {
    fn append(&self, always_continue: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"resourceVersion":""#);
        shape::number(self.revision, out);
        out.push(b'"');
        if self.continue_token.is_some() || always_continue {
            out.extend_from_slice(br#","continue":"#);
            shape::string(self.continue_token.as_deref().unwrap_or_default(), out);
        }
        if let Some(remaining) = self.remaining {
            out.extend_from_slice(br#","remainingItemCount":"#);
            shape::number(remaining as u64, out);
        }
        out.push(b'}');
    }
}

/// A page on its way out, piece by piece as it is read: a page may be as large as its reader likes.
pub(super) struct Paged {
    pub(super) rest: Rest,
    pub(super) items: Items,
    pub(super) snapshot: Option<Snapshot>,
}

impl Paged {
    pub(super) fn body(self, resource: &Resource, meta: &ListMeta, holds: &Arc<Holds>) -> Body {
        let mut out = Vec::with_capacity(512);
        self.items.head(resource, meta, &mut out);
        let first = self.piece(true, &mut out);
        if let Some(true) = first {
            return body::full(out);
        }
        let held = holds.watch_over(self.rest.clone());
        let begun = futures::stream::once(std::future::ready(Ok(Bytes::from(out))));
        let more = futures::stream::unfold(Some((self, held)), |page| async move {
            let (page, held) = page?;
            let mut out = Vec::with_capacity(BUDGET);
            match page.piece(false, &mut out) {
                Some(is_last) => Some((Ok(out.into()), (!is_last).then_some((page, held)))),
                None => Some((Err(too_slow()), None)),
            }
        });
        body::stream(begun.chain(more))
    }

    /// Writes the next objects, and the end behind the last; whether that was it. `None` where they were taken away.
    fn piece(&self, is_first: bool, out: &mut Vec<u8>) -> Option<bool> {
        let (objects, is_last) = self.rest.take(BUDGET, super::now())?;
        for (at, object) in objects.iter().enumerate() {
            if at > 0 || !is_first {
                out.push(b',');
            }
            self.items.append(object, out);
        }
        if is_last {
            out.extend_from_slice(b"]}\n");
        }
        if let Some(snapshot) = &self.snapshot {
            snapshot.made(out.len());
        }
        Some(is_last)
    }
}

fn too_slow() -> BodyError {
    "the reader took nothing for too long".into()
}

/// All of a state, on its way out piece by piece.
pub(super) struct Whole {
    pub(super) resource: Arc<Resource>,
    pub(super) items: Items,
    pub(super) scope: Selection,
    pub(super) cursor: Cursor<Object>,
    pub(super) revision: u64,
    pub(super) reader: Option<Box<dyn Reader>>,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) _held: Held,
    pub(super) _used: Use,
}

impl Whole {
    pub(super) fn body(self) -> Body {
        let mut head = Vec::with_capacity(512);
        let meta = ListMeta {
            revision: self.revision,
            continue_token: None,
            remaining: None,
        };
        self.items.head(&self.resource, &meta, &mut head);
        // What is written before the first object, then before each later one.
        let state = (Some(self), Bytes::from(head), true);
        let pieces = futures::stream::unfold(state, |(whole, head, first)| async move {
            let mut whole = whole?;
            let mut out = Vec::with_capacity(BUDGET);
            out.extend_from_slice(&head);
            match whole.cursor.walk(&whole.scope, BUDGET, super::now()) {
                Some(Step::Items { items, .. }) => {
                    let mut comma = !first;
                    for item in &items {
                        if comma {
                            out.push(b',');
                        }
                        comma = true;
                        whole.items.append(item, &mut out);
                    }
                    if let Some(reader) = &whole.reader {
                        reader.sent(items.len(), out.len());
                    }
                    if let Some(snapshot) = &whole.snapshot {
                        snapshot.made(out.len());
                    }
                    Some((Ok(out.into()), (Some(whole), Bytes::new(), false)))
                }
                Some(Step::ResetEnd(_)) => {
                    out.extend_from_slice(b"]}\n");
                    Some((Ok(out.into()), (None, Bytes::new(), false)))
                }
                _ => Some((Err(too_slow()), (None, Bytes::new(), false))),
            }
        });
        body::stream(pieces.fuse())
    }
}

/// The token for what comes after a page.
pub(super) fn next_token(page: &Page, namespace: &str, proven: &Proven) -> Option<String> {
    let after = page.more_after.as_ref()?;
    Some(Continue::after(after, namespace, Some(proven.revision)))
}
