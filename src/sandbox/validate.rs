//! The basics without which an object makes no sense, refused in the API server's words. Whether its fields are those
//! of its kind is looked at before (`conform`).

use serde_json::Value;

use super::{
    definition::Definition,
    fields::{at, list, map, number, text},
    names,
    refusal::Wrong,
};

/// What is wrong with an object that is to be stored.
pub fn object(definition: &Definition, new: &Value) -> Vec<Wrong> {
    let mut wrong = metadata(definition, new);
    let identity = &definition.identity;
    match (identity.group.as_str(), identity.plural.as_str()) {
        ("", "pods") => pod_spec(new, "", &mut wrong),
        ("", "services") => service(new, &mut wrong),
        ("apps", _) => workload(new, &mut wrong),
        ("discovery.k8s.io", "endpointslices") if text(new, &["addressType"]).is_empty() => {
            wrong.push(Wrong::required("addressType", ""));
        }
        ("apiextensions.k8s.io", _) => crd(new, &mut wrong),
        _ => {}
    }
    wrong
}

/// What is wrong with a change of an object.
pub fn change(definition: &Definition, old: &Value, new: &Value) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let being_deleted = at(old, &["metadata", "deletionTimestamp"]).is_some();
    if being_deleted {
        let had = list(old, &["metadata", "finalizers"]);
        let added: Vec<String> = list(new, &["metadata", "finalizers"])
            .iter()
            .filter(|one| !had.contains(one))
            .map(Value::to_string)
            .collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            wrong.push(Wrong::forbidden("metadata.finalizers", why));
        }
    }
    let mut fixed = |path: &[&str]| {
        if at(old, path) != at(new, path) {
            let value = at(new, path).cloned().unwrap_or_default();
            wrong.push(Wrong::immutable(path.join("."), &value));
        }
    };
    let identity = &definition.identity;
    match (identity.group.as_str(), identity.plural.as_str()) {
        ("apps", "deployments" | "replicasets") => fixed(&["spec", "selector"]),
        ("apps", "statefulsets") => stateful_set(old, new, &mut wrong),
        ("", "pods") => pod(old, new, &mut wrong),
        ("", "secrets") => fixed(&["type"]),
        ("", "configmaps") => {}
        ("", "services") if !text(old, &["spec", "clusterIP"]).is_empty() => {
            let types = [old, new].map(|it| text(it, &["spec", "type"]) == "ExternalName");
            if types == [false, false] {
                fixed(&["spec", "clusterIP"]);
            }
        }
        ("discovery.k8s.io", _) => fixed(&["addressType"]),
        ("apiextensions.k8s.io", _) => {
            fixed(&["spec", "group"]);
            fixed(&["spec", "scope"]);
            fixed(&["spec", "names", "plural"]);
            fixed(&["spec", "names", "kind"]);
        }
        _ => {}
    }
    if identity.group.is_empty()
        && matches!(identity.plural.as_str(), "secrets" | "configmaps")
        && at(old, &["immutable"]) == Some(&Value::Bool(true))
    {
        for field in ["immutable", "data", "binaryData"] {
            if at(old, &[field]) != at(new, &[field]) {
                let why = "field is immutable when `immutable` is set";
                wrong.push(Wrong::forbidden(field, why));
            }
        }
    }
    wrong
}

fn metadata(definition: &Definition, new: &Value) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let name = text(new, &["metadata", "name"]);
    let check: fn(&str) -> names::Objection = match definition.identity.plural.as_str() {
        "namespaces" => names::label,
        "services" if definition.identity.group.is_empty() => names::old_label,
        _ => names::subdomain,
    };
    let name_value = || Value::from(name);
    if name.is_empty() {
        wrong.push(Wrong::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if let Some(why) = check(name) {
        wrong.push(Wrong::invalid("metadata.name", &name_value(), why));
    }
    labels(new, &["metadata", "labels"], &mut wrong);
    for key in map(new, &["metadata", "annotations"]).into_iter().flatten() {
        if let Some(why) = names::qualified(&key.0.to_ascii_lowercase()) {
            wrong.push(Wrong::invalid(
                "metadata.annotations",
                &key.0.as_str().into(),
                why,
            ));
        }
    }
    for (at, owner) in list(new, &["metadata", "ownerReferences"])
        .iter()
        .enumerate()
    {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &[field]).is_empty() {
                let value = owner.get(field).cloned().unwrap_or_else(|| "".into());
                let path = format!("metadata.ownerReferences[{at}].{field}");
                wrong.push(Wrong::invalid(path, &value, "must not be empty"));
            }
        }
    }
    wrong
}

fn labels(new: &Value, path: &[&str], wrong: &mut Vec<Wrong>) {
    for (key, value) in map(new, path).into_iter().flatten() {
        if let Some(why) = names::qualified(key) {
            wrong.push(Wrong::invalid(path.join("."), &key.as_str().into(), why));
        }
        match value.as_str() {
            Some(text) => {
                if let Some(why) = names::label_value(text) {
                    wrong.push(Wrong::invalid(path.join("."), value, why));
                }
            }
            None => wrong.push(Wrong::invalid(path.join("."), value, "must be a string")),
        }
    }
}

/// Of a pod, or of the template below `prefix`.
fn pod_spec(holder: &Value, prefix: &str, wrong: &mut Vec<Wrong>) {
    let containers = list(holder, &["spec", "containers"]);
    if containers.is_empty() {
        wrong.push(Wrong::required(format!("{prefix}spec.containers"), ""));
    }
    let mut seen = Vec::new();
    for field in ["initContainers", "containers"] {
        for (at, container) in list(holder, &["spec", field]).iter().enumerate() {
            let path = format!("{prefix}spec.{field}[{at}]");
            let name = text(container, &["name"]);
            if name.is_empty() {
                wrong.push(Wrong::required(format!("{path}.name"), ""));
            } else if let Some(why) = names::label(name) {
                wrong.push(Wrong::invalid(format!("{path}.name"), &name.into(), why));
            } else if seen.contains(&name) {
                wrong.push(Wrong::duplicate(format!("{path}.name"), &name.into()));
            }
            seen.push(name);
            if text(container, &["image"]).is_empty() {
                wrong.push(Wrong::required(format!("{path}.image"), ""));
            }
        }
    }
    const POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
    let policy = at(holder, &["spec", "restartPolicy"]).cloned();
    if let Some(policy) = policy.filter(|it| !POLICIES.contains(&it.as_str().unwrap_or_default())) {
        let field = format!("{prefix}spec.restartPolicy");
        wrong.push(Wrong::unsupported(field, &policy, POLICIES));
    }
}

fn workload(new: &Value, wrong: &mut Vec<Wrong>) {
    if let Some(replicas) = number(new, &["spec", "replicas"]).filter(|it| *it < 0) {
        wrong.push(Wrong::invalid(
            "spec.replicas",
            &replicas.into(),
            "must be greater than or equal to 0",
        ));
    }
    let template = at(new, &["spec", "template"]).unwrap_or(&Value::Null);
    match at(new, &["spec", "selector"]) {
        None | Some(Value::Null) => wrong.push(Wrong::required("spec.selector", "")),
        Some(selector) => {
            let empty = map(selector, &["matchLabels"]).is_none_or(|it| it.is_empty())
                && list(selector, &["matchExpressions"]).is_empty();
            if empty {
                let why = "empty selector is invalid for deployment";
                wrong.push(Wrong::invalid("spec.selector", selector, why));
            } else if !selects(selector, template) {
                let labels = at(template, &["metadata", "labels"]);
                let why = "`selector` does not match template `labels`";
                let labels = labels.cloned().unwrap_or(Value::Null);
                wrong.push(Wrong::invalid(
                    "spec.template.metadata.labels",
                    &labels,
                    why,
                ));
            }
        }
    }
    labels(template, &["metadata", "labels"], wrong);
    pod_spec(template, "spec.template.", wrong);
    let policy = text(template, &["spec", "restartPolicy"]);
    if matches!(policy, "OnFailure" | "Never") {
        const ALWAYS: &[&str] = &["Always"];
        let field = "spec.template.spec.restartPolicy";
        wrong.push(Wrong::unsupported(field, &policy.into(), ALWAYS));
    }
}

/// Whether a `LabelSelector` object matches the labels of an object or template.
pub fn selects(selector: &Value, object: &Value) -> bool {
    let label = |key: &str| at(object, &["metadata", "labels", key]).and_then(Value::as_str);
    let pairs = map(selector, &["matchLabels"]).into_iter().flatten();
    let mut expressions = list(selector, &["matchExpressions"]).iter();
    pairs
        .into_iter()
        .all(|(key, value)| label(key) == value.as_str())
        && expressions.all(|expression| {
            let found = label(text(expression, &["key"]));
            let is_in = || {
                let values = list(expression, &["values"]);
                found.is_some_and(|found| values.iter().any(|value| value == found))
            };
            match text(expression, &["operator"]) {
                "In" => is_in(),
                "NotIn" => !is_in(),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

fn stateful_set(old: &Value, new: &Value, wrong: &mut Vec<Wrong>) {
    const FREE: &[&str] = &[
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    if without(old, FREE) != without(new, FREE) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
            'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
            'minReadySeconds' are forbidden";
        wrong.push(Wrong::forbidden("spec", why));
    }
}

fn pod(old: &Value, new: &Value, wrong: &mut Vec<Wrong>) {
    const FREE: &[&str] = &[
        "activeDeadlineSeconds",
        "tolerations",
        "terminationGracePeriodSeconds",
        "schedulingGates",
        "containers",
        "initContainers",
        "nodeName",
    ];
    let images = |pod: &Value| -> Vec<Value> {
        let all = ["containers", "initContainers"].map(|it| list(pod, &["spec", it]));
        all.concat().into_iter().map(without_image).collect()
    };
    let node = [old, new].map(|pod| text(pod, &["spec", "nodeName"]));
    let moves = !node[0].is_empty() && node[0] != node[1];
    if without(old, FREE) != without(new, FREE) || images(old) != images(new) || moves {
        let why = "pod updates may not change fields other than `spec.containers[*].image`,\
            `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
            existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously \
            negative)";
        wrong.push(Wrong::forbidden("spec", why));
    }
}

fn without_image(mut container: Value) -> Value {
    if let Some(container) = container.as_object_mut() {
        container.remove("image");
        // Follows the image where it is not given.
        container.remove("imagePullPolicy");
    }
    container
}

fn without(object: &Value, keys: &[&str]) -> Value {
    let mut spec = at(object, &["spec"]).cloned().unwrap_or_default();
    if let Some(spec) = spec.as_object_mut() {
        spec.retain(|key, _| !keys.contains(&key.as_str()));
    }
    spec
}

fn service(new: &Value, wrong: &mut Vec<Wrong>) {
    const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    let kind = text(new, &["spec", "type"]);
    if !TYPES.contains(&kind) {
        wrong.push(Wrong::unsupported("spec.type", &kind.into(), TYPES));
    }
    let ports = list(new, &["spec", "ports"]);
    let headless = text(new, &["spec", "clusterIP"]) == "None";
    if ports.is_empty() && !headless && kind != "ExternalName" {
        wrong.push(Wrong::required("spec.ports", ""));
    }
    for (at, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{at}]");
        if ports.len() > 1 && text(port, &["name"]).is_empty() {
            wrong.push(Wrong::required(format!("{path}.name"), ""));
        }
        let number = port.get("port").cloned().unwrap_or(Value::from(0));
        if !number.as_i64().is_some_and(|it| (1..=65535).contains(&it)) {
            let why = "must be between 1 and 65535, inclusive";
            wrong.push(Wrong::invalid(format!("{path}.port"), &number, why));
        }
    }
}

fn crd(new: &Value, wrong: &mut Vec<Wrong>) {
    let group = text(new, &["spec", "group"]);
    let plural = text(new, &["spec", "names", "plural"]);
    for (path, value) in [
        ("spec.group", group),
        ("spec.names.plural", plural),
        ("spec.names.kind", text(new, &["spec", "names", "kind"])),
    ] {
        if value.is_empty() {
            wrong.push(Wrong::required(path, ""));
        }
    }
    if !group.is_empty() && !group.contains('.') {
        let why = "should be a domain with at least one dot";
        wrong.push(Wrong::invalid("spec.group", &group.into(), why));
    }
    let name = text(new, &["metadata", "name"]);
    if !group.is_empty() && !plural.is_empty() && name != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        wrong.push(Wrong::invalid("metadata.name", &name.into(), why));
    }
    const SCOPES: &[&str] = &["Cluster", "Namespaced"];
    let scope = text(new, &["spec", "scope"]);
    if !SCOPES.contains(&scope) {
        wrong.push(Wrong::unsupported("spec.scope", &scope.into(), SCOPES));
    }
    let versions = list(new, &["spec", "versions"]);
    let stored = versions
        .iter()
        .filter(|it| it.get("storage") == Some(&Value::Bool(true)));
    if stored.count() != 1 {
        let value = at(new, &["spec", "versions"])
            .cloned()
            .unwrap_or(Value::Null);
        let why = "must have exactly one version marked as storage version";
        wrong.push(Wrong::invalid("spec.versions", &value, why));
    }
    for (at, version) in versions.iter().enumerate() {
        if version
            .get("schema")
            .is_none_or(|schema| schema.get("openAPIV3Schema").is_none())
        {
            let path = format!("spec.versions[{at}].schema.openAPIV3Schema");
            wrong.push(Wrong::required(path, "schemas are required"));
        }
    }
}
