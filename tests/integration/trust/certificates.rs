//! Client certificates, and what TLS is spoken.

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

    plain_text_and_old_versions_are_refused(&daemon, &folder);
}

/// By somebody else's TLS, where there is one.
fn plain_text_and_old_versions_are_refused(daemon: &Daemon, folder: &Path) {
    let address = daemon.server().to_string();
    let connect = |version: &str| {
        let output = std::process::Command::new("openssl")
            .args(["s_client", "-connect", &address, "-alpn", "h2", version])
            .args(["-CAfile", &folder.join("ca.crt").display().to_string()])
            .args(["-cipher", "DEFAULT:@SECLEVEL=0"])
            .stdin(std::process::Stdio::null())
            .output();
        output
            .ok()
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(new) = connect("-tls1_3") else {
        println!("without openssl the versions are not looked at");
        return;
    };
    assert!(new.contains("ALPN protocol: h2"), "{new}");
    assert!(
        connect("-tls1_2")
            .unwrap()
            .contains("Verify return code: 0")
    );
    for old in ["-tls1_1", "-tls1"] {
        assert!(
            !connect(old).unwrap().contains("ALPN protocol: h2"),
            "{old}"
        );
    }
}
