//! Turns what cursors give into messages of a bounded size, one at a time, so that no more is encoded than is
//! taken.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::encode::{self, Encoder, PREFIX};
use crate::{
    cache::{Batch, Encoded, Segment, State, What},
    object::Object,
};

/// Up to this size bytes are copied into a message of several events; above, they are handed on.
const COPY: usize = 16 << 10;
/// More than a mark takes, mostly: what is appended to messages then needs no second buffer.
pub const ROOM_FOR_MARK: usize = 256;

/// Events on their way out.
#[derive(Debug)]
pub enum Work<T> {
    /// Part of a whole state.
    Items {
        /// The state's revision.
        revision: u64,
        /// The objects.
        items: Vec<Arc<T>>,
        /// The next to send.
        at: usize,
    },
    /// What a state's journal has after sequence `from`, as it is: with luck somebody has put it together already.
    Shared {
        /// Has it all.
        state: Arc<State<T>>,
        /// Skip up to here.
        from: u64,
    },
    /// Segments as they are, the first from entry `at`.
    Segments {
        /// Oldest first.
        segments: VecDeque<Arc<Segment<T>>>,
        /// The next entry of the first.
        at: usize,
    },
    /// Events that were chosen for this consumer.
    Events {
        /// Them, and the segments that some of them stand in.
        batch: Batch<T>,
        /// The next to send.
        at: usize,
    },
}

/// What was put out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// How many events.
    pub events: usize,
    /// Of how many bytes.
    pub bytes: usize,
}

impl<T> Work<T> {
    /// Whether all is sent.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Items { items, at, .. } => *at >= items.len(),
            Self::Shared { state, from } => *from >= state.sequence,
            Self::Segments { segments, .. } => segments.is_empty(),
            Self::Events { batch, at } => *at >= batch.events.len(),
        }
    }
}

/// The messages of what `state`'s journal has after sequence `from`, in one piece, and how many events they have.
/// `None` where they are not encoded for all, or are more than `max` bytes.
pub fn whole(
    state: &State<Object>,
    from: u64,
    encoder: &Encoder,
    max: usize,
) -> Option<(BytesMut, usize)> {
    let mut parts = Vec::new();
    let (mut length, mut events) = (0, 0);
    for segment in state.journal.after(from) {
        if segment.first <= from {
            return None;
        }
        let encoded = encoder.segment(segment)?;
        length += encoded.bytes.len();
        if length > max {
            return None;
        }
        events += segment.entries.len();
        parts.push(encoded.bytes);
    }
    let mut all = BytesMut::with_capacity(length + ROOM_FOR_MARK);
    for part in parts {
        all.extend_from_slice(&part);
    }
    Some((all, events))
}

impl Work<Object> {
    /// Puts out the next message: at least one event, and as many more as fit into `max` bytes.
    pub fn send_some(&mut self, encoder: &Encoder, max: usize, out: &mut VecDeque<Bytes>) -> Sent {
        if let Self::Shared { state, from } = self {
            // Only these are kept while they are being sent, not the state.
            let segments: VecDeque<_> = state.journal.after(*from).cloned().collect();
            let first = segments.front().map_or(0, |segment| segment.first);
            let at = (*from + 1).saturating_sub(first) as usize;
            *self = Self::Segments { segments, at };
        }
        match self {
            Self::Shared { .. } => Sent::default(),
            Self::Items {
                revision,
                items,
                at,
            } => {
                let mut message = encode::message_buffer(0);
                let start = *at;
                while let Some(object) = items.get(*at) {
                    if *at > start && message.len() + object.json.len() > max {
                        break;
                    }
                    encoder.upsert(object, *revision, 0, &mut message);
                    *at += 1;
                }
                put(message, *at - start, out)
            }
            Self::Segments { segments, at } => {
                let Some(segment) = segments.front() else {
                    return Sent::default();
                };
                let (start, count) = (*at, segment.entries.len());
                let sent = match encoder.segment(segment) {
                    Some(encoded) if start == 0 && encoded.bytes.len() <= max => {
                        *at = count;
                        out.push_back(encoded.bytes.clone());
                        Sent {
                            events: count,
                            bytes: encoded.bytes.len(),
                        }
                    }
                    Some(encoded) => {
                        *at = fitting(&encoded, start, count, max);
                        put_slice(encoded.slice(start, *at), *at - start, out)
                    }
                    None => {
                        let mut message = encode::message_buffer(0);
                        while let Some(entry) = segment
                            .entries
                            .get(*at)
                            .filter(|_| *at == start || message.len() < max)
                        {
                            encoder.entry(entry, &mut message);
                            *at += 1;
                        }
                        put(message, *at - start, out)
                    }
                };
                if *at >= count {
                    segments.pop_front();
                    *at = 0;
                }
                sent
            }
            Self::Events { batch, at } => {
                let mut message = encode::message_buffer(0);
                let start = *at;
                // Events of one segment stand together.
                let mut last: Option<(usize, Encoded)> = None;
                while let Some(event) = batch.events.get(*at) {
                    match &event.what {
                        What::Delete { key, uid, cause } => {
                            encode::delete(key, uid, event.revision, *cause, &mut message);
                        }
                        What::Upsert { item, entry } => {
                            if *at > start && message.len() + item.json.len() > max {
                                break;
                            }
                            let encoded = entry.and_then(|entry| {
                                if last
                                    .as_ref()
                                    .is_none_or(|(segment, _)| *segment != entry.segment)
                                {
                                    last = Some((
                                        entry.segment,
                                        encoder.segment(&batch.segments[entry.segment])?,
                                    ));
                                }
                                let (_, encoded) = last.as_ref()?;
                                Some(encoded.slice(entry.index, entry.index + 1))
                            });
                            match encoded {
                                Some(slice) if slice.len() > COPY && message.len() == PREFIX => {
                                    *at += 1;
                                    return put_slice(slice, 1, out);
                                }
                                Some(slice) => message.extend_from_slice(&slice),
                                None => {
                                    encoder.upsert(
                                        item,
                                        event.revision,
                                        item.received_unix_nanos,
                                        &mut message,
                                    );
                                }
                            }
                        }
                    }
                    *at += 1;
                    if message.len() >= max {
                        break;
                    }
                }
                put(message, *at - start, out)
            }
        }
    }
}

/// How far from `start` one message reaches.
fn fitting(encoded: &Encoded, start: usize, count: usize, max: usize) -> usize {
    let mut end = start + 1;
    while end < count && encoded.slice(start, end + 1).len() + PREFIX <= max {
        end += 1;
    }
    end
}

fn put(message: BytesMut, events: usize, out: &mut VecDeque<Bytes>) -> Sent {
    let bytes = encode::finish(message);
    let sent = Sent {
        events,
        bytes: bytes.len(),
    };
    out.push_back(bytes);
    sent
}

/// A message that is a part of bytes which others send too.
fn put_slice(slice: Bytes, events: usize, out: &mut VecDeque<Bytes>) -> Sent {
    let sent = Sent {
        events,
        bytes: PREFIX + slice.len(),
    };
    if slice.len() <= COPY {
        let mut message = encode::message_buffer(slice.len());
        message.extend_from_slice(&slice);
        out.push_back(encode::finish(message));
    } else {
        out.push_back(Bytes::copy_from_slice(&encode::prefix(slice.len())));
        out.push_back(slice);
    }
    sent
}
