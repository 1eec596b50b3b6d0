//! States that a list in pages goes on in.
//!
//! A page's continue token names a revision. While the journal reaches back to it the state can be made again
//! from there; it is kept beside, because making it takes microseconds a change, and because a proven revision
//! may be ahead of the shard's own. Bounded by number, by bytes and by age: what is not there any more is an
//! expired token, which the protocol has an answer for.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    cache::{Shard, State},
    object::Object,
};

/// Most states that are kept.
const MOST: usize = 64;
/// Of one user, so that nobody's lists push out all others'.
const MOST_OF_ONE: usize = 16;
/// How long one is kept after its last use. The API server compacts after as long.
const AGE: Duration = Duration::from_secs(5 * 60);
/// Most bytes that are kept for it and are in no current state any more, about.
const BYTES: usize = 128 << 20;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct FrozenStates(Mutex<VecDeque<Frozen>>);

#[derive(Debug)]
struct Frozen {
    /// For whom it is kept; empty where nobody is asked, and where it is more than one.
    user: String,
    shard: Arc<Shard<Object>>,
    history: u64,
    revision: u64,
    state: Arc<State<Object>>,
    used: Instant,
}

impl Frozen {
    /// Bytes that only this keeps alive, about: as if each change since had replaced an object of average size.
    fn bytes(&self) -> usize {
        let Some(current) = self.shard.state() else {
            return self.state.bytes;
        };
        let changes = current.sequence.saturating_sub(self.state.sequence);
        let count = self.state.objects.len().max(1) as u64;
        let replaced = changes.min(count) * (self.state.bytes as u64 / count);
        usize::try_from(replaced).unwrap_or(usize::MAX)
    }
}

impl FrozenStates {
    /// Keeps a state for a later page of a user. `revision` is what the token says: the state's, or a proven later one.
    pub(super) fn keep(
        &self,
        user: &str,
        shard: &Arc<Shard<Object>>,
        state: &Arc<State<Object>>,
        revision: u64,
        now: Instant,
    ) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frozen) = again(&mut kept, shard, (state.history, revision), now) {
            if frozen.user != user {
                // Then it is nobody's to push out by lists of its own.
                frozen.user.clear();
            }
            return;
        }
        let is_own = |frozen: &Frozen| !user.is_empty() && frozen.user == user;
        if kept.iter().filter(|frozen| is_own(frozen)).count() >= MOST_OF_ONE
            && let Some(oldest) = kept.iter().position(is_own)
        {
            kept.remove(oldest);
        }
        kept.push_back(Frozen {
            user: user.to_owned(),
            shard: shard.clone(),
            history: state.history,
            revision,
            state: light(state),
            used: now,
        });
        trim(&mut kept, now);
    }

    /// What was there at `revision`: kept, or made again; `None` where neither can be.
    pub(super) fn at(
        &self,
        shard: &Arc<Shard<Object>>,
        current: &Arc<State<Object>>,
        revision: u64,
        now: Instant,
    ) -> Option<Arc<State<Object>>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trim(&mut kept, now);
        if let Some(frozen) = again(&mut kept, shard, (current.history, revision), now) {
            return Some(frozen.state.clone());
        }
        if revision > current.revision {
            return None;
        }
        current.at_revision(revision).map(Arc::new)
    }
}

/// One that is kept, as the one that was used last: those at the front go first.
fn again<'a>(
    kept: &'a mut VecDeque<Frozen>,
    shard: &Arc<Shard<Object>>,
    at: (u64, u64),
    now: Instant,
) -> Option<&'a mut Frozen> {
    let found = kept.iter().position(|frozen| {
        Arc::ptr_eq(&frozen.shard, shard) && (frozen.history, frozen.revision) == at
    })?;
    let frozen = kept.remove(found)?;
    kept.push_back(Frozen {
        used: now,
        ..frozen
    });
    kept.back_mut()
}

/// The same without journal and change index, which would be pinned with it.
fn light(state: &Arc<State<Object>>) -> Arc<State<Object>> {
    match state.at_revision(state.revision) {
        Some(light) => Arc::new(light),
        None => state.clone(),
    }
}

fn trim(kept: &mut VecDeque<Frozen>, now: Instant) {
    kept.retain(|frozen| now.saturating_duration_since(frozen.used) <= AGE);
    let mut bytes: usize = kept.iter().map(Frozen::bytes).sum();
    while kept.len() > MOST || bytes > BYTES {
        let Some(oldest) = kept.pop_front() else {
            break;
        };
        bytes -= oldest.bytes().min(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{History, Limits, Unreadable, Writer};

    #[test]
    fn nobodys_lists_push_out_all_others() {
        let now = Instant::now();
        let mut writer = Writer::<Object>::new("", Limits::default(), now);
        let frozen = FrozenStates::default();
        let mut keep = |user: &str, revision: u64| {
            let nothing = Unreadable::default();
            writer.replace(Vec::new(), &nothing, revision, History::Same, now);
            let shard = writer.shard().clone();
            let state = shard.state().unwrap();
            frozen.keep(user, &shard, &state, revision, now);
        };
        keep("bob", 10);
        for revision in 11..100 {
            keep("alice", revision);
        }
        let kept = frozen.0.lock().unwrap();
        let of = |user| kept.iter().filter(|one| one.user == user).count();
        assert_eq!((of("alice"), of("bob")), (MOST_OF_ONE, 1));
        assert_eq!(kept.back().unwrap().revision, 99);
    }

    #[test]
    fn what_somebody_else_uses_too_or_was_used_last_is_not_pushed_out() {
        let now = Instant::now();
        let mut writer = Writer::<Object>::new("", Limits::default(), now);
        let shard = writer.shard().clone();
        let frozen = FrozenStates::default();
        let mut keep = |user: &str, revision: u64| {
            let nothing = Unreadable::default();
            if shard.state().is_none_or(|state| state.revision < revision) {
                writer.replace(Vec::new(), &nothing, revision, History::Same, now);
            }
            let state = shard.state().unwrap();
            frozen.keep(user, &shard, &state, revision, now);
        };
        keep("alice", 10);
        keep("bob", 10);
        keep("alice", 11);
        for revision in 12..100 {
            keep("alice", revision);
            let state = shard.state().unwrap();
            assert!(frozen.at(&shard, &state, 11, now).is_some());
        }
        let kept = frozen.0.lock().unwrap();
        let is_kept = |revision| kept.iter().any(|one| one.revision == revision);
        assert!(is_kept(10) && is_kept(11) && !is_kept(12));
    }
}
