//! Events and marks as bytes on the wire.
//!
//! The events of a journal segment are encoded once per projection in use, with their gRPC prefix in front, and
//! every stream with that projection sends those very bytes; what a consumer's selector or namespace leaves
//! out is sliced away, since one event stands after the other. Marks, which are each consumer's own, follow in
//! messages of their own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding;

use crate::{
    cache::{Cause, Encoded, Entry, Item, ProjectionId, Segment},
    object::{Key, Object, projection::Projection},
    proto,
};

/// Length of gRPC's message prefix: a compression flag and a length.
pub const PREFIX: usize = 5;
/// Field number of `WatchObjectsResponse.events`.
const EVENTS: u32 = 1;
/// Field number of `WatchObjectsResponse.mark`.
const MARK: u32 = 2;
/// So many projections are encoded once for all; who comes with another one is encoded for alone.
const MAX_SHARED: usize = 64;

/// The projections in use, or lately.
#[derive(Debug, Default)]
pub struct Projections(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: u32,
    used: HashMap<Projection, (ProjectionId, usize)>,
}

/// One consumer's way to encode objects. Those that share an id share bytes.
#[derive(Debug)]
pub struct Encoder {
    projection: Projection,
    id: Option<ProjectionId>,
    registry: Arc<Projections>,
}

impl Projections {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An encoder for this projection, until it is dropped.
    pub fn encoder(self: &Arc<Self>, projection: Projection) -> Encoder {
        let mut inner = self.lock();
        let id = if let Some((id, users)) = inner.used.get_mut(&projection) {
            *users += 1;
            Some(*id)
        } else if inner.has_room() {
            // Never used again for another: segments remember what was encoded under it.
            inner.next = inner.next.wrapping_add(1);
            let id = ProjectionId(inner.next);
            inner.used.insert(projection.clone(), (id, 1));
            Some(id)
        } else {
            None
        };
        Encoder {
            projection,
            id,
            registry: self.clone(),
        }
    }
}

impl Inner {
    /// Whether there is room for another projection, if need be in the place of one that is used no more.
    fn has_room(&mut self) -> bool {
        if self.used.len() < MAX_SHARED {
            return true;
        }
        let unused = self.used.iter().filter(|(_, (_, users))| *users == 0);
        let oldest = unused
            .min_by_key(|(_, (id, _))| *id)
            .map(|(projection, _)| projection.clone());
        oldest.is_some_and(|oldest| self.used.remove(&oldest).is_some())
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        if self.id.is_none() {
            return;
        }
        // It keeps its id, so that whoever comes back finds what was encoded before, and encodes nothing twice.
        if let Some((_, users)) = self.registry.lock().used.get_mut(&self.projection) {
            *users -= 1;
        }
    }
}

impl Encoder {
    /// All entries of a segment, each as its own event, behind room for one gRPC prefix that is filled in for
    /// all of them. `None` where this projection is not shared.
    pub fn segment(&self, segment: &Segment<Object>) -> Option<Encoded> {
        let encode = |segment: &Segment<Object>| {
            let mut buffer = BytesMut::new();
            buffer.put_bytes(0, PREFIX);
            let mut ends = Vec::with_capacity(segment.entries.len());
            for entry in &segment.entries {
                self.entry(entry, &mut buffer);
                ends.push(u32::try_from(buffer.len()).unwrap_or(u32::MAX));
            }
            fill_prefix(&mut buffer);
            Encoded {
                // A buffer that grew by doubling would be kept whole for minutes.
                bytes: Bytes::copy_from_slice(&buffer),
                head: PREFIX,
                ends: ends.into(),
            }
        };
        Some(segment.encoded(self.id?, encode))
    }

    /// One entry, as it is.
    pub fn entry(&self, entry: &Entry<Object>, buffer: &mut BytesMut) {
        match (&entry.after, &entry.before) {
            (Some(object), _) => {
                self.upsert(object, entry.revision, object.received_unix_nanos, buffer)
            }
            (None, Some(object)) => delete(
                object.key(),
                object.uid(),
                entry.revision,
                entry.cause,
                buffer,
            ),
            (None, None) => {}
        }
    }

    /// An object that is there. `received` is 0 in an initial state.
    pub fn upsert(&self, object: &Object, revision: u64, received: u64, buffer: &mut BytesMut) {
        let event = proto::Event {
            r#type: proto::EventType::Upsert.into(),
            revision,
            namespace: object.key.namespace().to_owned(),
            name: object.key.name().to_owned(),
            uid: object.uid.to_string(),
            resource_version: object.resource_version.to_string(),
            object: self.projection.apply(object),
            cause: proto::DeleteCause::Unspecified.into(),
            stale: object.stale,
            received_unix_nanos: received,
        };
        encoding::message::encode(EVENTS, &event, buffer);
    }

    /// An object as single reads and lists give it.
    pub fn object(&self, object: &Object) -> proto::Object {
        proto::Object {
            namespace: object.key.namespace().to_owned(),
            name: object.key.name().to_owned(),
            uid: object.uid.to_string(),
            resource_version: object.resource_version.to_string(),
            object: self.projection.apply(object),
            stale: object.stale,
        }
    }
}

/// An object that is gone; never its content.
pub fn delete(key: &Key, uid: &str, revision: u64, cause: Cause, buffer: &mut BytesMut) {
    let cause = match cause {
        Cause::Changed | Cause::Deleted => proto::DeleteCause::Deleted,
        Cause::LeftSelector => proto::DeleteCause::LeftSelector,
        Cause::Vanished => proto::DeleteCause::Vanished,
        Cause::Replaced => proto::DeleteCause::Replaced,
        Cause::DeletedOrLeft => proto::DeleteCause::DeletedOrLeft,
        Cause::Revoked => proto::DeleteCause::Revoked,
    };
    let event = proto::Event {
        r#type: proto::EventType::Delete.into(),
        revision,
        namespace: key.namespace().to_owned(),
        name: key.name().to_owned(),
        uid: uid.to_owned(),
        cause: cause.into(),
        ..Default::default()
    };
    encoding::message::encode(EVENTS, &event, buffer);
}

/// A mark as a message, behind messages that are ready to be sent.
pub fn mark_after(mut messages: BytesMut, mark: &proto::Mark) -> Bytes {
    let length = encoding::message::encoded_len(MARK, mark);
    // At once as large as it will be: this is done for each flush.
    messages.reserve(PREFIX + length);
    messages.extend_from_slice(&prefix(length));
    encoding::message::encode(MARK, mark, &mut messages);
    messages.freeze()
}

/// A buffer with room for the prefix.
pub fn message_buffer(capacity: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(PREFIX + capacity);
    buffer.put_bytes(0, PREFIX);
    buffer
}

/// The message in a [`message_buffer`], ready to be sent.
pub fn finish(mut buffer: BytesMut) -> Bytes {
    fill_prefix(&mut buffer);
    buffer.freeze()
}

/// The prefix of a message of `length` bytes that is sent by itself.
pub fn prefix(length: usize) -> [u8; PREFIX] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [0, a, b, c, d]
}

fn fill_prefix(buffer: &mut BytesMut) {
    let length = buffer.len() - PREFIX;
    buffer[..PREFIX].copy_from_slice(&prefix(length));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::projection::View;

    #[test]
    fn a_projection_that_comes_back_finds_what_was_encoded_for_it_before() {
        let projections = Arc::new(Projections::default());
        let full = || Projection::new(View::Full, Vec::new());
        let id = projections.encoder(full()).id;
        assert!(id.is_some());
        assert_eq!(projections.encoder(full()).id, id);
    }

    #[test]
    fn those_that_are_used_no_more_make_room() {
        let projections = Arc::new(Projections::default());
        let of = |n: usize| {
            let path = format!(".spec.f{n}").parse().unwrap();
            projections.encoder(Projection::new(View::Full, vec![path]))
        };
        let mut used: Vec<_> = (0..MAX_SHARED).map(of).collect();
        assert!(used.iter().all(|encoder| encoder.id.is_some()));
        assert!(of(MAX_SHARED).id.is_none());
        used.pop();
        assert!(of(MAX_SHARED).id.is_some());
        assert_eq!(projections.lock().used.len(), MAX_SHARED);
    }
}
