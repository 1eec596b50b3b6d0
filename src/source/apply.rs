//! Events on their way into the pending list or the writer, and what cannot be read or cannot be.

use super::*;

impl Source {
    pub(super) fn on_line(&mut self, line: &[u8], received: u64, checked: &mut bool) -> bool {
        match Event::read(line) {
            Ok(Event::Change { r#type, object }) => {
                if self.scope.metadata_only && !*checked {
                    if decode::kind_of(object) != "PartialObjectMetadata" {
                        return self.step(Input::Failed(whole_objects()));
                    }
                    *checked = true;
                }
                let decoded = self.decode(object, received).or_else(|error| {
                    // The members may stand in another order than is usual, and `object` have taken too much.
                    match Event::read_any(line) {
                        Ok(Event::Change { object: other, .. }) if other != object => {
                            self.decode(other, received)
                        }
                        _ => Err(error),
                    }
                });
                self.on_change(r#type, decoded)
            }
            Ok(Event::Bookmark { revision, end_mark }) => self.on_bookmark(revision, end_mark),
            Ok(Event::Error(status)) => {
                self.flush();
                self.step(Input::Failed(Failure::in_stream(&status)))
            }
            Err(error) => {
                self.flush();
                let failure = Failure::new(Fault::Garbled, error.to_string());
                self.step(Input::Failed(Failure {
                    in_stream: true,
                    ..failure
                }))
            }
        }
    }

    fn on_bookmark(&mut self, revision: Revision, end_mark: bool) -> bool {
        self.meters.bookmark();
        let revision = self.ordered(revision);
        let now = now();
        let input = if end_mark {
            Input::EndMark(revision.clone())
        } else {
            Input::Bookmark(revision.clone())
        };
        let step = self.machine.step(input, now);
        if step.data == Data::Apply {
            self.writer.advance(revision.number());
            self.writer.set_unproven(self.machine.is_unproven());
            (self.dirty, self.proof) = (true, true);
            if self
                .verified
                .is_none_or(|at| now.saturating_duration_since(at) >= VERIFY_INTERVAL)
            {
                self.verified = Some(now);
                if !self.writer.verify() {
                    tracing::error!("the running digest did not agree with the state: mended");
                }
            }
        }
        self.perform(step, now)
    }

    fn on_change(&mut self, r#type: EventType, decoded: Result<Object, DecodeError>) -> bool {
        self.meters.event(r#type);
        let version = match &decoded {
            Ok(object) => Some(&*object.resource_version),
            Err(error) => error.resource_version.as_deref(),
        };
        let revision = version
            .map(Revision::parse)
            .map(|revision| self.ordered(revision));
        let now = now();
        let step = self.machine.step(Input::Change(revision.clone()), now);
        let sound = match step.data {
            Data::Apply => self.apply(r#type, decoded, revision),
            Data::Fold => {
                self.fold(r#type, decoded);
                true
            }
            _ => true,
        };
        let kept = self.perform(step, now);
        if kept && !sound {
            self.flush();
            return self.step(Input::Suspect);
        }
        kept
    }

    /// Into the pending list.
    fn fold(&mut self, r#type: EventType, decoded: Result<Object, DecodeError>) {
        match (r#type, decoded) {
            (EventType::Deleted, Ok(object)) => self.pending.remove(&object.key),
            (EventType::Deleted, Err(DecodeError { key: Some(key), .. })) => {
                self.pending.remove(&key)
            }
            (_, Ok(object)) => self.pending.insert(object),
            (_, Err(error)) => {
                self.complain(&error);
                self.pending.insert_unreadable(&error);
            }
        }
    }

    /// To the writer. Whether it can be.
    fn apply(
        &mut self,
        r#type: EventType,
        decoded: Result<Object, DecodeError>,
        revision: Option<Revision>,
    ) -> bool {
        if let Err(error) = &decoded
            && (r#type != EventType::Deleted || error.key.is_none())
        {
            self.complain(error);
        }
        let Some(revision) = revision else {
            // Something changed and nobody can say when: a list will tell.
            return false;
        };
        let number = revision.number();
        if number != 0 && number <= self.writer.revision() {
            self.meters.stale.increment(1);
            return !decoded.is_ok_and(|object| self.contradicts(&object));
        }
        let gone = if self.scope.selected {
            Cause::DeletedOrLeft
        } else {
            Cause::Deleted
        };
        match (r#type, decoded) {
            (EventType::Deleted, Ok(object)) => {
                self.writer
                    .delete(&object.key, Some(&object.uid), number, gone);
            }
            (
                EventType::Deleted,
                Err(DecodeError {
                    key: Some(key),
                    uid,
                    ..
                }),
            ) => {
                self.writer.delete(&key, uid.as_deref(), number, gone);
            }
            (_, Ok(object)) => {
                self.writer.upsert(Arc::new(object), number);
            }
            (_, Err(DecodeError { key: Some(key), .. })) => {
                self.writer.mark_stale(&key, number);
            }
            // Whatever it was, the shard goes on.
            (_, Err(_)) => self.writer.advance(number),
        }
        (self.dirty, self.proof) = (true, true);
        true
    }

    /// Whether a change that comes too late is news all the same, which cannot be where versions have an order.
    fn contradicts(&mut self, object: &Object) -> bool {
        self.flush();
        let state = self.writer.shard().state();
        let held = state.as_ref().and_then(|state| state.get(&object.key));
        self.contradicted = held.is_some_and(|held| {
            held.uid() == object.uid() && version_number(&**held) < version_number(object)
        });
        self.contradicted
    }

    pub(super) fn flush(&mut self) {
        let now = now();
        if std::mem::take(&mut self.proof) {
            self.writer.prove(now);
        }
        if std::mem::take(&mut self.dirty) {
            self.writer.publish(now);
        }
    }

    pub(super) fn decode(&self, object: &[u8], received: u64) -> Result<Object, DecodeError> {
        match &self.served {
            Some(served) => served.decoder.decode(object, received),
            None => Err(DecodeError {
                message: "the kind is not served".to_owned(),
                key: None,
                uid: None,
                resource_version: None,
            }),
        }
    }

    pub(super) fn complain(&mut self, error: &DecodeError) {
        use std::sync::atomic::Ordering;
        self.writer
            .shard()
            .counters
            .undecodable
            .fetch_add(1, Ordering::Relaxed);
        let first = match &error.key {
            None => !std::mem::replace(&mut self.complained_of_unnamed, true),
            Some(key) => self.complaints.len() < COMPLAINTS && self.complaints.insert(key.clone()),
        };
        if first {
            tracing::warn!(%error, "cannot decode an object: what is cached of it stays, marked stale");
        }
    }

    pub(super) fn garbled(&mut self, error: &decode::DecodeError) {
        self.flush();
        let fault = match error {
            decode::DecodeError::Partial => Fault::Cut,
            _ => Fault::Garbled,
        };
        self.step(Input::Failed(Failure::new(fault, error.to_string())));
    }

    /// The revision as the kind's versions are: with an order, or without.
    pub(super) fn ordered(&self, revision: Revision) -> Revision {
        match revision {
            Revision::Number(number) if self.kind.is_unordered() => {
                Revision::Opaque(number.to_string().into())
            }
            Revision::Number(_) => revision,
            Revision::Opaque(_) => {
                self.unordered("a resource version is no decimal");
                revision
            }
        }
    }

    pub(super) fn unordered(&self, why: &str) {
        if !self.kind.is_unordered() {
            tracing::warn!(why, "the resource versions of this kind have no order");
            self.kind.set_unordered();
        }
    }

    /// A list became necessary because something came that cannot be.
    pub(super) fn on_disorder(&mut self, now: Instant) {
        if !std::mem::take(&mut self.contradicted) {
            return;
        }
        let before = self.disordered.replace(now);
        if before.is_some_and(|at| now.saturating_duration_since(at) < DISORDER_MEMORY) {
            self.unordered("events came out of order again");
        }
    }
}

pub(super) fn whole_objects() -> Failure {
    Failure::new(
        Fault::Refused,
        "the API server sends whole objects though only metadata was asked for: set `metadataOnly: false` for this kind",
    )
}
