//! The model: what is in the cluster, and what the shard was told of that.

use std::collections::HashMap;

use super::{super::*, Set, toy::Toy};

pub(super) const KEYS: usize = 8;
pub(super) const NAMESPACES: [&str; 3] = ["a", "a-b", "b"];

/// A change that the shard was told of.
#[derive(Debug)]
pub(super) struct Logged {
    pub(super) history: u64,
    pub(super) revision: u64,
    pub(super) before: Option<Toy>,
    pub(super) after: Option<Toy>,
}

/// What happened, by all accounts.
#[derive(Default)]
pub(super) struct Records {
    /// Every published state, by its position.
    pub(super) published: HashMap<(u64, u64), Set>,
    pub(super) log: Vec<Logged>,
    /// History of each relist, and the revisions before and after it.
    pub(super) relists: Vec<(u64, u64, u64)>,
}

/// The cluster: what is there, and what happened that the watch has not told yet.
pub(super) struct Upstream {
    pub(super) rng: fastrand::Rng,
    pub(super) revision: u64,
    pub(super) uids: u64,
    pub(super) set: Set,
    pub(super) untold: Vec<(u64, Told)>,
}

pub(super) enum Told {
    Upsert(Toy),
    Delete(Toy),
    Undecodable(Key),
}

impl Upstream {
    pub(super) fn change(&mut self) {
        let at = self.rng.usize(..KEYS * NAMESPACES.len());
        let key = Key::new(
            NAMESPACES[at % NAMESPACES.len()],
            &format!("k{}", at / NAMESPACES.len()),
        );
        self.revision += 1;
        let told = match self.set.get(&key).cloned() {
            Some(old) if self.rng.u8(..4) == 0 => {
                self.set.remove(&key);
                Told::Delete(old)
            }
            Some(old) if self.rng.u8(..20) == 0 => {
                // What is held stays, but it is known to be out of date.
                self.set.insert(key.clone(), old.to_stale());
                Told::Undecodable(key)
            }
            old => {
                self.uids += 1;
                let uid = old.map_or_else(|| format!("u{}", self.uids), |old| old.uid);
                let new = Toy {
                    key: key.clone(),
                    uid,
                    version: self.revision.to_string(),
                    label: self.rng.u8(..2),
                    stale: false,
                };
                self.set.insert(key, new.clone());
                Told::Upsert(new)
            }
        };
        self.untold.push((self.revision, told));
    }
}
