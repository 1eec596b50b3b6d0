//! The one connection of a source.

use std::{
    future::pending,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Response;
use http_body::{Body, Frame};
use http_body_util::BodyExt;

use super::{
    decode::{Lines, Page},
    request::Request,
};
use crate::{cache::Shard, object::Object, upstream::UpstreamError};

/// What comes of an answer, from wherever that is.
pub(super) type Incoming = Pin<Box<dyn Body<Data = Bytes, Error = kube::Error> + Send>>;

/// What is open. There is one, so that two watches cannot be.
pub(super) enum Link {
    Idle,
    Sending {
        request: Request,
        answer: BoxFuture<'static, Result<Response<Incoming>, UpstreamError>>,
    },
    Reading {
        body: Incoming,
        reader: Reader,
    },
}

/// Who reads the body.
pub(super) enum Reader {
    Page(Page),
    Probe(Page),
    Watch {
        lines: Lines,
        /// Whether the objects were found to be metadata only.
        checked: bool,
        open: OpenWatch,
    },
}

/// What came.
pub(super) enum News {
    Answer(Result<Response<Incoming>, UpstreamError>),
    Frame(Option<Result<Bytes, UpstreamError>>),
}

impl Link {
    /// Never, while idle. May be dropped at any time and asked again.
    pub(super) async fn next(&mut self) -> News {
        match self {
            Self::Idle => pending().await,
            Self::Sending { answer, .. } => News::Answer(answer.await),
            Self::Reading { body, .. } => News::Frame(data(body.frame().await)),
        }
    }
}

/// A frame's data; trailers have none.
pub(super) fn data(
    frame: Option<Result<Frame<Bytes>, kube::Error>>,
) -> Option<Result<Bytes, UpstreamError>> {
    Some(match frame? {
        Ok(frame) => Ok(frame.into_data().unwrap_or_default()),
        Err(error) => Err(error.into()),
    })
}

/// Counts an open watch, as long as it is.
pub(super) struct OpenWatch {
    shard: Arc<Shard<Object>>,
    since: Instant,
}

impl OpenWatch {
    pub(super) fn new(shard: Arc<Shard<Object>>, now: Instant) -> Self {
        shard
            .counters
            .watches_opened
            .fetch_add(1, Ordering::Relaxed);
        shard.counters.watches_open.fetch_add(1, Ordering::Relaxed);
        Self { shard, since: now }
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.shard
            .counters
            .watches_open
            .fetch_sub(1, Ordering::Relaxed);
    }
}
