//! What the machine does when the world around the connection changes: discovery, users, credentials.

use super::*;

impl Machine {
    pub(super) fn on_served(&mut self, now: Instant) -> Step {
        if self.served {
            return Step::keep();
        }
        self.served = true;
        let data = if self.removed {
            Data::Unsync
        } else {
            Data::Keep
        };
        if self.removed {
            (self.removed, self.synced) = (false, false);
            self.need(ListCause::Reappeared, From::MostRecent);
        }
        if !self.wanted(now) {
            self.report = Report::not_used();
            return Step { data, io: Io::Keep };
        }
        Step {
            data,
            io: self.proceed(now),
        }
    }

    pub(super) fn on_gone(&mut self, now: Instant) -> Step {
        if !self.served {
            return Step::keep();
        }
        self.served = false;
        (self.need, self.check, self.fault, self.reopen) = (None, None, None, None);
        // What failed was that the kind was going.
        self.backoff = Backoff::default();
        self.enter(State::Waiting, now);
        // Whatever was complete once is retired, even if nobody used it of late: it must not be remembered.
        self.removed = self.revision.is_some();
        if self.removed {
            self.say(
                Phase::Removed,
                "NotServed",
                "the API server no longer serves this kind",
            );
            return Step {
                data: Data::Retire,
                io: Io::Close,
            };
        }
        self.report = Report::not_served("the API server no longer serves this kind");
        Step {
            data: Data::Discard,
            io: Io::Close,
        }
    }

    /// What it waits for. A kind that was there stays removed.
    pub(super) fn on_absent(&mut self, known: bool, why: &str) -> Step {
        if !self.served && !self.removed {
            self.report = if known {
                Report::not_served(why)
            } else {
                Report {
                    message: why.to_owned().into(),
                    ..Report::starting()
                }
            };
        }
        Step::keep()
    }

    pub(super) fn on_changed(&mut self, now: Instant) -> Step {
        if !self.served {
            return self.on_served(now);
        }
        // Nothing was published yet: then only what is on its way is in the wrong version.
        let mut data = Data::Discard;
        if self.revision.is_some() {
            self.synced = false;
            self.new_history = true;
            self.need(ListCause::Version, From::MostRecent);
            data = Data::Forget;
        }
        let io = match self.state {
            State::Waiting | State::BackingOff(_) => Io::Keep,
            _ => self.proceed(now),
        };
        Step { data, io }
    }

    pub(super) fn on_used(&mut self, now: Instant) -> Step {
        self.used = true;
        self.idle_until = None;
        if !self.served || self.state != State::Waiting {
            return Step::keep();
        }
        if self.need.is_none() && self.revision.is_some() {
            self.need(ListCause::Resumed, From::NotOlderThanOurs);
        }
        Step {
            data: Data::Keep,
            io: self.proceed(now),
        }
    }

    /// Nobody has used the kind for long enough.
    pub(super) fn stop(&mut self, now: Instant) -> Step {
        (self.need, self.check, self.fault, self.reopen) = (None, None, None, None);
        self.synced = false;
        self.report = Report::not_used();
        self.enter(State::Waiting, now);
        if self.new_history {
            // What is still to be told stays to be told.
            self.need(ListCause::History, From::MostRecent);
        }
        Step {
            data: Data::Unsync,
            io: Io::Close,
        }
    }

    /// What failed may have been that it was not there.
    pub(super) fn on_found(&mut self, now: Instant) -> Step {
        if let State::BackingOff(until) = &mut self.state
            && self.fault == Some(Fault::NotFound)
        {
            self.backoff = Backoff::default();
            *until = (*until).min(now + SHORT.mul_f64(self.rng.f64()));
        }
        Step::keep()
    }

    pub(super) fn on_renewed(&mut self, now: Instant) -> Step {
        match &mut self.state {
            State::BackingOff(until) => {
                // These may be the credentials that were missing.
                if matches!(self.fault, Some(Fault::Unauthorized | Fault::Forbidden)) {
                    *until = (*until).min(now + SHORT.mul_f64(self.rng.f64()));
                }
            }
            State::Waiting => {}
            // Forgotten again by the next request, which is sent with the new ones.
            _ => self.reopen = Some(now + RENEWAL_SPREAD.mul_f64(self.rng.f64())),
        }
        Step::keep()
    }
}
