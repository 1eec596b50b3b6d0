//! Leaves a node alone for a while when asking it only wastes time.
//!
//! A mute node costs every survey its whole timeout, and surveys come as often as pods change. After a few failures
//! in a row the circuit opens: the node is not asked until the pause is over, then once (half-open); a further failure
//! opens it again at once, an answer closes it. A survey has its prober to itself, so that one question is all there
//! can be while it is half-open, and a survey that is dropped midway leaves nothing behind to undo.

use std::time::Duration;

use tokio::time::Instant;

use super::evidence::Failure;

/// When a circuit opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open it; at least one.
    pub failures: u32,
    /// How long it stays open, reckoned from when the failed question was asked. Not longer than the probe interval,
    /// or a node that is well again is overlooked for longer than a verdict may be late.
    pub pause: Duration,
}

/// One node's circuit.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    failures: u32,
    last: Option<(Failure, Instant)>,
}

/// What a circuit is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// Ask away.
    Closed,
    /// Do not ask.
    Open,
    /// Ask once, and see.
    HalfOpen,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures: 3,
            pause: Duration::from_secs(1),
        }
    }
}

impl Breaker {
    /// What it is like now.
    pub fn circuit(&self, settings: &BreakerSettings, now: Instant) -> Circuit {
        match self.reopens(settings) {
            None => Circuit::Closed,
            Some(at) if now < at => Circuit::Open,
            Some(_) => Circuit::HalfOpen,
        }
    }

    /// When its pause is over, or was; none while its circuit is closed.
    pub fn reopens(&self, settings: &BreakerSettings) -> Option<Instant> {
        let (_, asked) = self.last.as_ref()?;
        (self.failures >= settings.failures.max(1)).then(|| *asked + settings.pause)
    }

    /// Why not to ask now, if so.
    pub fn refusal(&self, settings: &BreakerSettings, now: Instant) -> Option<Failure> {
        let at = self.reopens(settings).filter(|at| now < *at)?;
        let (last, _) = self.last.as_ref()?;
        Some(Failure::CircuitOpen {
            failures: self.failures,
            last: Box::new(last.clone()),
            wait: at - now,
        })
    }

    /// Notes how a question that was asked at `asked` ended.
    pub fn note(&mut self, asked: Instant, outcome: Result<(), &Failure>) {
        match outcome {
            // A node that wants a login is well and quick; one without an address was not asked.
            Ok(()) | Err(Failure::AuthRequired(_) | Failure::NoAddress) => *self = Self::default(),
            Err(Failure::CircuitOpen { .. }) => {}
            Err(failure) => {
                self.failures = self.failures.saturating_add(1);
                self.last = Some((failure.clone(), asked));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BreakerSettings = BreakerSettings {
        failures: 3,
        pause: Duration::from_secs(2),
    };

    fn failed(times: u32, at: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..times {
            breaker.note(at, Err(&Failure::Refused));
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_an_answer_between_starts_the_count_anew() {
        let now = Instant::now();
        assert_eq!(failed(2, now).circuit(&SETTINGS, now), Circuit::Closed);
        assert_eq!(failed(3, now).circuit(&SETTINGS, now), Circuit::Open);
        let mut breaker = failed(2, now);
        breaker.note(now, Ok(()));
        breaker.note(now, Err(&Failure::Refused));
        assert_eq!(breaker.circuit(&SETTINGS, now), Circuit::Closed);
    }

    #[test]
    fn after_the_pause_one_question_decides() {
        let now = Instant::now();
        let later = now + SETTINGS.pause;
        let mut breaker = failed(3, now);
        assert_eq!(breaker.circuit(&SETTINGS, later), Circuit::HalfOpen);
        assert_eq!(breaker.refusal(&SETTINGS, later), None);
        breaker.note(later, Err(&Failure::TimedOut(Duration::from_secs(1))));
        assert_eq!(breaker.circuit(&SETTINGS, later), Circuit::Open);
        breaker.note(later, Ok(()));
        assert_eq!(breaker.circuit(&SETTINGS, later), Circuit::Closed);
    }

    #[test]
    fn what_it_says_while_open_names_the_cause_and_the_wait() {
        let now = Instant::now();
        let refusal = failed(3, now).refusal(&SETTINGS, now + Duration::from_millis(500));
        let refusal = refusal.unwrap();
        assert_eq!(refusal.cause(), &Failure::Refused);
        let text = refusal.to_string();
        assert!(text.contains("1.5 s") && text.contains("refused"), "{text}");
    }

    #[test]
    fn a_node_that_wants_a_login_is_not_left_alone() {
        let now = Instant::now();
        let mut breaker = failed(2, now);
        breaker.note(now, Err(&Failure::AuthRequired("no".to_owned())));
        breaker.note(now, Err(&Failure::Refused));
        assert_eq!(breaker.circuit(&SETTINGS, now), Circuit::Closed);
    }
}
