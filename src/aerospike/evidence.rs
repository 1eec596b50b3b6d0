//! What was asked of whom, when, and what came back: all that a verdict rests on.
//!
//! One round of answers is not enough to say that there was an instant at which all nodes were well: the first may
//! have fallen ill before the last got well. So a survey asks twice, and begins the second round when the first has
//! ended. A node that was well both times, in the same cluster (keys never come back) and without a restart, was
//! well at the instant between the rounds, and so were all the others: one instant, which the window holds. What a
//! node could hide is only that a flag turned bad and good again within those milliseconds; servers review
//! stop-writes every ten seconds, clocks drift slowly, and the rest does not turn back under one cluster key.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    login::LoginError,
    node::{Facts, FactsError},
};

/// A pod that is to be a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The pod's uid: what evidence is kept by. A pod of the same name and another uid is another member.
    pub uid: String,
    /// The pod's name, for people.
    pub name: String,
    /// Where its info protocol is: the pod's IP and the service port. None while it has no IP.
    pub address: Option<SocketAddr>,
    /// How often its container has been restarted, and since when it runs, as the pod's status says.
    pub incarnation: Incarnation,
}

/// Tells one run of a container from the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Incarnation {
    /// `restartCount`.
    pub restarts: u32,
    /// `state.running.startedAt`.
    pub started: Option<SystemTime>,
}

/// An instant on both clocks: the monotonic one to reckon with, the wall's to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic.
    pub instant: Instant,
    /// The wall's; within a survey it moves with the monotonic one, whatever NTP does meanwhile.
    pub wall: SystemTime,
}

/// The span in which every answer was taken, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// When the first node was asked.
    pub start: Moment,
    /// When the last answer, or the last failure, was known.
    pub end: Moment,
}

/// What one member answered, or why it did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Whom, as known when it was asked.
    pub member: Member,
    /// From the request's going out, connecting included, to the answer's being read.
    pub window: Window,
    /// What came back.
    pub outcome: Result<Facts, Failure>,
}

/// All members, asked at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// N, as it was asked for.
    pub size: u32,
    /// One for each member, in the order in which they were given.
    pub reports: Vec<NodeReport>,
    /// Holds the windows of all reports.
    pub window: Window,
}

/// One round, and a second one where the first found nothing amiss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The first round.
    pub first: Round,
    /// The second, begun after the first had ended.
    pub second: Option<Round>,
}

/// Why a member gave no facts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The pod has no IP yet.
    #[error("the pod has no IP yet")]
    NoAddress,
    /// Nothing listens: a server opens its port once its storage is loaded.
    #[error("the connection was refused: the server is starting, or has stopped")]
    Refused,
    /// No answer in time.
    #[error("no answer within {}", seconds(.0))]
    TimedOut(Duration),
    /// The connection broke before the answer was complete.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// No secure connection.
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
    /// Something answered that does not speak the protocol.
    #[error("garbage: {0}")]
    Garbage(String),
    /// The server wants a login, and none is configured or this user may not ask.
    #[error("{0}")]
    AuthRequired(String),
    /// The login was not accepted.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// It failed too often in a row, and is left alone for a while.
    #[error("not asked again for {}, after {failures} failures in a row; the last: {last}", seconds(.wait))]
    CircuitOpen {
        /// How many in a row.
        failures: u32,
        /// The last of them.
        last: Box<Failure>,
        /// How long it is still left alone.
        wait: Duration,
    },
}

impl Failure {
    /// What went wrong on the wire, looking through an open circuit.
    pub fn cause(&self) -> &Self {
        match self {
            Self::CircuitOpen { last, .. } => last.cause(),
            other => other,
        }
    }

    /// A word for metrics and reasons.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoAddress => "NoAddress",
            Self::Refused => "Refused",
            Self::TimedOut(_) => "TimedOut",
            Self::Broken(_) => "Broken",
            Self::Tls(_) => "TlsFailed",
            Self::Garbage(_) => "Garbage",
            Self::AuthRequired(_) => "AuthRequired",
            Self::Login(_) => "LoginFailed",
            Self::CircuitOpen { .. } => "CircuitOpen",
        }
    }
}

impl From<FactsError> for Failure {
    fn from(error: FactsError) -> Self {
        match error {
            FactsError::AuthRequired(_) => Self::AuthRequired(error.to_string()),
            FactsError::Garbage(what) => Self::Garbage(what),
        }
    }
}

impl Moment {
    /// The moment that is `instant`, seen from this one.
    pub fn at(self, instant: Instant) -> Self {
        let wall = if instant >= self.instant {
            self.wall.checked_add(instant - self.instant)
        } else {
            self.wall.checked_sub(self.instant - instant)
        };
        Self {
            instant,
            wall: wall.unwrap_or(self.wall),
        }
    }
}

impl Window {
    /// How long it is.
    pub fn span(&self) -> Duration {
        self.end.instant - self.start.instant
    }
}

impl Round {
    /// What the member of this uid answered.
    pub fn report(&self, uid: &str) -> Option<&NodeReport> {
        self.reports.iter().find(|report| report.member.uid == uid)
    }
}

impl Survey {
    /// The newest round.
    pub fn latest(&self) -> &Round {
        self.second.as_ref().unwrap_or(&self.first)
    }

    /// From the first question of the first round to the last answer of the last.
    pub fn window(&self) -> Window {
        Window {
            start: self.first.window.start,
            end: self.latest().window.end,
        }
    }
}

fn seconds(duration: &Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
