//! Client certificates.

use super::*;

#[tokio::test]
async fn certificates_let_in_whom_they_name_over_tls() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let scratch = Scratch::new("certs").unwrap();
    let folder = scratch.path().join("dev");
    let path = |name: &str| folder.join(name).display().to_string();
    succeeded(
        &informerd(&[
            "certs",
            "dev",
            "--user",
            "alice",
            &folder.display().to_string(),
        ])
        .await,
    );
    let again = informerd(&["certs", "dev", &folder.display().to_string()]).await;
    assert!(!again.status.success(), "what is there is not overwritten");
    let config = format!(
        "auth: {{clientCertificates: {{ca: {}}}}}\ntls: {{certificate: {}, key: {}}}\nkinds: [configmaps]",
        path("ca.crt"),
        path("server.crt"),
        path("server.key")
    );
    let daemon = Daemon::start(&config, cluster.kubeconfig()).await;
    let server = format!("https://localhost:{}", daemon.ports().grpc);
    let credentials = |with_own: bool| Credentials {
        ca: Some(folder.join("ca.crt")),
        certificate: with_own.then(|| folder.join("client.crt")),
        key: with_own.then(|| folder.join("client.key")),
        token_file: None,
    };
    let client = |with_own| Client::connect_with(&server, &credentials(with_own)).unwrap();
    let list = async |client: Client| {
        let request = ListObjectsRequest {
            scope: Some(scope("configmaps", &[])),
            ..Default::default()
        };
        client.list(request).await
    };
    let nobody = list(client(false)).await.unwrap_err();
    assert_eq!(nobody.code(), Some(Code::Unauthenticated), "{nobody}");
    let alice = list(client(true)).await.unwrap_err();
    assert!(
        alice
            .to_string()
            .contains(r#"User "alice" cannot list resource "configmaps""#),
        "{alice}"
    );
    reader_everywhere(&cluster).await;
    cluster
        .kubectl_ok(&[
            "create",
            "clusterrolebinding",
            "alice",
            "--clusterrole=reader",
            "--user=alice",
        ])
        .await;
    eventually("alice may", async || list(client(true)).await.is_ok()).await;
    let (ca, cert, key) = (path("ca.crt"), path("client.crt"), path("client.key"));
    let args = [
        "get",
        "configmaps",
        "-A",
        "--server",
        &server,
        "--ca",
        &ca,
        "--cert",
        &cert,
        "--key",
        &key,
    ];
    let printed = succeeded(&informerd(&args).await);
    assert!(
        printed.contains("kube-root-ca.crt") || printed.contains("NAME"),
        "{printed}"
    );
}
