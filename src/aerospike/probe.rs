//! Asks all nodes of a cluster at once.
//!
//! Nodes do not wait for each other: a survey takes about as long as its slowest node, and each has a time limit of
//! its own. What some did not say stands in the survey beside what the others did. Everything runs within the
//! caller's future, without a task of its own, so dropping it closes every connection and forgets every question.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{SinkExt, StreamExt, future::join_all};
use tokio::time::{Instant, timeout_at};
use tokio_util::codec::Framed;

use super::{
    breaker::{Breaker, BreakerSettings, Circuit},
    connect::{Connect, Stream},
    evidence::{Failure, Member, Moment, NodeReport, Round, Survey, Window},
    login::{self, Credentials},
    node::{self, Facts, Question},
    protocol::{Answers, Frame, FrameCodec, FrameType, ProtocolError},
    verdict,
};

/// How nodes are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// How long one node may take for an answer, connecting and logging in included. Where it has namespaces that are
    /// new here it is asked for those too, and has the same time again: else a slow one would fail at first.
    pub timeout: Duration,
    /// When a node is left alone.
    pub breaker: BreakerSettings,
}

/// Asks the nodes of one cluster, and remembers which of them are not worth asking.
#[derive(Debug)]
pub struct Prober {
    connect: Arc<dyn Connect>,
    settings: ProbeSettings,
    credentials: Option<Arc<Credentials>>,
    /// By uid and address: a pod that comes again is not blamed for what it was before.
    breakers: BTreeMap<(String, SocketAddr), Breaker>,
    /// Namespaces that nodes had when they were asked last, so that one round trip is enough.
    namespaces: BTreeSet<String>,
    asked: u64,
}

type Link = Framed<Box<dyn Stream>, FrameCodec>;

/// What is kept of a member within a survey, also when its time is up midway.
#[derive(Default)]
struct Contact {
    link: Option<Link>,
    /// The namespaces that it says it has: the next question then names them, and one round trip is enough.
    namespaces: BTreeSet<String>,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(1),
            breaker: BreakerSettings::default(),
        }
    }
}

impl Prober {
    /// A prober for one cluster. `credentials` are for servers with security on.
    pub fn new(
        connect: Arc<dyn Connect>,
        settings: ProbeSettings,
        credentials: Option<Arc<Credentials>>,
    ) -> Self {
        Self {
            connect,
            settings,
            credentials,
            breakers: BTreeMap::new(),
            namespaces: BTreeSet::new(),
            asked: 0,
        }
    }

    /// Takes other ways to reach nodes, and another login, from the next survey on: certificates and passwords change.
    pub fn set_access(&mut self, connect: Arc<dyn Connect>, credentials: Option<Arc<Credentials>>) {
        self.connect = connect;
        self.credentials = credentials;
    }

    /// How many questions have been put to nodes so far: what probing costs them.
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// What a member's circuit is like now.
    pub fn circuit(&self, member: &Member) -> Circuit {
        let breaker = key(member).and_then(|key| self.breakers.get(&key));
        breaker.map_or(Circuit::Closed, |breaker| {
            breaker.circuit(&self.settings.breaker, Instant::now())
        })
    }

    /// When the first of those that are left alone after this instant may be asked again.
    pub fn reopens_after(&self, instant: Instant) -> Option<Instant> {
        let breakers = self.breakers.values();
        let pauses = breakers.filter_map(|breaker| breaker.reopens(&self.settings.breaker));
        pauses.filter(|at| *at > instant).min()
    }

    /// Closes the circuit of this pod: something about it has changed, so that asking is worth while again at once.
    pub fn forgive(&mut self, uid: &str) {
        self.breakers.retain(|(of, _), _| of != uid);
    }

    /// Asks all members at once, and once more, on the same connections, where the first round found all of them
    /// joined: see [`super::evidence`] for what the second round proves.
    pub async fn survey(&mut self, size: u32, members: &[Member]) -> Survey {
        let base = Moment {
            instant: Instant::now(),
            wall: SystemTime::now(),
        };
        let mut contacts: Vec<_> = members.iter().map(|_| Contact::default()).collect();
        let first = self.round(size, members, &mut contacts, base).await;
        let second = if verdict::worth_a_second_round(size, members, &first) {
            Some(self.round(size, members, &mut contacts, base).await)
        } else {
            None
        };
        Survey { first, second }
    }

    async fn round(
        &mut self,
        size: u32,
        members: &[Member],
        contacts: &mut [Contact],
        base: Moment,
    ) -> Round {
        self.breakers
            .retain(|key, _| members.iter().any(|m| self::key(m).as_ref() == Some(key)));
        let question = Question {
            size,
            namespaces: self.namespaces.clone(),
        };
        let start = Instant::now();
        let this = &*self;
        let all = members.iter().zip(&mut *contacts).map(|(member, contact)| {
            let question = &question;
            async move {
                let outcome = this.ask(member, question, contact, start).await;
                let window = Window {
                    start: base.at(start),
                    end: base.at(Instant::now()),
                };
                NodeReport {
                    member: member.clone(),
                    window,
                    outcome,
                }
            }
        });
        let reports = join_all(all).await;
        self.learn(&reports, contacts, start);
        Round {
            size,
            reports,
            window: Window {
                start: base.at(start),
                end: base.at(Instant::now()),
            },
        }
    }

    async fn ask(
        &self,
        member: &Member,
        question: &Question,
        contact: &mut Contact,
        start: Instant,
    ) -> Result<Facts, Failure> {
        let (uid, address) = key(member).ok_or(Failure::NoAddress)?;
        let settings = &self.settings;
        let breaker = self.breakers.get(&(uid, address));
        if let Some(refusal) = breaker.and_then(|b| b.refusal(&settings.breaker, start)) {
            return Err(refusal);
        }
        let outcome = self.exchange(address, question, contact, start).await;
        if outcome.is_err() {
            contact.link = None;
        }
        outcome
    }

    async fn exchange(
        &self,
        address: SocketAddr,
        question: &Question,
        contact: &mut Contact,
        start: Instant,
    ) -> Result<Facts, Failure> {
        let first = async {
            let link = match &mut contact.link {
                Some(link) => link,
                none => none.insert(self.open(address).await?),
            };
            let answers = info(link, question.commands()).await?;
            Ok::<_, Failure>((link, answers))
        };
        let (link, mut answers) = self.in_time(start, first).await?;
        contact
            .namespaces
            .extend(node::names(&answers).into_iter().flatten());
        let rest = question.rest(&answers);
        if !rest.is_empty() {
            answers.extend(self.in_time(Instant::now(), info(link, rest)).await?);
        }
        Ok(question.facts(&answers)?)
    }

    async fn in_time<T>(
        &self,
        start: Instant,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let limit = self.settings.timeout;
        let late = |_| Err(Failure::TimedOut(limit));
        timeout_at(start + limit, answer).await.unwrap_or_else(late)
    }

    async fn open(&self, address: SocketAddr) -> Result<Link, Failure> {
        let stream = self.connect.connect(address).await?;
        let mut link = Framed::new(stream, FrameCodec);
        if let Some(credentials) = &self.credentials {
            login::read_answer(&trip(&mut link, credentials.login()).await?)?;
        }
        Ok(link)
    }

    fn learn(&mut self, reports: &[NodeReport], contacts: &[Contact], asked: Instant) {
        for report in reports {
            let Some(key) = key(&report.member) else {
                continue;
            };
            let outcome = &report.outcome;
            if !matches!(outcome, Err(Failure::CircuitOpen { .. })) {
                self.asked += 1;
            }
            let breaker = self.breakers.entry(key).or_default();
            breaker.note(asked, outcome.as_ref().map(|_| ()));
        }
        let names = contacts.iter().flat_map(|contact| &contact.namespaces);
        let names: BTreeSet<_> = names.cloned().collect();
        if !names.is_empty() {
            self.namespaces = names;
        }
    }
}

fn key(member: &Member) -> Option<(String, SocketAddr)> {
    Some((member.uid.clone(), member.address?))
}

async fn info(link: &mut Link, commands: Vec<String>) -> Result<Answers, Failure> {
    let answer = trip(link, Frame::request(commands)?).await?;
    if answer.kind != FrameType::Info {
        return Err(Failure::Garbage(
            "a security message came as the answer".to_owned(),
        ));
    }
    Ok(Answers::parse(&answer.body))
}

async fn trip(link: &mut Link, request: Frame) -> Result<Frame, Failure> {
    link.send(request).await?;
    let Some(answer) = link.next().await else {
        return Err(Failure::Broken("it ended before the answer".to_owned()));
    };
    let answer = answer?;
    // What came unasked would else pass for the next question's answer, taken before it was put.
    if !link.read_buffer().is_empty() {
        return Err(Failure::Garbage("more came than was asked for".to_owned()));
    }
    Ok(answer)
}

impl From<ProtocolError> for Failure {
    fn from(error: ProtocolError) -> Self {
        match error {
            ProtocolError::Io(error) => error.into(),
            other => Self::Garbage(other.to_string()),
        }
    }
}
