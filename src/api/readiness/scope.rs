//! Which verdicts a call is about.

use std::sync::Arc;

use super::{Api, Case, Error};
use crate::{
    cache::{KeyRange, Select},
    object::{
        Key,
        selector::{LabelSelector, MAX_BYTES as MAX_SELECTOR},
    },
    proto,
    readiness::{State, Verdict},
};

/// What tokens of verdicts are for, instead of a kind.
pub(super) const TOKEN: &str = "readiness";
/// Most names of each sort in a scope.
const MAX_NAMES: usize = 1000;

/// A scope, tied to the kinds that it is about.
#[derive(Clone, Debug)]
pub(super) struct Cases {
    /// In the order of their names.
    pub(super) all: Vec<Case>,
    pub(super) selection: Selection,
    /// What a token is good for.
    pub(super) hash: u64,
}

/// Which verdicts of a kind.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    /// In key order; empty means all.
    namespaces: Arc<[String]>,
    /// Sorted; empty means all.
    names: Arc<[String]>,
    labels: Arc<LabelSelector>,
    /// Empty means all.
    states: Arc<[State]>,
}

impl Cases {
    pub(super) fn find(api: &Api, scope: &proto::ReadinessScope) -> Result<Self, Error> {
        let mut all = if scope.resources.is_empty() {
            let board = &api.0.board;
            let kinds = api.catalog().iter();
            let case = |kind: &Arc<crate::cache::Kind>| {
                Some(Case {
                    judged: board.kind(&kind.name)?.clone(),
                    kind: kind.clone(),
                })
            };
            kinds.filter_map(case).collect()
        } else {
            limit("scope.resources", scope.resources.len())?;
            let resources = scope.resources.iter();
            resources
                .map(|resource| Case::find(api, "scope.resources", resource))
                .collect::<Result<Vec<_>, _>>()?
        };
        all.sort_by(|a, b| a.judged.name().cmp(b.judged.name()));
        all.dedup_by(|a, b| Arc::ptr_eq(&a.judged, &b.judged));
        if all.is_empty() {
            return Err(Error::NotJudged {
                resource: "any kind".to_owned(),
                judged: "none".to_owned(),
            });
        }
        let selection = Selection::new(scope)?;
        let names: Vec<&str> = all.iter().map(|case| case.judged.name()).collect();
        let hash = crate::digest::entry(
            &names.join(","),
            &format!(
                "{}|{}",
                selection.namespaces.join(","),
                selection.names.join(",")
            ),
            &format!("{}|{:?}", selection.labels, selection.states),
        );
        Ok(Self {
            all,
            selection,
            hash,
        })
    }
}

pub(super) fn limit(field: &'static str, count: usize) -> Result<(), Error> {
    if count <= MAX_NAMES {
        return Ok(());
    }
    let problem = format!("{count} of them; at most {MAX_NAMES} are taken: leave it empty for all");
    Err(Error::invalid(field, problem))
}

fn names(field: &'static str, names: &[String]) -> Result<Arc<[String]>, Error> {
    limit(field, names.len())?;
    if let Some(wrong) = names
        .iter()
        .find(|name| name.is_empty() || name.contains('/'))
    {
        let problem = format!("{wrong:?} is not a name; leave the field empty for all");
        return Err(Error::invalid(field, problem));
    }
    let mut names = names.to_vec();
    // Keys of one namespace stand together, in the order of `namespace/`.
    names.sort_by_cached_key(|name| Key::new(name, ""));
    names.dedup();
    Ok(names.into())
}

impl Selection {
    fn new(scope: &proto::ReadinessScope) -> Result<Self, Error> {
        const LABELS: &str = "scope.label_selector";
        if scope.label_selector.len() > MAX_SELECTOR {
            let problem = format!("at most {MAX_SELECTOR} bytes are read");
            return Err(Error::invalid(LABELS, problem));
        }
        let labels = scope.label_selector.parse();
        let labels: LabelSelector = labels.map_err(|error| Error::invalid(LABELS, error))?;
        let state = |state: &i32| match proto::ReadinessState::try_from(*state) {
            Ok(proto::ReadinessState::Ready) => Ok(State::Ready),
            Ok(proto::ReadinessState::NotReady) => Ok(State::NotReady),
            Ok(proto::ReadinessState::Unknown) => Ok(State::Unknown),
            _ => {
                let problem =
                    "only READY, NOT_READY and UNKNOWN can be selected: what is gone is in no list";
                Err(Error::invalid("scope.states", problem))
            }
        };
        limit("scope.states", scope.states.len())?;
        let states: Result<Vec<State>, Error> = scope.states.iter().map(state).collect();
        let mut states = states?;
        states.sort_by_key(|state| state.as_str());
        states.dedup();
        Ok(Self {
            namespaces: names("scope.namespaces", &scope.namespaces)?,
            names: names("scope.names", &scope.names)?,
            labels: Arc::new(labels),
            states: states.into(),
        })
    }
}

impl Select<Verdict> for Selection {
    fn ranges(&self) -> Vec<KeyRange> {
        if self.namespaces.is_empty() {
            return vec![KeyRange::All];
        }
        let namespaces = self.namespaces.iter().cloned();
        namespaces.map(KeyRange::Namespace).collect()
    }

    fn in_scope(&self, key: &Key) -> bool {
        let one_of =
            |all: &[String], name: &str| all.is_empty() || all.iter().any(|one| one == name);
        one_of(&self.namespaces, key.namespace()) && one_of(&self.names, key.name())
    }

    /// Names are looked at here too: they are in no range.
    fn matches(&self, verdict: &Verdict) -> bool {
        let state = verdict.standing.answer.state;
        self.in_scope(crate::cache::Item::key(verdict))
            && (self.states.is_empty() || self.states.contains(&state))
            && self.labels.matches(&verdict.finding.labels)
    }

    fn is_filter(&self) -> bool {
        !self.states.is_empty() || !self.labels.is_everything()
    }

    /// Never: verdicts are encoded for each stream by itself.
    fn is_everything(&self) -> bool {
        false
    }
}
