//! WaitReadiness: until targets are as asked for, by evidence that is new enough.
//!
//! A wait that is made right after a write must not be satisfied by what was before it. Where the caller says a
//! version, or a uid and a generation of it, that decides. Else the API server is asked once for the version that the
//! object has now, and what is at or past that counts; where it cannot be asked, whatever the kind is proven to be
//! after the call came. Answers that rest on probes count only if, beside that, the first was sent after the call came.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Status;

use super::{Case, Seen, key, shown, sight::Sight};
use crate::{
    api::{
        Api, Error,
        access::{Admitted, Held},
        ask,
        consumers::{Asked, Caller, Registration},
        now,
    },
    cache::{Doorbell, Subscription, WakeScope},
    object::{Key, Object},
    proto::{self, WaitFor, WaitOutcome},
    readiness::{Basis, Finding, Standing, State, Verdict},
};

/// Most targets of one wait.
const MAX_TARGETS: usize = 256;
/// How long a wait takes where it does not say.
const TIMEOUT: Duration = Duration::from_secs(60);
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// How long the API server may take to say which version is there.
const LIVE: Duration = Duration::from_secs(5);
/// So many are asked for at once.
const AT_ONCE: usize = 8;
/// How often is looked for what wakes nobody: that a kind was proven current.
const LOOK: Duration = Duration::from_millis(200);
/// The name of the condition that says that a target may be disrupted.
const SAFE_TO_DISRUPT: &str = "SafeToDisrupt";

/// One open wait.
pub(super) struct Waiting {
    api: Api,
    targets: Vec<Target>,
    want: Want,
    arrived: std::time::Instant,
    until: Instant,
    bell: Arc<Doorbell>,
    _wakes: Vec<Subscription>,
    asked: bool,
    /// What was last told of each target.
    told: HashMap<usize, (String, String)>,
    begun: bool,
    over: bool,
    registration: Registration,
    held: Held,
    sight: Sight,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Want {
    Ready,
    Gone,
    Condition(String),
}

struct Target {
    case: Case,
    key: Key,
    uid: String,
    min_generation: i64,
    min_version: String,
    floor: Floor,
}

/// From when on what is known of a target counts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Floor {
    /// Nobody has said yet what there is.
    Unknown,
    /// This version was there, or nothing was, after the call came. What the board still showed then of another
    /// uid does not count.
    Known {
        seen: Option<Seen>,
        not: Option<String>,
    },
}

/// Why a target is not as asked for.
struct Missing {
    reason: String,
    message: String,
    /// It never will be.
    hopeless: bool,
}

impl Missing {
    fn new(reason: &str, message: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.into(),
            hopeless: false,
        }
    }
}

impl Waiting {
    pub(super) fn new(
        api: &Api,
        request: proto::WaitReadinessRequest,
        deadline: Option<Duration>,
        admitted: Vec<Admitted>,
        caller: Caller,
    ) -> Result<Self, Error> {
        let want = want(&request)?;
        let timeout = ask::duration("timeout", request.timeout)?.unwrap_or(TIMEOUT);
        if timeout > MAX_TIMEOUT {
            let problem = format!("{timeout:?} is more than {MAX_TIMEOUT:?}");
            return Err(Error::invalid("timeout", problem));
        }
        // Its own timeout would leave the caller without the answer.
        let timeout = deadline.map_or(timeout, |deadline| timeout.min(deadline.mul_f64(0.95)));
        limit(&request)?;
        let asked = asked(&request);
        let mut targets = Vec::new();
        let mut all = Admitted::default();
        for (asked, admitted) in request.targets.into_iter().zip(admitted) {
            let named = asked.target.clone().unwrap_or_default();
            let target = Target::new(api, asked)?;
            target.case.check(&admitted, &named.resource)?;
            targets.push(target);
            all = all.and(admitted);
        }
        let bell = Arc::new(Doorbell::default());
        let wake = |target: &Target| {
            let scope = || vec![WakeScope::One(target.key.clone())];
            let own = target.case.judged.shard().subscribe(scope(), &bell);
            let shards = target.case.kind.shards().iter();
            let objects = shards.map(|shard| shard.subscribe(scope(), &bell));
            std::iter::once(own).chain(objects).collect::<Vec<_>>()
        };
        Ok(Self {
            _wakes: targets.iter().flat_map(wake).collect(),
            api: api.clone(),
            targets,
            want,
            arrived: now(),
            until: Instant::now() + timeout,
            bell,
            asked: false,
            told: HashMap::new(),
            begun: false,
            over: false,
            registration: api.0.consumers.enter("WaitReadiness", caller, None, asked),
            held: all.hold(),
            sight: Sight::new(api, all),
        })
    }

    /// Progress, and at last the outcome.
    pub(super) fn answers(
        self,
    ) -> impl Stream<Item = Result<proto::WaitReadinessResponse, Status>> + Send {
        stream::unfold(self, |mut waiting| async move {
            let mut answer = waiting.next().await?;
            if let Ok(answer) = &mut answer {
                waiting.sight.shorten_wait(answer).await;
                waiting.registration.consumer.sent(1, 0);
            }
            Some((answer.map_err(Status::from), waiting))
        })
    }

    async fn next(&mut self) -> Option<Result<proto::WaitReadinessResponse, Error>> {
        loop {
            if self.over {
                return None;
            }
            if let Some(over) = self.held.over() {
                self.over = true;
                self.registration.consumer.ends(over.reason());
                return Some(Err(over));
            }
            if self.api.is_draining() {
                self.over = true;
                return Some(Err(Error::Draining));
            }
            self.learn();
            let missing: Vec<Option<Missing>> = self
                .targets
                .iter()
                .map(|target| self.missing(target))
                .collect();
            let hopeless = missing.iter().flatten().any(|missing| missing.hopeless);
            // What a silent cache cannot prove, the API server can. A target that seems to be gone is asked for
            // again: a kind that is watched by a selector loses sight of what still exists.
            if !self.asked && !hopeless {
                self.asked = true;
                self.ask().await;
                continue;
            }
            if missing.iter().all(Option::is_none) {
                if self.want == Want::Gone && !self.confirm_gone().await {
                    continue;
                }
                return Some(Ok(self.finish(WaitOutcome::Satisfied, missing)));
            }
            if hopeless {
                return Some(Ok(self.finish(WaitOutcome::Impossible, missing)));
            }
            if Instant::now() >= self.until {
                return Some(Ok(self.finish(WaitOutcome::TimedOut, missing)));
            }
            if let Some(progress) = self.progress(missing) {
                return Some(Ok(progress));
            }
            let look = Instant::now() + LOOK;
            tokio::select! {
                () = self.bell.rung() => {}
                () = sleep_until(look.min(self.until)) => {}
            }
        }
    }

    /// Asks the API server which versions are there, of those targets for which that counts.
    async fn ask(&mut self) {
        let Some(live) = self.api.0.live.clone() else {
            return;
        };
        let until = self.until.min(Instant::now() + LIVE);
        let needed = |target: &&Target| target.floor == Floor::Unknown;
        let questions: Vec<_> = self
            .targets
            .iter()
            .enumerate()
            .filter(|(_, target)| needed(target))
            .filter_map(|(at, target)| Some((at, target.case.kind.identity()?, target.key.clone())))
            .collect();
        let answers = stream::iter(questions).map(|(at, identity, key)| {
            let live = live.clone();
            async move { (at, timeout_at(until, live.see(&identity, &key)).await) }
        });
        let answers: Vec<_> = answers.buffer_unordered(AT_ONCE).collect().await;
        for (at, answer) in answers {
            // Else it is waited for until the kind is proven current.
            if let Ok(Ok(seen)) = answer {
                self.targets[at].know(seen);
            }
        }
    }

    /// One more look by the API server at what the cache takes to be gone. Whether it is.
    async fn confirm_gone(&mut self) -> bool {
        let Some(live) = self.api.0.live.clone() else {
            return true;
        };
        let until = self.until.min(Instant::now() + LIVE);
        for at in 0..self.targets.len() {
            let (case, key) = (&self.targets[at].case, self.targets[at].key.clone());
            let Some(identity) = case.kind.identity() else {
                continue;
            };
            match timeout_at(until, live.see(&identity, &key)).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(seen))) => {
                    let target = &mut self.targets[at];
                    let is_other = !target.uid.is_empty() && target.uid != seen.uid;
                    if !is_other {
                        target.floor = Floor::Known {
                            seen: Some(seen),
                            not: None,
                        };
                        tokio::time::sleep(LOOK).await;
                        return false;
                    }
                }
                // The cache has been proven current since the call came: that has to do.
                Ok(Err(_)) | Err(_) => {}
            }
        }
        true
    }

    /// Learns what there is from kinds that were proven current after the call came.
    fn learn(&mut self) {
        let arrived = self.arrived;
        for target in &mut self.targets {
            if target.floor != Floor::Unknown {
                continue;
            }
            let Some(age) = target.case.kind.age(now()) else {
                continue;
            };
            let proven = now().checked_sub(age);
            if proven.is_some_and(|proven| proven > arrived) {
                let seen = target.cached().map(|object| Seen {
                    uid: object.uid.to_string(),
                    resource_version: object.resource_version.to_string(),
                });
                target.know(seen);
            }
        }
    }

    /// Why the target is not as asked for; nothing if it is.
    fn missing(&self, target: &Target) -> Option<Missing> {
        let verdict = target.case.judged.get(&target.key);
        let verdict = verdict.as_deref();
        if target.case.judged.shard().state().is_none() {
            let status = target.case.judged.shard().status();
            return Some(Missing::new(&status.reason, status.message.clone()));
        }
        match &self.want {
            Want::Gone => target.still_there(verdict),
            want => target.not_yet(verdict, want, self.arrived),
        }
    }

    fn progress(&mut self, missing: Vec<Option<Missing>>) -> Option<proto::WaitReadinessResponse> {
        let mut changed = Vec::new();
        for (at, target) in self.targets.iter().enumerate() {
            let verdict = target.case.judged.get(&target.key);
            let version = verdict.map(|verdict| verdict.revision.to_string());
            let reason = missing[at].as_ref().map(|missing| missing.reason.clone());
            let now = (version.unwrap_or_default(), reason.unwrap_or_default());
            if self.told.get(&at) != Some(&now) {
                self.told.insert(at, now);
                changed.push(target.shown(&self.api));
            }
        }
        if changed.is_empty() && self.begun {
            return None;
        }
        self.begun = true;
        Some(self.answer(WaitOutcome::Unspecified, changed, missing))
    }

    fn finish(
        &mut self,
        outcome: WaitOutcome,
        missing: Vec<Option<Missing>>,
    ) -> proto::WaitReadinessResponse {
        self.over = true;
        let verdicts = self.targets.iter().map(|target| target.shown(&self.api));
        let verdicts = verdicts.collect();
        self.answer(outcome, verdicts, missing)
    }

    fn answer(
        &self,
        outcome: WaitOutcome,
        verdicts: Vec<proto::Verdict>,
        missing: Vec<Option<Missing>>,
    ) -> proto::WaitReadinessResponse {
        let satisfied = missing.iter().filter(|missing| missing.is_none()).count();
        let told = self
            .targets
            .iter()
            .zip(missing)
            .filter_map(|(target, missing)| {
                let missing = missing?;
                Some(proto::MissingTarget {
                    target: Some(target.named()),
                    reason: missing.reason,
                    message: missing.message,
                })
            });
        proto::WaitReadinessResponse {
            outcome: outcome.into(),
            verdicts,
            missing: told.collect(),
            satisfied: u32::try_from(satisfied).unwrap_or(u32::MAX),
        }
    }
}

/// What is asked for, for those who want to know who reads.
fn asked(request: &proto::WaitReadinessRequest) -> Asked {
    let targets = || {
        request
            .targets
            .iter()
            .filter_map(|asked| asked.target.as_ref())
    };
    let names: Vec<&str> = targets().map(|target| target.name.as_str()).collect();
    let mut scope = proto::ReadinessScope {
        resources: targets().map(|target| target.resource.clone()).collect(),
        namespaces: targets().map(|target| target.namespace.clone()).collect(),
        names: vec![names.join(",")],
        ..Default::default()
    };
    for all in [&mut scope.resources, &mut scope.namespaces] {
        all.sort_unstable();
        all.dedup();
    }
    super::asked(scope)
}

/// Whether so many targets can be waited for.
pub(super) fn limit(request: &proto::WaitReadinessRequest) -> Result<(), Error> {
    let count = request.targets.len();
    if (1..=MAX_TARGETS).contains(&count) {
        return Ok(());
    }
    let problem = format!("name 1 to {MAX_TARGETS} targets, not {count}");
    Err(Error::invalid("targets", problem))
}

fn want(request: &proto::WaitReadinessRequest) -> Result<Want, Error> {
    const CONDITION: &str = "condition";
    let want = match WaitFor::try_from(request.wait_for) {
        Ok(WaitFor::Unspecified | WaitFor::Ready) => Want::Ready,
        Ok(WaitFor::Gone) => Want::Gone,
        Ok(WaitFor::SafeToDisrupt) => Want::Condition(SAFE_TO_DISRUPT.to_owned()),
        Ok(WaitFor::Condition) if request.condition.is_empty() => {
            let problem = "name the condition that is waited for, as in \"Available\"";
            return Err(Error::invalid(CONDITION, problem));
        }
        Ok(WaitFor::Condition) => return Ok(Want::Condition(request.condition.clone())),
        Err(_) => {
            let problem = format!("{} is not a value that is known here", request.wait_for);
            return Err(Error::invalid("wait_for", problem));
        }
    };
    if request.condition.is_empty() {
        return Ok(want);
    }
    let problem = "only WAIT_FOR_CONDITION has one; leave it empty";
    Err(Error::invalid(CONDITION, problem))
}

impl Target {
    fn new(api: &Api, asked: proto::WaitTarget) -> Result<Self, Error> {
        let target = asked.target.unwrap_or_default();
        let case = Case::find(api, "targets.target.resource", &target.resource)?;
        let fields = ["targets.target.namespace", "targets.target.name"];
        let key = key(&target, &case.kind, fields)?;
        let version = &asked.min_resource_version;
        if !version.is_empty() && version.parse::<u64>().is_err() {
            let problem = format!(
                "{version:?} is not a resourceVersion; pass metadata.resourceVersion as a write returned it"
            );
            return Err(Error::invalid("targets.min_resource_version", problem));
        }
        if asked.min_generation < 0 {
            let problem = "write a metadata.generation as a write returned it";
            return Err(Error::invalid("targets.min_generation", problem));
        }
        let mut target = Self {
            case,
            key,
            uid: asked.uid,
            min_generation: asked.min_generation,
            min_version: asked.min_resource_version,
            floor: Floor::Unknown,
        };
        // Generations begin anew with each object of the name: alone they say nothing.
        let by_generation = target.min_generation > 0 && !target.uid.is_empty();
        if !target.min_version.is_empty() || by_generation {
            // The caller has said what counts.
            target.floor = Floor::Known {
                seen: None,
                not: None,
            };
        }
        Ok(target)
    }

    fn know(&mut self, seen: Option<Seen>) {
        let shown = self.case.judged.get(&self.key);
        let not = match &seen {
            // The board has not heard of that yet.
            None => shown.map(|verdict| verdict.finding.uid.to_string()),
            Some(_) => None,
        };
        self.floor = Floor::Known { seen, not };
    }

    fn cached(&self) -> Option<Arc<Object>> {
        let shards = self.case.kind.shards().iter();
        let mut states = shards.filter_map(|shard| shard.state());
        states.find_map(|state| state.get(&self.key).cloned())
    }

    fn still_there(&self, verdict: Option<&Verdict>) -> Option<Missing> {
        let is_other = |uid: &str| !self.uid.is_empty() && self.uid != uid;
        let cached = self.cached().filter(|object| !is_other(&object.uid));
        let shown = verdict.filter(|verdict| !is_other(&verdict.finding.uid));
        if let Some(verdict) = shown {
            let answer = &verdict.standing.answer;
            let why = format!(
                "it still exists: {} ({})",
                answer.state.as_str(),
                answer.reason
            );
            return Some(Missing::new("Exists", why));
        }
        if cached.is_some() {
            return Some(Missing::new("Exists", "it still exists"));
        }
        match &self.floor {
            Floor::Unknown => Some(Missing::new(
                "EvidenceTooOld",
                "nobody knows yet whether it existed when the call came",
            )),
            // It was there then, and a change since has taken it away; or it was not.
            Floor::Known { .. } => None,
        }
    }

    fn not_yet(
        &self,
        verdict: Option<&Verdict>,
        want: &Want,
        arrived: std::time::Instant,
    ) -> Option<Missing> {
        if let Some(missing) = self.lost(verdict) {
            return Some(missing);
        }
        let Some(verdict) = verdict else {
            let absent = shown::absent(&self.case, &self.key);
            return Some(Missing::new(&absent.reason, absent.message));
        };
        let standing = match want {
            Want::Condition(name) => match verdict.condition(name) {
                Some(standing) => standing,
                None => {
                    let message = format!("it has no condition {name}");
                    return Some(Missing::new("NoSuchCondition", message));
                }
            },
            Want::Ready | Want::Gone => &verdict.standing,
        };
        let answer = &standing.answer;
        if answer.state != State::Ready {
            return Some(Missing::new(&answer.reason, answer.message.to_string()));
        }
        self.too_old(verdict, standing, arrived)
    }

    /// Whether the one that is meant is there no more, or not yet shown.
    fn lost(&self, verdict: Option<&Verdict>) -> Option<Missing> {
        if self.uid.is_empty() {
            return None;
        }
        let hopeless = |message: String| Missing {
            hopeless: true,
            ..Missing::new("OtherUid", message)
        };
        if let Floor::Known {
            seen: Some(seen), ..
        } = &self.floor
            && seen.uid != self.uid
        {
            return Some(hopeless(format!(
                "there is another of its name, with uid {}",
                seen.uid
            )));
        }
        if let Floor::Known {
            seen: None,
            not: Some(_),
        } = &self.floor
        {
            return Some(hopeless("it does not exist any more".to_owned()));
        }
        match verdict {
            Some(verdict) if *verdict.finding.uid != *self.uid => {
                let Finding {
                    uid,
                    resource_version,
                    ..
                } = &*verdict.finding;
                let other = format!("the verdict is on another of its name, with uid {uid}");
                // One that is newer than what the caller has seen of this one has taken its place.
                let seen = self.min_version.as_str();
                let is_newer = !seen.is_empty()
                    && **resource_version != *seen
                    && is_at_least(resource_version, seen);
                Some(Missing {
                    hopeless: is_newer,
                    ..Missing::new("OtherUid", other)
                })
            }
            _ => None,
        }
    }

    /// Whether a good answer was gathered too early to count.
    fn too_old(
        &self,
        verdict: &Verdict,
        standing: &Standing,
        arrived: std::time::Instant,
    ) -> Option<Missing> {
        let finding = &verdict.finding;
        if finding.generation.unwrap_or_default() < self.min_generation {
            let message = format!(
                "the verdict is on generation {}, not {}",
                finding.generation.unwrap_or_default(),
                self.min_generation
            );
            return Some(Missing::new("OldGeneration", message));
        }
        let version = standing.version.as_deref();
        let version = version.unwrap_or(&finding.resource_version);
        let older = |wanted: &str| {
            (!is_at_least(version, wanted)).then(|| {
                let message = format!("the verdict is on version {version}, not {wanted}");
                Missing::new("OldVersion", message)
            })
        };
        if !self.min_version.is_empty()
            && let Some(missing) = older(&self.min_version)
        {
            return Some(missing);
        }
        if let Basis::Probes { window, .. } = standing.answer.basis
            && window.from < arrived
        {
            self.case.judged.wish(&self.key);
            let message = "the last probes were sent before the call came";
            return Some(Missing::new("EvidenceTooOld", message));
        }
        match &self.floor {
            Floor::Unknown => Some(Missing::new(
                "EvidenceTooOld",
                "nobody knows yet whether that is still so since the call came",
            )),
            Floor::Known {
                seen: Some(seen), ..
            } => older(&seen.resource_version),
            Floor::Known { not: Some(uid), .. } if **uid == *finding.uid => Some(Missing::new(
                "NotFound",
                "it does not exist; the verdict is on one that was there before",
            )),
            Floor::Known { .. } => None,
        }
    }

    fn named(&self) -> proto::Target {
        proto::Target {
            resource: self.case.resource(),
            namespace: self.key.namespace().to_owned(),
            name: self.key.name().to_owned(),
        }
    }

    fn shown(&self, api: &Api) -> proto::Verdict {
        match self.case.judged.get(&self.key) {
            Some(verdict) => shown::verdict(&verdict, &api.0.board),
            None => shown::absent(&self.case, &self.key),
        }
    }
}

/// Whether a version is another or a later one. Those that are no numbers have no order: only the same will do.
fn is_at_least(version: &str, wanted: &str) -> bool {
    match (version.parse::<u64>(), wanted.parse::<u64>()) {
        (Ok(version), Ok(wanted)) => version >= wanted,
        _ => version == wanted,
    }
}
