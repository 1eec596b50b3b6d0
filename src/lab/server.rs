//! The API server's end of one replica's connection, and all that can go wrong with it.
//!
//! Once a turn it does one thing: answers a request, sends some of what it has, or fails in one of the ways in which
//! API servers and networks do.

use std::{collections::VecDeque, rc::Rc, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    cases::Cases,
    cluster::{Change, Cluster, Pod},
};
use crate::{
    source::{ListFrom, Request, tests::by_hand::ByHand},
    upstream::ApiStatus,
};

/// How often a watch is sent a bookmark.
const BOOKMARK: Duration = Duration::from_secs(40);

/// See the module's documentation.
pub(super) struct Server {
    rng: Rng,
    serving: Serving,
    /// The pages that are still to be asked for, by the token of the next one.
    list: Option<Listing>,
    lists: u64,
    /// Whether it knows WatchList.
    streams: bool,
    /// The request at hand is never answered.
    ignores: bool,
    /// Whether the list at hand has an item that nobody can name.
    garbage: bool,
    /// The same of the last list that was complete.
    pub(super) unnamed: bool,
}

/// What is being sent.
enum Serving {
    Nothing,
    /// The first state of a WatchList.
    Stream {
        items: VecDeque<Rc<Pod>>,
        from: u64,
        until: Instant,
    },
    Watch {
        /// Up to where it has been sent.
        from: u64,
        until: Instant,
        bookmark: Instant,
        /// It is half-open: nothing ever comes again.
        mute: bool,
    },
}

struct Listing {
    token: String,
    revision: u64,
    rest: VecDeque<Rc<Pod>>,
}

impl Server {
    pub(super) fn new(mut rng: Rng) -> Self {
        Self {
            streams: rng.u8(..3) == 0,
            rng,
            serving: Serving::Nothing,
            list: None,
            lists: 0,
            ignores: false,
            garbage: false,
            unnamed: false,
        }
    }

    /// The process and its connections are gone.
    pub(super) fn restart(&mut self, source: &mut ByHand) {
        self.list = None;
        self.serving = Serving::Nothing;
        self.ignores = false;
        source.cut();
    }

    /// The daemon may have given up what it asked.
    pub(super) fn look(&mut self, source: &ByHand) {
        self.ignores &= source.asked().is_some();
    }

    /// One turn. With `faults`, chance may have it go wrong. Whether there was anything to do.
    pub(super) fn turn(
        &mut self,
        source: &mut ByHand,
        cluster: &mut Cluster,
        faults: bool,
        cases: &mut Cases,
    ) -> bool {
        if let Some(request) = source.asked().cloned() {
            if self.ignores {
                // Until the daemon gives up and asks anew.
                self.ignores = faults;
                return false;
            }
            self.serving = Serving::Nothing;
            self.answer(source, cluster, &request, faults, cases);
            return true;
        }
        self.ignores = false;
        if !source.reads() {
            return false;
        }
        match &mut self.serving {
            Serving::Nothing => false,
            Serving::Stream { .. } => {
                self.send_state(source, cluster, faults, cases);
                true
            }
            Serving::Watch { .. } => self.send_changes(source, cluster, faults, cases),
        }
    }

    fn answer(
        &mut self,
        source: &mut ByHand,
        cluster: &mut Cluster,
        request: &Request,
        faults: bool,
        cases: &mut Cases,
    ) {
        if faults && self.rng.u8(..8) == 0 {
            return self.refuse_somehow(source, cases);
        }
        match request {
            Request::Probe => {
                source.accept();
                source.send(list(&[], cluster.revision, ""));
                source.end();
            }
            Request::List { from, limit } => {
                let Some(revision) = self.list_revision(source, cluster, from) else {
                    return;
                };
                let set = cluster.at(cluster.history(), revision);
                self.garbage = faults && self.rng.u8(..30) == 0;
                self.list = Some(Listing {
                    token: String::new(),
                    revision,
                    rest: set.values().cloned().collect(),
                });
                self.send_page(source, *limit, faults, cases);
            }
            Request::Continue { token, limit } => {
                let known = self.list.as_ref().is_some_and(|list| list.token == *token);
                if !known || (faults && self.rng.u8(..12) == 0) {
                    self.list = None;
                    cases.saw(2);
                    return source.refuse(status(410, "Expired"));
                }
                self.send_page(source, *limit, faults, cases);
            }
            Request::Stream {
                from,
                timeout_seconds,
            } => {
                if !self.streams {
                    return source.refuse(status(422, "Invalid"));
                }
                let Some(revision) = self.list_revision(source, cluster, from) else {
                    return;
                };
                let set = cluster.at(cluster.history(), revision);
                self.garbage = false;
                self.serving = Serving::Stream {
                    items: set.values().cloned().collect(),
                    from: revision,
                    until: Instant::now() + Duration::from_secs(*timeout_seconds),
                };
                source.accept();
            }
            Request::Watch {
                revision,
                timeout_seconds,
            } => {
                let from = revision.number();
                if from < cluster.compacted {
                    cases.saw(2);
                    if self.rng.bool() {
                        return source.refuse(status(410, "Expired"));
                    }
                    source.accept();
                    return source.send(error(410, "Expired"));
                }
                source.accept();
                self.serving = Serving::Watch {
                    from,
                    until: Instant::now() + Duration::from_secs(*timeout_seconds),
                    bookmark: Instant::now(),
                    mute: faults && self.rng.u8(..8) == 0,
                };
            }
        }
    }

    fn refuse_somehow(&mut self, source: &mut ByHand, cases: &mut Cases) {
        let watches = matches!(
            source.asked(),
            Some(Request::Watch { .. } | Request::Continue { .. })
        );
        match self.rng.u8(..8) {
            0 | 1 => source.refuse(ApiStatus {
                retry_after: Some(Duration::from_secs(self.rng.u64(1..20))),
                ..status(429, "TooManyRequests")
            }),
            2 => source.refuse(status(429, "TooManyRequests")),
            3 if watches => {
                cases.saw(2);
                source.refuse(status(410, "Expired"));
            }
            4 => source.refuse(status(403, "Forbidden")),
            5 => self.ignores = true,
            6 => source.cut(),
            _ => source.refuse(status(500, "InternalError")),
        }
    }

    /// Of what revision a list is; `None` where it is refused.
    fn list_revision(
        &mut self,
        source: &mut ByHand,
        cluster: &Cluster,
        from: &ListFrom,
    ) -> Option<u64> {
        match from {
            ListFrom::NotOlderThan(revision) if revision.number() > cluster.revision => {
                source.refuse(ApiStatus {
                    causes: vec!["ResourceVersionTooLarge".to_owned()],
                    ..status(504, "Timeout")
                });
                None
            }
            // The watch cache is a little behind.
            ListFrom::Any => Some(cluster.revision.saturating_sub(self.rng.u64(..3)).max(10)),
            _ => Some(cluster.revision),
        }
    }

    fn send_page(
        &mut self,
        source: &mut ByHand,
        limit: Option<u32>,
        faults: bool,
        cases: &mut Cases,
    ) {
        let Some(listing) = &mut self.list else {
            return;
        };
        let count = limit.map_or(listing.rest.len(), |limit| limit as usize);
        let mut items: Vec<String> = listing
            .rest
            .drain(..count.min(listing.rest.len()))
            .map(|pod| pod.json(pod.version))
            .collect();
        let last = listing.rest.is_empty();
        if self.garbage && last {
            items.push(r#"{"metadata":7}"#.to_owned());
        }
        self.lists += 1;
        listing.token = if last {
            String::new()
        } else {
            format!("page-{}", self.lists)
        };
        let body = list(&items, listing.revision, &listing.token);
        source.accept();
        if faults && self.rng.u8(..8) == 0 {
            // Cut in the middle, with or without a word.
            cases.saw(6);
            self.list = None;
            source.send(body[..self.rng.usize(..body.len())].to_owned());
            return match self.rng.bool() {
                true => source.end(),
                false => source.cut(),
            };
        }
        let middle = self.rng.usize(..body.len());
        source.send(body[..middle].to_owned());
        source.send(body[middle..].to_owned());
        if last {
            self.unnamed = self.garbage;
            self.list = None;
        }
        source.end();
    }

    fn send_state(
        &mut self,
        source: &mut ByHand,
        cluster: &mut Cluster,
        faults: bool,
        cases: &mut Cases,
    ) {
        let Serving::Stream { items, from, until } = &mut self.serving else {
            return;
        };
        if faults && self.rng.u8(..12) == 0 {
            cases.saw(6);
            self.serving = Serving::Nothing;
            return match self.rng.bool() {
                true => source.end(),
                false => source.cut(),
            };
        }
        let mut text = String::new();
        let count = self.rng.usize(1..6).min(items.len());
        for pod in items.drain(..count) {
            text += &event("ADDED", &pod.json(pod.version));
        }
        // What happens meanwhile may come before the mark.
        let done = items.is_empty();
        if done && self.rng.bool() {
            for change in cluster.after(*from) {
                text += &told(change);
                *from = change.revision;
            }
        }
        if done {
            let from = *from;
            text += &format!(
                r#"{{"type":"BOOKMARK","object":{{"metadata":{{"resourceVersion":"{from}","annotations":{{"k8s.io/initial-events-end":"true"}}}}}}}}"#
            );
            text.push('\n');
            self.unnamed = false;
            self.serving = Serving::Watch {
                from,
                until: *until,
                bookmark: Instant::now() + BOOKMARK,
                mute: false,
            };
        } else if faults && self.rng.u8(..4) == 0 {
            text += &bookmark(*from);
        }
        source.send(text);
    }

    fn send_changes(
        &mut self,
        source: &mut ByHand,
        cluster: &mut Cluster,
        faults: bool,
        cases: &mut Cases,
    ) -> bool {
        let Serving::Watch {
            from,
            until,
            bookmark: due,
            mute,
        } = &mut self.serving
        else {
            return false;
        };
        if *mute {
            return false;
        }
        let now = Instant::now();
        if faults && self.rng.u8(..25) == 0 {
            return self.break_watch(source, cluster, cases);
        }
        if now >= *until {
            let rest: String = cluster.after(*from).iter().map(told).collect();
            self.serving = Serving::Nothing;
            source.send(rest);
            source.end();
            return true;
        }
        let mut text = String::new();
        if faults && self.rng.u8(..8) == 0 {
            // A server that lags behind says again what it has said.
            for change in cluster.upto(*from, self.rng.usize(1..4)) {
                cases.saw(8);
                text += &told(change);
            }
        }
        for change in cluster.after(*from).iter().take(self.rng.usize(1..6)) {
            text += &told(change);
            *from = change.revision;
        }
        if now >= *due && cluster.after(*from).is_empty() && *from <= cluster.revision {
            if self.rng.bool() {
                cluster.tick();
            }
            *from = cluster.revision;
            *due = now + BOOKMARK;
            text += &bookmark(*from);
        }
        let any = !text.is_empty();
        if any {
            source.send(text);
        }
        any
    }

    fn break_watch(&mut self, source: &mut ByHand, cluster: &Cluster, cases: &mut Cases) -> bool {
        let Serving::Watch { from, mute, .. } = &mut self.serving else {
            return false;
        };
        let next = cluster.after(*from).first().map(told).unwrap_or_default();
        match self.rng.u8(..6) {
            0 => {
                *mute = true;
                return true;
            }
            1 => {
                cases.saw(2);
                source.send(next + &error(410, "Expired"));
            }
            2 => source.send(error(500, "InternalError")),
            3 => {
                // In the middle of a line.
                source.send(next[..next.len() / 2].to_owned());
                source.cut();
            }
            4 => {
                // In good order: what the daemon takes from that is that nothing was held back.
                source.send(cluster.after(*from).iter().map(told).collect());
                source.end();
            }
            _ => source.send("not JSON at all\n".to_owned()),
        }
        self.serving = Serving::Nothing;
        true
    }
}

fn status(code: u16, reason: &str) -> ApiStatus {
    ApiStatus {
        code,
        reason: reason.to_owned(),
        message: "as the lab has it".to_owned(),
        ..ApiStatus::default()
    }
}

fn list(items: &[String], revision: u64, next: &str) -> String {
    format!(
        r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{"resourceVersion":"{revision}","continue":"{next}"}},"items":[{}]}}"#,
        items.join(",")
    )
}

fn event(r#type: &str, object: &str) -> String {
    format!("{{\"type\":\"{type}\",\"object\":{object}}}\n")
}

fn told(change: &Change) -> String {
    event(change.r#type, &change.pod.json(change.revision))
}

fn bookmark(revision: u64) -> String {
    event(
        "BOOKMARK",
        &format!(r#"{{"metadata":{{"resourceVersion":"{revision}"}}}}"#),
    )
}

fn error(code: u16, reason: &str) -> String {
    event(
        "ERROR",
        &format!(
            r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"{reason}","code":{code}}}"#
        ),
    )
}
