//! Whether every eager kind has been listed once, which is when the process is ready.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::cache::{Item, Kind, Shard};

/// Latches: once it was so, it stays so. A kind that is listed anew, or whose API server is away, is served from
/// what is there.
///
/// A kind that the API server does not serve holds nothing up: its CRD may come next year. One that is forbidden
/// does, so that a rollout with too few permissions stops and the replicas before it go on.
#[derive(Debug)]
pub struct FirstSync {
    eager: Vec<Arc<Kind>>,
    done: AtomicBool,
}

impl FirstSync {
    /// Of these kinds: those that are watched whether or not anybody uses them.
    pub fn new(eager: Vec<Arc<Kind>>) -> Self {
        Self {
            eager,
            done: AtomicBool::new(false),
        }
    }

    /// Whether all have been listed.
    pub fn is_done(&self) -> bool {
        self.check().iter().all(|(_, trouble)| trouble.is_none())
    }

    /// Each kind, and what it lacks, if it does.
    pub(super) fn check(&self) -> Vec<(String, Option<String>)> {
        let done = self.done.load(Ordering::Acquire);
        let check = |kind: &Arc<Kind>| {
            let trouble = if done {
                None
            } else {
                kind.shards().iter().find_map(|shard| trouble(shard))
            };
            (format!("kind/{}", kind.name), trouble)
        };
        let checked: Vec<_> = self.eager.iter().map(check).collect();
        if checked.iter().all(|(_, trouble)| trouble.is_none()) {
            self.done.store(true, Ordering::Release);
        }
        checked
    }
}

fn trouble<T: Item>(shard: &Shard<T>) -> Option<String> {
    let status = shard.status();
    if shard.state().is_some() || status.is_not_served() {
        return None;
    }
    let place = match shard.namespace() {
        "" => String::new(),
        namespace => format!(" (namespace {namespace})"),
    };
    let why = match status.message.as_str() {
        "" => status.phase.as_str(),
        message => message,
    };
    Some(format!("not listed yet{place}: {why}"))
}
