//! How much of a verdict a caller may see: what it says of its target, and of parts only if the caller might get
//! those, too. Else they are counted, and whatever was said of them in words is left out.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    api::{
        Api,
        access::{Access, Admitted, Names},
    },
    proto,
};

/// How long an answer is used on a stream.
const REMEMBER: Duration = Duration::from_secs(10);
const WITHHELD: &str = "(withheld: it tells of objects that you may not get)";

/// See the module's documentation.
pub(super) struct Sight {
    admitted: Admitted,
    /// Nothing where everybody sees all.
    names: Option<Names>,
    may_get: HashMap<(String, String), bool>,
    since: Instant,
    /// The targets of a wait whose verdicts were shortened.
    withheld: HashSet<(String, String, String)>,
}

impl Sight {
    pub(super) fn new(api: &Api, admitted: Admitted) -> Self {
        let names = match &api.0.access {
            Access::Open => None,
            Access::Guarded { names, .. } => Some(names.clone()),
        };
        Self {
            admitted,
            names,
            may_get: HashMap::new(),
            since: Instant::now(),
            withheld: HashSet::new(),
        }
    }

    /// Leaves of a verdict what the caller may see. Whether that is less.
    pub(super) async fn shorten(&mut self, verdict: &mut proto::Verdict) -> bool {
        let Some(names) = self.names.clone() else {
            return false;
        };
        if self.since.elapsed() >= REMEMBER {
            self.since = Instant::now();
            self.may_get.clear();
        }
        for part in &verdict.parts {
            let target = part.target.clone().unwrap_or_default();
            let key = (target.resource, target.namespace);
            if !self.may_get.contains_key(&key) {
                let may = self.admitted.may_get(&names, &key.0, &key.1).await;
                self.may_get.insert(key, may);
            }
        }
        let all = verdict.parts.len();
        verdict.parts.retain(|part| {
            let target = part.target.clone().unwrap_or_default();
            let key = (target.resource, target.namespace);
            self.may_get.get(&key).copied().unwrap_or_default()
        });
        if verdict.parts.len() == all {
            return false;
        }
        verdict.message = WITHHELD.to_owned();
        verdict.details.clear();
        for condition in &mut verdict.conditions {
            condition.message = WITHHELD.to_owned();
            condition.details.clear();
        }
        true
    }

    /// The same for what a wait says of targets that it waits for.
    pub(super) async fn shorten_wait(&mut self, answer: &mut proto::WaitReadinessResponse) {
        for verdict in &mut answer.verdicts {
            let target = named(verdict.target.as_ref());
            if self.shorten(verdict).await {
                self.withheld.insert(target);
            } else {
                self.withheld.remove(&target);
            }
        }
        for missing in &mut answer.missing {
            if self.withheld.contains(&named(missing.target.as_ref())) {
                missing.message = WITHHELD.to_owned();
            }
        }
    }
}

fn named(target: Option<&proto::Target>) -> (String, String, String) {
    let target = target.cloned().unwrap_or_default();
    (target.resource, target.namespace, target.name)
}
