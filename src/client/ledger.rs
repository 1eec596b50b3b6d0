//! What a watch has told, in numbers: enough to notice that something was not.
//!
//! Marks carry the digest of what informerd holds of the scope, and what was told has to add up to it. Names and uids
//! are kept as hashes: 40 bytes an object, whatever the objects are. Where two names had the same hash, a watch would
//! begin anew once for nothing; it takes 64 bits to agree for that.

use std::collections::HashMap;

use super::WatchEvent;
use crate::{
    digest,
    object::Key,
    proto::{Changes, ShardPosition, WatchObjectsRequest},
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    held: Parts,
    resets: Vec<(Vec<String>, Parts)>,
    /// All that is held was told here: not where the watch began with a token of its caller's.
    whole: bool,
}

/// By namespace.
type Parts = HashMap<String, Part>;

#[derive(Debug, Default)]
struct Part {
    /// By the hash of the name: the hash of the uid, and what the object adds to the digest.
    objects: HashMap<u64, (u64, u64)>,
    digest: u64,
}

impl Ledger {
    /// For a watch of which marks can have digests; `None` for others.
    pub(super) fn of(request: &WatchObjectsRequest) -> Option<Self> {
        let scope = request.scope.as_ref()?;
        let whole = [&scope.name, &scope.label_selector, &scope.field_selector];
        let all = matches!(request.changes(), Changes::Unspecified | Changes::All);
        (all && whole.iter().all(|narrow| narrow.is_empty())).then(Self::default)
    }

    /// Takes in what is told, in its order.
    pub(super) fn apply(&mut self, event: &WatchEvent) {
        match event {
            WatchEvent::ResetBegin { namespaces, .. } => {
                self.resets.retain(|(open, _)| open != namespaces);
                self.resets.push((namespaces.clone(), Parts::new()));
            }
            WatchEvent::Upsert { object, .. } => {
                let key = Key::new(&object.namespace, &object.name);
                let number = digest::entry(key.as_str(), &object.uid, &object.resource_version);
                let part = self.parts(&object.namespace);
                let part = match part.get_mut(&object.namespace) {
                    Some(part) => part,
                    None => part.entry(object.namespace.clone()).or_default(),
                };
                part.put(&object.name, &object.uid, number);
            }
            WatchEvent::Delete {
                namespace,
                name,
                uid,
                ..
            } => {
                if let Some(part) = self.parts(namespace).get_mut(namespace) {
                    part.remove(name, uid);
                }
            }
            WatchEvent::ResetEnd { namespaces, .. } => self.swap(namespaces),
            WatchEvent::Mark { .. } => {}
            WatchEvent::Reconnecting { .. } => self.resets.clear(),
        }
    }

    /// Nothing is known of what is held, until it is told anew.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether what was told is what informerd holds; `None` where that cannot be said.
    pub(super) fn agrees(&self, positions: &[ShardPosition]) -> Option<bool> {
        let mut known = positions.iter().filter(|position| position.has_digest);
        if !self.whole || !self.resets.is_empty() {
            return None;
        }
        known.next().map(|first| {
            std::iter::once(first)
                .chain(known)
                .all(|position| self.digest(&position.namespace) == position.digest)
        })
    }

    /// Of a shard's namespace; of everything where that is empty.
    fn digest(&self, namespace: &str) -> u64 {
        match namespace {
            "" => self
                .held
                .values()
                .map(|part| part.digest)
                .fold(0, u64::wrapping_add),
            namespace => self.held.get(namespace).map_or(0, |part| part.digest),
        }
    }

    /// Where an event of this namespace belongs: to a reset under way, or to what is held.
    fn parts(&mut self, namespace: &str) -> &mut Parts {
        let reset = self.resets.iter_mut().rev();
        let mut reset = reset.filter(|(covers, _)| covers_namespace(covers, namespace));
        match reset.next() {
            Some((_, parts)) => parts,
            None => &mut self.held,
        }
    }

    fn swap(&mut self, namespaces: &[String]) {
        let at = self.resets.iter().position(|(open, _)| open == namespaces);
        let Some(at) = at else { return };
        let (covers, parts) = self.resets.remove(at);
        self.held
            .retain(|namespace, _| !covers_namespace(&covers, namespace));
        self.held.extend(parts);
        self.whole |= covers.is_empty();
    }
}

impl Part {
    fn put(&mut self, name: &str, uid: &str, number: u64) {
        let held = (digest::fnv1a([uid]), number);
        let old = self.objects.insert(digest::fnv1a([name]), held);
        let (_, old) = old.unwrap_or_default();
        self.digest = self.digest.wrapping_add(number).wrapping_sub(old);
    }

    /// Only the object with this uid.
    fn remove(&mut self, name: &str, uid: &str) {
        let (name, uid) = (digest::fnv1a([name]), digest::fnv1a([uid]));
        if let Some((_, number)) = self
            .objects
            .get(&name)
            .copied()
            .filter(|(held, _)| *held == uid)
        {
            self.objects.remove(&name);
            self.digest = self.digest.wrapping_sub(number);
        }
    }
}

fn covers_namespace(covers: &[String], namespace: &str) -> bool {
    covers.is_empty() || covers.iter().any(|it| it == namespace)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        client::{Error, Mirror, fake::object},
        proto::{DeleteCause, Freshness},
    };

    const NAMESPACES: [&str; 3] = ["", "x", "y"];

    /// Anything that a watch may tell, of a few objects; also what makes no difference, such as a deletion of another
    /// uid, and resets that are cut.
    fn told() -> impl Strategy<Value = WatchEvent> {
        let place = || (0..3usize, 0..3usize, 0..3u32);
        let covers =
            || prop::sample::select(vec![vec![], vec!["x".to_owned()], vec!["y".to_owned()]]);
        prop_oneof![
            6 => (place(), 0..9u32).prop_map(|((namespace, name, uid), version)| {
                let (name, uid) = (format!("o{name}"), uid.to_string());
                let object = object(NAMESPACES[namespace], &name, &uid, &version.to_string());
                WatchEvent::Upsert { object, revision: 1, received_unix_nanos: 0 }
            }),
            4 => place().prop_map(|(namespace, name, uid)| WatchEvent::Delete {
                namespace: NAMESPACES[namespace].to_owned(),
                name: format!("o{name}"),
                uid: uid.to_string(),
                cause: DeleteCause::Deleted,
                revision: 1,
            }),
            1 => covers().prop_map(|namespaces| WatchEvent::ResetBegin {
                reason: String::new(),
                message: String::new(),
                namespaces,
                freshness: Freshness::default(),
            }),
            1 => covers().prop_map(|namespaces| WatchEvent::ResetEnd {
                namespaces,
                token: None,
                freshness: Freshness::default(),
            }),
            1 => Just(WatchEvent::Reconnecting {
                error: Error::Incomplete("cut"),
                delay: std::time::Duration::ZERO,
            }),
        ]
    }

    proptest! {
        #[test]
        fn it_counts_what_a_mirror_holds(events in prop::collection::vec(told(), 0..80)) {
            let (mut ledger, mut mirror) = (Ledger::default(), Mirror::new());
            for event in events {
                ledger.apply(&event);
                mirror.apply(&event);
                prop_assert_eq!(ledger.digest(""), mirror.digest(), "after {:?}", event);
                for namespace in ["x", "y"] {
                    prop_assert_eq!(ledger.digest(namespace), mirror.digest_of_namespace(namespace));
                }
            }
        }
    }
}
