//! Proofs against an API server that says what the test wants.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use tokio::time::Duration;

use super::*;
use crate::{
    cache::{Cause, History, Limits, Unreadable, Writer, kind},
    object::tests::object,
};

/// What the API server would say; how often it was asked.
#[derive(Default)]
struct Server {
    versions: Mutex<HashMap<Key, String>>,
    revision: Mutex<u64>,
    /// What a watch says, if it says anything.
    watched: Mutex<Option<Watched>>,
    gets: AtomicUsize,
    lists: AtomicUsize,
    watches: AtomicUsize,
    takes: Duration,
    fails: bool,
}

impl Ask for Arc<Server> {
    fn get<'a>(
        &'a self,
        _: &'a Identity,
        key: &'a Key,
    ) -> BoxFuture<'a, Result<Option<String>, String>> {
        async {
            self.gets.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(self.takes).await;
            if self.fails {
                return Err("connection refused".to_owned());
            }
            Ok(self.versions.lock().unwrap().get(key).cloned())
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        _: Collection<'a>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Listed, String>> {
        async move {
            self.lists.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(self.takes).await;
            if self.fails {
                return Err("connection refused".to_owned());
            }
            let versions = self.versions.lock().unwrap();
            let all = versions
                .iter()
                .map(|(key, version)| (key.clone(), version.clone()));
            Ok(Listed {
                revision: *self.revision.lock().unwrap(),
                versions: all.take(limit).collect(),
                complete: versions.len() <= limit,
            })
        }
        .boxed()
    }

    fn watch<'a>(
        &'a self,
        _: Collection<'a>,
        _: u64,
        _: u64,
    ) -> BoxFuture<'a, Result<Watched, String>> {
        async {
            self.watches.fetch_add(1, Ordering::Relaxed);
            let said = *self.watched.lock().unwrap();
            match said {
                Some(watched) => Ok(watched),
                None => std::future::pending().await,
            }
        }
        .boxed()
    }
}

type Outcome = Result<(Arc<State<Object>>, u64), ProofError>;

struct World {
    server: Arc<Server>,
    prover: Arc<Prover>,
    writer: Writer<Object>,
    kind: Arc<Kind>,
    identity: Identity,
}

fn pod(name: &str, version: u64) -> Arc<Object> {
    let mut pod = object("n", name);
    pod.uid = name.into();
    pod.resource_version = version.to_string().into();
    Arc::new(pod)
}

impl World {
    /// The API server and the cache have the same objects, the server at `revision` and the cache at 10.
    fn new(count: usize, revision: u64, server: Server) -> Self {
        let names: Vec<String> = (0..count).map(|at| format!("pod-{at}")).collect();
        for name in &names {
            let mut versions = server.versions.lock().unwrap();
            versions.insert(Key::new("n", name), "5".to_owned());
        }
        *server.revision.lock().unwrap() = revision;
        let server = Arc::new(server);
        let now = Instant::now().into_std();
        let mut writer = Writer::new("", Limits::default(), now);
        let pods = names.iter().map(|name| pod(name, 5)).collect();
        writer.replace(pods, &Unreadable::default(), 10, History::Same, now);
        let shards = vec![writer.shard().clone()];
        let identity = kind::tests::pods();
        Self {
            prover: Arc::new(Prover::new(Arc::new(server.clone()))),
            server,
            writer,
            kind: Arc::new(Kind::new("pods", false, false, 0, shards)),
            identity,
        }
    }

    async fn prove(&self, key: Option<&str>) -> Result<u64, ProofError> {
        let key = key.map(|name| Key::new("n", name));
        let shard = self.writer.shard();
        let proven = self
            .prover
            .most_recent(&self.kind, &self.identity, shard, key.as_ref());
        proven.await.map(|(_, revision)| revision)
    }

    /// The same, on its way while the test goes on.
    fn proving(&self, key: Option<&str>) -> tokio::task::JoinHandle<Outcome> {
        let key = key.map(|name| Key::new("n", name));
        let (prover, kind) = (self.prover.clone(), self.kind.clone());
        let (identity, shard) = (self.identity.clone(), self.writer.shard().clone());
        tokio::spawn(async move {
            prover
                .most_recent(&kind, &identity, &shard, key.as_ref())
                .await
        })
    }

    fn publish(&mut self) {
        self.writer.publish(Instant::now().into_std());
    }
}

#[tokio::test(start_paused = true)]
async fn few_objects_that_are_the_same_prove_the_revision_at_once() {
    let world = World::new(3, 50, Server::default());
    assert_eq!(world.prove(None).await, Ok(50));
    assert_eq!(world.server.watches.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_has_is_waited_for() {
    let mut world = World::new(2, 12, Server::default());
    world
        .server
        .versions
        .lock()
        .unwrap()
        .insert(Key::new("n", "new"), "12".to_owned());
    let proving = world.proving(None);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!proving.is_finished());
    world.writer.upsert(pod("new", 12), 12);
    world.publish();
    let (state, revision) = proving.await.unwrap().unwrap();
    assert!(state.get(&Key::new("n", "new")).is_some());
    assert_eq!(revision, 12);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_waited_for_too() {
    let mut world = World::new(2, 12, Server::default());
    let gone = Key::new("n", "pod-0");
    world.server.versions.lock().unwrap().remove(&gone);
    let all = world.proving(None);
    let one = world.proving(Some("pod-0"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!all.is_finished() && !one.is_finished());
    world.writer.delete(&gone, None, 12, Cause::Deleted);
    world.publish();
    assert!(all.await.unwrap().unwrap().0.get(&gone).is_none());
    assert!(one.await.unwrap().unwrap().0.get(&gone).is_none());
}

#[tokio::test(start_paused = true)]
async fn of_many_objects_a_watch_proves_that_nothing_changed() {
    let quiet = Server {
        watched: Mutex::new(Some(Watched {
            bookmark: 60,
            last_change: None,
        })),
        ..Server::default()
    };
    let world = World::new(FEW + 1, 50, quiet);
    assert_eq!(world.prove(None).await, Ok(60));
    assert_eq!(world.server.watches.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_the_watch_saw_must_come_here_first() {
    let busy = Server {
        watched: Mutex::new(Some(Watched {
            bookmark: 60,
            last_change: Some(40),
        })),
        ..Server::default()
    };
    let mut world = World::new(FEW + 1, 50, busy);
    let proving = world.proving(None);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!proving.is_finished());
    world.writer.upsert(pod("pod-0", 40), 40);
    world.publish();
    let (state, revision) = proving.await.unwrap().unwrap();
    assert_eq!((state.revision, revision), (40, 60));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_passes_the_revision_proves_it_without_the_watch() {
    let mut world = World::new(FEW + 1, 50, Server::default());
    let proving = world.proving(None);
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.writer.upsert(pod("pod-0", 51), 51);
    world.publish();
    assert_eq!(proving.await.unwrap().unwrap().1, 51);
}

#[tokio::test(start_paused = true)]
async fn one_object_is_proven_by_its_own_version() {
    let mut world = World::new(2, 50, Server::default());
    assert!(world.prove(Some("pod-1")).await.is_ok());
    assert_eq!(world.server.lists.load(Ordering::Relaxed), 0);
    world
        .server
        .versions
        .lock()
        .unwrap()
        .insert(Key::new("n", "pod-1"), "11".to_owned());
    let proving = world.proving(Some("pod-1"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!proving.is_finished());
    world.writer.upsert(pod("pod-1", 11), 11);
    world.publish();
    assert!(proving.await.unwrap().is_ok());
    assert!(world.prove(Some("nobody")).await.is_ok(), "neither has it");
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_share_one_proof_that_began_after_they_came() {
    let slow = Server {
        takes: Duration::from_millis(50),
        ..Server::default()
    };
    let world = World::new(2, 50, slow);
    let first = world.proving(None);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let others: Vec<_> = (0..100).map(|_| world.proving(None)).collect();
    assert!(first.await.unwrap().is_ok());
    for other in others {
        assert!(other.await.unwrap().is_ok());
    }
    assert_eq!(
        world.server.lists.load(Ordering::Relaxed),
        2,
        "one was under way when the others came, and is too old for them"
    );
}

#[tokio::test(start_paused = true)]
async fn over_the_rate_a_proof_fails_rather_than_ask() {
    let world = World::new(2, 50, Server::default());
    let mut failed = 0;
    for _ in 0..210 {
        failed += usize::from(world.prove(None).await == Err(ProofError::TooMany));
    }
    assert_eq!(failed, 10);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.prove(None).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_proven_fails() {
    let down = Server {
        fails: true,
        ..Server::default()
    };
    let world = World::new(2, 50, down);
    let error = world.prove(None).await.unwrap_err();
    assert_eq!(error, ProofError::Upstream("connection refused".to_owned()));
    let silent = World::new(FEW + 1, 50, Server::default());
    let begun = Instant::now();
    assert_eq!(silent.prove(None).await, Err(ProofError::Late));
    assert_eq!(begun.elapsed(), PATIENCE);
}
