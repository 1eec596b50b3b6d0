//! The world on a paused clock: a minute takes as long as its work.

use serde_json::json;

use super::{
    super::{
        DeleteOptions, Options, Part, Settings,
        fields::{list, number, set},
    },
    *,
};

struct Tried {
    store: Store,
    world: World,
}

fn quiet(nodes: usize, pods: usize) -> WorldSettings {
    WorldSettings {
        seed: 7,
        rate: 0.0,
        nodes,
        pods,
    }
}

impl Tried {
    fn new(settings: WorldSettings) -> Self {
        let store = Store::new(Settings {
            seed: settings.seed,
            kubelet: true,
        });
        Self {
            world: World::new(store.clone(), settings),
            store,
        }
    }

    /// Lets so much time pass; `look` is called after every step.
    async fn run(&mut self, time: Duration, mut look: impl FnMut(&Store)) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let next = self.world.step();
            look(&self.store);
            sleep_until(next.max(Instant::now() + Duration::from_millis(1)).min(end)).await;
        }
    }

    async fn wait(&mut self, what: &str, mut is: impl FnMut(&Store) -> bool) {
        for _ in 0..600 {
            self.run(Duration::from_millis(100), |_| {}).await;
            if is(&self.store) {
                return;
            }
        }
        panic!("not within a minute: {what}");
    }
}

fn read(store: &Store, resource: &str, key: &Key) -> Option<Value> {
    let object = store.get(resource, key)?;
    serde_json::from_slice(&object.json).ok()
}

fn pods_of(store: &Store, app: &str) -> Vec<Value> {
    let served = store.find("pods").unwrap();
    let state = served.kind.shards()[0].state().unwrap();
    let pods = state
        .objects
        .values()
        .map(|slot| serde_json::from_slice::<Value>(&slot.item.json).unwrap());
    pods.filter(|pod| text(pod, &["metadata", "labels", "app"]) == app)
        .collect()
}

fn status(store: &Store, key: &Key, field: &str) -> i64 {
    let object = read(store, "deployments.apps", key).unwrap();
    number(&object, &["status", field]).unwrap_or(0)
}

fn is_rolled_out(store: &Store, key: &Key) -> bool {
    let object = read(store, "deployments.apps", key).unwrap();
    let wanted = number(&object, &["spec", "replicas"]).unwrap();
    let generation = number(&object, &["metadata", "generation"]);
    number(&object, &["status", "observedGeneration"]) == generation
        && ["replicas", "updatedReplicas", "availableReplicas"]
            .iter()
            .all(|field| status(store, key, field) == wanted)
}

fn web() -> Key {
    Key::new("shop", "web")
}

#[tokio::test(start_paused = true)]
async fn everything_comes_up() {
    let mut tried = Tried::new(quiet(3, 18));
    tried
        .wait("all Deployments are rolled out", |store| {
            World::deployments()
                .iter()
                .all(|key| is_rolled_out(store, key))
        })
        .await;
    assert_eq!(pods_of(&tried.store, "web").len(), 2);
    let slices = tried.store.find(What::Slice.resource()).unwrap();
    let state = slices.kind.shards()[0].state().unwrap();
    let of_web = state
        .objects
        .values()
        .map(|slot| serde_json::from_slice::<Value>(&slot.item.json).unwrap());
    let of_web = of_web
        .filter(|it| text(it, &["metadata", "labels", "kubernetes.io/service-name"]) == "web");
    let ready: usize = of_web
        .map(|it| {
            list(&it, &["endpoints"])
                .iter()
                .filter(|it| it["conditions"]["ready"] == true)
                .count()
        })
        .sum();
    assert_eq!(ready, 2);
    tried
        .wait("the StatefulSet is up", |store| {
            let set = read(store, "statefulsets.apps", &World::queue()).unwrap();
            number(&set, &["status", "readyReplicas"]) == Some(3)
        })
        .await;
    let before = tried.store.revision();
    tried.run(Duration::from_secs(9), |_| {}).await;
    let writes = tried.store.revision() - before;
    // Heartbeats, and the databases that are still forming.
    assert!(
        writes < 40,
        "{writes} writes of a world that is left to itself"
    );
}

#[tokio::test(start_paused = true)]
async fn a_rollout_keeps_enough_pods_available_and_ends() {
    let mut tried = Tried::new(quiet(3, 36));
    tried
        .wait("web is up", |store| is_rolled_out(store, &web()))
        .await;
    let change = |it: &mut Value| {
        it["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example/web:2".into();
    };
    tried
        .store
        .modify("deployments.apps", &web(), Part::Whole, change)
        .unwrap();
    let mut least = i64::MAX;
    let mut most = 0;
    tried
        .run(Duration::from_secs(20), |store| {
            least = least.min(status(store, &web(), "availableReplicas"));
            most = most.max(status(store, &web(), "replicas"));
        })
        .await;
    assert!(is_rolled_out(&tried.store, &web()));
    assert!(
        least >= 3 && most <= 5,
        "4 wanted, 3 to 5 allowed: {least} to {most}"
    );
    for pod in pods_of(&tried.store, "web") {
        assert_eq!(
            text(&pod["spec"]["containers"][0], &["image"]),
            "registry.example/web:2"
        );
    }
    let deployment = read(&tried.store, "deployments.apps", &web()).unwrap();
    assert_eq!(
        text(
            &deployment,
            &[
                "metadata",
                "annotations",
                "deployment.kubernetes.io/revision"
            ]
        ),
        "2"
    );
}

#[tokio::test(start_paused = true)]
async fn scaling_and_deleting_are_followed() {
    let mut tried = Tried::new(quiet(3, 18));
    tried
        .wait("web is up", |store| is_rolled_out(store, &web()))
        .await;
    let to_five = |it: &mut Value| set(it, &["spec", "replicas"], 5);
    tried
        .store
        .modify("deployments.apps", &web(), Part::Whole, to_five)
        .unwrap();
    tried
        .wait("five pods", |store| {
            is_rolled_out(store, &web()) && pods_of(store, "web").len() == 5
        })
        .await;
    tried
        .store
        .delete("deployments.apps", &web(), &DeleteOptions::default())
        .unwrap();
    tried
        .wait("no pods", |store| pods_of(store, "web").is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_is_restarted_one_pod_at_a_time() {
    let mut tried = Tried::new(quiet(3, 9));
    let ready = |store: &Store| {
        let set = read(store, "statefulsets.apps", &World::queue()).unwrap();
        number(&set, &["status", "readyReplicas"]).unwrap_or(0)
    };
    tried.wait("three ready", |store| ready(store) == 3).await;
    tried
        .store
        .modify("statefulsets.apps", &World::queue(), Part::Whole, |it| {
            set(
                it,
                &["spec", "template", "metadata", "annotations", "again"],
                "1",
            );
        })
        .unwrap();
    let mut least = 3;
    tried
        .run(Duration::from_secs(30), |store| {
            least = least.min(ready(store))
        })
        .await;
    let set = read(&tried.store, "statefulsets.apps", &World::queue()).unwrap();
    assert_eq!(number(&set, &["status", "updatedReplicas"]), Some(3));
    assert_eq!(
        text(&set, &["status", "currentRevision"]),
        text(&set, &["status", "updateRevision"])
    );
    assert_eq!((least, ready(&tried.store)), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_node_fails_and_comes_back() {
    let mut tried = Tried::new(quiet(3, 18));
    tried
        .wait("web is up", |store| is_rolled_out(store, &web()))
        .await;
    let key = Key::new("", "node-0");
    tried.world.fail("node-0", Duration::from_secs(20));
    let is_ready = |store: &Store| {
        let node = read(store, "nodes", &key).unwrap();
        pod::condition(&node, "Ready")
    };
    tried.wait("it is lost", |store| !is_ready(store)).await;
    let on_it = |store: &Store| {
        let pods = pods_of(store, "web");
        pods.iter()
            .filter(|pod| text(pod, &["spec", "nodeName"]) == "node-0" && pod::is_ready(pod))
            .count()
    };
    assert_eq!(on_it(&tried.store), 0, "its pods are not ready any more");
    tried
        .wait("the others take over", |store| is_rolled_out(store, &web()))
        .await;
    tried.wait("it is back", is_ready).await;
    tried
        .wait("and has let go of its old pods", |store| {
            pods_of(store, "web").len() == 2
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn databases_form_and_are_restarted_without_a_gap() {
    let mut tried = Tried::new(quiet(3, 9));
    let set = Key::new("data", "sessions-0");
    let ready = |store: &Store| {
        let set = read(store, "statefulsets.apps", &set);
        set.and_then(|it| number(&it, &["status", "readyReplicas"]))
            .unwrap_or(0)
    };
    tried
        .wait("three nodes are joined", |store| ready(store) == 3)
        .await;
    let cluster = Key::new("data", "sessions");
    tried
        .store
        .modify(What::Acko.resource(), &cluster, Part::Whole, |it| {
            super::super::fields::set(
                it,
                &["spec", "podSpec", "metadata", "annotations", "again"],
                "1",
            );
        })
        .unwrap();
    tried
        .wait("a node is restarted", |store| ready(store) < 3)
        .await;
    tried
        .wait("all are on the new revision", |store| {
            let set = read(store, "statefulsets.apps", &set).unwrap();
            number(&set, &["status", "updatedReplicas"]) == Some(3) && ready(store) == 3
        })
        .await;
    let object = read(&tried.store, What::Acko.resource(), &cluster).unwrap();
    assert_eq!(text(&object, &["status", "phase"]), "Completed");
}

#[tokio::test(start_paused = true)]
async fn without_a_node_pods_wait_for_one() {
    let mut tried = Tried::new(quiet(0, 9));
    tried.run(Duration::from_secs(5), |_| {}).await;
    let pods = pods_of(&tried.store, "web");
    assert!(
        pods.iter()
            .all(|pod| text(pod, &["spec", "nodeName"]).is_empty())
    );
    let node = json!({"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    tried
        .store
        .create("nodes", "", node, &Options::default())
        .unwrap();
    tried
        .wait("web is up", |store| is_rolled_out(store, &web()))
        .await;
}

#[tokio::test(start_paused = true)]
async fn busy_people_break_nothing_for_good() {
    let mut tried = Tried::new(WorldSettings {
        rate: 5.0,
        ..quiet(4, 27)
    });
    tried.run(Duration::from_secs(60), |_| {}).await;
    tried.world.settings.rate = 0.0;
    tried
        .wait("all is well again", |store| {
            World::deployments()
                .iter()
                .all(|key| is_rolled_out(store, key))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_makes_the_same_world() {
    let history = async || {
        let mut tried = Tried::new(WorldSettings {
            rate: 3.0,
            ..quiet(3, 9)
        });
        tried.run(Duration::from_secs(10), |_| {}).await;
        let served = tried.store.find("pods").unwrap();
        let state = served.kind.shards()[0].state().unwrap();
        let pods: Vec<String> = state
            .objects
            .iter()
            .map(|(key, slot)| format!("{key} {} {}", slot.item.uid, slot.item.resource_version))
            .collect();
        (tried.store.revision(), pods)
    };
    assert_eq!(history().await, history().await);
}
