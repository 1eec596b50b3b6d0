//! Who is not let in: callers without credentials, with those of something else, or with somebody else's name.

use super::*;

#[tokio::test]
async fn callers_without_credentials_with_others_or_for_others_are_not_let_in() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let daemon = Daemon::start(
        "auth: {tokens: {audience: informerd}}\nkinds: [configmaps]",
        cluster.kubeconfig(),
    )
    .await;
    cluster
        .kubectl_ok(&["create", "serviceaccount", "reader"])
        .await;
    let cell = Cell {
        method: "ListObjects",
        scope: scope("configmaps", &[]),
        view: View::Full,
    };
    // The API server knows these tokens well, but they are not made for informerd.
    for token in [cluster::token("admin").as_str(), "made-up"] {
        let caller = Caller::new(&daemon, token).await;
        assert_eq!(cell.call(&caller).await, Code::Unauthenticated, "{token}");
    }
    let other = cluster
        .kubectl_ok(&["create", "token", "reader", "--audience", "vault"])
        .await;
    assert_eq!(
        cell.call(&Caller::new(&daemon, other.trim()).await).await,
        Code::Unauthenticated
    );
    let anonymous = Client::connect(&daemon.server().to_string()).unwrap();
    let refused = anonymous.kinds().await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Unauthenticated), "{refused}");

    // CVE-2026-61682: headers that say who somebody is were believed.
    let mut reader = Caller::new(&daemon, &token(&cluster, "default", "reader", &[]).await).await;
    assert_eq!(cell.call(&reader).await, Code::PermissionDenied);
    for name in [
        "x-remote-user",
        "x-remote-group",
        "x-forwarded-user",
        "x-forwarded-client-cert",
    ] {
        reader.headers = vec![(name, "system:masters".to_owned())];
        assert_eq!(cell.call(&reader).await, Code::PermissionDenied, "{name}");
    }
    reader.headers = vec![
        ("impersonate-user", "admin".to_owned()),
        ("impersonate-group", "system:masters".to_owned()),
    ];
    assert_eq!(cell.call(&reader).await, Code::PermissionDenied);
    reader.headers = vec![("impersonate-group", "system:masters".to_owned())];
    assert_eq!(cell.call(&reader).await, Code::InvalidArgument);
    let role = [
        "create",
        "clusterrole",
        "impersonator",
        "--verb=impersonate",
        "--resource=users,groups",
    ];
    cluster.kubectl_ok(&role).await;
    let bind = [
        "create",
        "clusterrolebinding",
        "impersonator",
        "--clusterrole=impersonator",
        "--serviceaccount=default:reader",
    ];
    cluster.kubectl_ok(&bind).await;
    reader.headers = vec![
        ("impersonate-user", "admin".to_owned()),
        ("impersonate-group", "system:masters".to_owned()),
    ];
    // That it could not is remembered for ten seconds.
    eventually("it may act for the masters", async || {
        cell.call(&reader).await == Code::Ok
    })
    .await;
    reader.headers = vec![("impersonate-user", "mallory".to_owned())];
    assert_eq!(cell.call(&reader).await, Code::PermissionDenied);
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused_without_a_way_in() {
    let scratch = Scratch::new("refused").unwrap();
    let file = scratch.path().join("config.yaml");
    fs::write(&file, "listen: 0.0.0.0:7443\nkinds: [pods]\n").unwrap();
    let output = informerd(&["serve", "--config", &file.display().to_string()]).await;
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for hint in [
        "auth: {tokens:",
        "clientCertificates",
        "tls: {certificate:",
        "certs dev",
    ] {
        assert!(said.contains(hint), "{said}");
    }
}
