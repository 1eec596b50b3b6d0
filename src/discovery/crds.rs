//! What the watch on CRDs tells: that something changed, which is worth asking again, and of which CRD it is.
//!
//! Discovery does not show all that matters to us. That a CRD was deleted and made anew a moment later is seen by its
//! uid only, that its `selectableFields` were edited by its generation only. Where CRDs may not be watched, nobody
//! tells; then each is looked at every few minutes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tokio::time::Instant;

use super::ResolvedKind;

/// How often a CRD is looked at while the watch on CRDs is not open.
const LOOK_INTERVAL: Duration = Duration::from_secs(300);
/// A line that is longer is not that of metadata: annotations and managed fields have a megabyte together.
const LONGEST_LINE: usize = 4 << 20;

/// One edition of a CRD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Edition {
    /// Another one where it was deleted and made anew.
    #[serde(default)]
    pub(super) uid: String,
    /// Counts its edits.
    #[serde(default)]
    pub(super) generation: i64,
}

/// What is known of one CRD, since when.
#[derive(Clone, Debug)]
pub(super) struct Look {
    at: Instant,
    /// `None` where there is no such CRD, or none that may be read.
    edition: Option<Edition>,
}

/// The CRDs by name, as the watch told last.
#[derive(Debug, Default)]
pub(super) struct Crds(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    open: bool,
    editions: HashMap<String, Edition>,
    /// The beginning of a line.
    line: Vec<u8>,
}

#[derive(Deserialize)]
struct Event {
    r#type: String,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(flatten)]
    edition: Edition,
}

impl Look {
    pub(super) fn new(edition: Option<Edition>) -> Self {
        let at = Instant::now();
        Self { at, edition }
    }
}

impl Crds {
    /// The watch is open: it begins with all that there are.
    pub(super) fn opened(&self) {
        *self.told() = Told {
            open: true,
            ..Told::default()
        };
    }

    /// The watch is not open any more.
    pub(super) fn closed(&self) {
        self.told().open = false;
    }

    /// Some bytes of the watch.
    pub(super) fn take(&self, bytes: &[u8]) {
        let mut told = self.told();
        told.line.extend_from_slice(bytes);
        while let Some(end) = told.line.iter().position(|byte| *byte == b'\n') {
            let rest = told.line.split_off(end + 1);
            let line = std::mem::replace(&mut told.line, rest);
            told.event(&line);
        }
        if told.line.len() > LONGEST_LINE {
            told.line = Vec::new();
        }
    }

    /// Whether what is known of the kind's CRD may be out of date.
    pub(super) fn has_moved(&self, kind: &ResolvedKind, known: &Look) -> bool {
        if !kind.may_be_custom() {
            return false;
        }
        let told = self.told();
        let edition = told.editions.get(&kind.resource());
        match (told.open, edition, &known.edition) {
            (true, None, _) => false,
            (true, Some(edition), Some(known)) => edition != known,
            // Nobody tells, or it may be watched and not read.
            _ => known.at.elapsed() >= LOOK_INTERVAL,
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// Whatever else a line says, it is worth no more than the bell that it is.
    fn event(&mut self, line: &[u8]) {
        let Ok(Event { r#type, object }) = serde_json::from_slice(line) else {
            return;
        };
        let Metadata { name, edition } = object.metadata;
        match r#type.as_str() {
            "ADDED" | "MODIFIED" => drop(self.editions.insert(name, edition)),
            "DELETED" => drop(self.editions.remove(&name)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::kind, *};

    fn line(r#type: &str, uid: &str, generation: i64) -> String {
        let metadata =
            serde_json::json!({"name": "widgets.acme.io", "uid": uid, "generation": generation});
        let event = serde_json::json!({"type": r#type, "object": {"metadata": metadata}});
        format!("{event}\n")
    }

    fn look(uid: &str, generation: i64) -> Look {
        let uid = uid.to_owned();
        Look::new(Some(Edition { uid, generation }))
    }

    #[tokio::test(start_paused = true)]
    async fn another_uid_or_generation_is_worth_a_look_and_nothing_else_is() {
        let (crds, widgets) = (Crds::default(), kind("acme.io", "v1", "Widget", "widgets"));
        crds.opened();
        assert!(!crds.has_moved(&widgets, &look("a", 1)), "not told yet");
        let told = line("ADDED", "a", 1);
        // In pieces, as the network has it.
        crds.take(&told.as_bytes()[..20]);
        crds.take(&told.as_bytes()[20..]);
        crds.take(b"no event\n");
        assert!(!crds.has_moved(&widgets, &look("a", 1)));
        assert!(crds.has_moved(&widgets, &look("a", 2)));
        assert!(crds.has_moved(&widgets, &look("b", 1)));
        let unreadable = Look::new(None);
        assert!(!crds.has_moved(&widgets, &unreadable));
        crds.take(line("MODIFIED", "a", 2).as_bytes());
        assert!(crds.has_moved(&widgets, &look("a", 1)));
        crds.take(line("DELETED", "a", 2).as_bytes());
        assert!(!crds.has_moved(&widgets, &look("a", 1)), "discovery tells");
        crds.take(line("ADDED", "a", 3).as_bytes());
        tokio::time::advance(LOOK_INTERVAL).await;
        assert!(crds.has_moved(&widgets, &unreadable), "now and then");
        let pods = kind("", "v1", "Pod", "pods");
        assert!(!crds.has_moved(&pods, &Look::new(None)));
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_tells_each_crd_is_looked_at_every_few_minutes() {
        let (crds, widgets) = (Crds::default(), kind("acme.io", "v1", "Widget", "widgets"));
        crds.opened();
        crds.take(line("ADDED", "a", 2).as_bytes());
        crds.closed();
        let known = look("a", 1);
        assert!(!crds.has_moved(&widgets, &known));
        tokio::time::advance(LOOK_INTERVAL).await;
        assert!(crds.has_moved(&widgets, &known));
    }
}
