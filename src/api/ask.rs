//! A watch request, read and checked as far as that goes without knowing its kind.

use std::{ops::RangeInclusive, time::Duration};

use tonic::{Code, Status, body::Body, codec::Streaming};
use tonic_prost::ProstDecoder;

use super::{Error, MAX_REQUEST, told::Changes};
use crate::proto::{self, WatchObjectsRequest};

/// Soft limit of a message, where the caller sets none.
const BATCH: usize = 1 << 20;
const BATCH_RANGE: RangeInclusive<usize> = 1 << 10..=4 << 20;
const LONGEST_REST: Duration = Duration::from_secs(300);
const BOOKMARK_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);

/// How a caller wants to be served.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Soft limit of a message in bytes.
    pub max_batch: usize,
    /// How often to hear something, where it says.
    pub bookmark_interval: Option<Duration>,
    /// Rather fail than start over.
    pub fail_on_gap: bool,
    /// Send each change.
    pub every: bool,
    /// Take back what the caller may not see any more, rather than end.
    pub retract: bool,
    /// Which changes to send.
    pub changes: Changes,
    /// How long an object rests that was sent.
    pub min_interval: Option<Duration>,
    /// Send digests where they describe what the caller holds.
    pub digests: bool,
}

/// The request of a call that answers with ready bytes, and so is not read by generated code.
pub async fn read(request: http::Request<Body>) -> Result<WatchObjectsRequest, Status> {
    if let Some(encoding) = request
        .headers()
        .get("grpc-encoding")
        .filter(|encoding| *encoding != "identity")
    {
        let problem =
            format!("grpc-encoding {encoding:?} is not accepted here; send it uncompressed");
        return Err(Status::unimplemented(problem));
    }
    let decoder = ProstDecoder::<WatchObjectsRequest>::default();
    let mut messages =
        Streaming::new_request(decoder, request.into_body(), None, Some(MAX_REQUEST));
    let missing = || Status::invalid_argument("the call has no request message");
    let message = messages.message().await;
    message.map_err(own_words)?.ok_or_else(missing)
}

/// tonic says OUT_OF_RANGE of a request that is too large, which here means that a stream cannot go on from its
/// token; ours come with details.
pub fn own_words(status: Status) -> Status {
    if status.code() != Code::OutOfRange || !status.details().is_empty() {
        return status;
    }
    let problem = format!("it has more than {MAX_REQUEST} bytes; ask for less at once");
    Error::invalid("request", problem).into()
}

impl Ask {
    /// Refuses what is out of range, and what is not built yet.
    pub fn new(request: &WatchObjectsRequest) -> Result<Self, Error> {
        let every =
            known::<proto::Delivery>("delivery", request.delivery)? == proto::Delivery::Every;
        let changes = match known("changes", request.changes)? {
            proto::Changes::Unspecified | proto::Changes::All => Changes::All,
            proto::Changes::Visible => Changes::Visible,
            proto::Changes::Generation => Changes::Generation,
        };
        let retract =
            known::<proto::OnRevoke>("on_revoke", request.on_revoke)? == proto::OnRevoke::Retract;
        if retract && every {
            let problem = "ON_REVOKE_RETRACT leaves out what happens while the right to see it is gone, and \
                           DELIVERY_EVERY leaves out nothing; leave one of them unset";
            return Err(Error::invalid("on_revoke", problem));
        }
        let on_gap: proto::OnGap = known("on_gap", request.on_gap)?;
        if every && on_gap == proto::OnGap::Reset {
            let problem = "ON_GAP_RESET leaves out what was missed, and DELIVERY_EVERY does not; leave it unset";
            return Err(Error::invalid("on_gap", problem));
        }
        let min_interval = min_interval(request.min_interval, every)?;
        let bookmark_interval = bookmark_interval(request.bookmark_interval)?;
        let max_batch = max_batch(request.max_batch_bytes)?;
        Ok(Self {
            max_batch,
            bookmark_interval,
            fail_on_gap: every || on_gap == proto::OnGap::Fail,
            every,
            retract,
            changes,
            min_interval,
            digests: request.digests,
        })
    }
}

/// How long an object rests that was sent, where it says.
fn min_interval(
    interval: Option<prost_types::Duration>,
    every: bool,
) -> Result<Option<Duration>, Error> {
    const FIELD: &str = "min_interval";
    let interval = duration(FIELD, interval)?.filter(|interval| !interval.is_zero());
    if let Some(interval) = interval.filter(|interval| *interval > LONGEST_REST) {
        let problem = format!("{interval:?} is more than {LONGEST_REST:?}");
        return Err(Error::invalid(FIELD, problem));
    }
    if interval.is_some() && every {
        let problem = "DELIVERY_EVERY folds nothing; leave one of them unset";
        return Err(Error::invalid(FIELD, problem));
    }
    Ok(interval)
}

/// How often an idle stream is to hear something, where it says.
pub fn bookmark_interval(
    interval: Option<prost_types::Duration>,
) -> Result<Option<Duration>, Error> {
    const FIELD: &str = "bookmark_interval";
    let interval = duration(FIELD, interval)?;
    if let Some(interval) = interval.filter(|interval| !BOOKMARK_RANGE.contains(interval)) {
        let (least, most) = (BOOKMARK_RANGE.start(), BOOKMARK_RANGE.end());
        let problem = format!("{interval:?} is not between {least:?} and {most:?}");
        return Err(Error::invalid(FIELD, problem));
    }
    Ok(interval)
}

/// Soft limit of a message in bytes.
pub fn max_batch(bytes: u32) -> Result<usize, Error> {
    match bytes as usize {
        0 => Ok(BATCH),
        bytes if BATCH_RANGE.contains(&bytes) => Ok(bytes),
        bytes => {
            let (least, most) = (BATCH_RANGE.start(), BATCH_RANGE.end());
            let problem = format!("{bytes} is not between {least} and {most}");
            Err(Error::invalid("max_batch_bytes", problem))
        }
    }
}

/// A value of an enum.
pub fn known<E: TryFrom<i32>>(field: &'static str, value: i32) -> Result<E, Error> {
    E::try_from(value)
        .map_err(|_| Error::invalid(field, format!("{value} is not a value that is known here")))
}

/// A duration that is not negative.
pub fn duration(
    field: &'static str,
    value: Option<prost_types::Duration>,
) -> Result<Option<Duration>, Error> {
    value
        .map(|value| {
            // Looked at here, since the conversion overflows at the least of them.
            if value.seconds < 0 || value.nanos < 0 {
                return Err(Error::invalid(field, "a negative duration"));
            }
            let beyond = |_| Error::invalid(field, "a duration beyond all measure");
            value.try_into().map_err(beyond)
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(request: WatchObjectsRequest) -> String {
        Ask::new(&request).unwrap_err().to_string()
    }

    #[test]
    fn what_every_change_rules_out_is_refused_beside_it() {
        let every = || WatchObjectsRequest {
            delivery: proto::Delivery::Every.into(),
            ..WatchObjectsRequest::default()
        };
        let ask = Ask::new(&every()).unwrap();
        assert!(ask.every && ask.fail_on_gap);
        let reset = WatchObjectsRequest {
            on_gap: proto::OnGap::Reset.into(),
            ..every()
        };
        assert!(refused(reset).starts_with("on_gap: ON_GAP_RESET leaves out"));
        let interval = WatchObjectsRequest {
            min_interval: Some(prost_types::Duration {
                seconds: 1,
                nanos: 0,
            }),
            ..every()
        };
        assert!(refused(interval).starts_with("min_interval: DELIVERY_EVERY folds nothing"));
        let retract = WatchObjectsRequest {
            on_revoke: proto::OnRevoke::Retract.into(),
            ..every()
        };
        assert!(refused(retract).starts_with("on_revoke: ON_REVOKE_RETRACT leaves out"));
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_the_range() {
        let batch = WatchObjectsRequest {
            max_batch_bytes: 10,
            ..Default::default()
        };
        assert_eq!(
            refused(batch),
            "max_batch_bytes: 10 is not between 1024 and 4194304"
        );
        for (seconds, nanos) in [(0, 5), (301, 0), (-1, 0), (2, -1), (i64::MIN, i32::MIN)] {
            let bookmarks = WatchObjectsRequest {
                bookmark_interval: Some(prost_types::Duration { seconds, nanos }),
                ..Default::default()
            };
            assert!(refused(bookmarks).starts_with("bookmark_interval: "));
        }
        let rest = WatchObjectsRequest {
            min_interval: Some(prost_types::Duration {
                seconds: 301,
                nanos: 0,
            }),
            ..Default::default()
        };
        assert_eq!(refused(rest), "min_interval: 301s is more than 300s");
        let unknown = WatchObjectsRequest {
            on_gap: 77,
            ..Default::default()
        };
        assert_eq!(
            refused(unknown),
            "on_gap: 77 is not a value that is known here"
        );
    }
}
