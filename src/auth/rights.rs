//! The rights of streams that stay open: looked for again and again, and what happens when they are gone.
//!
//! An answer is at most ten seconds old when it is used, and asked for again when it is [`Due`]: every sixteen seconds,
//! and soon after permissions have changed. So what is revoked ends within seconds where such changes are seen, and
//! within half a minute where they are not. While the API server cannot be asked, what was open stays open, for a time:
//! to cut every consumer because the API server restarts would make each of its restarts an outage.
//!
//! A task looks, not the stream: a stream whose consumer reads nothing is not run either, and what was made for it
//! waits until it reads. Neither hyper nor tonic lets go of what they have queued for one stream: they ask a body for
//! nothing, not even whether it has failed, before there is room for its last piece, and have no other way to reset it.
//! So it is dropped with the connection.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    AuthError,
    attributes::Attributes,
    changes::{Due, jittered},
    guard::Guard,
    identity::Subject,
    in_flight::Room,
};

/// How soon after the API server could not be asked.
const RETRY: Duration = Duration::from_secs(3);
/// For how long streams go on while it cannot be asked.
const UNPROVEN: Duration = Duration::from_secs(600);
/// How long a stream may take to end by itself, and its consumer to read what it was sent before, until its connection
/// is cut.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why rights are over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// A permission is gone, or the credentials are not believed any more.
    Revoked(AuthError),
    /// The credentials have ended at their time.
    Expired,
    /// Nobody could be asked for too long.
    Unproven(AuthError),
}

impl Over {
    /// For metrics and the log.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Revoked(_) => "revoked",
            Self::Expired => "expired",
            Self::Unproven(_) => "unproven",
        }
    }
}

/// Rights that one or more streams rest on.
pub struct Rights {
    all: Arc<[Attributes]>,
    over: watch::Receiver<Option<Over>>,
    leases: Arc<Mutex<Vec<Weak<Cuts>>>>,
    _looking: AbortOnDropHandle<()>,
}

/// One stream's hold on its rights. The stream ends soon after they are over, and then drops it.
pub struct Lease {
    rights: Arc<Rights>,
    over: watch::Receiver<Option<Over>>,
    cuts: Option<Arc<Cuts>>,
}

/// Of the stream's call, whose connection is cut if it cannot end by itself, because its consumer does not read.
struct Cuts(Room);

impl Drop for Cuts {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

impl Lease {
    /// What they let do: the same list for all streams that rest on the same.
    pub fn all(&self) -> &Arc<[Attributes]> {
        &self.rights.all
    }

    /// Why the rights are over, if they are.
    pub fn over(&self) -> Option<Over> {
        // Looked at for each frame of a stream, so mostly without the lock that all who rest on the same share.
        if matches!(self.over.has_changed(), Ok(false)) {
            return None;
        }
        Some(self.over.borrow().clone().unwrap_or_else(nobody_asks))
    }

    /// Until they are over.
    pub fn when_over(&self) -> impl Future<Output = Over> + Send + use<> {
        let mut over = self.over.clone();
        async move {
            match over.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(over)) => over.clone(),
                _ => nobody_asks(),
            }
        }
    }

    /// Cuts this call's connection if the stream, or what was made for it, is still there two seconds after its rights
    /// ended.
    pub(super) fn cuts(&mut self, room: Room) {
        room.hold(&self.rights.all);
        let cuts = Arc::new(Cuts(room));
        let mut leases = lock(&self.rights.leases);
        if leases.len() == leases.capacity() {
            leases.retain(|lease| lease.strong_count() > 0);
        }
        leases.push(Arc::downgrade(&cuts));
        drop(leases);
        self.cuts = Some(cuts);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("over", &*self.over.borrow())
            .field("cuts", &self.cuts.is_some())
            .finish()
    }
}

/// The rights that are held.
#[derive(Default)]
pub(super) struct Holder(Mutex<HashMap<[u8; 32], Weak<Rights>>>);

/// Rights that nobody holds any more are swept once there are so many entries.
const SWEEP: usize = 1024;

impl Holder {
    /// How many different rights are held, about.
    pub(super) fn count(&self) -> usize {
        let held = lock(&self.0);
        held.values()
            .filter(|rights| rights.strong_count() > 0)
            .count()
    }

    pub(super) fn hold(&self, guard: &Guard, subject: &Subject, all: Arc<[Attributes]>) -> Lease {
        let key = guard.fingerprint(subject, &all);
        let mut held = lock(&self.0);
        let known = held.get(&key).and_then(Weak::upgrade);
        let rights = known.filter(|rights| rights.over.borrow().is_none());
        let rights = rights.unwrap_or_else(|| {
            if held.len() >= SWEEP && held.len() == held.capacity() {
                held.retain(|_, rights| rights.strong_count() > 0);
            }
            let rights = Arc::new(Rights::new(guard.clone(), subject.clone(), all));
            held.insert(key, Arc::downgrade(&rights));
            rights
        });
        Lease {
            over: rights.over.clone(),
            rights,
            cuts: None,
        }
    }
}

impl Rights {
    fn new(guard: Guard, subject: Subject, all: Arc<[Attributes]>) -> Self {
        let (tell, over) = watch::channel(None);
        let leases = Arc::<Mutex<Vec<Weak<Cuts>>>>::default();
        let held = Arc::clone(&leases);
        let asked = Arc::clone(&all);
        let looking = tokio::spawn(async move {
            let reason = look(&guard, subject, &asked).await;
            metrics::counter!("informerd_auth_streams_ended_total", "reason" => reason.as_str())
                .increment(1);
            let all: Vec<_> = lock(&held).drain(..).collect();
            let open = all
                .into_iter()
                .filter_map(|lease| Some((lease.upgrade()?.0.clone(), lease)));
            let open: Vec<_> = open.collect();
            tell.send_replace(Some(reason));
            // By itself: this task ends with the last lease.
            tokio::spawn(last_words(open));
            // Leases still look.
            tell.closed().await;
        });
        Self {
            all,
            over,
            leases,
            _looking: AbortOnDropHandle::new(looking),
        }
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rights")
            .field("over", &*self.over.borrow())
            .finish_non_exhaustive()
    }
}

/// Waits for streams whose rights are over to end, and for what was made for them to leave; then cuts the connections
/// of the others.
async fn last_words(streams: Vec<(Room, Weak<Cuts>)>) {
    let streams = streams.into_iter();
    let streams = streams.map(|(room, lease)| (room.made(), room, lease));
    let streams: Vec<_> = streams.collect();
    sleep(LAST_WORDS).await;
    for (made, room, lease) in streams {
        if lease.strong_count() > 0 || room.left() < made {
            metrics::counter!("informerd_auth_connections_cut_total").increment(1);
            room.cut();
        }
    }
}

/// Until the rights are over.
async fn look(guard: &Guard, mut subject: Subject, all: &[Attributes]) -> Over {
    let mut ends = subject.expires.map(on_our_clock);
    let mut proven = Instant::now();
    let mut due: Due = guard.due();
    let mut retry = None;
    loop {
        tokio::select! {
            () = next(&mut due, retry) => {}
            () = at(ends) => {}
        }
        if ends.is_some_and(|ends| ends <= Instant::now()) {
            return Over::Expired;
        }
        match guard.confirm(&subject, all).await {
            Ok(fresh) => {
                if fresh.expires != subject.expires {
                    ends = fresh.expires.map(on_our_clock);
                }
                subject = fresh;
                proven = Instant::now();
                retry = None;
            }
            Err(error) if !error.is_undecided() => return Over::Revoked(error),
            Err(error) if proven.elapsed() >= UNPROVEN => return Over::Unproven(error),
            // Until the time is up, and not beyond.
            Err(_) => {
                let left = UNPROVEN.saturating_sub(proven.elapsed());
                retry = Some(jittered(RETRY).min(left));
            }
        }
    }
}

/// When to ask next: when that is due, or to try again.
async fn next(due: &mut Due, retry: Option<Duration>) {
    match retry {
        Some(wait) => sleep(wait).await,
        None => due.again().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Whoever looks has failed: then nobody vouches for the rights either.
fn nobody_asks() -> Over {
    Over::Unproven(AuthError::Unavailable("nobody asks any more".to_owned()))
}

/// The clock that nobody sets.
fn on_our_clock(at: SystemTime) -> Instant {
    Instant::now() + at.duration_since(SystemTime::now()).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
