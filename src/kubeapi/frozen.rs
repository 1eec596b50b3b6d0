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
    /// For whom it is kept; empty where nobody is asked.
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
        let same = |frozen: &&mut Frozen| {
            Arc::ptr_eq(&frozen.shard, shard)
                && (frozen.history, frozen.revision) == (state.history, revision)
        };
        if let Some(frozen) = kept.iter_mut().find(same) {
            frozen.used = now;
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
        let found = kept.iter_mut().find(|frozen| {
            Arc::ptr_eq(&frozen.shard, shard)
                && (frozen.history, frozen.revision) == (current.history, revision)
        });
        if let Some(frozen) = found {
            frozen.used = now;
            return Some(frozen.state.clone());
        }
        if revision > current.revision {
            return None;
        }
        current.at_revision(revision).map(Arc::new)
    }
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
}
