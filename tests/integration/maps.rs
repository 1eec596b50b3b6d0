//! ConfigMaps that a test changes, one after the other, and what consumers of them must hold.

use informerd::proto::{Scope, WatchObjectsRequest};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{
    cluster::{Cluster, list_exact},
    support::{assert_as_listed, scope},
    validators::{Recording, watch_request},
};

/// The kind, as informerd's config has it.
pub const KIND: &str = "configmaps";
/// How many there are.
const MAPS: usize = 20;

/// The writer of some ConfigMaps in the namespace `default`.
pub struct Maps {
    client: Client,
    api: Api<ConfigMap>,
    /// Of content, in each of them.
    bytes: usize,
    round: usize,
}

impl Maps {
    /// Creates them.
    pub async fn create(cluster: &Cluster, bytes: usize) -> Self {
        let client = cluster.client().await;
        let maps = Self {
            api: Api::namespaced(client.clone(), "default"),
            client,
            bytes,
            round: 0,
        };
        for at in 0..MAPS {
            let map = maps.map(at);
            maps.api.create(&PostParams::default(), &map).await.unwrap();
        }
        maps
    }

    /// A third of them has `app=db`, the others `app=web`; which, changes from round to round.
    fn map(&self, at: usize) -> ConfigMap {
        let round = self.round;
        let app = ["db", "web", "web"][(at + round) % 3];
        let value = format!("{round}-").repeat(self.bytes / 2 + 1);
        serde_json::from_value(json!({
            "metadata": {"name": format!("map-{at}"), "labels": {"app": app}},
            "data": {"value": value[..self.bytes]},
        }))
        .unwrap()
    }

    /// Changes all so many times, each time one of them by way of a deletion; the revision of the last write.
    pub async fn write(&mut self, rounds: usize) -> u64 {
        let mut last = String::new();
        for _ in 0..rounds {
            self.round += 1;
            for at in 0..MAPS {
                let (name, map) = (format!("map-{at}"), self.map(at));
                let written = if at == self.round % MAPS {
                    let delete = DeleteParams::default();
                    self.api.delete(&name, &delete).await.unwrap();
                    self.api.create(&PostParams::default(), &map).await
                } else {
                    let patch = Patch::Merge(&map);
                    self.api.patch(&name, &PatchParams::default(), &patch).await
                };
                last = written.unwrap().metadata.resource_version.unwrap();
            }
        }
        last.parse().unwrap()
    }

    /// Where the API server is.
    pub async fn revision(&self) -> u64 {
        let list = self.api.list(&ListParams::default().limit(1)).await;
        let version = list.unwrap().metadata.resource_version.unwrap();
        version.parse().unwrap()
    }

    /// What the consumer holds must be what an exact list has at its revision; `app` is its selector.
    pub async fn assert_right(&self, recording: &Recording, app: Option<&str>) {
        let (positions, held) = recording.last_state().expect("it has a state");
        let kind = ApiResource::erase::<ConfigMap>(&());
        let revision = positions[""].to_string();
        let listed = list_exact(&self.client, &kind, None, &revision)
            .await
            .unwrap();
        let wanted = listed.into_iter().filter(|(_, it)| {
            app.is_none_or(|app| it.labels.get("app").is_some_and(|it| it == app))
        });
        let what = format!("at revision {revision}, of {app:?}");
        assert_as_listed(&held, &wanted.collect(), &what);
    }
}

/// All of them, or those with this label `app`.
pub fn watch(app: Option<&str>) -> WatchObjectsRequest {
    let label_selector = app.map_or_else(String::new, |app| format!("app={app}"));
    WatchObjectsRequest {
        scope: Some(Scope {
            label_selector,
            ..scope(KIND, &[])
        }),
        ..watch_request(KIND)
    }
}
