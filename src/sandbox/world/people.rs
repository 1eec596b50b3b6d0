//! What people do all day: they deploy, scale, change settings; and now and then something breaks.

use std::time::Duration;

use serde_json::Value;

use super::{
    super::{
        Part,
        fields::{number, set, text},
    },
    Timer, What, World,
    hands::is_up,
};
use crate::object::Key;

/// What may happen, and how often among a hundred.
const DEEDS: &[(u32, Deed)] = &[
    (40, Deed::ChangeSettings),
    (20, Deed::Scale),
    (14, Deed::KillPod),
    (10, Deed::Label),
    (8, Deed::Deploy),
    (4, Deed::FailNode),
    (2, Deed::RestartQueue),
    (2, Deed::RestartDatabase),
];

/// Something that somebody does, or that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    ChangeSettings,
    Scale,
    KillPod,
    Label,
    Deploy,
    FailNode,
    RestartQueue,
    RestartDatabase,
}

impl World {
    /// The next deed comes when it comes; on average as often as the settings say.
    pub(super) fn after_people(&mut self) {
        if self.settings.rate > 0.0 {
            // Exponential waits are what independent people make together.
            let wait = -(1.0 - self.rng.f64()).ln() / self.settings.rate;
            self.after(Duration::from_secs_f64(wait.min(3600.0)), Timer::People);
        }
    }

    pub(super) fn do_something(&mut self) {
        let mut drawn = self
            .rng
            .u32(0..DEEDS.iter().map(|(weight, _)| weight).sum());
        let deed = DEEDS
            .iter()
            .find(|(weight, _)| match drawn.checked_sub(*weight) {
                Some(left) => {
                    drawn = left;
                    false
                }
                None => true,
            });
        match deed.map(|it| it.1) {
            Some(Deed::ChangeSettings) => {
                let key = self.choose(&Self::settings());
                let limit = self.rng.u32(1..1000).to_string();
                self.edit("configmaps", key, |map| set(map, &["data", "limit"], limit));
            }
            Some(Deed::Scale) => {
                let key = self.choose(&Self::deployments());
                let usual = (self.settings.pods / Self::deployments().len()).max(1) as i64;
                let by = self.rng.i64(-2..=2);
                self.edit(What::Deployment.resource(), key, |it| {
                    let now = number(it, &["spec", "replicas"]).unwrap_or(usual);
                    set(it, &["spec", "replicas"], (now + by).clamp(1, usual * 2));
                });
            }
            Some(Deed::Deploy) => {
                let key = self.choose(&Self::deployments());
                let version = self.rng.u32(2..1000);
                self.edit(What::Deployment.resource(), key, |it| {
                    new_image(it, version)
                });
            }
            Some(Deed::KillPod) => {
                let pods = self.pods();
                if let Some(key) = self.choose(&pods) {
                    self.delete(What::Pod, &key, "", None);
                }
            }
            Some(Deed::Label) => {
                let pods = self.pods();
                let key = self.choose(&pods);
                let word = self.rng.u32(..).to_string();
                let path = ["metadata", "annotations", "seen-by"];
                self.edit("pods", key, |pod| set(pod, &path, word));
            }
            Some(Deed::FailNode) => self.fail_one(),
            Some(Deed::RestartQueue) => {
                let now = self.store.now().to_string();
                let path = [
                    "spec",
                    "template",
                    "metadata",
                    "annotations",
                    "kubectl.kubernetes.io/restartedAt",
                ];
                self.edit(What::StatefulSet.resource(), Some(Self::queue()), |it| {
                    set(it, &path, now)
                });
            }
            Some(Deed::RestartDatabase) => {
                let (what, key) = Self::clusters()[self.rng.usize(0..2)].clone();
                let now = self.store.now().to_string();
                let path = ["spec", "podSpec", "metadata", "annotations", "restarted-at"];
                self.edit(what.resource(), Some(key), |it| set(it, &path, now));
            }
            None => {}
        }
    }

    /// One node at a time, and never the last one.
    fn fail_one(&mut self) {
        let up = self.view.all(What::Node).filter(|(_, node)| is_up(node));
        let up: Vec<Key> = up.map(|(key, _)| key.clone()).collect();
        if self.down.is_empty()
            && up.len() > 1
            && let Some(node) = self.choose(&up)
        {
            let back = self.moment(10_000, 20_000);
            self.fail(node.name(), back);
        }
    }

    fn pods(&self) -> Vec<Key> {
        self.view
            .all(What::Pod)
            .map(|(key, _)| key.clone())
            .collect()
    }

    fn choose(&mut self, among: &[Key]) -> Option<Key> {
        (!among.is_empty()).then(|| among[self.rng.usize(..among.len())].clone())
    }

    /// What is not there any more, because somebody has deleted it, is not edited.
    fn edit(&self, resource: &str, key: Option<Key>, change: impl FnOnce(&mut Value)) {
        if let Some(key) = key {
            let _ = self.store.modify(resource, &key, Part::Whole, change);
        }
    }
}

fn new_image(deployment: &mut Value, version: u32) {
    let Some(container) = deployment.pointer_mut("/spec/template/spec/containers/0") else {
        return;
    };
    let image = text(container, &["image"]);
    let name = image.rsplit_once(':').map_or(image, |(name, _)| name);
    let image = format!("{name}:{version}");
    set(container, &["image"], image);
}
