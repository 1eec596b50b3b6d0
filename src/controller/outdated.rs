//! Watches over what verdicts rest on: a kind of which nothing was heard for too long proves nothing any more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    cache::{Kind, Phase},
    config::Patience,
    heartbeat::Heartbeat,
    object::Key,
    readiness::Judged,
    shutdown::Shutdown,
};

/// How often it looks.
pub(super) const EVERY: Duration = Duration::from_millis(200);

/// What the verdicts on a kind rest on.
#[derive(Clone, Debug)]
pub struct RestsOn {
    /// The verdicts.
    pub judged: Arc<Judged>,
    /// The kind that is judged, and others that count as much.
    pub kinds: Vec<Arc<Kind>>,
}

/// Says once what there is to judge, and from then on whether it still counts. Until draining begins.
pub async fn watch(
    all: Vec<RestsOn>,
    patience: Patience,
    heartbeat: Heartbeat,
    shutdown: Shutdown,
) {
    let mut tick = tokio::time::interval(EVERY);
    let mut waiting = all.clone();
    loop {
        tokio::select! {
            () = shutdown.draining() => return,
            _ = tick.tick() => {}
        }
        heartbeat.beat();
        waiting.retain(|one| !announce(one));
        let now = tokio::time::Instant::now().into_std();
        for one in &all {
            let mut why = one
                .kinds
                .iter()
                .filter_map(|kind| outdated(kind, patience, now));
            let why = why.next();
            let why = why.as_ref().map(|message| ("Stale", message.as_str()));
            one.judged.set_outdated(why);
        }
    }
}

/// Tells the board what there is, once that is known. Whether it was.
fn announce(one: &RestsOn) -> bool {
    let Some(own) = one.kinds.first() else {
        return true;
    };
    let states: Option<Vec<_>> = own.shards().iter().map(|shard| shard.state()).collect();
    let Some(states) = states else {
        let status = own.shards().first().map(|shard| shard.status());
        if let Some(status) = status.filter(|status| status.is_not_served()) {
            one.judged.expect_nothing_yet(&status);
        }
        return false;
    };
    let keys: Vec<Key> = states
        .iter()
        .flat_map(|state| state.objects.keys().cloned().collect::<Vec<_>>())
        .collect();
    one.judged.expect(keys);
    true
}

/// Why the kind proves nothing at the moment, if so. The same words as long as nothing changes.
pub(super) fn outdated(kind: &Kind, patience: Patience, now: Instant) -> Option<String> {
    let Some(age) = kind.age(now) else {
        // A kind that never was complete has no verdicts.
        let mut listed = kind.shards().iter().map(|shard| shard.state().is_some());
        let listed = listed.next() == Some(true) && listed.all(|listed| listed);
        return listed.then(|| {
            let name = &kind.name;
            format!(
                "{name} was listed as it was at some time, and nothing has proved it current yet"
            )
        });
    };
    let (limit, how) = match kind.phase() {
        Phase::Live => (patience.followed, "the watch is silent"),
        Phase::Relisting | Phase::Syncing => (patience.cut_off, "it is listed anew"),
        Phase::BackingOff => (patience.cut_off, "the API server cannot be reached"),
        Phase::Forbidden => (patience.cut_off, "the API server refuses it"),
        Phase::Waiting | Phase::Removed => (patience.cut_off, "the API server does not serve it"),
    };
    let is_silent_by_nature = kind.shards().iter().any(|shard| shard.is_unproven());
    if age <= limit || (is_silent_by_nature && kind.phase() == Phase::Live) {
        return None;
    }
    let (name, limit) = (&kind.name, limit.as_secs());
    Some(format!(
        "nothing was heard of {name} for more than {limit} s: {how}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::{History, Limits, Unreadable, Writer},
        heartbeat::Heartbeats,
        object::{Labels, Object, tests::object},
        readiness::{Answer, Basis, Board, Finding, Parts, State},
    };

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn finding() -> Finding {
        Finding {
            resource: "pods".into(),
            uid: "1".into(),
            resource_version: "1".into(),
            generation: None,
            observed_generation: None,
            labels: Labels::default(),
            answer: Answer::new(State::Ready, "Ready", "", Basis::Object(now())),
            conditions: Vec::new(),
            parts: Parts::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn verdicts_are_unknown_while_their_kind_is_out_of_date_and_back_at_once_after() {
        let mut writer = Writer::<Object>::new("", Limits::default(), now());
        let kind = Kind::new("pods", false, false, 0, vec![writer.shard().clone()]);
        let board = Board::new(["pods"], Limits::default());
        let judged = board.kind("pods").unwrap().clone();
        let rests_on = RestsOn {
            judged: judged.clone(),
            kinds: vec![Arc::new(kind)],
        };
        let shutdown = Shutdown::new();
        let beat = Heartbeats::default().register("outdated");
        tokio::spawn(watch(
            vec![rests_on],
            Patience::default(),
            beat,
            shutdown.clone(),
        ));
        let wait = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        let key = Key::new("", "a");
        let state = || {
            judged
                .get(&key)
                .map(|verdict| verdict.standing.answer.state)
        };

        wait(1).await;
        judged.publish(&key, finding());
        assert_eq!(state(), None, "nobody knows what else there is");
        let listed = vec![Arc::new(object("", "a"))];
        writer.replace(listed, &Unreadable::default(), 1, History::Same, now());
        writer.set_status(Phase::Live, "", "");
        wait(1).await;
        assert_eq!(state(), Some(State::Unknown), "it may be an old list");
        writer.prove(now());
        wait(1).await;
        assert_eq!(state(), Some(State::Ready));
        wait(100).await;
        assert_eq!(state(), Some(State::Ready), "a bookmark may be late");
        wait(60).await;
        assert_eq!(state(), Some(State::Unknown));
        writer.prove(now());
        tokio::time::sleep(EVERY).await;
        assert_eq!(state(), Some(State::Ready));
        writer.set_status(Phase::BackingOff, "Refused", "connection refused");
        wait(10).await;
        assert_eq!(state(), Some(State::Ready), "it may just be reconnecting");
        wait(10).await;
        assert_eq!(state(), Some(State::Unknown));
        let message = judged.get(&key).unwrap().standing.answer.message.clone();
        assert_eq!(
            &*message,
            "nothing was heard of pods for more than 15 s: the API server cannot be reached; the last was ready (Ready)"
        );
        writer.set_status(Phase::Live, "", "");
        writer.prove(now());
        tokio::time::sleep(EVERY).await;
        assert_eq!(state(), Some(State::Ready));
    }
}
