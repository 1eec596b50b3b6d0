//! Who reads how much from the sandbox: what an API server's audit log would tell, for those who want to compare.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    cache::{Hold, Shard},
    kubeapi::{Opened, Reader},
    object::Object,
};

/// What one user agent has read of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Watches open at the moment.
    pub watches: usize,
    /// The most that were open at once.
    pub most: usize,
    /// Events and listed objects.
    pub events: usize,
    /// Bytes of those.
    pub bytes: usize,
}

/// All reads, by user agent and resource. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<Mutex<BTreeMap<(String, String), Read>>>);

/// One list or watch.
struct Counted {
    traffic: Traffic,
    key: (String, String),
    watch: bool,
}

impl Traffic {
    /// What readers whose user agent begins so have read, by resource.
    pub fn of(&self, user_agent: &str) -> BTreeMap<String, Read> {
        let mut all: BTreeMap<String, Read> = BTreeMap::new();
        for ((agent, resource), read) in &*self.lock() {
            if agent.starts_with(user_agent) {
                let sum = all.entry(resource.clone()).or_default();
                sum.watches += read.watches;
                sum.most += read.most;
                sum.events += read.events;
                sum.bytes += read.bytes;
            }
        }
        all
    }

    pub(super) fn open(&self, opened: &Opened) -> Box<dyn Reader> {
        let resource = opened.resource.identity.resource();
        let counted = Counted {
            traffic: self.clone(),
            key: (opened.user_agent.clone(), resource),
            watch: opened.verb == "watch",
        };
        counted.change(|read| {
            read.watches += usize::from(counted.watch);
            read.most = read.most.max(read.watches);
        });
        Box::new(counted)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Read>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn change(&self, change: impl FnOnce(&mut Read)) {
        change(self.traffic.lock().entry(self.key.clone()).or_default());
    }
}

impl Reader for Counted {
    fn sent(&self, events: usize, bytes: usize) {
        self.change(|read| {
            read.events += events;
            read.bytes += bytes;
        });
    }

    fn hold(&self, _: &Arc<Shard<Object>>, _: Hold<Object>) {}
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.change(|read| read.watches -= usize::from(self.watch));
    }
}
