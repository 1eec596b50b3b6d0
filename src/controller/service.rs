//! The `service` controller: whether somebody would answer.
//!
//! [`decide`] is pure: a Service and its EndpointSlices in; how many endpoints are ready, on which nodes and for
//! which ports, out. A Service is ready when each of its ports has a ready endpoint.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::opinion::{Facts, Opinion, fields, some_of};
use crate::{
    object::{Key, Object},
    readiness::{Part, Parts, State, Target},
};

mod apply;

pub use apply::ServiceController;

/// The label by which a slice says whose it is.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What is to be thought of a Service.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Whether it can be counted on.
    pub opinion: Opinion,
    /// What there is; absent where the Service has no endpoints of its own.
    pub details: Option<Details>,
    /// Its endpoints.
    pub parts: Parts,
}

/// The numbers behind a decision, as the verdict's details show them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Details {
    /// All endpoints.
    pub endpoints: u32,
    /// Those that are ready.
    pub ready: u32,
    /// Those that still answer, ready or on their way out.
    pub serving: u32,
    /// Ready endpoints by node; those of which no node is known are under the empty name.
    pub nodes: BTreeMap<String, u32>,
    /// Ready endpoints by the Service's port.
    pub ports: BTreeMap<String, u32>,
}

impl Details {
    /// As JSON.
    pub fn to_json(&self) -> Bytes {
        // Strings and numbers: there is nothing that could fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

#[derive(Default, Deserialize)]
struct Service {
    #[serde(default)]
    spec: Option<Spec>,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    r#type: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    external_name: Option<String>,
    ports: Option<Vec<ServicePort>>,
}

#[derive(Deserialize)]
struct ServicePort {
    name: Option<String>,
    port: i64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    load_balancer: Option<LoadBalancer>,
}

#[derive(Default, Deserialize)]
struct LoadBalancer {
    ingress: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Default, Deserialize)]
struct Slice {
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<SlicePort>>,
}

#[derive(Deserialize)]
struct SlicePort {
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<EndpointConditions>,
    node_name: Option<String>,
    target_ref: Option<TargetRef>,
}

#[derive(Default, Deserialize)]
struct EndpointConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize)]
struct TargetRef {
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
}

/// One endpoint, put together from all slices that have it: a pod of a dual-stack Service is in two.
struct Found {
    target: Target,
    uid: String,
    node: String,
    ready: bool,
    serving: bool,
    terminating: bool,
    ports: BTreeSet<String>,
}

/// What is to be thought of a Service that has these EndpointSlices.
pub fn decide(service: &Object, slices: &[impl AsRef<Object>]) -> Decision {
    let alone = |opinion| Decision {
        opinion,
        details: None,
        parts: Parts::default(),
    };
    if let Some(opinion) = Facts::read(service).settle() {
        return alone(opinion);
    }
    let Service { spec, status } = match fields(service) {
        Ok(service) => service,
        Err(opinion) => return alone(opinion),
    };
    let spec = spec.unwrap_or_default();
    if spec.r#type.as_deref() == Some("ExternalName") {
        let name = spec.external_name.unwrap_or_default();
        return alone(Opinion::ready(
            "ExternalName",
            format!("it stands for {name}"),
        ));
    }
    let found = match gather(service, slices) {
        Ok(found) => found,
        Err(opinion) => return alone(opinion),
    };
    let details = count(&spec, &found);
    let opinion = judge(
        &spec,
        &status.unwrap_or_default(),
        slices.is_empty(),
        &details,
    );
    Decision {
        opinion,
        details: Some(details),
        parts: found.into_values().map(Found::into_part).collect(),
    }
}

/// The endpoints of all slices. One slice that cannot be read leaves all in doubt.
fn gather(
    service: &Object,
    slices: &[impl AsRef<Object>],
) -> Result<BTreeMap<String, Found>, Opinion> {
    let mut all: BTreeMap<String, Found> = BTreeMap::new();
    for object in slices.iter().map(AsRef::as_ref) {
        let doubt = |opinion: Opinion| {
            let slice = object.key.name();
            Opinion::unknown(
                opinion.reason,
                format!("EndpointSlice {slice}: {}", opinion.message),
            )
        };
        if object.stale {
            let message = "a newer version could not be decoded";
            return Err(doubt(Opinion::unknown("Stale", message)));
        }
        if object.deletion_timestamp.is_some() {
            continue;
        }
        let slice: Slice = fields(object).map_err(doubt)?;
        let ports: BTreeSet<String> = slice
            .ports
            .unwrap_or_default()
            .into_iter()
            .map(|port| port.name.unwrap_or_default())
            .collect();
        for endpoint in slice.endpoints.unwrap_or_default() {
            let found = Found::new(service, endpoint, &ports);
            let id = if found.uid.is_empty() {
                found.target.key.to_string()
            } else {
                found.uid.clone()
            };
            match all.get_mut(&id) {
                None => {
                    all.insert(id, found);
                }
                Some(known) => known.join(found),
            }
        }
    }
    Ok(all)
}

fn count(spec: &Spec, found: &BTreeMap<String, Found>) -> Details {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let ready = || found.values().filter(|one| one.ready);
    let mut nodes = BTreeMap::new();
    for one in ready() {
        *nodes.entry(one.node.clone()).or_default() += 1;
    }
    let ports = spec.ports.iter().flatten().map(|port| {
        let name = port.name.clone().unwrap_or_default();
        let ready = number(ready().filter(|one| one.ports.contains(&name)).count());
        let shown = if name.is_empty() {
            port.port.to_string()
        } else {
            name
        };
        (shown, ready)
    });
    Details {
        endpoints: number(found.len()),
        ready: number(ready().count()),
        serving: number(found.values().filter(|one| one.serving).count()),
        nodes,
        ports: ports.collect(),
    }
}

fn judge(spec: &Spec, status: &Status, no_slices: bool, details: &Details) -> Opinion {
    let counts = some_of(
        "Ready endpoints",
        details.ready.into(),
        details.endpoints.into(),
    );
    if spec.r#type.as_deref() == Some("LoadBalancer") {
        let has = |list: Option<usize>| list.is_some_and(|count| count > 0);
        let ingress = status.load_balancer.as_ref();
        let ingress = ingress.and_then(|balancer| balancer.ingress.as_ref().map(Vec::len));
        if spec.cluster_ip.as_deref().unwrap_or_default().is_empty() {
            return Opinion::not_ready("NoClusterIP", "it has no cluster IP yet");
        }
        if !has(ingress) && !has(spec.external_ips.as_ref().map(Vec::len)) {
            let message = format!("the load balancer has no address yet; {counts}");
            return Opinion::not_ready("NoLoadBalancerAddress", message);
        }
    }
    if no_slices {
        return Opinion::not_ready("NoEndpointSlices", "nobody has said who stands behind it");
    }
    if details.endpoints == 0 {
        return Opinion::not_ready("NoEndpoints", "no pod stands behind it");
    }
    if details.ready == 0 {
        let message = match details.serving {
            0 => counts,
            serving => format!("{counts}; {serving} still answer on their way out"),
        };
        return Opinion::not_ready("NoReadyEndpoints", message);
    }
    let idle: Vec<&str> = details
        .ports
        .iter()
        .filter(|(_, ready)| **ready == 0)
        .map(|(name, _)| name.as_str())
        .collect();
    if !idle.is_empty() {
        let message = format!("{counts}, none for port {}", idle.join(", "));
        return Opinion::not_ready("PortsWithoutEndpoints", message);
    }
    let nodes = details.nodes.keys().filter(|node| !node.is_empty()).count();
    Opinion::ready("EndpointsReady", format!("{counts}, on {nodes} nodes"))
}

impl Found {
    fn new(service: &Object, endpoint: Endpoint, ports: &BTreeSet<String>) -> Self {
        let conditions = endpoint.conditions.unwrap_or_default();
        // Unset means true, as the API has it.
        let ready = conditions.ready.unwrap_or(true);
        let address = endpoint.addresses.and_then(|all| all.into_iter().next());
        let (resource, key, uid) = match endpoint.target_ref {
            Some(TargetRef {
                kind,
                namespace,
                name: Some(name),
                uid,
            }) => {
                let resource = match kind.as_deref() {
                    None | Some("Pod") => "pods".to_owned(),
                    Some(kind) => kind.to_lowercase(),
                };
                let namespace = namespace.unwrap_or_else(|| service.key.namespace().to_owned());
                (
                    resource,
                    Key::new(&namespace, &name),
                    uid.unwrap_or_default(),
                )
            }
            _ => {
                let name = address.unwrap_or_default();
                let key = Key::new(service.key.namespace(), &name);
                ("addresses".to_owned(), key, String::new())
            }
        };
        Self {
            target: Target {
                resource: resource.into(),
                key,
            },
            uid,
            node: endpoint.node_name.unwrap_or_default(),
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or_default(),
            ports: ports.clone(),
        }
    }

    /// The same endpoint in another slice. What one of them doubts is in doubt.
    fn join(&mut self, other: Self) {
        self.ready &= other.ready;
        self.serving &= other.serving;
        self.terminating |= other.terminating;
        self.ports.extend(other.ports);
    }

    fn into_part(self) -> Part {
        let (state, reason) = match (self.ready, self.terminating, self.serving) {
            (true, ..) => (State::Ready, "Ready"),
            (false, true, true) => (State::NotReady, "TerminatingServing"),
            (false, true, false) => (State::NotReady, "Terminating"),
            (false, false, _) => (State::NotReady, "NotReady"),
        };
        let message = match self.node.as_str() {
            "" => String::new(),
            node => format!("on {node}"),
        };
        Part {
            target: self.target,
            uid: self.uid.into(),
            state,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::object::tests::object;

    fn service(spec: &str) -> Object {
        Object {
            json: format!(r#"{{"spec":{spec}}}"#).into(),
            ..object("default", "web")
        }
    }

    fn slice(ports: &str, endpoints: &str) -> Arc<Object> {
        Arc::new(Object {
            json: format!(r#"{{"ports":[{ports}],"endpoints":[{endpoints}]}}"#).into(),
            ..object("default", "web-abc")
        })
    }

    fn endpoint(pod: &str, node: &str, ready: bool) -> String {
        format!(
            r#"{{"addresses":["10.0.0.1"],"conditions":{{"ready":{ready}}},"nodeName":"{node}",
            "targetRef":{{"kind":"Pod","namespace":"default","name":"{pod}","uid":"u-{pod}"}}}}"#
        )
    }

    const TWO_PORTS: &str = r#"{"ports":[{"name":"http","port":80},{"name":"admin","port":81}]}"#;
    const HTTP: &str = r#"{"name":"http","port":8080}"#;
    const ADMIN: &str = r#"{"name":"admin","port":8081}"#;

    fn said(decision: &Decision) -> (State, &str) {
        (decision.opinion.state, &decision.opinion.reason)
    }

    #[test]
    fn it_is_ready_when_each_port_has_a_ready_endpoint() {
        let both = [
            endpoint("a", "n1", true),
            endpoint("b", "n2", true),
            endpoint("c", "n2", false),
        ]
        .join(",");
        let decision = decide(
            &service(TWO_PORTS),
            &[slice(&format!("{HTTP},{ADMIN}"), &both)],
        );
        assert_eq!(said(&decision), (State::Ready, "EndpointsReady"));
        assert_eq!(decision.opinion.message, "Ready endpoints: 2/3, on 2 nodes");
        assert_eq!(
            String::from_utf8_lossy(&decision.details.unwrap().to_json()),
            r#"{"endpoints":3,"ready":2,"serving":2,"nodes":{"n1":1,"n2":1},"ports":{"admin":2,"http":2}}"#
        );
        assert_eq!((decision.parts.total, decision.parts.ready), (3, 2));
        let worst = &decision.parts.named[0];
        assert_eq!((worst.target.key.name(), &*worst.message), ("c", "on n2"));

        let slices = [
            slice(HTTP, &endpoint("a", "n1", true)),
            slice(ADMIN, &endpoint("b", "n1", false)),
        ];
        let decision = decide(&service(TWO_PORTS), &slices);
        assert_eq!(said(&decision), (State::NotReady, "PortsWithoutEndpoints"));
        assert_eq!(
            decision.opinion.message,
            "Ready endpoints: 1/2, none for port admin"
        );
    }

    #[test]
    fn without_a_ready_endpoint_it_says_what_is_missing() {
        let plain = service(r#"{"ports":[{"port":80}]}"#);
        let unnamed = r#"{"name":"","port":8080}"#;
        let none: [Arc<Object>; 0] = [];
        assert_eq!(
            said(&decide(&plain, &none)),
            (State::NotReady, "NoEndpointSlices")
        );
        assert_eq!(
            said(&decide(&plain, &[slice(unnamed, "")])),
            (State::NotReady, "NoEndpoints")
        );
        let down = slice(unnamed, &endpoint("a", "n1", false));
        assert_eq!(
            said(&decide(&plain, &[down])),
            (State::NotReady, "NoReadyEndpoints")
        );
        let going = r#"{"addresses":["10.0.0.1"],"conditions":{"ready":false,"serving":true,"terminating":true}}"#;
        let decision = decide(&plain, &[slice(unnamed, going)]);
        assert_eq!(
            decision.opinion.message,
            "Ready endpoints: 0/1; 1 still answer on their way out"
        );
        assert_eq!(&*decision.parts.named[0].reason, "TerminatingServing");
        let up = slice(unnamed, &endpoint("a", "n1", true));
        assert_eq!(decide(&plain, &[up]).details.unwrap().ports["80"], 1);
    }

    #[test]
    fn a_pod_in_two_slices_is_one_endpoint_and_as_good_as_the_worse_of_them() {
        let up = || slice(HTTP, &endpoint("a", "n1", true));
        let down = || slice(HTTP, &endpoint("a", "n1", false));
        let http = service(r#"{"ports":[{"name":"http","port":80}]}"#);
        let decision = decide(&http, &[up(), up()]);
        assert_eq!(decision.details.unwrap().endpoints, 1);
        assert_eq!(
            decide(&http, &[up(), down()]).opinion.state,
            State::NotReady
        );
    }

    #[test]
    fn a_load_balancer_needs_an_address_and_an_external_name_nothing() {
        let up = || slice(HTTP, &endpoint("a", "n1", true));
        let balancer = |rest: &str| {
            let spec =
                format!(r#"{{"type":"LoadBalancer","ports":[{{"name":"http","port":80}}]{rest}"#);
            said(&decide(&service(&spec), &[up()])).1.to_owned()
        };
        assert_eq!(balancer("}"), "NoClusterIP");
        assert_eq!(
            balancer(r#","clusterIP":"10.0.0.9"}"#),
            "NoLoadBalancerAddress"
        );
        let status =
            r#","clusterIP":"10.0.0.9"},"status":{"loadBalancer":{"ingress":[{"ip":"1.2.3.4"}]}"#;
        assert_eq!(balancer(&format!("{status}}}")), "EndpointsReady");
        let external = service(r#"{"type":"ExternalName","externalName":"db.example.com"}"#);
        let none: [Arc<Object>; 0] = [];
        assert_eq!(
            said(&decide(&external, &none)),
            (State::Ready, "ExternalName")
        );
    }

    #[test]
    fn what_cannot_be_read_leaves_it_in_doubt() {
        let http = service(r#"{"ports":[{"name":"http","port":80}]}"#);
        let up = slice(HTTP, &endpoint("a", "n1", true));
        let broken = slice(HTTP, "7");
        let decision = decide(&http, &[up.clone(), broken]);
        assert_eq!(said(&decision), (State::Unknown, "Undecodable"));
        let stale = Arc::new(Object {
            stale: true,
            ..(*up).clone()
        });
        assert_eq!(said(&decide(&http, &[stale])), (State::Unknown, "Stale"));
        assert_eq!(
            said(&decide(&service("7"), &[up])),
            (State::Unknown, "Undecodable")
        );
    }
}
