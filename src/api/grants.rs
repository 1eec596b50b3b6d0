//! Rights of a stream that outlives the loss of some of them.
//!
//! Each part of its scope (a namespace that it names, or all of it) rests on a right of its own. One that goes is
//! taken back from the consumer; it is looked for again for as long as the stream is open, and given back with it.

use std::collections::BTreeSet;

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};

use super::Error;
use crate::auth::{Attributes, AuthError, Guard, Lease, Over, Room, Subject};

/// A part of a scope, and the right to it. The part's name is a namespace's, or empty for all there is.
pub(super) type Grant = (String, Attributes);

/// What has changed about a stream's rights.
#[derive(Debug)]
pub(super) enum Turn {
    /// It goes on.
    Changed {
        /// These parts may not be seen any more.
        taken: BTreeSet<String>,
        /// These may again.
        given: BTreeSet<String>,
    },
    /// The stream must end.
    Over(Error),
}

/// See the module's documentation.
pub(super) struct Grants {
    guard: Guard,
    subject: Subject,
    room: Option<Room>,
    grants: Vec<Grant>,
    /// By the places of the grants; absent where a right is gone. One that is over cuts the connection unless it is
    /// dropped soon.
    leases: Vec<Option<Lease>>,
    waiting: FuturesUnordered<BoxFuture<'static, (usize, Change)>>,
}

enum Change {
    Over(Over),
    Back,
}

impl Grants {
    /// Of these the parts in `withheld` are not there at present.
    pub(super) fn new(
        guard: Guard,
        subject: Subject,
        room: Option<Room>,
        grants: Vec<Grant>,
        withheld: &BTreeSet<String>,
    ) -> Self {
        let mut own = Self {
            guard,
            subject,
            room,
            leases: grants.iter().map(|_| None).collect(),
            grants,
            waiting: FuturesUnordered::new(),
        };
        for at in 0..own.grants.len() {
            match withheld.contains(&own.grants[at].0) {
                true => own.look_for(at),
                false => own.hold(at),
            }
        }
        own
    }

    fn hold(&mut self, at: usize) {
        let all = vec![self.grants[at].1.clone()];
        let lease = self.guard.hold(&self.subject, all, self.room.as_ref());
        let over = lease.when_over();
        self.leases[at] = Some(lease);
        self.waiting
            .push(async move { (at, Change::Over(over.await)) }.boxed());
    }

    fn look_for(&mut self, at: usize) {
        self.leases[at] = None;
        let (guard, subject) = (self.guard.clone(), self.subject.clone());
        let right = self.grants[at].1.clone();
        let mut due = guard.due();
        let found = async move {
            loop {
                due.again().await;
                // As whoever it is by now: it may have come to another group, or have left one.
                let all = std::slice::from_ref(&right);
                if guard.confirm(&subject, all).await.is_ok() {
                    return (at, Change::Back);
                }
            }
        };
        self.waiting.push(found.boxed());
    }

    /// What has changed by now, if anything has.
    pub(super) fn turned(&mut self) -> Option<Turn> {
        // Whoever waits for it asks anew and looks first, so that no wakeup is lost.
        self.turn().now_or_never()
    }

    /// Until something changes; what changes at once is told at once.
    pub(super) async fn turn(&mut self) -> Turn {
        let first = match self.waiting.next().await {
            Some(first) => first,
            None => std::future::pending().await,
        };
        let (mut taken, mut given) = (BTreeSet::new(), BTreeSet::new());
        let mut next = Some(first);
        while let Some((at, change)) = next {
            let part = self.grants[at].0.clone();
            match change {
                Change::Back => {
                    self.hold(at);
                    taken.remove(&part);
                    given.insert(part);
                }
                Change::Over(Over::Revoked(AuthError::Forbidden { .. })) => {
                    self.look_for(at);
                    given.remove(&part);
                    taken.insert(part);
                }
                Change::Over(over) => return Turn::Over(Error::RightsOver(over)),
            }
            next = self.waiting.next().now_or_never().flatten();
        }
        Turn::Changed { taken, given }
    }
}
