//! Rights that hold for some selectors only. RBAC does not look at selectors; the node authorizer does, which gives a
//! kubelet the pods of its own node, and so does a webhook that gives what a team's label selects.

use crate::cluster::Webhook;

use super::*;

const CONFIG: &str = "
auth:
  tokens: {audience: informerd}
controllers: [workload]
kinds:
- pods
- configmaps
- nodes
";

/// Accounts of the namespace `default`; to the webhook each stands for one rule.
const ACCOUNTS: [&str; 5] = ["by-label", "by-field", "by-both", "everything", "nobody"];

const LABELS: [&str; 12] = [
    "",
    "team=a",
    "team==a",
    " team = a ",
    "team in (a)",
    "team in (a,b)",
    "team=b",
    "team!=a",
    "team",
    "!team",
    "tier=web,team=a",
    "team=a,tier notin (db,cache)",
];

/// As the API server reads them too: it knows no sets of fields.
const FIELDS: [&str; 8] = [
    "",
    "spec.nodeName=node-0",
    "spec.nodeName==node-0",
    "spec.nodeName=node-1",
    "spec.nodeName!=node-0",
    "status.phase=Running",
    "status.phase!=Failed,spec.nodeName=node-0",
    "metadata.namespace=default",
];

/// Whether a request is only for objects whose `key` is this value.
fn only(spec: &Value, selector: &str, key: &str, value: &str) -> bool {
    let requirements = spec["resourceAttributes"][selector]["requirements"].as_array();
    requirements
        .into_iter()
        .flatten()
        .any(|it| it["key"] == key && it["operator"] == "In" && it["values"] == json!([value]))
}

/// What the webhook allows.
fn decide(spec: &Value) -> bool {
    let team = only(spec, "labelSelector", "team", "a");
    let node = only(spec, "fieldSelector", "spec.nodeName", "node-0");
    let user = spec["user"].as_str().unwrap_or_default();
    match user.trim_start_matches("system:serviceaccount:default:") {
        "by-label" => team,
        "by-field" => node,
        "by-both" => team && node,
        _ => false,
    }
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    let mut add = |methods: &[&'static str], resource: &str, place: &[&str], on: [&str; 2]| {
        for &method in methods {
            let view = [View::Full, View::Metadata, View::Keys][cells.len() % 3];
            let scope = Scope {
                label_selector: on[0].into(),
                field_selector: on[1].into(),
                ..scope(resource, place)
            };
            cells.push(Cell {
                method,
                scope,
                view,
            });
        }
    };
    let objects = ["ListObjects", "WatchObjects", "kube list", "kube watch"];
    for labels in LABELS {
        add(&objects, "configmaps", &["default"], [labels, ""]);
        let verdicts = ["ListReadiness", "WatchReadiness"];
        add(&verdicts, "po", &["default"], [labels, ""]);
    }
    for fields in FIELDS {
        add(&objects, "po", &[], ["", fields]);
        add(&objects, "po", &["default"], ["team=a", fields]);
    }
    add(&objects, "configmaps", &[], ["team=a", ""]);
    add(&objects, "nodes", &[], ["", ""]);
    add(&objects, "nodes", &[], ["team=a", ""]);
    cells
}

#[tokio::test]
async fn a_right_to_what_a_selector_selects_is_a_right_to_that_and_no_more() {
    // Before the cluster, which asks it: a right that is older than the test would say nothing.
    let webhook = Webhook::start(decide).await.unwrap();
    let Some(cluster) = cluster::private_with(webhook.flags()).await else {
        return;
    };
    for account in ACCOUNTS.iter().chain(&["impersonator"]) {
        let account = ["create", "serviceaccount", account];
        cluster.kubectl_ok(&account).await;
    }
    for account in ["everything", "impersonator"] {
        let account = format!("--serviceaccount=default:{account}");
        let bind = ["create", "clusterrolebinding", &account[25..]];
        let role = ["--clusterrole=cluster-admin", &account];
        cluster.kubectl_ok(&[&bind[..], &role].concat()).await;
    }
    let client = cluster.client().await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;

    let mut who = Vec::new();
    for account in ACCOUNTS {
        let groups = ["system:serviceaccounts", "system:serviceaccounts:default"];
        let token = token(&cluster, "default", account, &[]).await;
        let caller = Caller::new(&daemon, &token).await;
        let user = format!("system:serviceaccount:default:{account}");
        who.push((caller, user, groups.to_vec()));
    }
    // As a kubelet is known by a certificate, which these ports are not set up for.
    let impersonator = token(&cluster, "default", "impersonator", &[]).await;
    let mut kubelet = Caller::new(&daemon, &impersonator).await;
    let (user, group) = ("system:node:node-0", "system:nodes");
    kubelet.headers = vec![
        ("impersonate-user", user.to_owned()),
        ("impersonate-group", group.to_owned()),
    ];
    who.push((kubelet, user.to_owned(), vec![group]));

    let (mut compared, mut direct, mut wrong) = (0, 0, Vec::new());
    let mut allowed_by_selectors = std::collections::BTreeMap::<_, usize>::new();
    let cells = cells();
    for (caller, user, groups) in &who {
        let all: Vec<_> = groups.iter().chain(&["system:authenticated"]).collect();
        let all: Vec<_> = all.into_iter().map(|it| (*it).to_owned()).collect();
        for cell in &cells {
            let place = cell.scope.namespaces.first().cloned().unwrap_or_default();
            let expected = may(&client, user, &all, cell.attributes(&place)).await;
            let code = cell.call(caller).await;
            compared += 1;
            let scope = &cell.scope;
            let fits = match code {
                Code::PermissionDenied => !expected,
                Code::Ok => expected,
                _ => false,
            };
            if !fits {
                let method = cell.method;
                wrong.push(format!("{user} {method} {scope:?}: {code:?}, {expected}"));
            }
            let selects = !(scope.label_selector.is_empty() && scope.field_selector.is_empty());
            if expected && selects {
                *allowed_by_selectors.entry(user.as_str()).or_default() += 1;
            }
            // And what the API server itself does when it is asked for just that.
            if cell.method == "kube list" {
                let mut request = HttpRequest::get(kube_path(scope, false));
                request = request.header("impersonate-user", user);
                for group in groups {
                    request = request.header("impersonate-group", *group);
                }
                let request = request.body(Vec::new()).unwrap();
                let answered = client.request_text(request).await.is_ok();
                direct += 1;
                if answered != expected {
                    wrong.push(format!("{user} {scope:?}: directly {answered}, {expected}"));
                }
            }
        }
    }
    println!("{compared} cells, and {direct} lists of the API server itself");
    println!("allowed with selectors: {allowed_by_selectors:?}");
    assert!(
        wrong.is_empty(),
        "{} of {compared}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    // Everybody but one has something, and nobody but one has all.
    let all = allowed_by_selectors["system:serviceaccount:default:everything"];
    for (_, user, _) in &who {
        let allowed = allowed_by_selectors.get(user.as_str()).copied();
        match user.rsplit(':').next().unwrap() {
            "everything" => {}
            "nobody" => assert_eq!(allowed, None),
            _ => assert!((1..all).contains(&allowed.unwrap_or_default()), "{user}"),
        }
    }
}
