//! How far the API server itself is, asked once for all who want to know.
//!
//! An answer counts for whoever came before its question was asked: revisions only go on, so a later one would say
//! no less. Of each shard at most one question is under way and one waits; they are a second apart.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::time::{Instant, sleep_until, timeout};

use super::readiness::Live;
use crate::cache::{Identity, Kind};

/// The least time from one question to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// Until nobody knows.
const PATIENCE: Duration = Duration::from_secs(10);

/// The revision, or why nobody knows it.
pub(super) type Answer = Shared<BoxFuture<'static, Result<u64, Arc<str>>>>;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Revisions(Mutex<HashMap<Place, Question>>);

/// A shard: a kind's name and a namespace.
type Place = (String, String);

#[derive(Clone)]
struct Question {
    /// When it was put to the API server, once it was.
    put: Arc<OnceLock<Instant>>,
    answer: Answer,
}

impl Revisions {
    /// The API server's revision at some time after `since`, asked for where nobody has yet.
    pub(super) fn ask(
        &self,
        live: &Arc<dyn Live>,
        kind: &Kind,
        identity: &Arc<Identity>,
        namespace: &str,
        since: Instant,
    ) -> Answer {
        let place = (kind.name.clone(), namespace.to_owned());
        let mut questions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = questions.get(&place).cloned();
        if let Some(question) = &before
            && question.put.get().is_none_or(|put| *put >= since)
        {
            return question.answer.clone();
        }
        let question = Question::new(live.clone(), identity.clone(), namespace.to_owned(), before);
        let answer = question.answer.clone();
        questions.insert(place, question);
        answer
    }
}

impl Question {
    /// By a task of its own: whoever waits for it may stop to be polled.
    fn new(
        live: Arc<dyn Live>,
        identity: Arc<Identity>,
        namespace: String,
        before: Option<Self>,
    ) -> Self {
        let put = Arc::new(OnceLock::new());
        let putting = put.clone();
        let asking = tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.answer.await;
                if let Some(put) = before.put.get() {
                    sleep_until(*put + INTERVAL).await;
                }
            }
            let _ = putting.set(Instant::now());
            match timeout(PATIENCE, live.revision(&identity, &namespace)).await {
                Ok(answer) => answer.map_err(Arc::from),
                Err(_) => Err("the API server did not answer in time".into()),
            }
        });
        let answer =
            asking.map(|asked| asked.unwrap_or_else(|ended| Err(ended.to_string().into())));
        Self {
            put,
            answer: answer.boxed().shared(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::{
        api::readiness::Seen,
        object::{Key, Selectable},
    };

    /// Whose revision is the number of the question, and who takes its time.
    struct Slow(AtomicU64, Duration);

    impl Live for Slow {
        fn see<'a>(
            &'a self,
            _: &'a Identity,
            _: &'a Key,
        ) -> BoxFuture<'a, Result<Option<Seen>, String>> {
            async { Err("not asked".to_owned()) }.boxed()
        }

        fn revision<'a>(
            &'a self,
            _: &'a Identity,
            _: &'a str,
        ) -> BoxFuture<'a, Result<u64, String>> {
            async move {
                let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
                tokio::time::sleep(self.1).await;
                Ok(number)
            }
            .boxed()
        }
    }

    struct World {
        revisions: Revisions,
        live: Arc<dyn Live>,
        slow: Arc<Slow>,
        kind: Kind,
        identity: Arc<Identity>,
    }

    impl World {
        fn new(taking: Duration) -> Self {
            let slow = Arc::new(Slow(AtomicU64::new(0), taking));
            let identity = Identity {
                group: String::new(),
                version: "v1".into(),
                kind: "Pod".into(),
                plural: "pods".into(),
                singular: "pod".into(),
                short_names: Vec::new(),
                namespaced: true,
                selectable: Selectable::builtin("", "pods"),
            };
            Self {
                revisions: Revisions::default(),
                live: slow.clone(),
                slow,
                kind: Kind::new("pods", false, false, 0, Vec::new()),
                identity: Arc::new(identity),
            }
        }

        fn ask(&self) -> Answer {
            let now = Instant::now();
            self.revisions
                .ask(&self.live, &self.kind, &self.identity, "", now)
        }

        fn asked(&self) -> u64 {
            self.slow.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_who_ask_together_are_one_question() {
        let world = World::new(Duration::from_millis(100));
        let answers: Vec<_> = (0..1000).map(|_| world.ask()).collect();
        for answer in answers {
            assert_eq!(answer.await, Ok(1));
        }
        assert_eq!(world.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_after_the_question_gets_the_answer_to_the_next_one() {
        let world = World::new(Duration::from_millis(100));
        let first = world.ask();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begun = Instant::now();
        let later: Vec<_> = (0..100).map(|_| world.ask()).collect();
        assert_eq!(first.await, Ok(1));
        for answer in later {
            assert_eq!(answer.await, Ok(2));
        }
        let waited = begun.elapsed();
        assert!(
            waited >= Duration::from_millis(1000),
            "a second apart: {waited:?}"
        );
        assert_eq!(world.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_slow_is_asked_one_thing_at_a_time() {
        let world = World::new(Duration::from_secs(8));
        for _ in 0..80 {
            drop(world.ask());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(world.asked(), 1);
        assert_eq!(world.ask().await, Ok(2));
        let world = World::new(Duration::from_secs(3600));
        assert!(world.ask().await.is_err());
    }
}
