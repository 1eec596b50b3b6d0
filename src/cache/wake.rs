//! Wakes those whom a change concerns, and nobody else.
//!
//! An index by scope, since with a thousand consumers of one pod each, waking all for every change would cost
//! more than sending it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::Notify;

use crate::object::Key;

/// Which changes a subscriber wants to be woken for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WakeScope {
    /// Any change.
    All,
    /// A change in a namespace.
    Namespace(String),
    /// A change of one item.
    One(Key),
}

#[derive(Debug, Default)]
struct Index {
    next: u64,
    scopes: HashMap<WakeScope, HashMap<u64, Arc<Notify>>>,
    /// Woken by every publication, bookmarks included.
    revisions: HashMap<u64, Arc<Notify>>,
}

/// The subscribers of a shard.
#[derive(Debug, Default)]
pub(super) struct Wakers(Mutex<Index>);

/// Ends when dropped.
#[derive(Debug)]
pub struct Subscription {
    wakers: Weak<Wakers>,
    id: u64,
    scopes: Vec<WakeScope>,
}

impl Wakers {
    fn index(&self) -> MutexGuard<'_, Index> {
        // A panic while waking leaves the index whole: nothing is half done in it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `notify` gets a permit for each publication that touches one of the scopes, or, where `scopes` is
    /// empty, for every publication at all, bookmarks included.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        scopes: Vec<WakeScope>,
        notify: &Arc<Notify>,
    ) -> Subscription {
        let mut index = self.index();
        let id = index.next;
        index.next += 1;
        if scopes.is_empty() {
            index.revisions.insert(id, notify.clone());
        }
        for scope in &scopes {
            index
                .scopes
                .entry(scope.clone())
                .or_default()
                .insert(id, notify.clone());
        }
        Subscription {
            wakers: Arc::downgrade(self),
            id,
            scopes,
        }
    }

    /// Wakes whoever subscribed to one of these keys, their namespaces or everything.
    pub(super) fn wake<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        let index = self.index();
        for notify in index.revisions.values() {
            notify.notify_one();
        }
        let mut any = false;
        let narrow = index.scopes.len() > usize::from(index.scopes.contains_key(&WakeScope::All));
        let mut last_namespace: Option<&str> = None;
        for key in keys {
            any = true;
            if !narrow {
                break;
            }
            wake_scope(&index, &WakeScope::One(key.clone()));
            if last_namespace != Some(key.namespace()) {
                wake_scope(&index, &WakeScope::Namespace(key.namespace().to_owned()));
                last_namespace = Some(key.namespace());
            }
        }
        if any {
            wake_scope(&index, &WakeScope::All);
        }
    }

    /// Wakes everybody, for what concerns them all (the kind's state, a new history).
    pub(super) fn wake_all(&self) {
        let index = self.index();
        for notify in index
            .scopes
            .values()
            .flat_map(HashMap::values)
            .chain(index.revisions.values())
        {
            notify.notify_one();
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let index = self.index();
        index.scopes.is_empty() && index.revisions.is_empty()
    }
}

fn wake_scope(index: &Index, scope: &WakeScope) {
    for notify in index
        .scopes
        .get(scope)
        .into_iter()
        .flat_map(HashMap::values)
    {
        notify.notify_one();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(wakers) = self.wakers.upgrade() else {
            return;
        };
        let mut index = wakers.index();
        index.revisions.remove(&self.id);
        for scope in &self.scopes {
            if let Some(subscribers) = index.scopes.get_mut(scope) {
                subscribers.remove(&self.id);
                if subscribers.is_empty() {
                    index.scopes.remove(scope);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use tokio::sync::Notify;

    use super::{WakeScope, Wakers};
    use crate::object::Key;

    fn woken(notify: &Notify) -> bool {
        notify.notified().now_or_never().is_some()
    }

    #[test]
    fn a_change_wakes_those_whose_scope_it_is_in_and_nobody_else() {
        let wakers = Arc::new(Wakers::default());
        let [all, namespace, one, other, revision] =
            std::array::from_fn(|_| Arc::new(Notify::new()));
        let key = Key::new("a", "x");
        let _all = wakers.subscribe(vec![WakeScope::All], &all);
        let _namespace = wakers.subscribe(vec![WakeScope::Namespace("a".into())], &namespace);
        let _one = wakers.subscribe(vec![WakeScope::One(key.clone())], &one);
        let _other = wakers.subscribe(vec![WakeScope::Namespace("b".into())], &other);
        let _revision = wakers.subscribe(Vec::new(), &revision);

        wakers.wake([key].iter());
        assert!(woken(&all) && woken(&namespace) && woken(&one) && woken(&revision));
        assert!(!woken(&other));

        wakers.wake([].iter());
        assert!(woken(&revision), "a bookmark moves the revision");
        assert!(!woken(&all) && !woken(&namespace) && !woken(&one) && !woken(&other));

        wakers.wake_all();
        assert!(woken(&all) && woken(&namespace) && woken(&one) && woken(&other));
    }

    #[test]
    fn a_dropped_subscription_leaves_nothing_behind() {
        let wakers = Arc::new(Wakers::default());
        let notify = Arc::new(Notify::new());
        let scopes = vec![
            WakeScope::Namespace("a".into()),
            WakeScope::Namespace("b".into()),
        ];
        drop(wakers.subscribe(scopes, &notify));
        drop(wakers.subscribe(Vec::new(), &notify));
        assert!(wakers.is_empty());
    }
}
