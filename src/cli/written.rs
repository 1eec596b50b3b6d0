//! Objects as a write has printed them, by `kubectl apply -o json` or its like: what a wait right after it rests on.
//!
//! Only JSON, for that is what a write can print; and only what came from the API server, for a manifest says neither
//! uid nor version.

use serde::Deserialize;

use super::{Error, target};
use crate::proto::{KindStatus, Target, WaitTarget};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Printed {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    /// Of a List.
    items: Option<Vec<Printed>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    namespace: String,
    name: String,
    uid: String,
    generation: i64,
    resource_version: String,
}

/// What a wait for these very objects, as they are here or later, is for.
pub(super) fn read(text: &str, kinds: &[KindStatus]) -> Result<Vec<WaitTarget>, Error> {
    let mut targets = Vec::new();
    for printed in serde_json::Deserializer::from_str(text).into_iter() {
        let printed: Printed = printed.map_err(|error| {
            Error::Usage(format!(
                "--filename is not what kubectl apply -o json prints: {error}"
            ))
        })?;
        let (list, one) = match printed.items {
            Some(items) => (items, None),
            None => (Vec::new(), Some(printed)),
        };
        for object in list.into_iter().chain(one) {
            targets.push(object.target(kinds)?);
        }
    }
    if targets.is_empty() {
        let text = "there is no object in --filename";
        return Err(Error::Usage(text.to_owned()));
    }
    Ok(targets)
}

impl Printed {
    fn target(self, kinds: &[KindStatus]) -> Result<WaitTarget, Error> {
        let metadata = self.metadata;
        if metadata.uid.is_empty() || metadata.resource_version.is_empty() {
            let text = format!(
                "{} {:?} in --filename has no uid or resourceVersion: pass what a write has printed, as in kubectl \
                 apply -f app.yaml -o json | informerd wait -f -",
                self.kind, metadata.name
            );
            return Err(Error::Usage(text));
        }
        let group = self
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        let group_of = |resource: &str| {
            resource
                .split_once('.')
                .map_or("", |(_, group)| group)
                .to_owned()
        };
        let kind = kinds
            .iter()
            .find(|kind| kind.kind == self.kind && group_of(&kind.resource) == group)
            .ok_or_else(|| {
                target::unknown(&format!("{} ({})", self.kind, self.api_version), kinds)
            })?;
        Ok(WaitTarget {
            target: Some(Target {
                resource: kind.resource.clone(),
                namespace: metadata.namespace,
                name: metadata.name,
            }),
            uid: metadata.uid,
            min_generation: metadata.generation,
            min_resource_version: metadata.resource_version,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Vec<KindStatus> {
        let kind = |resource: &str, kind: &str| KindStatus {
            resource: resource.into(),
            kind: kind.into(),
            ..KindStatus::default()
        };
        vec![
            kind("services.serving.knative.dev", "Service"),
            kind("services", "Service"),
            kind("deployments.apps", "Deployment"),
        ]
    }

    const WEB: &str = r#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata":
        {"namespace": "shop", "name": "web", "uid": "u", "generation": 3, "resourceVersion": "17"}}"#;
    const DB: &str = r#"{"apiVersion": "v1", "kind": "Service", "metadata":
        {"namespace": "shop", "name": "db", "uid": "s", "resourceVersion": "18"}}"#;

    #[test]
    fn one_several_and_lists_of_them_are_read_as_they_were_written() {
        let list = format!(r#"{{"apiVersion": "v1", "kind": "List", "items": [{WEB}, {DB}]}}"#);
        for text in [list, format!("{WEB}\n{DB}\n")] {
            let targets = read(&text, &kinds()).unwrap();
            let [web, db] = &targets[..] else {
                panic!("{targets:?}")
            };
            let resource = |it: &WaitTarget| it.target.clone().unwrap().resource;
            assert_eq!(
                (resource(web).as_str(), resource(db).as_str()),
                ("deployments.apps", "services")
            );
            assert_eq!(
                (
                    web.uid.as_str(),
                    web.min_generation,
                    web.min_resource_version.as_str()
                ),
                ("u", 3, "17")
            );
            assert_eq!(db.target.as_ref().unwrap().namespace, "shop");
        }
    }

    #[test]
    fn what_no_write_has_printed_is_refused_and_said_what_it_is() {
        let manifest =
            r#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}"#;
        for (text, part) in [
            ("", "no object"),
            (r#"{"kind": "List", "items": []}"#, "no object"),
            ("apiVersion: apps/v1", "kubectl apply -o json"),
            (manifest, "Deployment \"web\""),
            (&DB.replace("v1", "v2/v1"), "Service (v2/v1)"),
        ] {
            let error = read(text, &kinds()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
