//! A consumer of a replica's service, and the guarantees that it is held to.
//!
//! What it is sent must be ordered and unique; at each token it must hold just what the replica had there, neither
//! less (a token that is ahead, a change that was left out) nor more. It is cut at any time, goes back to what it
//! held at its last token, and goes on here or elsewhere.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use fastrand::Rng;
use futures::FutureExt;
use tonic::{Code, Streaming};

use super::{
    cases::Cases,
    cluster::{Change, Cluster, Pod},
    replica::Replica,
};
use crate::{
    api::token::Token,
    cache::{Position, State},
    object::{Object, Projection, View},
    proto::{
        Changes, DeleteCause, Delivery, Event, EventType, Mark, MarkType, OnGap, Scope,
        WatchObjectsRequest, WatchObjectsResponse,
    },
};

/// What a consumer holds, by key.
type Held = BTreeMap<String, Item>;

#[derive(Clone, Debug)]
struct Item {
    uid: String,
    version: u64,
    stale: bool,
    json: Bytes,
    /// What it was found to be when it was compared last.
    same_as: Option<Arc<Object>>,
}

/// What it asks for.
#[derive(Clone, Debug)]
struct Wants {
    namespaces: Vec<&'static str>,
    /// Of the label `app`.
    app: Option<u8>,
    fields: Vec<String>,
    visible: bool,
    every: bool,
    fail: bool,
    rests: bool,
    max_batch: u32,
}

/// Where it could go on.
#[derive(Clone)]
struct Resume {
    token: Bytes,
    position: Position,
    held: Held,
    /// The replica's instance, and how it was configured.
    instance: u64,
    config: u64,
    /// How many histories of the cluster the replica knew.
    history: usize,
}

/// See the module's documentation.
pub(super) struct Consumer {
    name: usize,
    /// Which replica it reads.
    pub(super) replica: usize,
    wants: Wants,
    stream: Option<Streaming<WatchObjectsResponse>>,
    held: Held,
    /// In a whole state: what has come of it.
    incoming: Option<Held>,
    resume: Option<Resume>,
    revision: u64,
    /// What was told since the last token: revision, key, and whether it went.
    told: Vec<(u64, String, bool)>,
    /// The history of the last token, while all since then has to be told.
    since: Option<(usize, u64)>,
    /// What it holds cannot be gone on from: a whole state has to come.
    must_reset: bool,
    /// It was refused because the replica is not there yet.
    ahead: u8,
}

impl Wants {
    fn any(rng: &mut Rng) -> Self {
        let every = rng.u8(..4) == 0;
        Self {
            namespaces: [vec![], vec![], vec!["a"], vec!["a-b", "a"]][rng.usize(..4)].clone(),
            app: (rng.u8(..3) == 0).then_some(1),
            fields: [vec![], vec![".metadata.labels".to_owned()]][rng.usize(..2)].clone(),
            visible: rng.u8(..3) == 0,
            every,
            fail: rng.u8(..5) == 0,
            rests: !every && rng.u8(..8) == 0,
            max_batch: [1024, 1024, 4096, 0][rng.usize(..4)],
        }
    }

    fn request(&self, token: Bytes) -> WatchObjectsRequest {
        let changes = if self.visible {
            Changes::Visible
        } else {
            Changes::All
        };
        let delivery = if self.every {
            Delivery::Every
        } else {
            Delivery::Latest
        };
        let on_gap = if self.fail {
            OnGap::Fail
        } else {
            OnGap::Unspecified
        };
        let rest = prost_types::Duration {
            seconds: 15,
            nanos: 0,
        };
        let app = self.app.map(|app| format!("app={app}"));
        WatchObjectsRequest {
            scope: Some(Scope {
                resource: "pods".to_owned(),
                namespaces: self
                    .namespaces
                    .iter()
                    .map(|&name| name.to_owned())
                    .collect(),
                label_selector: app.unwrap_or_default(),
                ..Scope::default()
            }),
            fields: self.fields.clone(),
            token,
            delivery: delivery.into(),
            changes: changes.into(),
            on_gap: on_gap.into(),
            min_interval: self.rests.then_some(rest),
            max_batch_bytes: self.max_batch,
            ..WatchObjectsRequest::default()
        }
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(&namespace)
    }

    fn selects(&self, object: &Object) -> bool {
        let app = object.labels.get("app").and_then(|app| app.parse().ok());
        self.has_namespace(object.key.namespace()) && self.app.is_none_or(|one| app == Some(one))
    }

    fn selects_pod(&self, pod: &Pod) -> bool {
        self.has_namespace(pod.namespace) && self.app.is_none_or(|app| app == pod.app)
    }

    /// Whether what is held is what it is to hold of a state.
    fn check(&self, held: &mut Held, state: &State<Object>, at: &str) {
        let objects = state.objects.values().map(|slot| &slot.item);
        let fields = self.fields.iter().map(|path| path.parse().expect("a path"));
        let projection = Projection::new(View::Full, fields.collect());
        let mut count = 0;
        for object in objects.filter(|object| self.selects(object)) {
            count += 1;
            let Some(item) = held.get_mut(object.key.as_str()) else {
                panic!("Reliable: {at} does not hold {:?}", object.key);
            };
            let known = item.same_as.as_ref();
            if known.is_some_and(|known| Arc::ptr_eq(known, object)) {
                continue;
            }
            let uid = *item.uid == *object.uid && item.stale == object.stale;
            let version = self.visible || item.version.to_string() == *object.resource_version;
            let json = projection.apply(object);
            let content = match self.visible {
                true => without_version(&item.json) == without_version(&json),
                false => item.json == json,
            };
            assert!(
                uid && version && content,
                "Reliable: {at} holds {item:?}, and not {object:?}"
            );
            item.same_as = Some(object.clone());
        }
        if count < held.len() {
            let gone = |key: &&String| {
                let mut objects = state.objects.values();
                !objects.any(|slot| slot.item.key.as_str() == **key && self.selects(&slot.item))
            };
            panic!("Reliable: {at} still holds {:?}", held.keys().find(gone));
        }
    }

    /// What each of these changes is to whoever is told of every one; `None` where some cannot be decoded.
    fn each(&self, changes: &[Change]) -> Option<Vec<(u64, String, bool)>> {
        let mut told = Vec::new();
        for change in changes {
            let all = [Some(&change.pod), change.before.as_ref()];
            if all.into_iter().flatten().any(|pod| !pod.readable) {
                return None;
            }
            let before = change.before.as_ref();
            let held = before.is_some_and(|pod| self.selects_pod(pod));
            let wanted = change.r#type != "DELETED" && self.selects_pod(&change.pod);
            if held || wanted {
                told.push((change.revision, change.pod.key(), !wanted));
            }
        }
        Some(told)
    }
}

impl Consumer {
    pub(super) fn new(name: usize, replica: usize, rng: &mut Rng) -> Self {
        Self {
            name,
            replica,
            wants: Wants::any(rng),
            stream: None,
            held: Held::new(),
            incoming: None,
            resume: None,
            revision: 0,
            told: Vec::new(),
            since: None,
            must_reset: true,
            ahead: 0,
        }
    }

    fn at(&self) -> String {
        format!("consumer {} of replica {}", self.name, self.replica)
    }

    /// Its connection is gone, or it goes: what came after its last token does not count.
    pub(super) fn cut(&mut self, replica: usize) {
        self.stream = None;
        self.incoming = None;
        self.replica = replica;
        self.held = match &self.resume {
            Some(resume) => resume.held.clone(),
            None => Held::new(),
        };
    }

    /// It wants something else from now on. Its token is of no use for that.
    pub(super) async fn change(&mut self, replica: &Replica, rng: &mut Rng) {
        self.stream = None;
        let before = std::mem::replace(&mut self.wants, Wants::any(rng));
        if let Some(resume) = self.resume.take()
            && (&before.namespaces, before.app) != (&self.wants.namespaces, self.wants.app)
        {
            let asked = replica
                .client()
                .watch_objects(self.wants.request(resume.token))
                .await;
            assert_eq!(
                asked.err().map(|status| status.code()),
                Some(Code::InvalidArgument),
                "{}: a token of another scope is honoured",
                self.at()
            );
        }
        self.cut(self.replica);
    }

    async fn open(&mut self, replica: &Replica, cluster: &Cluster, cases: &mut Cases) {
        // As the contract says: what came to the very same versions in another history is taken for the same by a
        // replica that never knew the void one, and by one that does not know yet that its own is void.
        let unknown = |resume: &mut Resume| {
            let differs = resume.history != cluster.history() || replica.void_from.is_some();
            resume.instance != replica.instance && differs
        };
        if self.resume.take_if(unknown).is_some() {
            self.held.clear();
        }
        let token = self.resume.as_ref().map(|resume| resume.token.clone());
        let request = self.wants.request(token.unwrap_or_default());
        let opened = replica.client().watch_objects(request).await;
        let opened = opened.unwrap_or_else(|status| panic!("{}: {status:?}", self.at()));
        self.stream = Some(opened.into_inner());
        self.revision = 0;
        self.told.clear();
        let resume = self.resume.as_ref();
        self.must_reset = resume.is_none_or(|resume| resume.config != replica.config);
        if self.must_reset && resume.is_some() {
            cases.saw(14);
        }
        // Where another replica stands in what it is told, nobody here knows.
        if resume.is_none_or(|resume| resume.instance != replica.instance) {
            self.since = None;
        }
    }

    /// Takes the next message, if there is one.
    pub(super) async fn read(
        &mut self,
        replica: &Replica,
        cluster: &Cluster,
        cases: &mut Cases,
    ) -> bool {
        if self.stream.is_none() {
            self.open(replica, cluster, cases).await;
        }
        let Some(stream) = &mut self.stream else {
            return false;
        };
        match stream.message().now_or_never() {
            None => return false,
            Some(Ok(Some(message))) => {
                for event in message.events {
                    self.take(event, cases);
                }
                if let Some(mark) = message.mark {
                    self.mark(mark, replica, cluster, cases);
                }
            }
            Some(Ok(None)) => panic!("{}: the stream ends without a word", self.at()),
            Some(Err(status)) => self.refused(&status),
        }
        true
    }

    fn refused(&mut self, status: &tonic::Status) {
        let at = self.at();
        match status.code() {
            Code::OutOfRange => {
                assert!(self.wants.every || self.wants.fail, "{at}: {status:?}");
                self.resume = None;
            }
            // A token from the future: perhaps of a history that is void.
            Code::Unavailable => {
                self.ahead += 1;
                if self.ahead > 2 {
                    self.resume = None;
                    self.ahead = 0;
                }
            }
            _ => panic!("{at}: {status:?}"),
        }
        self.cut(self.replica);
    }

    fn take(&mut self, event: Event, cases: &mut Cases) {
        let at = self.at();
        let key = format!("{}/{}", event.namespace, event.name);
        assert!(
            event.revision >= self.revision,
            "Ordered: {at}: {key} at {} after {}",
            event.revision,
            self.revision
        );
        assert!(
            self.incoming.is_some() || !self.must_reset,
            "Resumable: {at}: {key} is told, where a whole state had to come"
        );
        self.revision = event.revision;
        let gone = event.r#type() == EventType::Delete;
        self.told.push((event.revision, key.clone(), gone));
        if gone {
            return self.take_deletion(&event, &key, &at, cases);
        }
        let item = Item {
            uid: event.uid,
            version: event.resource_version.parse().unwrap_or_default(),
            stale: event.stale,
            json: event.object,
            same_as: None,
        };
        assert!(self.wants.has_namespace(&event.namespace), "{at}: {key}");
        if let Some(incoming) = &mut self.incoming {
            let twice = incoming.insert(key.clone(), item);
            assert!(twice.is_none(), "Unique: {at}: {key} twice in a state");
            return;
        }
        if let Some(held) = self.held.get(&key) {
            assert_eq!(
                held.uid, item.uid,
                "Atomic: {at}: {key} has another uid, and nobody has deleted the other"
            );
            assert!(
                held.version <= item.version,
                "Ordered: {at}: {key} goes back from {} to {}",
                held.version,
                item.version
            );
            assert!(
                self.wants.visible || held.version < item.version || held.stale != item.stale,
                "Unique: {at}: {key} at {} is told again",
                item.version
            );
        }
        self.held.insert(key, item);
    }

    fn take_deletion(&mut self, event: &Event, key: &str, at: &str, cases: &mut Cases) {
        let cause = event.cause();
        match cause {
            DeleteCause::Vanished => cases.saw(1),
            DeleteCause::LeftSelector => cases.saw(4),
            DeleteCause::Replaced => cases.saw(5),
            _ => {}
        }
        assert!(self.incoming.is_none(), "{at}: a deletion in a state");
        let Some(held) = self.held.remove(key) else {
            panic!("Unique: {at}: {key} is deleted ({cause:?}), which was never delivered");
        };
        assert_eq!(held.uid, event.uid, "Unique: {at}: {key}");
    }

    fn mark(&mut self, mark: Mark, replica: &Replica, cluster: &Cluster, cases: &mut Cases) {
        let at = self.at();
        match mark.r#type() {
            MarkType::Reset => {
                self.check_reason(&mark.reason, replica, cluster, cases);
                self.incoming = Some(Held::new());
                self.revision = 0;
                self.since = None;
            }
            MarkType::ResetEnd => {
                let incoming = self.incoming.take();
                self.held = incoming.unwrap_or_else(|| panic!("{at}: an end of no state"));
                self.must_reset = false;
                self.told.clear();
            }
            _ => {}
        }
        if mark.token.is_empty() {
            return;
        }
        assert!(
            self.incoming.is_none(),
            "Atomic: {at}: a token inside a state"
        );
        if self.must_reset {
            // The one that it came with, before anything was told.
            let came_with = self.resume.as_ref().map(|resume| &*resume.token);
            assert_eq!(came_with, Some(&*mark.token), "Resumable: {at}");
            return;
        }
        self.settle(mark.token, replica, cluster, cases);
    }

    fn check_reason(&self, reason: &str, replica: &Replica, cluster: &Cluster, cases: &mut Cases) {
        let at = self.at();
        let elsewhere = self
            .resume
            .as_ref()
            .is_some_and(|resume| resume.instance != replica.instance);
        match reason {
            "INITIAL" => assert!(self.resume.is_none(), "Resumable: {at} starts over unasked"),
            "HISTORY_VOID" => {
                assert!(cluster.history() > 0, "Resumable: {at}: nothing is void");
                cases.saw(11);
            }
            "HISTORY_DIFFERS" => {
                assert!(elsewhere, "Resumable: {at}: it is the same replica");
            }
            "PAST_JOURNAL" => {
                if elsewhere {
                    cases.saw(12);
                }
            }
            "STALLED" => {}
            other => panic!("Resumable: {at}: {other}"),
        }
    }

    /// A token: all before it counts, and is what was there.
    fn settle(&mut self, token: Bytes, replica: &Replica, cluster: &Cluster, cases: &mut Cases) {
        let at = self.at();
        let decoded = Token::decode_bytes(&token).unwrap_or_else(|error| panic!("{at}: {error}"));
        let places = decoded.places(0, replica.config);
        let [(_, place)] = places.as_slice() else {
            panic!("{at}: a token of {} shards", places.len());
        };
        let position = place.position;
        // What it was resumed with may be another replica's.
        let came_with = self
            .resume
            .as_ref()
            .is_some_and(|resume| resume.token == token);
        if !came_with {
            let state = replica.at(position.history, position.sequence);
            let state = state.unwrap_or_else(|| {
                panic!("Atomic: {at}: {position:?} is that of no published state")
            });
            self.wants
                .check(&mut self.held, state, &format!("{at} at {position:?}"));
            if replica.void_from.is_none() {
                self.check_each(position, cluster, &at);
            }
        }
        if replica
            .state()
            .is_some_and(|state| state.sequence > position.sequence)
        {
            cases.saw(7);
        }
        self.told.clear();
        // What a replica says of a history that is void is in no log any more.
        let sound = replica.void_from.is_none();
        self.since = sound.then(|| (cluster.history(), position.revision));
        self.resume = Some(Resume {
            token,
            position,
            held: self.held.clone(),
            instance: replica.instance,
            config: replica.config,
            history: cluster.history() - usize::from(!sound),
        });
    }

    /// Whoever asks for every change is told each one.
    fn check_each(&self, position: Position, cluster: &Cluster, at: &str) {
        let Some((history, from)) = self.since else {
            return;
        };
        if !self.wants.every || self.wants.visible || history != cluster.history() {
            return;
        }
        let changes = cluster.after(from);
        let upto = changes.partition_point(|change| change.revision <= position.revision);
        let Some(expected) = self.wants.each(&changes[..upto]) else {
            return;
        };
        // One that was kept though nobody knew of it any more gives way to whoever takes its name.
        let is_new = |revision: u64, key: &str| {
            let mut all = changes.iter();
            let change = all.find(|change| change.revision == revision);
            change.is_some_and(|change| change.before.is_none() && change.pod.key() == key)
        };
        let mut told = self.told.clone();
        told.retain(|(revision, key, gone)| !gone || !is_new(*revision, key));
        assert_eq!(
            told, expected,
            "Reliable: {at}: every change after {from} up to {}",
            position.revision
        );
    }

    /// Whether it has all that its replica has.
    pub(super) fn is_complete(&self, replica: &Replica) -> bool {
        let (Some(resume), Some(state)) = (&self.resume, replica.state()) else {
            return false;
        };
        self.stream.is_some()
            && !self.must_reset
            && resume.instance == replica.instance
            && (resume.position.history, resume.position.sequence)
                == (state.history, state.sequence)
    }
}

/// The same object, whatever its version.
fn without_version(json: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(json);
    let Some((before, rest)) = text.split_once(r#""resourceVersion":""#) else {
        return json.clone();
    };
    let after = rest.split_once('"').map_or("", |(_, after)| after);
    Bytes::from(format!("{before}{after}"))
}
