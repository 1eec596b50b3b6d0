//! Runs the configured controllers: who judges which kind, one feed for each kind that anybody reads, one board.

use std::{collections::BTreeMap, sync::Arc};

use tracing::warn;

use super::Daemon;
use crate::{
    cache::{Catalog, Kind, Limits},
    config::{Config, Reads, Start},
    controller::{
        self, Reconciler, Triggers,
        aerospike::{self, Aerospike, Kinds, Role},
        node::NodeController,
        outdated::{self, RestsOn},
        service::ServiceController,
        workload::{self, PodsAndSets, Workload},
    },
    feed::Feed,
    readiness::{Board, Judged},
    upstream::Upstream,
};

/// What all controllers read; a config that leaves that out is refused.
pub(super) fn reads() -> Vec<Reads> {
    [
        NodeController::READS,
        ServiceController::READS,
        Workload::READS,
        Aerospike::READS,
    ]
    .concat()
}

/// Who judges a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judge {
    Node,
    Service,
    Workload,
    Aerospike,
}

/// A kind and who judges it.
type Case = (Arc<Kind>, Judge);

/// Runs them. The config was checked for what they read.
pub(super) fn start(
    daemon: &mut Daemon,
    config: &Config,
    catalog: &Catalog,
    upstream: &Upstream,
) -> Board {
    let cases = cases(config, catalog);
    let names = cases.iter().map(|(kind, _)| kind.name.as_str());
    let board = Board::new(names, Limits::default());
    if cases.is_empty() {
        return board;
    }
    let mut control = Control {
        daemon,
        catalog,
        board: board.clone(),
        feeds: BTreeMap::new(),
        rests_on: Vec::new(),
    };
    control.all(&cases);
    if runs(config, Aerospike::NAME) {
        control.aerospike(config, &cases, upstream);
    }
    let rests_on = control.rests_on;
    let beat = daemon.heartbeats.register("board");
    daemon.until_drained(board.clone().run(beat, daemon.shutdown.clone()));
    let beat = daemon.heartbeats.register("outdated");
    let shutdown = daemon.shutdown.clone();
    daemon.until_drained(outdated::watch(rests_on, config.patience, beat, shutdown));
    board
}

fn runs(config: &Config, name: &str) -> bool {
    config.controllers.iter().any(|named| named.name == name)
}

/// The first that wants a kind judges it. Kinds that are watched on first use only are nobody's: to judge them
/// would be to use them always. What `aerospike` adds to pods and StatefulSets needs them judged.
fn cases(config: &Config, catalog: &Catalog) -> Vec<Case> {
    let runs = |name: &str| runs(config, name);
    let judge = |kind: &Kind| {
        let is_any = |reads: &[Reads]| reads.iter().any(|own| is_called(own, &kind.name));
        let [clusters @ .., pods, sets] = Aerospike::READS else {
            return None;
        };
        let is = |reads: &[Reads]| reads.first().is_some_and(|own| is_called(own, &kind.name));
        if runs(NodeController::NAME) && is(NodeController::READS) {
            Some(Judge::Node)
        } else if runs(ServiceController::NAME) && is(ServiceController::READS) {
            Some(Judge::Service)
        } else if runs(Aerospike::NAME) && is_any(clusters) && !kind.metadata_only {
            Some(Judge::Aerospike)
        } else if (runs(Workload::NAME) && !kind.metadata_only && !workload::leaves_out(&kind.name))
            || (runs(Aerospike::NAME) && is_any(&[*pods, *sets]))
        {
            Some(Judge::Workload)
        } else {
            None
        }
    };
    let kinds = catalog.iter().zip(&config.kinds);
    kinds
        .filter(|(_, config)| config.start == Start::Eager)
        .filter_map(|(kind, _)| Some((kind.clone(), judge(kind)?)))
        .collect()
}

fn is_called(reads: &Reads, name: &str) -> bool {
    let mut names = std::iter::once(&reads.resource).chain(reads.aliases);
    names.any(|own| own.eq_ignore_ascii_case(name))
}

struct Control<'a> {
    daemon: &'a mut Daemon,
    catalog: &'a Catalog,
    board: Board,
    feeds: BTreeMap<String, Feed>,
    rests_on: Vec<RestsOn>,
}

impl Control<'_> {
    fn all(&mut self, cases: &[Case]) {
        let has_parts = cases.iter().any(|(_, judge)| *judge == Judge::Workload);
        let members = if has_parts {
            PodsAndSets::new(self.fed("pods", cases), self.fed("replicasets.apps", cases))
        } else {
            PodsAndSets::default()
        };
        for (kind, judge) in cases {
            let Some(judged) = self.board.kind(&kind.name).cloned() else {
                continue;
            };
            let feed = self.feed(kind);
            match judge {
                Judge::Node => {
                    self.rest(&judged, &[kind]);
                    let triggers = Triggers::of(NodeController::NAME, feed);
                    self.run(
                        NodeController::new(judged),
                        triggers,
                        "controller/node".to_owned(),
                    );
                }
                Judge::Service => {
                    let slices = ServiceController::READS.get(1);
                    let Some(slices) = slices.and_then(|reads| self.find(reads)) else {
                        continue;
                    };
                    self.rest(&judged, &[kind, &slices]);
                    let slices_feed = self.feed(&slices);
                    let service = ServiceController::new(judged, slices);
                    let triggers = service.triggers(feed, slices_feed);
                    self.run(service, triggers, "controller/service".to_owned());
                }
                // All of them together, below.
                Judge::Aerospike => self.rest(&judged, &[kind]),
                Judge::Workload => {
                    self.rest(&judged, &[kind]);
                    let known = Workload::READS.iter();
                    let known = known.filter(|reads| is_called(reads, &kind.name));
                    let role = known.map(|reads| reads.resource).next().unwrap_or_default();
                    let workload = Workload::new(kind.clone(), judged, members.clone());
                    let triggers = workload.triggers(role, feed);
                    let name = format!("controller/workload/{}", kind.name);
                    self.run(workload, triggers, name);
                }
            }
        }
    }

    /// The clusters of both operators, and StatefulSets, are reconciled into one shared state.
    fn aerospike(&mut self, config: &Config, cases: &[Case], upstream: &Upstream) {
        let with_board = |control: &Self, kind: &Arc<Kind>| {
            let judged = control.board.kind(&kind.name)?.clone();
            Some((kind.clone(), judged))
        };
        let [.., pods, sets] = Aerospike::READS else {
            return;
        };
        let find = |control: &Self, reads| with_board(control, &control.find(reads)?);
        let (Some(pods), Some(sets)) = (find(self, pods), find(self, sets)) else {
            warn!(
                "aerospike does not run: pods or statefulsets.apps are watched on first use only"
            );
            return;
        };
        let clusters = cases.iter().filter(|(_, judge)| *judge == Judge::Aerospike);
        let clusters: Vec<_> = clusters
            .filter_map(|(kind, _)| with_board(self, kind))
            .collect();
        let feeds: Vec<_> = clusters
            .iter()
            .map(|(kind, _)| (kind.clone(), self.feed(kind)))
            .collect();
        let (sets_feed, pods_feed) = (self.feed(&sets.0), self.feed(&pods.0));
        let kinds = Kinds {
            clusters: clusters.clone(),
            sets,
            pods,
        };
        let shared = aerospike::Shared::new(kinds, config.aerospike.clone(), upstream.clone());
        let beat = self.daemon.heartbeats.register("aerospike");
        self.daemon.until_drained(aerospike::watch_over(
            shared.clone(),
            config.patience,
            beat,
            self.daemon.shutdown.clone(),
        ));
        let roles = clusters.into_iter().map(|(kind, _)| Role::Clusters(kind));
        for role in roles.chain([Role::Sets]) {
            let name = match &role {
                Role::Clusters(kind) => format!("controller/aerospike/{}", kind.name),
                Role::Sets => "controller/aerospike/statefulsets".to_owned(),
            };
            let controller = Aerospike::new(shared.clone(), role);
            let triggers = controller.triggers(sets_feed.clone(), pods_feed.clone(), &feeds);
            self.run(controller, triggers, name);
        }
    }

    fn run<R: Reconciler>(&mut self, reconciler: R, triggers: Triggers, name: String) {
        let beat = self.daemon.heartbeats.register(name);
        let shutdown = self.daemon.shutdown.clone();
        let settings = controller::Settings {
            // Somebody waits for the verdict; what changes meanwhile is taken together anyway.
            debounce: std::time::Duration::ZERO,
            ..controller::Settings::default()
        };
        self.daemon.until_drained(controller::run(
            reconciler, triggers, settings, beat, shutdown,
        ));
    }

    fn rest(&mut self, judged: &Arc<Judged>, kinds: &[&Arc<Kind>]) {
        self.rests_on.push(RestsOn {
            judged: judged.clone(),
            kinds: kinds.iter().map(|&kind| kind.clone()).collect(),
        });
    }

    /// The kind's feed, which runs from the first time that it is asked for.
    fn feed(&mut self, kind: &Arc<Kind>) -> Feed {
        if let Some(feed) = self.feeds.get(&kind.name) {
            return feed.clone();
        }
        let (feed, runner) = Feed::new(kind.clone());
        let beat = self
            .daemon
            .heartbeats
            .register(format!("feed/{}", kind.name));
        self.daemon
            .until_drained(runner.run(beat, self.daemon.shutdown.clone()));
        self.feeds.insert(kind.name.clone(), feed.clone());
        feed
    }

    /// The kind that the workload controller knows under this name, if it is judged.
    fn fed(&mut self, resource: &str, cases: &[Case]) -> Option<(Arc<Kind>, Feed)> {
        let reads = Workload::READS
            .iter()
            .find(|reads| reads.resource == resource)?;
        let kind = self.find(reads)?;
        let is_judged = cases.iter().any(|(judged, _)| Arc::ptr_eq(judged, &kind));
        is_judged.then(|| {
            let feed = self.feed(&kind);
            (kind, feed)
        })
    }

    fn find(&self, reads: &Reads) -> Option<Arc<Kind>> {
        self.catalog
            .iter()
            .find(|kind| is_called(reads, &kind.name))
            .cloned()
    }
}
