//! EndpointSlices: who answers for a Service. Pure.

use serde_json::{Value, json};

use super::{
    super::fields::{at, list, map, text},
    pod::{condition, is_ready},
    rollout::owner,
};
use crate::object::Key;

/// Endpoints of one slice, as the endpoint slice controller has it.
const MOST: usize = 100;

/// The slices that a Service is to have; none where it has no selector.
pub(super) fn slices(service: &Value, pods: &[(&Key, &Value)]) -> Option<Vec<Value>> {
    let selector = map(service, &["spec", "selector"]).filter(|it| !it.is_empty())?;
    if text(service, &["spec", "type"]) == "ExternalName" {
        return None;
    }
    let selected = pods.iter().filter(|(_, pod)| {
        let label = |key: &str| at(pod, &["metadata", "labels", key]);
        selector
            .iter()
            .all(|(key, value)| label(key) == Some(value))
    });
    let running = selected.filter(|(_, pod)| {
        !text(pod, &["status", "podIP"]).is_empty()
            && !matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed")
    });
    let endpoints: Vec<Value> = running
        .clone()
        .map(|(key, pod)| endpoint(key, pod))
        .collect();
    let one = running.map(|(_, pod)| *pod).next();
    let ports: Vec<Value> = list(service, &["spec", "ports"])
        .iter()
        .map(|it| port(it, one))
        .collect();
    let mut chunks: Vec<&[Value]> = endpoints.chunks(MOST).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let name = text(service, &["metadata", "name"]);
    let slices = chunks.into_iter().enumerate().map(|(at, endpoints)| {
        json!({
            "metadata": {
                "name": format!("{name}-{}", super::rollout::hash(&json!([name, at]))),
                "labels": {
                    "kubernetes.io/service-name": name,
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                },
                "ownerReferences": [owner("v1", "Service", service)],
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": ports,
        })
    });
    Some(slices.collect())
}

fn endpoint(key: &Key, pod: &Value) -> Value {
    let terminating = at(pod, &["metadata", "deletionTimestamp"]).is_some();
    json!({
        "addresses": [text(pod, &["status", "podIP"])],
        "conditions": {
            "ready": is_ready(pod),
            "serving": condition(pod, "Ready"),
            "terminating": terminating,
        },
        "nodeName": text(pod, &["spec", "nodeName"]),
        "targetRef": {
            "kind": "Pod",
            "namespace": key.namespace(),
            "name": key.name(),
            "uid": text(pod, &["metadata", "uid"]),
        },
    })
}

/// A port by its number; a name is looked up in a pod.
fn port(port: &Value, pod: Option<&Value>) -> Value {
    let target = port.get("targetPort").unwrap_or(&Value::Null);
    let number = match target.as_str() {
        None => target.clone(),
        Some(name) => pod
            .into_iter()
            .flat_map(|pod| list(pod, &["spec", "containers"]))
            .flat_map(|container| list(container, &["ports"]))
            .find(|it| text(it, &["name"]) == name)
            .and_then(|it| it.get("containerPort").cloned())
            .unwrap_or_default(),
    };
    json!({"name": text(port, &["name"]), "port": number, "protocol": text(port, &["protocol"])})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_answered_by_the_pods_that_it_selects() {
        let service = json!({"metadata": {"name": "web", "uid": "u"}, "spec": {"selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]}});
        let pod = |app: &str, ip: &str, ready: &str| {
            json!({
                "metadata": {"labels": {"app": app}, "uid": ip},
                "spec": {"nodeName": "n", "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
                "status": {"podIP": ip, "phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
            })
        };
        let key = Key::new("default", "p");
        let (ready, unready, other, early) = (
            pod("web", "1", "True"),
            pod("web", "2", "False"),
            pod("db", "3", "True"),
            pod("web", "", "False"),
        );
        let slices = slices(
            &service,
            &[
                (&key, &ready),
                (&key, &unready),
                (&key, &other),
                (&key, &early),
            ],
        )
        .unwrap();
        let seen: Vec<_> = list(&slices[0], &["endpoints"])
            .iter()
            .map(|it| {
                (
                    it["addresses"][0].as_str().unwrap(),
                    it["conditions"]["ready"] == true,
                )
            })
            .collect();
        assert_eq!(seen, [("1", true), ("2", false)]);
        assert_eq!(slices[0]["ports"][0]["port"], 8080);
        assert_eq!(
            super::slices(&json!({"spec": {}}), &[]),
            None,
            "nobody is selected by nothing"
        );
        let empty = super::slices(&service, &[]).unwrap();
        assert_eq!(
            list(&empty[0], &["endpoints"]),
            &[] as &[Value],
            "a slice says that there is nobody"
        );
    }

    #[test]
    fn many_endpoints_are_in_many_slices() {
        let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"a": "b"}}});
        let pod = json!({"metadata": {"labels": {"a": "b"}}, "status": {"podIP": "1"}});
        let key = Key::new("default", "p");
        let slices = slices(&service, &vec![(&key, &pod); 250]).unwrap();
        let sizes: Vec<_> = slices
            .iter()
            .map(|it| list(it, &["endpoints"]).len())
            .collect();
        assert_eq!(sizes, [100, 100, 50]);
    }
}
