//! Answers that rest on no lease, and have not left the process.
//!
//! Of a stream the rights are looked at for as long as it is sent. An answer that is given once was allowed when it
//! was made, and so was what a stream sent at its end; a consumer that leaves it unread on an open connection could
//! come for it long after its rights are gone. So what has not left soon gets a lease after all, until it has.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::select_all;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{attributes::Attributes, guard::Guard, identity::Subject};

/// Until then nobody looks: nearly all have left.
const SOON: Duration = Duration::from_secs(1);

/// What a call was allowed by.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) guard: Guard,
    pub(super) subject: Subject,
    pub(super) all: Arc<[Attributes]>,
}

/// Those that have not left. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Untaken(Arc<Mutex<Answers>>);

#[derive(Debug, Default)]
struct Answers {
    /// In the order in which they were made, and so of their times.
    open: BTreeMap<u64, Waiting>,
    made: u64,
    /// Whether somebody waits for them.
    is_watched: bool,
}

#[derive(Debug)]
struct Waiting {
    until: Instant,
    claims: Vec<Claim>,
    cut: CancellationToken,
    left: CancellationToken,
}

/// One of them, until it has left and this is dropped.
#[derive(Debug)]
pub(super) struct Answer {
    among: Untaken,
    number: u64,
    left: CancellationToken,
}

impl Untaken {
    /// One more; its connection is cut if it is still there when a right to it is gone.
    pub(super) fn give(&self, claims: Vec<Claim>, cut: &CancellationToken) -> Answer {
        let left = CancellationToken::new();
        let mut answers = self.lock();
        let number = answers.made;
        answers.made += 1;
        let waiting = Waiting {
            until: Instant::now() + SOON,
            claims,
            cut: cut.clone(),
            left: left.clone(),
        };
        answers.open.insert(number, waiting);
        // A process that ends has no runtime, and no consumers either.
        if !answers.is_watched
            && let Ok(runtime) = Handle::try_current()
        {
            answers.is_watched = true;
            runtime.spawn(self.clone().watch());
        }
        let among = self.clone();
        Answer {
            among,
            number,
            left,
        }
    }

    /// As long as there are any.
    async fn watch(self) {
        while let Some(until) = self.hold_late() {
            sleep_until(until).await;
        }
    }

    /// Holds what has not left soon; when the next one's time is up, if there is one.
    fn hold_late(&self) -> Option<Instant> {
        let mut answers = self.lock();
        let now = Instant::now();
        while let Some(first) = answers.open.first_entry() {
            if first.get().until > now {
                return Some(first.get().until);
            }
            tokio::spawn(first.remove().hold());
        }
        answers.is_watched = false;
        None
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Until it has left, or is cut.
    async fn hold(self) {
        let claims = self.claims.into_iter();
        let leases = claims.map(|it| it.guard.hold(&it.subject, it.all, None));
        let leases: Vec<_> = leases.collect();
        let over = leases.iter().map(|lease| Box::pin(lease.when_over()));
        let over: Vec<_> = over.collect();
        if over.is_empty() {
            return;
        }
        tokio::select! {
            _ = select_all(over) => {
                metrics::counter!("informerd_auth_connections_cut_total").increment(1);
                self.cut.cancel();
            }
            () = self.left.cancelled() => {}
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.left.cancel();
        self.among.lock().open.remove(&self.number);
    }
}
