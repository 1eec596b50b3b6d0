//! A kind in the cache with its feed, and nothing before it: what controllers are tested on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    cache::{Cause, History, Identity, Kind, Limits, Phase, Unreadable, Writer},
    feed::Feed,
    heartbeat::Heartbeats,
    object::{Key, Object, OwnerReference, Selectable, tests::object},
    shutdown::Shutdown,
};

/// A kind that is listed and empty, and its feed. Objects are in the namespace `default`.
pub(in crate::controller) struct Fed {
    pub(in crate::controller) writer: Writer<Object>,
    pub(in crate::controller) kind: Arc<Kind>,
    pub(in crate::controller) feed: Feed,
    pub(in crate::controller) revision: u64,
}

impl Fed {
    pub(in crate::controller) fn new(
        group: &str,
        kind_name: &str,
        plural: &str,
        shutdown: &Shutdown,
    ) -> Self {
        let mut fed = Self::unlisted(group, kind_name, plural, shutdown);
        fed.list();
        fed
    }

    /// One of which nothing is known yet but its name.
    pub(in crate::controller) fn unlisted(
        group: &str,
        kind_name: &str,
        plural: &str,
        shutdown: &Shutdown,
    ) -> Self {
        let writer = Writer::new("", Limits::default(), now());
        let shards = vec![writer.shard().clone()];
        let kind = Arc::new(Kind::new(plural, false, false, 0, shards));
        kind.set_identity(Identity {
            group: group.into(),
            version: "v1".into(),
            kind: kind_name.into(),
            plural: plural.into(),
            singular: kind_name.to_lowercase(),
            short_names: Vec::new(),
            namespaced: true,
            selectable: Selectable::builtin(group, plural),
        });
        let (feed, runner) = Feed::new(kind.clone());
        tokio::spawn(runner.run(Heartbeats::default().register("feed"), shutdown.clone()));
        Self {
            writer,
            kind,
            feed,
            revision: 1,
        }
    }

    /// It is served, and there is none of it.
    pub(in crate::controller) fn list(&mut self) {
        let unreadable = Unreadable::default();
        self.writer
            .replace(Vec::new(), &unreadable, self.revision, History::Same, now());
        self.writer.prove(now());
        self.writer.set_status(Phase::Live, "", "");
    }

    pub(in crate::controller) fn put(
        &mut self,
        name: &str,
        uid: &str,
        owner: Option<(&str, &str, &str)>,
        json: &str,
    ) {
        let owner = owner.map(|(kind, name, uid)| OwnerReference {
            api_version: "apps/v1".into(),
            kind: kind.into(),
            name: name.into(),
            uid: uid.into(),
            controller: true,
        });
        self.upsert(Object {
            uid: uid.into(),
            generation: Some(1),
            owner_references: owner.into_iter().collect(),
            json: json.to_owned().into(),
            ..object("default", name)
        });
    }

    /// The same with all that an object has, but for its version.
    pub(in crate::controller) fn upsert(&mut self, object: Object) {
        self.revision += 1;
        let object = Object {
            resource_version: self.revision.to_string().into(),
            ..object
        };
        self.writer.upsert(Arc::new(object), self.revision);
        self.writer.publish(now());
    }

    pub(in crate::controller) fn delete(&mut self, name: &str) {
        self.revision += 1;
        let key = Key::new("default", name);
        self.writer
            .delete(&key, None, self.revision, Cause::Deleted);
        self.writer.publish(now());
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// To the middle of a millisecond, so that what waits for a timer waits.
pub(in crate::controller) async fn between_ticks() {
    tokio::time::advance(Duration::from_micros(300)).await;
}

/// Lets everybody do what takes no time at all.
pub(in crate::controller) async fn at_once() {
    let begun = tokio::time::Instant::now();
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(begun.elapsed(), Duration::ZERO, "the clock has gone on");
}
