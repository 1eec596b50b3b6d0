//! Answers, remembered for a short time, within bounds, each asked for once however many wait for it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::time::Instant;

use super::secret::Fingerprint;

/// See the module's documentation. Errors are not remembered, but shared by those who wait for the same.
pub(super) struct Memo<V: Clone, E: Clone>(Arc<Mutex<Inner<V, E>>>);

type Answer<V, E> = BoxFuture<'static, Result<V, E>>;

struct Inner<V: Clone, E: Clone> {
    capacity: usize,
    entries: HashMap<Fingerprint, Entry<V>>,
    /// Least recently used first.
    order: BTreeMap<u64, Fingerprint>,
    uses: u64,
    flights: HashMap<Fingerprint, WeakShared<Answer<V, E>>>,
}

struct Entry<V> {
    value: V,
    until: Instant,
    used: u64,
}

impl<V, E> Memo<V, E>
where
    V: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// For so many answers.
    pub(super) fn new(capacity: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            capacity: capacity.max(1),
            entries: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            flights: HashMap::new(),
        })))
    }

    /// What is remembered, or what `ask` answers, with the time for which that may be.
    pub(super) async fn get<F>(&self, key: Fingerprint, ask: impl FnOnce() -> F) -> Result<V, E>
    where
        F: Future<Output = Result<(V, Duration), E>> + Send + 'static,
    {
        let flight = {
            let mut inner = lock(&self.0);
            if let Some(value) = inner.find(&key, Instant::now()) {
                return Ok(value);
            }
            match inner.flights.get(&key).and_then(WeakShared::upgrade) {
                Some(flight) => flight,
                None => self.begin(&mut inner, key, ask()),
            }
        };
        flight.await
    }

    /// What is remembered, without asking.
    pub(super) fn find(&self, key: &Fingerprint) -> Option<V> {
        lock(&self.0).find(key, Instant::now())
    }

    /// Remembers what was found out elsewhere.
    pub(super) fn put(&self, key: Fingerprint, value: V, keep: Duration) {
        lock(&self.0).put(key, value, Instant::now() + keep);
    }

    /// How many answers are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.0).entries.len()
    }

    fn begin<F>(&self, inner: &mut Inner<V, E>, key: Fingerprint, asking: F) -> Shared<Answer<V, E>>
    where
        F: Future<Output = Result<(V, Duration), E>> + Send + 'static,
    {
        let memo = Arc::clone(&self.0);
        let flight = async move {
            let answer = asking.await;
            let mut inner = lock(&memo);
            inner.flights.remove(&key);
            let (value, keep) = answer?;
            inner.put(key, value.clone(), Instant::now() + keep);
            Ok(value)
        };
        let flight = flight.boxed().shared();
        // It goes on though whoever asked goes away: else each who comes and goes would cost a question.
        tokio::spawn(flight.clone().map(drop));
        if let Some(weak) = flight.downgrade() {
            inner.flights.insert(key, weak);
        }
        flight
    }
}

fn lock<V: Clone, E: Clone>(inner: &Mutex<Inner<V, E>>) -> MutexGuard<'_, Inner<V, E>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<V: Clone, E: Clone> Inner<V, E> {
    fn find(&mut self, key: &Fingerprint, now: Instant) -> Option<V> {
        let entry = self.entries.get_mut(key)?;
        self.order.remove(&entry.used);
        if entry.until <= now {
            self.entries.remove(key);
            return None;
        }
        self.uses += 1;
        entry.used = self.uses;
        self.order.insert(self.uses, *key);
        Some(entry.value.clone())
    }

    fn put(&mut self, key: Fingerprint, value: V, until: Instant) {
        self.uses += 1;
        let used = self.uses;
        let entry = Entry { value, until, used };
        if let Some(old) = self.entries.insert(key, entry) {
            self.order.remove(&old.used);
        }
        self.order.insert(used, key);
        while self.entries.len() > self.capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }
}

impl<V: Clone, E: Clone> fmt::Debug for Memo<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo")
            .field("entries", &lock(&self.0).entries.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::{
        sync::oneshot,
        time::{advance, sleep},
    };

    use super::*;

    const KEEP: Duration = Duration::from_secs(10);

    fn key(number: u8) -> Fingerprint {
        [number; 32]
    }

    /// Counts what is asked, and answers with the count after a second.
    #[derive(Default)]
    struct Asked(Arc<AtomicUsize>);

    impl Asked {
        fn ask(
            &self,
        ) -> impl Future<Output = Result<(usize, Duration), &'static str>> + Send + use<> {
            let count = self.0.clone();
            async move {
                let answer = count.fetch_add(1, Ordering::Relaxed) + 1;
                sleep(Duration::from_secs(1)).await;
                Ok((answer, KEEP))
            }
        }

        fn times(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_remembered_for_its_time_and_then_asked_for_again() {
        let (memo, asked) = (Memo::<usize, &str>::new(10), Asked::default());
        assert_eq!(memo.get(key(1), || asked.ask()).await, Ok(1));
        advance(KEEP - Duration::from_millis(1)).await;
        assert_eq!(memo.get(key(1), || asked.ask()).await, Ok(1));
        advance(Duration::from_millis(1)).await;
        assert_eq!(memo.get(key(1), || asked.ask()).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_who_ask_the_same_at_once_ask_once() {
        let (memo, asked) = (Memo::<usize, &str>::new(10), Asked::default());
        let all = join_all((0..100).map(|_| memo.get(key(1), || asked.ask()))).await;
        assert!(all.iter().all(|answer| *answer == Ok(1)));
        assert_eq!(asked.times(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_gets_the_answer_though_the_first_to_ask_went_away() {
        let (memo, asked) = (
            Arc::new(Memo::<usize, &str>::new(10)),
            Arc::new(Asked::default()),
        );
        let ask = |memo: &Arc<Memo<_, _>>| {
            let (memo, asked) = (memo.clone(), asked.clone());
            tokio::spawn(async move { memo.get(key(1), || asked.ask()).await })
        };
        let first = ask(&memo);
        tokio::task::yield_now().await;
        let second = ask(&memo);
        tokio::task::yield_now().await;
        first.abort();
        assert_eq!(second.await.unwrap(), Ok(1));
        assert_eq!(asked.times(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_all_gave_up_goes_on_and_is_not_asked_again() {
        let (memo, asked) = (Memo::<usize, &str>::new(10), Asked::default());
        let gave_up =
            tokio::time::timeout(Duration::from_millis(500), memo.get(key(1), || asked.ask()));
        assert!(gave_up.await.is_err());
        assert_eq!(memo.get(key(1), || asked.ask()).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_told_to_all_who_wait_and_not_remembered() {
        let memo = Memo::<usize, &str>::new(10);
        let (send, receive) = oneshot::channel::<()>();
        let failing = memo.get(key(1), || async move {
            let _ = receive.await;
            Err("unreachable")
        });
        let waiting = memo.get(key(1), || async { panic!("it is being asked already") });
        let answers = async {
            let (a, b, _) = tokio::join!(failing, waiting, async { send.send(()) });
            (a, b)
        };
        assert_eq!(answers.await, (Err("unreachable"), Err("unreachable")));
        let asked = Asked::default();
        assert_eq!(memo.get(key(1), || asked.ask()).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_recently_used_answer_goes_first_and_no_more_are_kept_than_allowed() {
        let (memo, asked) = (Memo::<usize, &str>::new(3), Asked::default());
        for number in [1, 2, 3, 1, 4] {
            let _ = memo.get(key(number), || asked.ask()).await;
            assert!(memo.len() <= 3);
        }
        assert_eq!(asked.times(), 4);
        let _ = memo.get(key(1), || asked.ask()).await;
        assert_eq!(asked.times(), 4, "used lately");
        let _ = memo.get(key(2), || asked.ask()).await;
        assert_eq!(asked.times(), 5, "the oldest had to go");
    }
}
