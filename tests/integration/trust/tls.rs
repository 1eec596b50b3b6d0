//! What TLS both ports speak, by the word of somebody else's: OpenSSL's `s_client`, to which old versions are allowed.

use std::process::Stdio;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

use crate::cluster::free_port;

use super::*;

/// A cipher suite for each version that this OpenSSL knows, however old.
const ANY_CIPHER: [&str; 2] = ["-cipher", "DEFAULT:@SECLEVEL=0"];

/// What `s_client` tells of a handshake, in this version alone.
struct Handshake {
    version: &'static str,
    said: String,
}

impl Handshake {
    async fn with(port: u16, version: &'static str, folder: &Path) -> Self {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &format!("127.0.0.1:{port}")])
            .args(["-servername", "localhost", "-alpn", "h2", version])
            .args(["-verify_return_error", "-CAfile"])
            .arg(folder.join("ca.crt"))
            .args(ANY_CIPHER)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(Duration::from_secs(20), output).await;
        let output = output.expect("in time").expect("openssl starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        Self { version, said }
    }

    /// As which version of TLS it came about, if it did.
    fn done(&self) -> Option<&str> {
        let lines = || self.said.lines().map(str::trim);
        let new = lines().find_map(|line| line.strip_prefix("New, "))?;
        let protocol = lines().find_map(|line| line.strip_prefix("Protocol"));
        match new.starts_with("(NONE)") {
            true => None,
            false => protocol.map_or(new.split(',').next(), |it| {
                Some(it.trim_matches([' ', ':']))
            }),
        }
    }

    /// Whether it was the server that wanted none of it, in good order.
    fn is_refused_by_the_server(&self) -> bool {
        self.done().is_none() && self.said.contains("SSL alert number")
    }

    #[track_caller]
    fn is(&self, right: bool) {
        assert!(right, "{}: {}", self.version, self.said);
    }
}

/// Whether this OpenSSL can speak what the ports are to refuse, to a server that lets it: else it would say nothing.
async fn can_speak(version: &'static str, folder: &Path) -> bool {
    let port = free_port();
    let server = Command::new("openssl")
        .args([
            "s_server",
            "-quiet",
            "-accept",
            &format!("127.0.0.1:{port}"),
        ])
        .arg("-cert")
        .arg(folder.join("server.crt"))
        .arg("-key")
        .arg(folder.join("server.key"))
        .args(ANY_CIPHER)
        .arg(version)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let _server = server.expect("openssl starts");
    eventually("it listens", async || {
        TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await;
    Handshake::with(port, version, folder)
        .await
        .done()
        .is_some()
}

/// Speaks to a port as if it were for plain text, and gives what it answers until it closes.
async fn in_plain_text(port: u16, text: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(text).await.unwrap();
    let mut answer = Vec::new();
    let closed = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "it closes");
    answer
}

#[tokio::test]
async fn both_ports_speak_tls_1_2_and_1_3_and_nothing_older_or_plain() {
    let Some(cluster) = cluster::shared().await else {
        return;
    };
    let has_openssl = Command::new("openssl").arg("version").output().await;
    if !has_openssl.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: there is no openssl to look at the versions with");
        return;
    }
    let scratch = Scratch::new("tls").unwrap();
    let folder = scratch.path().join("dev");
    succeeded(&informerd(&["certs", "dev", &folder.display().to_string()]).await);
    let file = |name: &str| folder.join(name).display().to_string();
    let config = format!(
        "auth: {{tokens: {{audience: informerd}}}}\ntls: {{certificate: {}, key: {}}}\nkinds: [configmaps]",
        file("server.crt"),
        file("server.key")
    );
    let daemon = Daemon::start(&config, cluster.kubeconfig()).await;
    let ports = [daemon.ports().grpc, daemon.ports().kube];
    for port in ports {
        for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let handshake = Handshake::with(port, version, &folder).await;
            handshake.is(handshake.done() == Some(name));
            handshake.is(handshake.said.contains("ALPN protocol: h2"));
            handshake.is(handshake.said.contains("Verify return code: 0"));
        }
    }
    let mut refused = Vec::new();
    for version in ["-tls1", "-tls1_1"] {
        if !can_speak(version, &folder).await {
            println!("this openssl does not speak {version}");
            continue;
        }
        for port in ports {
            let handshake = Handshake::with(port, version, &folder).await;
            handshake.is(handshake.is_refused_by_the_server());
        }
        refused.push(version);
    }
    println!("refused on both ports: {refused:?}");
    for port in ports {
        for text in [
            &b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ] {
            // An alert of TLS at most.
            let answer = in_plain_text(port, text).await;
            assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
        }
    }
}
