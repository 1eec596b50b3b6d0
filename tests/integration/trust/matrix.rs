//! Each kind of call, by each kind of account: allowed exactly where the API server would allow it.

use super::*;

const ROLES: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: trust-pods}
rules: [{apiGroups: [""], resources: [pods], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: trust-all}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}, {nonResourceURLs: ["*"], verbs: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: trust-aggregated}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {trust-part: "true"}}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: trust-part, labels: {trust-part: "true"}}
rules: [{apiGroups: [apps], resources: [deployments], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: trust-introspection}
rules: [{nonResourceURLs: ["/informerd/introspection/*"], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: get-only, namespace: trust-a}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: list-only, namespace: trust-a}
rules: [{apiGroups: [""], resources: [pods, configmaps], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: one-name, namespace: trust-a}
rules: [{apiGroups: [""], resources: [pods], resourceNames: [web], verbs: [get, list, watch]}]
"#;

/// Accounts of namespace trust-a, and what binds them: (account, kind of the role, role, where).
const BINDINGS: [(&str, &str, &str, &str); 9] = [
    ("everywhere", "ClusterRole", "trust-pods", ""),
    ("master", "ClusterRole", "trust-all", ""),
    ("in-a", "ClusterRole", "trust-pods", "trust-a"),
    ("in-both", "ClusterRole", "trust-pods", "trust-a"),
    ("in-both", "ClusterRole", "trust-pods", "trust-b"),
    ("aggregated", "ClusterRole", "trust-aggregated", "trust-b"),
    ("get-only", "Role", "get-only", "trust-a"),
    ("list-only", "Role", "list-only", "trust-a"),
    ("one-name", "Role", "one-name", "trust-a"),
];

#[tokio::test]
async fn every_call_is_allowed_exactly_where_the_api_server_allows_it() {
    let Some(cluster) = cluster::shared().await.filter(|cluster| cluster.is_own()) else {
        return;
    };
    for name in ["trust-a", "trust-b"] {
        namespace(cluster, name).await;
    }
    cluster.apply(ROLES).await;
    let mut accounts: Vec<&str> = BINDINGS.iter().map(|(account, ..)| *account).collect();
    accounts.dedup();
    accounts.extend(["nobody", "curious"]);
    let mut manifests = String::new();
    for account in &accounts {
        manifests += &format!(
            "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {account}, namespace: trust-a}}\n"
        );
    }
    for (account, kind, role, namespace) in
        BINDINGS
            .iter()
            .chain(&[("curious", "ClusterRole", "trust-introspection", "")])
    {
        let (binding, place) = match *namespace {
            "" => ("ClusterRoleBinding", String::new()),
            namespace => ("RoleBinding", format!(", namespace: {namespace}")),
        };
        manifests += &format!(
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {binding}\n\
             metadata: {{name: trust-{account}-{role}{place}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {kind}, name: {role}}}\n\
             subjects: [{{kind: ServiceAccount, name: {account}, namespace: trust-a}}]\n"
        );
    }
    cluster.apply(&manifests).await;
    let client = cluster.client().await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;

    let mut cells = Vec::new();
    let views = [View::Full, View::Metadata, View::Keys];
    let mut add = |method, resource: &str, namespaces: &[&str], name: &str| {
        let view = views[cells.len() % views.len()];
        let view = if resource == "secrets" {
            View::Metadata
        } else {
            view
        };
        let scope = Scope {
            name: name.into(),
            ..scope(resource, namespaces)
        };
        cells.push(Cell {
            method,
            scope,
            view,
        });
    };
    for resource in ["po", "configmaps", "deploy", "secrets"] {
        for namespaces in [&[][..], &["trust-a"], &["trust-b"]] {
            add("ListObjects", resource, namespaces, "");
            add("WatchObjects", resource, namespaces, "");
        }
    }
    for method in ["GetObject", "ListObjects", "WatchObjects"] {
        add(method, "pods", &["trust-a"], "web");
        add(method, "pods", &["trust-a"], "other");
        add(method, "pods", &["trust-b"], "web");
    }
    for method in ["ListReadiness", "WatchReadiness"] {
        for namespaces in [&[][..], &["trust-a"]] {
            add(method, "po", namespaces, "");
            add(method, "deploy", namespaces, "");
        }
    }
    add("GetReadiness", "pods", &["trust-a"], "web");
    add("GetReadiness", "pods", &["trust-a"], "other");
    add("GetReadiness", "deploy", &["trust-b"], "web");
    add("WaitReadiness", "pods", &["trust-a"], "web");
    add("WaitReadiness", "pods", &["trust-a"], "other");
    add("WaitReadiness", "deploy", &["trust-b"], "web");

    for resource in ["po", "configmaps", "deploy"] {
        for namespaces in [&[][..], &["trust-a"], &["trust-b"]] {
            add("kube list", resource, namespaces, "");
        }
    }
    add("kube get", "pods", &["trust-a"], "web");
    add("kube get", "pods", &["trust-a"], "other");
    add("kube get", "deploy", &["trust-b"], "web");
    add("kube watch", "po", &[], "");
    add("kube watch", "po", &["trust-a"], "");

    let (mut compared, mut allowed, mut wrong) = (0, 0, Vec::new());
    for account in &accounts {
        let user = format!("system:serviceaccount:trust-a:{account}");
        let groups = [
            "system:serviceaccounts",
            "system:serviceaccounts:trust-a",
            "system:authenticated",
        ]
        .map(str::to_owned);
        // The aggregated role gets its rules from a controller.
        if *account == "aggregated" {
            let part = json!({"verb": "list", "group": "apps", "resource": "deployments", "namespace": "trust-b"});
            eventually("the aggregated role has its rules", async || {
                may(&client, &user, &groups, part.clone()).await
            })
            .await;
        }
        let caller = Caller::new(&daemon, &token(cluster, "trust-a", account, &[]).await).await;
        for cell in &cells {
            let place = cell.scope.namespaces.first().cloned().unwrap_or_default();
            let expected = may(&client, &user, &groups, cell.attributes(&place)).await;
            let code = cell.call(&caller).await;
            compared += 1;
            allowed += usize::from(expected);
            let fits = match code {
                Code::PermissionDenied => !expected,
                Code::Ok | Code::NotFound => expected,
                _ => false,
            };
            if !fits {
                let scope = &cell.scope;
                wrong.push(format!(
                    "{account} {} {scope:?}: {code:?}, allowed: {expected}",
                    cell.method
                ));
            }
        }
        let mut introspection = IntrospectionServiceClient::new(caller.channel.clone());
        let kinds = introspection
            .list_kinds(caller.ask(ListKindsRequest {}))
            .await;
        let consumers = ListConsumersRequest::default();
        let consumers = introspection.list_consumers(caller.ask(consumers)).await;
        for (path, code) in [
            ("kinds", kinds.err().map(|status| status.code())),
            ("consumers", consumers.err().map(|status| status.code())),
        ] {
            let what = json!({"verb": "get", "path": format!("/informerd/introspection/{path}")});
            let expected = may(&client, &user, &groups, what).await;
            compared += 1;
            allowed += usize::from(expected);
            if code != (!expected).then_some(Code::PermissionDenied) {
                wrong.push(format!(
                    "{account} introspection {path}: {code:?}, allowed: {expected}"
                ));
            }
        }
    }
    println!("{compared} cells, {allowed} of them allowed");
    assert!(
        wrong.is_empty(),
        "{} of {compared}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        compared >= 80 && allowed > compared / 10,
        "{allowed} of {compared}"
    );

    // What is not configured is there for nobody, and only those who might see it are told so.
    let kind = |resource: &str| Cell {
        method: "ListObjects",
        scope: scope(resource, &["trust-a"]),
        view: View::Full,
    };
    let master = Caller::new(&daemon, &token(cluster, "trust-a", "master", &[]).await).await;
    let nobody = Caller::new(&daemon, &token(cluster, "trust-a", "nobody", &[]).await).await;
    for resource in ["services", "cats.example.com"] {
        assert_eq!(kind(resource).call(&master).await, Code::NotFound);
        assert_eq!(kind(resource).call(&nobody).await, Code::PermissionDenied);
    }
    let request = ListObjectsRequest {
        scope: Some(scope("services", &[])),
        ..Default::default()
    };
    let status = master
        .cache()
        .list_objects(master.ask(request))
        .await
        .unwrap_err();
    assert!(!status.message().contains("pods"), "{}", status.message());

    // Secrets without their data.
    cluster
        .apply("{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: trust-a}, stringData: {k: hidden}}")
        .await;
    let get = GetObjectRequest {
        scope: Some(Scope {
            name: "s".into(),
            ..scope("secrets", &["trust-a"])
        }),
        view: View::Metadata.into(),
        ..Default::default()
    };
    eventually("the secret's metadata is served", async || {
        let answer = master.cache().get_object(master.ask(get.clone())).await;
        let Ok(answer) = answer else { return false };
        let object = answer.into_inner().object.unwrap().object;
        let text = String::from_utf8_lossy(&object).into_owned();
        // Base64 of it, and last-applied, would both say so.
        assert!(
            !text.contains("aGlkZGVu") && !text.contains("hidden"),
            "{text}"
        );
        true
    })
    .await;
    let full = GetObjectRequest {
        view: View::Full.into(),
        ..get
    };
    let refused = master
        .cache()
        .get_object(master.ask(full))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);

    audit_has_no_tokens(&daemon, &master);
    discard(cluster, &["trust-a", "trust-b"]).await;
}

/// What the daemon logged tells who and what, and no credentials.
fn audit_has_no_tokens(daemon: &Daemon, caller: &Caller) {
    let log = daemon.log();
    assert!(
        log.contains("system:serviceaccount:trust-a:nobody"),
        "denied calls are in the log"
    );
    let bearer = caller.token.to_str().unwrap();
    let token = bearer.trim_start_matches("Bearer ");
    assert!(!log.contains(token));
    // Not even the part that is not secret.
    assert!(!log.contains(token.split('.').nth(1).unwrap()));
}
