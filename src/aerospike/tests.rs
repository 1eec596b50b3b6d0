//! The whole way from a model node's state to a verdict, one thing at a time, on a paused clock.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::{
    io::copy_bidirectional,
    time::{Instant, advance, sleep, timeout},
};

use super::{
    breaker::{BreakerSettings, Circuit},
    connect::{Connect, Stream},
    evidence::{Failure, Member, Survey},
    login::Credentials,
    model::{Build, Manner, Model, Rules, Wire},
    probe::{ProbeSettings, Prober},
    verdict::{Expected, Judgement, Reason, State, Verdict, judge},
};

const INTERVAL: Duration = Duration::from_secs(5);

struct Scene {
    model: Model,
    prober: Prober,
}

impl Scene {
    /// A cluster of so many nodes that has had the time to settle.
    async fn settled(size: usize, rules: Rules) -> Self {
        let model = Model::new(size, rules, 1);
        advance(Duration::from_secs(30)).await;
        let wire = Arc::new(Wire::new(&model));
        Self {
            prober: Prober::new(wire, settings(), None),
            model,
        }
    }

    async fn of(size: usize) -> Self {
        Self::settled(size, Rules::default()).await
    }

    fn members(&self) -> Vec<Member> {
        let all = (0..20).filter_map(|node| self.model.member(node, Wire::address(node)));
        all.collect()
    }

    async fn survey(&mut self) -> Survey {
        let members = self.members();
        let size = self.model.size().try_into().unwrap();
        self.prober.survey(size, &members).await
    }

    fn judge(&self, survey: &Survey) -> Judgement {
        let members = self.members();
        judge(&expected(self.model.size(), &members), survey)
    }

    async fn ask(&mut self) -> Judgement {
        let survey = self.survey().await;
        self.judge(&survey)
    }

    /// Asks, and takes apart the verdict on safety.
    async fn safety(&mut self) -> (State, Reason, String) {
        let safe = self.ask().await.safe_to_disrupt;
        (safe.state, safe.reason, safe.message)
    }
}

fn settings() -> ProbeSettings {
    ProbeSettings {
        timeout: Duration::from_secs(1),
        breaker: BreakerSettings {
            failures: 3,
            pause: INTERVAL,
        },
    }
}

fn expected(size: usize, members: &[Member]) -> Expected<'_> {
    Expected {
        size: size.try_into().unwrap(),
        members,
        interval: INTERVAL,
    }
}

fn says(verdict: &Verdict) -> (State, Reason) {
    (verdict.state, verdict.reason)
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_settled_cluster_is_safe_whatever_its_servers_version() {
    for build in [Build::V6, Build::V8, Build::V81] {
        let rules = Rules {
            build,
            ..Rules::default()
        };
        let judged = Scene::settled(3, rules).await.ask().await;
        assert_eq!(
            judged.joined.state,
            State::Ready,
            "{build:?}: {}",
            judged.joined.message
        );
        let safe = &judged.safe_to_disrupt;
        assert_eq!(safe.state, State::Ready, "{build:?}: {}", safe.message);
        assert_eq!(safe.reason.as_str(), "SafeToDisrupt");
        assert_eq!(safe.key.nodes.len(), 3);
        assert!(safe.key.cluster_key.is_some());
        for node in &judged.nodes {
            assert_eq!(node.safe_to_disrupt.state, State::Ready);
            assert_eq!(node.details.migrating_partitions, Some(0));
            assert_eq!(node.details.namespaces, ["test"]);
            assert_eq!(node.details.error, None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn eight_nodes_are_asked_in_the_time_of_the_slowest() {
    let mut scene = Scene::of(8).await;
    for slow in [50, 500] {
        let slow = Duration::from_millis(slow);
        (0..8).for_each(|node| scene.model.set_manner(node, Manner::Slow(slow)));
        // The first survey learns which namespaces there are; from then on a round is one round trip.
        scene.survey().await;
        let begun = Instant::now();
        let survey = scene.survey().await;
        assert_eq!(survey.first.window.span(), slow);
        assert_eq!(begun.elapsed(), 2 * slow, "and once more, to be sure");
        let details = scene.judge(&survey).nodes;
        assert!(
            details
                .iter()
                .all(|node| node.details.round_trip == Some(slow))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_mute_node_costs_its_own_time_limit_and_hides_nothing_of_the_others() {
    let mut scene = Scene::of(3).await;
    scene.model.set_manner(1, Manner::Mute);
    let begun = Instant::now();
    let survey = scene.survey().await;
    assert_eq!(begun.elapsed(), settings().timeout);
    assert!(survey.second.is_none(), "nothing to confirm");
    let judged = scene.judge(&survey);
    assert_eq!(
        says(&judged.safe_to_disrupt),
        (State::Unknown, Reason::NoAnswer)
    );
    assert!(judged.safe_to_disrupt.message.contains("cache-1"));
    assert_eq!(judged.nodes[0].joined.state, State::Ready);
    assert_eq!(
        judged.nodes[0].safe_to_disrupt.state,
        State::Unknown,
        "silence is no consent"
    );
    assert!(
        judged.nodes[1]
            .details
            .error
            .as_ref()
            .unwrap()
            .contains("1.0 s")
    );
    assert!(judged.nodes[2].details.node_id.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_slow_node_whose_namespaces_are_new_is_not_taken_for_a_mute_one() {
    let mut scene = Scene::of(1).await;
    let slow = Duration::from_millis(600);
    scene.model.set_manner(0, Manner::Slow(slow));
    let survey = scene.survey().await;
    assert_eq!(
        survey.first.window.span(),
        2 * slow,
        "it is asked for them too"
    );
    assert!(2 * slow > settings().timeout);
    let safe = scene.judge(&survey).safe_to_disrupt;
    assert_eq!(safe.state, State::Ready, "{}", safe.message);
}

#[tokio::test(start_paused = true)]
async fn one_nodes_no_outweighs_anothers_silence() {
    let mut scene = Scene::of(3).await;
    scene.model.set_manner(1, Manner::Mute);
    scene.model.fill(2, 95);
    advance(Duration::from_secs(11)).await;
    let judged = scene.ask().await;
    assert_eq!(
        says(&judged.safe_to_disrupt),
        (State::NotReady, Reason::StopWrites)
    );
    assert_eq!(
        says(&judged.nodes[1].safe_to_disrupt),
        (State::NotReady, Reason::StopWrites)
    );
    assert_eq!(says(&judged.joined), (State::Unknown, Reason::NoAnswer));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_asked_is_left_alone_for_a_while_and_then_asked_once() {
    let mut scene = Scene::of(2).await;
    scene.model.set_manner(0, Manner::Mute);
    for _ in 0..3 {
        scene.survey().await;
    }
    let member = scene.members().remove(0);
    assert_eq!(scene.prober.circuit(&member), Circuit::Open);
    let begun = Instant::now();
    let asked = scene.prober.asked();
    let survey = scene.survey().await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "nobody waits for it");
    assert_eq!(
        scene.prober.asked() - asked,
        1,
        "only the other one is asked"
    );
    let said = survey.first.reports[0].outcome.as_ref().unwrap_err();
    assert!(said.to_string().contains("3 failures in a row"), "{said}");

    advance(INTERVAL).await;
    assert_eq!(scene.prober.circuit(&member), Circuit::HalfOpen);
    scene.model.set_manner(0, Manner::Prompt);
    assert_eq!(scene.safety().await.0, State::Ready);
    assert_eq!(scene.prober.circuit(&member), Circuit::Closed);
}

/// Counts the connections that are open.
#[derive(Debug)]
struct Counting(Wire, Arc<AtomicUsize>);

struct Counted(Box<dyn Stream>, Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Connect for Counting {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, Result<Box<dyn Stream>, Failure>> {
        let (connecting, open) = (self.0.connect(address), self.1.clone());
        async move {
            let stream = connecting.await?;
            open.fetch_add(1, Ordering::SeqCst);
            let mut counted = Counted(stream, open);
            let (near, mut far) = tokio::io::duplex(4096);
            tokio::spawn(async move {
                let _ = copy_bidirectional(&mut far, &mut counted.0).await;
            });
            Ok(Box::new(near) as Box<dyn Stream>)
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_survey_that_is_dropped_closes_its_connections_and_blames_nobody() {
    let mut scene = Scene::of(3).await;
    let open = Arc::new(AtomicUsize::new(0));
    let connect = Arc::new(Counting(Wire::new(&scene.model), open.clone()));
    scene.prober = Prober::new(connect, settings(), None);
    (0..3).for_each(|node| scene.model.set_manner(node, Manner::Mute));
    for _ in 0..5 {
        let given_up = timeout(Duration::from_millis(500), scene.survey()).await;
        assert!(given_up.is_err());
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(open.load(Ordering::SeqCst), 0);
    let members = scene.members();
    let closed = |member| scene.prober.circuit(member) == Circuit::Closed;
    assert!(members.iter().all(closed));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_starting_refuses_then_joins_then_settles() {
    let model = Model::new(
        2,
        Rules {
            migration_rate: 100,
            ..Rules::default()
        },
        1,
    );
    let prober = Prober::new(Arc::new(Wire::new(&model)), settings(), None);
    let mut scene = Scene { model, prober };
    let mut seen = Vec::new();
    for _ in 0..200 {
        // As if each pod's status had changed meanwhile.
        for member in scene.members() {
            scene.prober.forgive(&member.uid);
        }
        let judged = scene.ask().await;
        let said = (judged.joined.state, says(&judged.safe_to_disrupt));
        if seen.last() != Some(&said) {
            seen.push(said);
        }
        advance(Duration::from_millis(200)).await;
    }
    let (no, yes) = (State::NotReady, State::Ready);
    assert_eq!(seen.first(), Some(&(no, (no, Reason::NodeStarting))));
    assert!(seen.contains(&(no, (no, Reason::NotMember))), "{seen:?}");
    assert!(seen.contains(&(yes, (no, Reason::Migrating))), "{seen:?}");
    assert_eq!(seen.last().map(|said| said.1.0), Some(yes), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn halves_of_a_split_cluster_are_both_wrong() {
    let mut scene = Scene::of(4).await;
    scene.model.split(&[0, 1]);
    advance(MINUTE).await;
    let judged = scene.ask().await;
    assert_eq!(
        says(&judged.joined),
        (State::NotReady, Reason::SplitCluster)
    );
    let message = &judged.joined.message;
    assert!(
        message.contains("cache-0, cache-1 in") && message.contains("cache-2, cache-3 in"),
        "{message}"
    );
    assert!(
        judged
            .nodes
            .iter()
            .all(|node| node.joined.state == State::NotReady)
    );
    assert_eq!(judged.joined.key.cluster_key, None);
    scene.model.heal();
    advance(MINUTE).await;
    assert_eq!(scene.safety().await.0, State::Ready);
}

#[tokio::test(start_paused = true)]
async fn the_size_is_the_specs_and_not_that_of_those_who_answer() {
    for build in [Build::V8, Build::V81] {
        let mut scene = Scene::settled(
            2,
            Rules {
                build,
                ..Rules::default()
            },
        )
        .await;
        let members = scene.members();
        let survey = scene.prober.survey(3, &members).await;
        let judged = judge(&expected(3, &members), &survey);
        assert_eq!(
            says(&judged.joined),
            (State::NotReady, Reason::MissingNodes)
        );
        assert_eq!(
            says(&judged.nodes[0].joined),
            (State::NotReady, Reason::WrongSize)
        );

        let fewer = scene.prober.survey(1, &members[..1]).await;
        let judged = judge(&expected(1, &members[..1]), &fewer);
        assert_eq!(
            says(&judged.joined),
            (State::NotReady, Reason::WrongSize),
            "{build:?}"
        );

        let nobody = scene.prober.survey(0, &[]).await;
        let judged = judge(&expected(0, &[]), &nobody);
        assert_eq!(says(&judged.joined), (State::NotReady, Reason::SizeZero));
    }
}

#[tokio::test(start_paused = true)]
async fn evidence_for_another_size_proves_nothing() {
    let mut scene = Scene::of(2).await;
    let members = scene.members();
    let survey = scene.prober.survey(2, &members).await;
    let mut three = members.clone();
    three.push(Member {
        uid: "new".to_owned(),
        name: "cache-2".to_owned(),
        ..members[0].clone()
    });
    let judged = judge(&expected(3, &three), &survey);
    assert_eq!(judged.joined.state, State::NotReady);
    assert_eq!(
        says(&judged.nodes[2].joined),
        (State::Unknown, Reason::NotAsked)
    );
}

#[tokio::test(start_paused = true)]
async fn stopped_writes_clock_skew_and_quiesce_each_forbid_a_disruption_and_name_the_namespace() {
    type Trouble = fn(&Model);
    let troubles: [(Trouble, Reason); 3] = [
        (|model| model.fill(1, 95), Reason::StopWrites),
        (|model| model.set_clock(1, 60_000), Reason::ClockSkew),
        (|model| model.quiesce(1, true), Reason::Quiesced),
    ];
    for (trouble, reason) in troubles {
        let mut scene = Scene::of(2).await;
        trouble(&scene.model);
        advance(MINUTE).await;
        let judged = scene.ask().await;
        let safe = &judged.safe_to_disrupt;
        assert_eq!(says(safe), (State::NotReady, reason), "{}", safe.message);
        assert!(safe.message.contains("cache-1") && safe.message.contains("namespace test"));
        assert_eq!(
            judged.joined.state,
            State::Ready,
            "{}",
            judged.joined.message
        );
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_is_no_answer() {
    let mut scene = Scene::of(2).await;
    scene.model.set_manner(0, Manner::Garbage);
    let (state, reason, message) = scene.safety().await;
    assert_eq!(
        (state, reason),
        (State::Unknown, Reason::Garbage),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn evidence_of_a_pod_does_not_count_for_its_successor() {
    let mut scene = Scene::of(2).await;
    let survey = scene.survey().await;
    assert_eq!(scene.judge(&survey).safe_to_disrupt.state, State::Ready);
    scene.model.replace(1);
    let judged = scene.judge(&survey);
    assert_eq!(
        says(&judged.safe_to_disrupt),
        (State::Unknown, Reason::NotAsked)
    );
    assert_eq!(
        says(&judged.nodes[1].joined),
        (State::Unknown, Reason::NotAsked)
    );
}

#[tokio::test(start_paused = true)]
async fn a_container_restarted_since_it_was_asked_proves_nothing() {
    let mut scene = Scene::of(2).await;
    let survey = scene.survey().await;
    scene.model.stop(1);
    scene.model.start(1);
    let judged = scene.judge(&survey);
    assert_eq!(
        says(&judged.safe_to_disrupt),
        (State::Unknown, Reason::Restarted)
    );
}

#[tokio::test(start_paused = true)]
async fn a_warm_restart_between_the_rounds_is_seen_by_the_uptime_though_the_pod_is_the_same() {
    let mut scene = Scene::of(2).await;
    let mut survey = scene.survey().await;
    assert_eq!(scene.judge(&survey).joined.state, State::Ready);
    let second = survey.second.as_mut().unwrap();
    let facts = second.reports[1].outcome.as_mut().unwrap();
    facts.uptime = Some(Duration::from_secs(0));
    let judged = scene.judge(&survey);
    assert_eq!(says(&judged.joined), (State::Unknown, Reason::Restarted));
    assert!(judged.joined.message.contains("cache-1"));
}

#[tokio::test(start_paused = true)]
async fn one_round_alone_proves_nothing_and_neither_do_two_that_overlap() {
    let mut scene = Scene::of(2).await;
    (0..2).for_each(|node| {
        scene
            .model
            .set_manner(node, Manner::Slow(Duration::from_millis(20)))
    });
    scene.survey().await;
    let survey = scene.survey().await;
    assert_eq!(scene.judge(&survey).joined.state, State::Ready);
    let once = Survey {
        second: None,
        ..survey.clone()
    };
    assert_eq!(
        says(&scene.judge(&once).joined),
        (State::Unknown, Reason::Unconfirmed)
    );
    let overlapping = Survey {
        second: Some(survey.first.clone()),
        ..survey
    };
    assert_eq!(
        says(&scene.judge(&overlapping).joined),
        (State::Unknown, Reason::Unconfirmed)
    );
}

#[tokio::test(start_paused = true)]
async fn two_pods_that_lead_to_one_node_are_not_two_nodes() {
    let mut scene = Scene::of(2).await;
    let mut members = scene.members();
    members[1].address = members[0].address;
    let survey = scene.prober.survey(2, &members).await;
    let judged = judge(&expected(2, &members), &survey);
    assert_eq!(
        says(&judged.joined),
        (State::NotReady, Reason::DuplicateNode)
    );
}

#[tokio::test(start_paused = true)]
async fn a_verdict_lasts_two_intervals_from_its_last_answer_and_not_longer() {
    let mut scene = Scene::of(2).await;
    let verdict = scene.ask().await.safe_to_disrupt;
    let end = verdict.window.unwrap().end.instant;
    assert_eq!(verdict.expires, Some(end + 2 * INTERVAL));
    let still = verdict.at(end + 2 * INTERVAL - Duration::from_millis(1));
    assert_eq!(still, verdict);
    let expired = verdict.at(end + 2 * INTERVAL);
    assert_eq!(says(&expired), (State::Unknown, Reason::Expired));
    assert_eq!(
        expired.window, verdict.window,
        "it still tells what it knew, and when"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_wants_a_login_is_unknown_until_it_gets_the_right_one() {
    let right = Credentials::new("probe", "secret").unwrap();
    let rules = Rules {
        credentials: Some(right.clone()),
        ..Rules::default()
    };
    let mut scene = Scene::settled(2, rules).await;
    let (state, reason, _) = scene.safety().await;
    assert_eq!((state, reason), (State::Unknown, Reason::AuthRequired));
    let wire = Arc::new(Wire::new(&scene.model));
    let wrong = Credentials::new("somebody", "secret").unwrap();
    scene.prober = Prober::new(wire.clone(), settings(), Some(Arc::new(wrong)));
    let (state, reason, message) = scene.safety().await;
    assert_eq!(
        (state, reason),
        (State::Unknown, Reason::LoginFailed),
        "{message}"
    );
    scene.prober = Prober::new(wire, settings(), Some(Arc::new(right)));
    assert_eq!(scene.safety().await.0, State::Ready);
}
