//! Answers that rest on no rights any more, and must be taken soon.
//!
//! Of a stream the rights are looked at for as long as it is sent. An answer that is given once was allowed when it
//! was made, and so was what a stream sent at its end; a consumer that leaves it unread on an open connection could
//! come for it long after its rights are gone. So there is a time for it, and then the connection is cut.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Until an answer must have left the process. With the time for which answers of the API server are remembered it
/// makes less than the 30 s after which nothing reaches whoever may not have it any more.
pub(super) const TAKE_WITHIN: Duration = Duration::from_secs(15);

/// Those that have not left. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Untaken(Arc<Mutex<Answers>>);

#[derive(Debug, Default)]
struct Answers {
    /// In the order in which they were made, and so of their times.
    open: BTreeMap<u64, (Instant, CancellationToken)>,
    made: u64,
    /// Whether somebody looks at them.
    is_watched: bool,
}

/// One of them, until it has left and this is dropped.
#[derive(Debug)]
pub(super) struct Answer {
    among: Untaken,
    number: u64,
}

impl Untaken {
    /// One more; cuts its connection when the time is up.
    pub(super) fn give(&self, cut: &CancellationToken) -> Answer {
        let mut answers = self.lock();
        let number = answers.made;
        answers.made += 1;
        let until = Instant::now() + TAKE_WITHIN;
        answers.open.insert(number, (until, cut.clone()));
        // A process that ends has no runtime, and no consumers either.
        if !answers.is_watched
            && let Ok(runtime) = Handle::try_current()
        {
            answers.is_watched = true;
            runtime.spawn(self.clone().watch());
        }
        let among = self.clone();
        Answer { among, number }
    }

    /// As long as there are any.
    async fn watch(self) {
        while let Some(until) = self.cut_late() {
            sleep_until(until).await;
        }
    }

    /// Cuts what has not been taken in time; when the next one's is up, if there is one.
    fn cut_late(&self) -> Option<Instant> {
        let mut answers = self.lock();
        let now = Instant::now();
        while let Some(first) = answers.open.first_entry() {
            let (until, _) = first.get();
            if *until > now {
                return Some(*until);
            }
            let (_, cut) = first.remove();
            metrics::counter!("informerd_auth_connections_cut_total").increment(1);
            cut.cancel();
        }
        answers.is_watched = false;
        None
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.among.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_taken_in_time_is_cut_off_and_no_other() {
        let untaken = Untaken::default();
        let [taken, left, later] = [0; 3].map(|_| CancellationToken::new());
        for _ in 0..2 {
            let answers = (untaken.give(&taken), untaken.give(&left));
            sleep(TAKE_WITHIN / 2).await;
            let last = untaken.give(&later);
            drop(answers.0);
            sleep(TAKE_WITHIN / 2 - Duration::from_millis(1)).await;
            assert!(!left.is_cancelled());
            drop(answers.1);
            sleep(TAKE_WITHIN).await;
            drop(last);
            // Nobody looks any more: the next one is seen all the same.
            sleep(TAKE_WITHIN).await;
            assert!(!untaken.lock().is_watched);
        }
        assert!(!taken.is_cancelled() && !left.is_cancelled());
        assert!(later.is_cancelled());
    }
}
