//! Publishes what [`decide`](super::decide) finds: the reconciler.

use std::sync::Arc;

use super::{SERVICE_NAME, decide};
use crate::{
    cache::Kind,
    config::Reads,
    controller::{
        Action, ReconcileError, Reconciler, Triggers, members::Members, opinion::finding,
    },
    feed::{Feed, Handle},
    object::{Key, Object},
    readiness::{Basis, Judged},
};

/// The controller.
#[derive(Debug)]
pub struct ServiceController {
    judged: Arc<Judged>,
    slices: Arc<Members>,
}

impl ServiceController {
    /// `slices` is the kind of EndpointSlices.
    pub fn new(judged: Arc<Judged>, slices: Arc<Kind>) -> Self {
        Self {
            judged,
            slices: Arc::new(Members::new(slices, group)),
        }
    }

    /// What it is woken by: Services and their EndpointSlices.
    pub fn triggers(&self, services: Feed, slices: Feed) -> Triggers {
        let members = self.slices.clone();
        Triggers::of(Self::NAME, services).and(slices, move |handle| {
            members.observe(handle);
            service(handle).into_iter().collect()
        })
    }
}

/// `namespace/name` of the Service that a slice belongs to.
fn group(slice: &Object) -> Option<String> {
    let service = slice.labels.get(SERVICE_NAME)?;
    Some(Key::new(slice.key.namespace(), service).to_string())
}

/// The same of a slice that may be gone.
fn service(slice: &Handle) -> Option<Key> {
    use kube::Resource;
    let service = slice.meta().labels.as_ref()?.get(SERVICE_NAME)?;
    Some(Key::new(slice.key().namespace(), service))
}

impl Reconciler for ServiceController {
    const NAME: &'static str = "service";
    const READS: &'static [Reads] = &[
        Reads {
            controller: Self::NAME,
            resource: "services",
            aliases: &["service", "svc"],
            paths: &[
                ".spec.type",
                ".spec.clusterIP",
                ".spec.externalIPs",
                ".spec.externalName",
                ".spec.ports",
                ".status",
            ],
            optional: false,
        },
        Reads {
            controller: Self::NAME,
            resource: "endpointslices.discovery.k8s.io",
            aliases: &["endpointslices", "endpointslice"],
            paths: &[".endpoints", ".ports"],
            optional: false,
        },
    ];

    async fn reconcile(&self, handle: Arc<Handle>) -> Result<Action, ReconcileError> {
        let key = handle.key();
        let Some(service) = handle.object() else {
            self.judged.gone(key);
            return Ok(Action::await_change());
        };
        let slices = self.slices.objects(key.as_str());
        let decision = decide(service, &slices);
        let basis = Basis::Object(tokio::time::Instant::now().into_std());
        let details = decision.details.unwrap_or_default().to_json();
        let answer = decision.opinion.answer(basis).with_details(details);
        let mut finding = finding("services".into(), service, answer);
        finding.parts = decision.parts;
        self.judged.publish(key, finding);
        Ok(Action::await_change())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::{Limits, Writer},
        object::tests::object,
        readiness::{Board, State},
    };

    #[tokio::test]
    async fn a_service_is_judged_by_the_slices_that_name_it() {
        let now = std::time::Instant::now;
        let mut writer = Writer::new("", Limits::default(), now());
        writer.replace(
            Vec::new(),
            &Default::default(),
            1,
            crate::cache::History::Same,
            now(),
        );
        let kind = Kind::new(
            "endpointslices",
            false,
            false,
            0,
            vec![writer.shard().clone()],
        );
        let board = Board::new(["services"], Limits::default());
        let judged = board.kind("services").unwrap().clone();
        judged.expect([]);
        let controller = ServiceController::new(judged.clone(), Arc::new(kind));
        let slice = |of: &str, ready: bool| {
            let json = format!(
                r#"{{"ports":[{{"name":""}}],"endpoints":[{{"addresses":["10.0.0.1"],"conditions":{{"ready":{ready}}}}}]}}"#
            );
            Arc::new(Object {
                labels: [(SERVICE_NAME, of)].into_iter().collect(),
                json: json.into(),
                ..object("default", &format!("{of}-x"))
            })
        };
        for (revision, of, ready) in [(2, "web", false), (3, "other", true)] {
            let slice = slice(of, ready);
            writer.upsert(slice.clone(), revision);
            writer.publish(now());
            controller.slices.observe(&Handle::live(slice));
        }
        let service = Object {
            json: r#"{"spec":{"ports":[{"port":80}]}}"#.into(),
            ..object("default", "web")
        };
        let service = Arc::new(Handle::live(Arc::new(service)));
        controller.reconcile(service.clone()).await.unwrap();
        let key = Key::new("default", "web");
        let shown = || {
            judged
                .get(&key)
                .map(|verdict| verdict.standing.answer.clone())
        };
        assert_eq!(shown().unwrap().state, State::NotReady);
        assert_eq!(&*shown().unwrap().reason, "NoReadyEndpoints");
        controller
            .reconcile(Arc::new(service.to_tombstone()))
            .await
            .unwrap();
        assert!(shown().is_none());
    }

    #[test]
    fn a_slice_that_is_gone_still_says_whose_it_was() {
        let slice = Object {
            labels: [(SERVICE_NAME, "web")].into_iter().collect(),
            ..object("default", "web-x")
        };
        let gone = Handle::live(Arc::new(slice)).to_tombstone();
        assert_eq!(service(&gone), Some(Key::new("default", "web")));
    }
}
