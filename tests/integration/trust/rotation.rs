//! The server's certificate is replaced by one of another authority, and nobody notices who believes both.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::*;

const STREAMS: usize = 100;

/// Two sets of certificates for trying out, and the files that are in use.
struct Certificates {
    old: PathBuf,
    new: PathBuf,
    used: PathBuf,
}

impl Certificates {
    async fn make(scratch: &Path) -> Self {
        let own = Self {
            old: scratch.join("old"),
            new: scratch.join("new"),
            used: scratch.join("used"),
        };
        for folder in [&own.old, &own.new] {
            let folder = folder.display().to_string();
            succeeded(&informerd(&["certs", "dev", "--user", "alice", &folder]).await);
        }
        fs::create_dir(&own.used).unwrap();
        fs::write(own.used.join("ca.crt"), own.authorities()).unwrap();
        own.install(&own.old);
        own
    }

    fn authorities(&self) -> String {
        let read = |folder: &Path| fs::read_to_string(folder.join("ca.crt")).unwrap();
        read(&self.old) + &read(&self.new)
    }

    /// One file after the other, as some tools do: in between they do not fit together.
    fn install(&self, folder: &Path) {
        for file in ["server.key", "server.crt"] {
            fs::copy(folder.join(file), self.used.join(file)).unwrap();
        }
    }

    /// What a client takes for a connection that shows the certificate of this set.
    fn client(&self, folder: &Path) -> ClientTlsConfig {
        let read = |file: &str| fs::read(folder.join(file)).unwrap();
        ClientTlsConfig::new()
            .domain_name("localhost")
            .ca_certificate(Certificate::from_pem(self.authorities()))
            .identity(Identity::from_pem(read("client.crt"), read("client.key")))
    }
}

async fn connect(port: u16, tls: ClientTlsConfig) -> Result<CacheServiceClient<Channel>, String> {
    let endpoint = Channel::from_shared(format!("https://127.0.0.1:{port}")).unwrap();
    let endpoint = endpoint
        .tls_config(tls)
        .map_err(|error| format!("{error:?}"))?;
    let channel = endpoint.connect().await;
    Ok(CacheServiceClient::new(
        channel.map_err(|error| format!("{error:?}"))?,
    ))
}

#[tokio::test]
async fn certificates_are_replaced_under_a_hundred_streams_and_new_handshakes() {
    let Some(cluster) = cluster::private().await else {
        return;
    };
    let scratch = Scratch::new("rotation").unwrap();
    let certificates = Certificates::make(scratch.path()).await;
    reader_everywhere(&cluster).await;
    let bind = [
        "create",
        "clusterrolebinding",
        "alice",
        "--clusterrole=reader",
        "--user=alice",
    ];
    cluster.kubectl_ok(&bind).await;
    let used = |file: &str| certificates.used.join(file).display().to_string();
    let config = format!(
        "auth: {{clientCertificates: {{ca: {}}}}}\ntls: {{certificate: {}, key: {}}}\nkinds: [configmaps]",
        used("ca.crt"),
        used("server.crt"),
        used("server.key")
    );
    let daemon = Daemon::start(&config, cluster.kubeconfig()).await;
    let port = daemon.ports().grpc;

    let mut reading = Vec::new();
    let heard = Arc::new(AtomicUsize::new(0));
    for _ in 0..STREAMS {
        let tls = certificates.client(&certificates.old);
        let mut client = connect(port, tls).await.unwrap();
        let request = WatchObjectsRequest {
            scope: Some(scope("configmaps", &[])),
            ..Default::default()
        };
        let mut stream = client.watch_objects(request).await.unwrap().into_inner();
        let heard = heard.clone();
        reading.push(tokio::spawn(async move {
            while let Ok(Some(message)) = stream.message().await {
                if message.events.iter().any(|event| event.name == "after") {
                    heard.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    // New ones all the while, by turns with the one and the other client certificate.
    let over = Arc::new(AtomicBool::new(false));
    let (until, clients) = (
        over.clone(),
        [&certificates.old, &certificates.new].map(|folder| certificates.client(folder)),
    );
    let handshakes = tokio::spawn(async move {
        let (mut done, mut failed) = (0, Vec::new());
        for tls in clients.iter().cycle() {
            if until.load(Ordering::Relaxed) {
                break;
            }
            let answer = async {
                let mut client = connect(port, tls.clone()).await?;
                let request = ListObjectsRequest {
                    scope: Some(scope("configmaps", &["default"])),
                    ..Default::default()
                };
                let list = client.list_objects(request).await;
                list.map(|_| ()).map_err(|status| format!("{status:?}"))
            };
            match answer.await {
                Ok(()) => done += 1,
                Err(error) => failed.push(error),
            }
        }
        (done, failed)
    });

    certificates.install(&certificates.new);
    eventually("the new certificate is in use", async || {
        let reloads = r#"informerd_tls_reloads_total{result="ok"}"#;
        daemon.metric(reloads).await == Some(1.0)
    })
    .await;
    // Whoever believes the new authority only is let in now.
    let alone = ClientTlsConfig::new()
        .domain_name("localhost")
        .ca_certificate(Certificate::from_pem(
            fs::read(certificates.new.join("ca.crt")).unwrap(),
        ));
    assert!(connect(port, alone).await.is_ok());
    cluster.apply(&config_map("default", "after")).await;
    eventually("all streams go on", async || {
        heard.load(Ordering::Relaxed) >= STREAMS
    })
    .await;
    over.store(true, Ordering::Relaxed);
    let (done, failed) = handshakes.await.unwrap();
    println!("{done} new handshakes meanwhile");
    assert!(failed.is_empty(), "{} of {done}: {failed:?}", failed.len());
    assert!(done > 10, "{done}");
    for stream in reading {
        assert!(!stream.is_finished(), "a stream was dropped");
        stream.abort();
    }
}
