//! The machine by itself: what it is told, when, and what it asks for then.

use super::*;
use crate::upstream::ApiStatus;

/// A machine and its time.
struct Sim {
    machine: Machine,
    now: Instant,
}

fn settings(strategy: ListStrategy) -> Settings {
    Settings {
        strategy,
        any: false,
        page_size: 500,
        eager: true,
        timing: Default::default(),
    }
}

fn at(number: u64) -> Revision {
    Revision::Number(number)
}

fn failure(fault: Fault) -> Failure {
    Failure::new(fault, "a message")
}

fn busy(seconds: u64) -> Input {
    Input::Failed(Failure {
        retry_after: Some(Duration::from_secs(seconds)),
        ..failure(Fault::Status)
    })
}

fn sent(step: &Step) -> &Request {
    match &step.io {
        Io::Send(request) => request,
        other => panic!("no request: {other:?}"),
    }
}

fn watched_from(step: &Step) -> &Revision {
    match sent(step) {
        Request::Watch { revision, .. } => revision,
        other => panic!("no watch: {other:?}"),
    }
}

fn list_from(step: &Step) -> (&ListFrom, Option<u32>) {
    match sent(step) {
        Request::List { from, limit } => (from, *limit),
        other => panic!("no list: {other:?}"),
    }
}

impl Sim {
    fn new(settings: Settings) -> Self {
        let now = Instant::now();
        Self {
            machine: Machine::new(settings, 7, now),
            now,
        }
    }

    fn step(&mut self, input: Input) -> Step {
        self.machine.step(input, self.now)
    }

    fn after(&mut self, seconds: f64) -> &mut Self {
        self.now += Duration::from_secs_f64(seconds);
        self
    }

    fn fail(&mut self, fault: Fault) -> Step {
        self.step(Input::Failed(failure(fault)))
    }

    /// Lets time pass until the machine wants a tick.
    fn tick(&mut self) -> Step {
        let deadline = self.machine.deadline().expect("a timer");
        self.now = self.now.max(deadline);
        self.step(Input::Tick)
    }

    fn wait(&self) -> f64 {
        let deadline = self.machine.deadline().expect("a timer");
        deadline.saturating_duration_since(self.now).as_secs_f64()
    }

    fn page(&mut self, revision: u64, next: Option<&str>) -> Step {
        let _ = self.step(Input::Opened);
        let next = next.map(str::to_owned);
        self.step(Input::Page {
            revision: at(revision),
            next,
        })
    }

    fn phase(&self) -> Phase {
        self.machine.report().phase
    }

    /// Pages, listed at this revision, watching.
    fn watching(revision: u64) -> Self {
        let mut sim = Self::new(settings(ListStrategy::Paged));
        let _ = sim.step(Input::Served);
        let _ = sim.page(revision, None);
        let _ = sim.step(Input::Opened);
        assert_eq!(sim.phase(), Phase::Live);
        sim
    }

    /// As `watching`, of a kind that has sent a bookmark.
    fn with_bookmarks(revision: u64) -> Self {
        let mut sim = Self::watching(revision);
        assert_eq!(sim.step(Input::Bookmark(at(revision))).data, Data::Apply);
        sim
    }

    /// A list that is current at this moment.
    fn published(&self, revision: u64, history: History) -> Data {
        Data::Publish {
            revision: at(revision),
            history,
            proven: Some(self.now),
        }
    }

    fn asked(&self) -> Duration {
        match self.machine.state() {
            State::Watching(open) => open.asked,
            other => panic!("{other:?}"),
        }
    }

    fn causes(&mut self) -> Vec<&'static str> {
        self.machine
            .take_begun()
            .into_iter()
            .map(ListCause::as_str)
            .collect()
    }
}

mod around;
mod lists;
mod properties;
mod watches;
