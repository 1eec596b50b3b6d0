//! The whole of one object, where only its metadata is cached and the config lets readers have the rest.
//!
//! Read from the API server when somebody asks, pruned by the kind's rules like all that is served, and never kept:
//! who watches metadata only does so because the rest is large or seldom wanted. With the daemon's own rights, for it
//! has checked the caller's.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::flights::{Bucket, Flights, share};
use crate::{
    cache::{Identity, Kind},
    object::{Decoder, Key, Object, PruneRules, Pruner},
};

/// How long one read may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// So many may begin at once, out of idleness.
const BURST: f64 = 50.0;
/// So many may begin a second, in the long run.
const RATE: f64 = 20.0;

/// Why there is no object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThroughError {
    /// Too many begin.
    #[error("too many objects are read at once; only their metadata is cached")]
    TooMany,
    /// The daemon may not.
    #[error("the API server refuses it to informerd: {0}")]
    Forbidden(String),
    /// The API server did not answer, or answered with another error.
    #[error("the API server cannot be asked: {0}")]
    Upstream(String),
    /// It took too long.
    #[error("the API server did not answer in time")]
    Late,
    /// What came is no object.
    #[error("the API server's object cannot be read: {0}")]
    Unreadable(String),
}

/// Gets whole objects. A trait so that readers can be tested without an API server.
pub trait Fetch: Send + Sync + 'static {
    /// Its JSON as the API server has it now; `None` if there is none.
    fn fetch<'a>(
        &'a self,
        identity: &'a Identity,
        key: &'a Key,
    ) -> BoxFuture<'a, Result<Option<bytes::Bytes>, ThroughError>>;
}

/// See the module's documentation.
pub struct ReadThrough {
    fetch: Arc<dyn Fetch>,
    /// By the names of the kinds that may be read so.
    rules: HashMap<String, (Pruner, bool)>,
    flights: Flights<(String, Key), Result<Option<Whole>, ThroughError>>,
    bucket: Bucket,
}

/// An object, and when it was asked for.
#[derive(Clone, Debug)]
pub struct Whole {
    /// Pruned by the kind's rules.
    pub object: Arc<Object>,
    /// Whether those leave anything out.
    pub pruned: bool,
    /// It was so at some time after this.
    pub asked: Instant,
}

impl std::fmt::Debug for ReadThrough {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadThrough").finish_non_exhaustive()
    }
}

impl ReadThrough {
    /// Of the kinds of these names, with what is pruned of their objects.
    pub fn new<'a>(
        fetch: Arc<dyn Fetch>,
        kinds: impl IntoIterator<Item = (&'a str, &'a PruneRules, Pruner)>,
    ) -> Self {
        let kinds = kinds.into_iter();
        Self {
            fetch,
            rules: kinds
                .map(|(name, rules, pruner)| {
                    (name.to_owned(), (pruner, *rules != PruneRules::nothing()))
                })
                .collect(),
            flights: Flights::default(),
            bucket: Bucket::new(BURST, RATE),
        }
    }

    /// Whether objects of the kind may be read so.
    pub fn reads(&self, kind: &Kind) -> bool {
        self.rules.contains_key(&kind.name)
    }

    /// The object as it is after this call; `None` if there is none.
    pub async fn read(
        &self,
        kind: &Kind,
        identity: &Identity,
        key: &Key,
    ) -> Result<Option<Whole>, ThroughError> {
        let flight = self.flights.about((kind.name.clone(), key.clone()));
        let asking = async {
            if !self.bucket.take() {
                return Err(ThroughError::TooMany);
            }
            let asked = Instant::now();
            let fetched = tokio::time::timeout(PATIENCE, self.fetch.fetch(identity, key)).await;
            let Some(json) = fetched.map_err(|_| ThroughError::Late)?? else {
                return Ok(None);
            };
            self.decode(kind, identity, &json, asked).map(Some)
        };
        let (answer, shared) = share(&flight, Instant::now(), asking).await;
        let result = match (&answer, shared) {
            (_, true) => "shared",
            (Ok(_), false) => "read",
            (Err(_), false) => "failed",
        };
        metrics::counter!("informerd_read_through_total", "result" => result).increment(1);
        answer
    }

    fn decode(
        &self,
        kind: &Kind,
        identity: &Identity,
        json: &[u8],
        asked: Instant,
    ) -> Result<Whole, ThroughError> {
        let unreadable = |why: String| ThroughError::Unreadable(why);
        let (pruner, pruned) = self
            .rules
            .get(&kind.name)
            .ok_or_else(|| unreadable("the kind is not read so".to_owned()))?;
        let decoder = Decoder::new(
            &identity.api_version(),
            &identity.kind,
            identity.namespaced,
            pruner,
            &identity.selectable,
        );
        let object = decoder.decode(json, 0);
        Ok(Whole {
            object: Arc::new(object.map_err(|error| unreadable(error.to_string()))?),
            pruned: *pruned,
            asked,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use futures::FutureExt;
    use serde_json::json;

    use super::*;
    use crate::cache::kind;

    /// What the API server says of the pod `n/web`, and how long it takes.
    struct Server {
        says: Mutex<Result<Option<u64>, ThroughError>>,
        takes: Duration,
        asked: AtomicUsize,
    }

    impl Fetch for Arc<Server> {
        fn fetch<'a>(
            &'a self,
            _: &'a Identity,
            key: &'a Key,
        ) -> BoxFuture<'a, Result<Option<bytes::Bytes>, ThroughError>> {
            async move {
                self.asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(self.takes).await;
                let says = self.says.lock().unwrap().clone()?;
                Ok(says.map(|version| {
                    let managed = json!([{"manager": "kubectl"}]);
                    let metadata = json!({"namespace": key.namespace(), "name": key.name(), "uid": "u",
                        "resourceVersion": version.to_string(), "managedFields": managed});
                    json!({"metadata": metadata, "spec": {"nodeName": "n1"}}).to_string().into()
                }))
            }
            .boxed()
        }
    }

    fn through(says: Result<Option<u64>, ThroughError>) -> (Arc<Server>, Arc<ReadThrough>) {
        let server = Arc::new(Server {
            says: Mutex::new(says),
            takes: Duration::from_secs(1),
            asked: AtomicUsize::new(0),
        });
        let rules = PruneRules::default();
        let kinds = [("pods", &rules, Pruner::new(&rules).unwrap())];
        let through = ReadThrough::new(Arc::new(server.clone()), kinds);
        (server, Arc::new(through))
    }

    async fn read(through: &ReadThrough, name: &str) -> Result<Option<String>, ThroughError> {
        let pods = Kind::new("pods", true, true, 0, Vec::new());
        let key = Key::new("n", name);
        let whole = through.read(&pods, &kind::tests::pods(), &key).await?;
        Ok(whole.map(|whole| String::from_utf8(whole.object.json.to_vec()).unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn all_of_an_object_is_read_but_what_the_config_prunes() {
        let (_, through) = through(Ok(Some(5)));
        let whole = read(&through, "web").await.unwrap().unwrap();
        let whole: serde_json::Value = serde_json::from_str(&whole).unwrap();
        let metadata = json!({"namespace": "n", "name": "web", "uid": "u", "resourceVersion": "5"});
        let spec = json!({"nodeName": "n1"});
        assert_eq!(
            whole,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        );
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_come_while_one_is_read_share_the_next() {
        let (server, through) = through(Ok(Some(5)));
        let reading = |name: &'static str| {
            let through = through.clone();
            tokio::spawn(async move { read(&through, name).await.unwrap().unwrap() })
        };
        let first = reading("web");
        tokio::time::sleep(Duration::from_millis(500)).await;
        // Written before these came, and after the first was answered for.
        *server.says.lock().unwrap() = Ok(Some(6));
        let later: Vec<_> = (0..20).map(|_| reading("web")).collect();
        first.await.unwrap();
        for reader in later {
            assert!(reader.await.unwrap().contains(r#""resourceVersion":"6""#));
        }
        assert_eq!(server.asked.load(Ordering::Relaxed), 2);
        reading("web").await.unwrap();
        assert_eq!(server.asked.load(Ordering::Relaxed), 3, "nothing is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn over_the_rate_a_read_fails_rather_than_ask() {
        let (server, through) = through(Ok(Some(5)));
        let all = (0..60).map(|at| {
            let through = through.clone();
            async move { read(&through, &format!("web-{at}")).await }
        });
        let answers = futures::future::join_all(all).await;
        let refused = |it: &&Result<_, _>| **it == Err(ThroughError::TooMany);
        assert_eq!(answers.iter().filter(refused).count(), 10);
        assert_eq!(server.asked.load(Ordering::Relaxed), 50);
        tokio::time::sleep(Duration::from_secs(1)).await;
        read(&through, "web").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_there_and_what_cannot_be_had_are_told_apart() {
        assert_eq!(read(&through(Ok(None)).1, "web").await, Ok(None));
        let forbidden = ThroughError::Forbidden("pods is forbidden".to_owned());
        let (_, refused) = through(Err(forbidden.clone()));
        assert_eq!(read(&refused, "web").await, Err(forbidden));
        let slow = Arc::new(Server {
            says: Mutex::new(Ok(Some(5))),
            takes: Duration::from_secs(3600),
            asked: AtomicUsize::new(0),
        });
        let rules = PruneRules::default();
        let kinds = [("pods", &rules, Pruner::new(&rules).unwrap())];
        let slow = ReadThrough::new(Arc::new(slow), kinds);
        assert_eq!(read(&slow, "web").await, Err(ThroughError::Late));
    }
}
