//! What the machine does when a request fails or a watch ends: now or later, and asking for what.

use super::*;

impl Machine {
    pub(super) fn on_ended(&mut self, whole: bool, now: Instant) -> Step {
        let open = match &self.state {
            State::Watching(open) => open.clone(),
            State::Streaming(_) => {
                let message = "the API server ended the watch before its first state was complete";
                return self.on_failed(Failure::new(Fault::Cut, message), now);
            }
            State::Listing(_) | State::Probing(_) => {
                let message = "the API server's response ended in the middle";
                return self.on_failed(Failure::new(Fault::Cut, message), now);
            }
            State::Waiting | State::BackingOff(_) => return Step::keep(),
        };
        if !whole {
            return self.on_failed(
                Failure::new(Fault::Cut, "the watch was cut in the middle of an event"),
                now,
            );
        }
        let lasted = open.opened.map_or(Duration::ZERO, |opened| {
            now.saturating_duration_since(opened)
        });
        if lasted < SHORT {
            self.shorts += 1;
            if open.changes == 0 || self.shorts >= STUCK {
                let message = "the API server ended the watch as soon as it was open";
                return self.on_failed(Failure::new(Fault::Cut, message), now);
            }
        } else {
            self.shorts = 0;
        }
        // Before its time: somebody restarts, perhaps with another etcd. And a kind without bookmarks has nothing
        // else that would tell.
        if lasted + TIMEOUT_SLACK < open.asked || !self.bookmarks {
            self.check_history(Check::Reconnect);
        }
        if !self.wanted(now) {
            return self.stop(now);
        }
        Step {
            data: Data::Keep,
            io: self.proceed(now),
        }
    }

    pub(super) fn on_failed(&mut self, failure: Failure, now: Instant) -> Step {
        self.failed.push(failure.fault);
        let again = match &self.state {
            State::Waiting | State::BackingOff(_) => return Step::keep(),
            State::Listing(listing) => {
                let later = listing.revision.is_some();
                self.list_failed(&failure, later)
            }
            State::Streaming(_) => self.stream_failed(&failure, now),
            State::Watching(_) => self.watch_failed(&failure, now),
            State::Probing(_) => {
                if failure.fault == Fault::Refused {
                    // It cannot be asked like this; the watch will tell.
                    self.check = None;
                }
                false
            }
        };
        let listing = matches!(self.state, State::Listing(_) | State::Streaming(_));
        let data = if listing { Data::Discard } else { Data::Keep };
        if again {
            return Step {
                data,
                io: self.proceed(now),
            };
        }
        if let Some(moment) = self.moment(&failure) {
            self.enter(State::BackingOff(now + moment), now);
            return Step {
                data,
                io: Io::Close,
            };
        }
        let wait = self.backoff.failed(now, failure.retry_after, &mut self.rng);
        let phase = if failure.fault == Fault::Forbidden {
            Phase::Forbidden
        } else {
            Phase::BackingOff
        };
        self.fault = Some(failure.fault);
        self.reopen = None;
        let mut message = failure.message;
        if failure.fault == Fault::Refused && matches!(self.state, State::Streaming(_)) {
            message.push_str(
                " (write `list: auto` to read in pages where the API server cannot stream a list)",
            );
        }
        self.say(phase, failure.reason, message);
        self.enter(State::BackingOff(now + wait), now);
        Step {
            data,
            io: Io::Close,
        }
    }

    /// How long to wait where the API server asks for a moment, as it does while it takes in an edited CRD: what
    /// was followed until now is followed still, a little later.
    fn moment(&mut self, failure: &Failure) -> Option<Duration> {
        let asked = failure.retry_after.filter(|asked| *asked <= MOMENT)?;
        if self.report.phase != Phase::Live || self.moments == MOMENTS {
            return None;
        }
        self.moments += 1;
        // Not everybody in the same moment.
        Some(asked.mul_f64(1.0 + 0.1 * self.rng.f64()))
    }

    /// Whether to try again at once, in another way.
    fn list_failed(&mut self, failure: &Failure, later_page: bool) -> bool {
        let Some(need) = &mut self.need else {
            return false;
        };
        match failure.fault {
            Fault::Expired => {
                need.from = From::MostRecent;
                need.expired += 1;
                // It takes longer to read page by page than the API server remembers: then all at once.
                need.paged &= need.expired < STUCK;
                need.expired <= STUCK
            }
            Fault::Refused if later_page => std::mem::take(&mut need.paged),
            Fault::Refused if need.from != From::MostRecent => {
                need.from = From::MostRecent;
                true
            }
            Fault::Refused => std::mem::take(&mut need.paged),
            Fault::TooNew => {
                self.too_new();
                false
            }
            _ => false,
        }
    }

    fn stream_failed(&mut self, failure: &Failure, now: Instant) -> bool {
        let Some(need) = &mut self.need else {
            return false;
        };
        match failure.fault {
            Fault::Expired => {
                need.from = From::MostRecent;
                need.expired += 1;
                need.expired <= STUCK
            }
            Fault::Refused if self.settings.strategy == ListStrategy::Auto => {
                self.streams_refused = Some(now);
                true
            }
            Fault::TooNew => {
                self.too_new();
                false
            }
            Fault::Status | Fault::Timeout | Fault::Cut | Fault::Garbled => {
                need.streams += 1;
                false
            }
            _ => false,
        }
    }

    fn too_new(&mut self) {
        let Some(need) = &mut self.need else {
            return;
        };
        need.too_new += 1;
        if need.too_new >= STUCK {
            need.too_new = 0;
            self.check_history(Check::TooNew);
        }
    }

    fn watch_failed(&mut self, failure: &Failure, now: Instant) -> bool {
        if failure.fault == Fault::Expired {
            self.need(ListCause::Expired, From::MostRecent);
            return self
                .listed
                .is_none_or(|at| now.saturating_duration_since(at) >= SOON);
        }
        self.check_history(Check::Reconnect);
        if failure.in_stream || failure.fault == Fault::Refused {
            self.stuck += 1;
            if self.stuck >= STUCK {
                self.stuck = 0;
                self.need(ListCause::Error, From::MostRecent);
            }
        }
        false
    }
}
