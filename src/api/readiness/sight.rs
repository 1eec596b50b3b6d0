//! How much of a verdict a caller may see: what it says of its target, and of parts only if the caller might get
//! those, too. Else they are counted, and whatever was said of them in words is left out.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    api::{
        Api,
        access::{Access, Admitted, Names},
    },
    proto,
};

/// How long an answer is used on a stream.
const REMEMBER: Duration = Duration::from_secs(10);
const WITHHELD: &str = "(withheld: it tells of objects that you may not get)";

/// See the module's documentation.
pub(super) struct Sight {
    admitted: Admitted,
    /// Nothing where everybody sees all.
    names: Option<Names>,
    may_get: HashMap<(String, String), bool>,
    /// Who the caller is could not be said when it was last asked: then it gets nothing beside.
    is_nobody: bool,
    since: Instant,
    /// The targets of a wait whose verdicts were shortened.
    withheld: HashSet<(String, String, String)>,
}

impl Sight {
    pub(super) fn new(api: &Api, admitted: Admitted) -> Self {
        let names = match &api.0.access {
            Access::Open | Access::Limited(_) => None,
            Access::Guarded { names, .. } => Some(names.clone()),
        };
        Self {
            admitted,
            names,
            may_get: HashMap::new(),
            is_nobody: false,
            since: Instant::now(),
            withheld: HashSet::new(),
        }
    }

    /// Leaves of a verdict what the caller may see. Whether that is less.
    pub(super) async fn shorten(&mut self, verdict: &mut proto::Verdict) -> bool {
        let Some(names) = self.names.clone() else {
            return false;
        };
        if self.since.elapsed() >= REMEMBER {
            self.since = Instant::now();
            self.may_get.clear();
            self.is_nobody = self.admitted.renew().await.is_err();
        }
        for part in &verdict.parts {
            let target = part.target.clone().unwrap_or_default();
            let key = (target.resource, target.namespace);
            if !self.may_get.contains_key(&key) {
                let may = !self.is_nobody && self.admitted.may_get(&names, &key.0, &key.1).await;
                self.may_get.insert(key, may);
            }
        }
        let all = verdict.parts.len();
        verdict.parts.retain(|part| {
            let target = part.target.clone().unwrap_or_default();
            let key = (target.resource, target.namespace);
            self.may_get.get(&key).copied().unwrap_or_default()
        });
        if verdict.parts.len() == all {
            return false;
        }
        verdict.message = WITHHELD.to_owned();
        verdict.details.clear();
        for condition in &mut verdict.conditions {
            condition.message = WITHHELD.to_owned();
            condition.details.clear();
        }
        true
    }

    /// The same for what a wait says of targets that it waits for.
    pub(super) async fn shorten_wait(&mut self, answer: &mut proto::WaitReadinessResponse) {
        for verdict in &mut answer.verdicts {
            let target = named(verdict.target.as_ref());
            if self.shorten(verdict).await {
                self.withheld.insert(target);
            } else {
                self.withheld.remove(&target);
            }
        }
        for missing in &mut answer.missing {
            if self.withheld.contains(&named(missing.target.as_ref())) {
                missing.message = WITHHELD.to_owned();
            }
        }
    }
}

fn named(target: Option<&proto::Target>) -> (String, String, String) {
    let target = target.cloned().unwrap_or_default();
    (target.resource, target.namespace, target.name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::sleep;

    use super::*;
    use crate::{
        api::{Settings, access::Asking},
        auth::{Authentication, Guard, Presented, Verb, fake::FakeReviews},
        cache::{Catalog, Limits},
        readiness::Board,
        shutdown::Shutdown,
    };

    const GET_PODS: &str = r#"get resource "pods" in API group "" in the namespace "shop""#;

    /// What alice, of the group ops, sees of a deployment's pods; and who says what she may.
    async fn alice() -> (Sight, FakeReviews) {
        let reviews = FakeReviews::default();
        let how = Authentication {
            token_audience: Some("informerd".to_owned()),
            ..Authentication::default()
        };
        let settings = crate::auth::Settings::default();
        let guard = Guard::new(how, Arc::new(reviews.clone()), settings).unwrap();
        reviews.give("t", "alice", &["informerd"]);
        reviews.group("t", &["ops"]);
        reviews.allow("ops", GET_PODS);
        reviews.allow(
            "alice",
            r#"watch resource "deployments" in API group "apps" at the cluster scope"#,
        );
        let bearer = (http::header::AUTHORIZATION, "Bearer t".parse().unwrap());
        let headers = http::HeaderMap::from_iter([bearer]);
        let nowhere = Arc::new(Presented::default());
        let mut extensions = http::Extensions::new();
        extensions.insert(guard.authenticate(&headers, &nowhere).await.unwrap());
        let access = Access::Guarded {
            guard,
            names: Arc::new(|_| None),
        };
        let api = Api::with_board(
            Catalog::new(Vec::new()),
            Board::new([""; 0], Limits::default()),
            None,
            None,
            Settings::default(),
            access,
            Shutdown::new(),
        );
        let scope = proto::Scope {
            resource: "deployments.apps".to_owned(),
            ..Default::default()
        };
        let asking = Asking::of(&extensions);
        let admitted = api.admit(&asking, Verb::Watch, &scope).await.unwrap();
        (Sight::new(&api, admitted), reviews)
    }

    impl Sight {
        /// Whether a verdict that says of a pod is told with it.
        async fn sees_a_pod(&mut self) -> bool {
            let target = proto::Target {
                resource: "pods".to_owned(),
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
            };
            let mut verdict = proto::Verdict {
                parts: vec![proto::ReadinessPart {
                    target: Some(target),
                    ..Default::default()
                }],
                message: "the pod web crashes".to_owned(),
                ..Default::default()
            };
            let is_less = self.shorten(&mut verdict).await;
            assert_eq!(is_less, verdict.message == WITHHELD);
            assert_eq!(is_less, verdict.parts.is_empty());
            !is_less
        }

        /// How long until it does not see it any more, looking all the time.
        async fn is_blind_after(&mut self) -> Duration {
            let begun = Instant::now();
            while self.sees_a_pod().await {
                sleep(Duration::from_millis(100)).await;
            }
            begun.elapsed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn parts_are_not_told_for_longer_than_half_a_minute_after_the_right_to_get_them() {
        let (mut sight, reviews) = alice().await;
        assert!(sight.sees_a_pod().await);
        sleep(Duration::from_secs(100)).await;
        assert!(sight.sees_a_pod().await);
        reviews.deny("ops", GET_PODS);
        assert!(sight.is_blind_after().await <= Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn nor_after_the_caller_has_left_the_group_that_has_the_right() {
        let (mut sight, reviews) = alice().await;
        assert!(sight.sees_a_pod().await);
        reviews.group("t", &[]);
        assert!(sight.is_blind_after().await <= Duration::from_secs(30));
        reviews.group("t", &["ops"]);
        sleep(Duration::from_secs(30)).await;
        assert!(
            sight.sees_a_pod().await,
            "it is looked for as who she is now"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nor_while_nobody_can_say_who_the_caller_is() {
        let (mut sight, reviews) = alice().await;
        assert!(sight.sees_a_pod().await);
        reviews.set_down(true);
        assert!(sight.is_blind_after().await <= Duration::from_secs(30));
        reviews.set_down(false);
        sleep(Duration::from_secs(30)).await;
        assert!(sight.sees_a_pod().await);
    }
}
