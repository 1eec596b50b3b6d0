//! How many calls each caller has open, and all together, by whichever port they came.
//!
//! What is over the limit is refused while it is new: what is open goes on.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    AuthError,
    in_flight::{InFlight, Room},
    kept::{Kept, Store},
    peer::Peer,
    snapshots::Snapshots,
    untaken::Untaken,
};

/// What callers may have, each and together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls that are open at once, of all callers.
    pub calls: usize,
    /// The same of one identity.
    pub calls_of_one: usize,
    /// New calls a second of one identity; twice as many at once.
    pub calls_per_second: u32,
    /// The same of all.
    pub calls_per_second_of_all: u32,
    /// Bytes that were made for callers and are not written yet, of all. Beyond it no new call is let in.
    pub bytes: usize,
    /// The same of one identity. Beyond it its streams wait, too.
    pub bytes_of_one: usize,
    /// States that are walked for callers at once, of all: lists, and what streams begin with.
    pub snapshots: usize,
    /// The same of one identity.
    pub snapshots_of_one: usize,
    /// Bytes a second that are made of them, of all; twice as many at once.
    pub listed_per_second: u64,
    /// The same of one identity.
    pub listed_per_second_of_one: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 10_000,
            calls_of_one: 2_000,
            calls_per_second: 500,
            calls_per_second_of_all: 5_000,
            bytes: 1 << 30,
            bytes_of_one: 128 << 20,
            snapshots: 4_000,
            snapshots_of_one: 1_000,
            listed_per_second: 1 << 30,
            listed_per_second_of_one: 256 << 20,
        }
    }
}

impl Limits {
    /// Where nobody is asked who it is, all are one.
    fn of_nobody_in_particular(self) -> Self {
        Self {
            calls_of_one: self.calls,
            calls_per_second: self.calls_per_second_of_all,
            bytes_of_one: self.bytes,
            snapshots_of_one: self.snapshots,
            listed_per_second_of_one: self.listed_per_second,
            ..self
        }
    }
}

/// Identities that have nothing open are forgotten once so many are known.
const SWEEP: usize = 1024;

/// Calls that are open, and how many came lately. Clones count together.
#[derive(Clone, Debug)]
pub struct Calls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    open: AtomicUsize,
    in_flight: Arc<InFlight>,
    snapshots: Arc<Snapshots>,
    kept: Arc<Store>,
    untaken: Untaken,
    of_each: Mutex<Each>,
}

#[derive(Debug)]
struct Each {
    own: HashMap<String, Own>,
    /// See [`Own::next`].
    next: Instant,
}

/// Of one identity.
#[derive(Debug)]
struct Own {
    open: usize,
    /// When the next call may come, if calls came at the rate that is allowed.
    next: Instant,
    in_flight: Arc<InFlight>,
    snapshots: Arc<Snapshots>,
    kept: Arc<Store>,
}

/// A call's place among those that are open, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    calls: Calls,
    user: String,
    /// How many its identity had open when it came; none where nobody is asked who it is.
    turn: u32,
    in_flight: Arc<InFlight>,
    snapshots: Arc<Snapshots>,
    kept: Arc<Store>,
}

impl Calls {
    pub(super) fn new(limits: Limits) -> Self {
        let snapshots = Snapshots::new(limits.snapshots, limits.listed_per_second);
        Self(Arc::new(Inner {
            limits,
            open: AtomicUsize::new(0),
            in_flight: Arc::new(InFlight::new(limits.bytes)),
            snapshots: Arc::new(snapshots),
            kept: Arc::new(Store::new(limits.bytes)),
            untaken: Untaken::default(),
            of_each: Mutex::new(Each {
                own: HashMap::new(),
                next: Instant::now(),
            }),
        }))
    }

    /// Of callers that nobody asks who they are: all count as one, and have what there is for all.
    pub fn of_nobody_in_particular(limits: Limits) -> Self {
        Self::new(limits.of_nobody_in_particular())
    }

    /// A place among the calls that are open, if there is one more for this user; its name is empty where nobody is
    /// asked for it.
    pub fn enter(&self, user: &str) -> Result<Slot, AuthError> {
        self.take(user).inspect_err(|_| shed())
    }

    fn take(&self, user: &str) -> Result<Slot, AuthError> {
        let Limits {
            calls,
            calls_of_one,
            ..
        } = self.0.limits;
        let limits = &self.0.limits;
        let now = Instant::now();
        let mut each = self.0.of_each();
        let each = &mut *each;
        if each.own.len() >= SWEEP && each.own.len() == each.own.capacity() {
            each.own.retain(|_, own| own.is_needed(now));
        }
        let own = each.own.entry(user.to_owned()).or_insert_with(|| Own {
            open: 0,
            next: now,
            in_flight: Arc::new(InFlight::new(limits.bytes_of_one)),
            snapshots: Arc::new(Snapshots::new(
                limits.snapshots_of_one,
                limits.listed_per_second_of_one,
            )),
            kept: Arc::new(Store::new(limits.bytes_of_one)),
        });
        let next = turn(own.next, limits.calls_per_second, now)?;
        let next_of_all = turn(each.next, limits.calls_per_second_of_all, now)?;
        let open = self.0.open.load(Ordering::Relaxed);
        if open >= calls {
            return Err(AuthError::TooMany(format!("{open} calls are open")));
        }
        if own.open >= calls_of_one {
            let what = format!("{} calls of {user:?} are open", own.open);
            return Err(AuthError::TooMany(what));
        }
        for (who, in_flight) in [("all", &self.0.in_flight), (user, &own.in_flight)] {
            if in_flight.is_full() {
                let bytes = in_flight.bytes();
                let what = format!("{bytes} bytes of {who:?} are not read yet");
                return Err(AuthError::TooMany(what));
            }
        }
        self.0.kept.check("all")?;
        own.kept.check(user)?;
        own.next = next;
        each.next = next_of_all;
        let turn = match user {
            // Many, for all that is known.
            "" => 0,
            _ => u32::try_from(own.open).unwrap_or(u32::MAX),
        };
        own.open += 1;
        self.0.open.fetch_add(1, Ordering::Relaxed);
        self.0.show_bytes();
        Ok(Slot {
            calls: self.clone(),
            user: user.to_owned(),
            turn,
            in_flight: own.in_flight.clone(),
            snapshots: own.snapshots.clone(),
            kept: own.kept.clone(),
        })
    }
}

impl Inner {
    fn show_bytes(&self) {
        metrics::gauge!("informerd_bytes_in_flight").set(self.in_flight.bytes() as f64);
        metrics::gauge!("informerd_snapshots_held").set(self.snapshots.held() as f64);
    }

    fn of_each(&self) -> MutexGuard<'_, Each> {
        self.of_each.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a call that is refused for what there is already.
pub(super) fn shed() {
    metrics::counter!("informerd_calls_shed_total").increment(1);
}

/// When the one after this call may come, at so many a second. Two seconds' worth may come at once.
fn turn(next: Instant, per_second: u32, now: Instant) -> Result<Instant, AuthError> {
    let interval = Duration::from_secs(1) / per_second.max(1);
    let wait = next.saturating_duration_since(now);
    let at_once = interval * per_second.saturating_mul(2);
    if wait > at_once {
        return Err(AuthError::Busy(wait - at_once));
    }
    Ok(next.max(now) + interval)
}

impl Own {
    /// Whether anything would be forgotten with it.
    fn is_needed(&self, now: Instant) -> bool {
        self.open > 0
            || self.next > now
            || self.in_flight.bytes() > 0
            || self.snapshots.is_needed(now)
    }
}

impl Slot {
    /// What the call's request takes, to be said as it comes.
    pub fn kept(&self) -> Kept {
        Kept::new(&self.user, [&self.kept, &self.calls.0.kept])
    }

    /// What may be on its way to the caller, over this connection.
    pub fn room(&self, peer: &Peer) -> Room {
        let all = &self.calls.0;
        Room::new(
            (&self.user, self.turn),
            // That of all holds up nobody who is here.
            ([&peer.in_flight, &self.in_flight], &all.in_flight),
            [&self.snapshots, &all.snapshots],
            (&peer.cut, &all.untaken),
        )
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let calls = &self.calls.0;
        calls.open.fetch_sub(1, Ordering::Relaxed);
        calls.show_bytes();
        let mut each = calls.of_each();
        if let Some(own) = each.own.get_mut(&self.user) {
            own.open -= 1;
            if !own.is_needed(Instant::now()) {
                each.own.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(limits: Limits) -> Calls {
        Calls::new(limits)
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_cannot_take_what_is_there_for_all() {
        let calls = calls(Limits {
            calls: 5,
            calls_of_one: 3,
            ..Limits::default()
        });
        let mut open: Vec<_> = (0..3).map(|_| calls.take("alice").unwrap()).collect();
        assert!(matches!(calls.take("alice"), Err(AuthError::TooMany(_))));
        open.extend((0..2).map(|_| calls.take("bob").unwrap()));
        assert!(
            matches!(calls.take("bob"), Err(AuthError::TooMany(_))),
            "all of them"
        );
        open.remove(0);
        assert!(calls.take("bob").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn all_callers_together_come_no_faster_than_allowed() {
        let calls = calls(Limits {
            calls_per_second_of_all: 10,
            ..Limits::default()
        });
        let came = (0..100).filter(|n| calls.take(&format!("user-{n}")).is_ok());
        assert_eq!(came.count(), 21, "those of two seconds at once");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_read_what_it_asked_for_may_ask_for_no_more() {
        let calls = calls(Limits {
            bytes: 150,
            bytes_of_one: 100,
            ..Limits::default()
        });
        let slot = calls.take("alice").unwrap();
        let unread = slot.room(&Peer::default()).count(vec![0; 100].into());
        let refused = calls.take("alice").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "100 bytes of \"alice\" are not read yet; try again later, or ask for less at once"
        );
        // It is remembered also when the call is over.
        drop(slot);
        assert!(calls.take("alice").is_err());
        let other = calls.take("bob").unwrap();
        let more = other.room(&Peer::default()).count(vec![0; 50].into());
        assert!(calls.take("carol").is_err(), "all together");
        drop(unread);
        assert!(calls.take("carol").is_ok() && calls.take("alice").is_ok());
        drop(more);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_come_no_faster_than_allowed() {
        let calls = calls(Limits {
            calls_per_second: 10,
            ..Limits::default()
        });
        let came = (0..100).filter(|_| calls.take("alice").is_ok()).count();
        assert_eq!(came, 21, "those of two seconds at once");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(calls.take("alice").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_nobody_asks_who_they_are_have_together_what_there_is_for_all() {
        let calls = Calls::of_nobody_in_particular(Limits {
            calls: 5,
            calls_of_one: 1,
            bytes: 1 << 30,
            bytes_of_one: 1,
            ..Limits::default()
        });
        let open: Vec<_> = (0..5).map(|_| calls.take("").unwrap()).collect();
        let refused = calls.take("").unwrap_err();
        assert!(refused.to_string().starts_with("5 calls are open"));
        let unread = open[0].room(&Peer::default()).count(vec![0; 100].into());
        drop(open);
        assert!(calls.take("").is_ok(), "{} bytes are little", unread.len());
    }
}
