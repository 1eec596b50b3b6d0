//! What the API server fills in where a writer says nothing, as far as anybody here reads it.

use serde_json::{Value, json};

use super::{
    definition::Definition,
    fields::{at, default, entry, list, remove, set, text},
};

/// Fills in an object that is created or changed.
pub fn fill(definition: &Definition, object: &mut Value) {
    let identity = &definition.identity;
    match (identity.group.as_str(), identity.plural.as_str()) {
        ("", "namespaces") => {
            let name = text(object, &["metadata", "name"]).to_owned();
            if !name.is_empty() {
                set(
                    object,
                    &["metadata", "labels", "kubernetes.io/metadata.name"],
                    name,
                );
            }
            default(object, &["spec", "finalizers"], json!(["kubernetes"]));
        }
        ("", "pods") => pod(object),
        ("", "services") => service(object),
        ("", "secrets") => secret(object),
        ("apps", plural) => workload(plural, object),
        ("apiextensions.k8s.io", _) => crd(object),
        _ => {}
    }
}

/// The status of what has just been created.
pub fn first_status(definition: &Definition) -> Option<Value> {
    let identity = &definition.identity;
    match (identity.group.as_str(), identity.plural.as_str()) {
        ("", "namespaces") => Some(json!({"phase": "Active"})),
        ("", "pods") => Some(json!({"phase": "Pending", "qosClass": "BestEffort"})),
        ("", "services") => Some(json!({"loadBalancer": {}})),
        ("apps", "deployments") => Some(json!({})),
        ("apps", "replicasets") => Some(json!({"replicas": 0})),
        ("apps", "statefulsets") => Some(json!({"replicas": 0, "availableReplicas": 0})),
        _ => None,
    }
}

fn workload(plural: &str, object: &mut Value) {
    default(object, &["spec", "replicas"], 1);
    match plural {
        "deployments" => {
            default(object, &["spec", "strategy", "type"], "RollingUpdate");
            if text(object, &["spec", "strategy", "type"]) == "RollingUpdate" {
                for field in ["maxUnavailable", "maxSurge"] {
                    default(object, &["spec", "strategy", "rollingUpdate", field], "25%");
                }
            }
            default(object, &["spec", "revisionHistoryLimit"], 10);
            default(object, &["spec", "progressDeadlineSeconds"], 600);
        }
        "statefulsets" => {
            default(object, &["spec", "podManagementPolicy"], "OrderedReady");
            default(object, &["spec", "updateStrategy", "type"], "RollingUpdate");
            if text(object, &["spec", "updateStrategy", "type"]) == "RollingUpdate" {
                default(
                    object,
                    &["spec", "updateStrategy", "rollingUpdate", "partition"],
                    0,
                );
            }
            default(object, &["spec", "revisionHistoryLimit"], 10);
        }
        _ => {}
    }
    if at(object, &["spec", "template"]).is_some() {
        pod_spec(entry(object, &["spec", "template", "spec"]));
    }
}

fn pod(object: &mut Value) {
    let spec = entry(object, &["spec"]);
    pod_spec(spec);
    default(spec, &["enableServiceLinks"], true);
    default(spec, &["priority"], 0);
    default(spec, &["preemptionPolicy"], "PreemptLowerPriority");
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerates = |toleration: &Value| {
            ["", key].contains(&text(toleration, &["key"]))
                && ["", "NoExecute"].contains(&text(toleration, &["effect"]))
        };
        let mut tolerations = list(spec, &["tolerations"]).to_vec();
        if !tolerations.iter().any(tolerates) {
            tolerations.push(json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            }));
            set(spec, &["tolerations"], tolerations);
        }
    }
}

fn pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default(spec, &["restartPolicy"], "Always");
    default(spec, &["terminationGracePeriodSeconds"], 30);
    default(spec, &["dnsPolicy"], "ClusterFirst");
    default(spec, &["schedulerName"], "default-scheduler");
    default(spec, &["securityContext"], json!({}));
    for field in ["initContainers", "containers"] {
        let Some(containers) = spec.get_mut(field).and_then(Value::as_array_mut) else {
            continue;
        };
        for container in containers.iter_mut().filter(|it| it.is_object()) {
            let image = text(container, &["image"]);
            let tag = image.rsplit('/').next().unwrap_or_default();
            let latest = !tag.contains([':', '@']) || tag.ends_with(":latest");
            let policy = if latest { "Always" } else { "IfNotPresent" };
            default(container, &["imagePullPolicy"], policy);
            default(container, &["resources"], json!({}));
            default(
                container,
                &["terminationMessagePath"],
                "/dev/termination-log",
            );
            default(container, &["terminationMessagePolicy"], "File");
            let ports = container.get_mut("ports").and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten().filter(|it| it.is_object()) {
                default(port, &["protocol"], "TCP");
            }
        }
    }
}

fn service(object: &mut Value) {
    default(object, &["spec", "type"], "ClusterIP");
    default(object, &["spec", "sessionAffinity"], "None");
    let external = text(object, &["spec", "type"]) == "ExternalName";
    let Some(ports) = entry(object, &["spec", "ports"]).as_array_mut() else {
        remove(object, &["spec", "ports"]);
        return;
    };
    for port in ports.iter_mut().filter(|it| it.is_object()) {
        default(port, &["protocol"], "TCP");
        let number = port.get("port").cloned().unwrap_or_default();
        default(port, &["targetPort"], number);
    }
    if !external {
        default(object, &["spec", "internalTrafficPolicy"], "Cluster");
        default(object, &["spec", "ipFamilies"], json!(["IPv4"]));
        default(object, &["spec", "ipFamilyPolicy"], "SingleStack");
    }
}

/// Gives a service an address, if it is to have one and has none.
pub fn cluster_ip(service: &mut Value, number: u64) {
    let external = text(service, &["spec", "type"]) == "ExternalName";
    if !external && text(service, &["spec", "clusterIP"]).is_empty() {
        let ip = format!("10.96.{}.{}", number / 250 % 250, number % 250 + 2);
        set(service, &["spec", "clusterIP"], ip);
    }
    if !external {
        let ip = text(service, &["spec", "clusterIP"]).to_owned();
        set(service, &["spec", "clusterIPs"], json!([ip]));
    }
}

fn secret(object: &mut Value) {
    use base64::{Engine, engine::general_purpose::STANDARD};
    default(object, &["type"], "Opaque");
    if let Some(Value::Object(plain)) = remove(object, &["stringData"]) {
        for (key, value) in plain {
            let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
            set(object, &["data", &key], encoded);
        }
    }
}

fn crd(object: &mut Value) {
    let kind = text(object, &["spec", "names", "kind"]).to_owned();
    if kind.is_empty() {
        return;
    }
    let names = ["singular", "listKind"];
    let values = [kind.to_ascii_lowercase(), format!("{kind}List")];
    for (name, value) in names.into_iter().zip(values) {
        default(object, &["spec", "names", name], value);
    }
    default(object, &["spec", "conversion", "strategy"], "None");
}

/// What a CRD's status says once it is served, which here is at once.
pub fn established(crd: &Value, now: &str) -> Value {
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now,
        })
    };
    let stored = list(crd, &["spec", "versions"])
        .iter()
        .find(|version| version.get("storage") == Some(&Value::Bool(true)))
        .map(|version| text(version, &["name"]).to_owned())
        .unwrap_or_default();
    json!({
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "acceptedNames": at(crd, &["spec", "names"]),
        "storedVersions": [stored],
    })
}
