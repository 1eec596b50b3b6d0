//! The connection against servers and proxies of the tests' own.

use std::path::Path;

use http::Method;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tower_test::mock::{self, Handle};

use super::*;

type MockServer = Handle<Request<Body>, Response<Body>>;

fn mocked() -> (Upstream, MockServer) {
    let (service, server) = mock::pair::<Request<Body>, Response<Body>>();
    let client = Client::new(service, "default");
    (
        Upstream::fixed(client.clone(), client, UpstreamSettings::default()),
        server,
    )
}

fn get(path: &str) -> Request<Vec<u8>> {
    Request::get(path).body(Vec::new()).unwrap()
}

async fn answer(server: &mut MockServer, code: u16, body: &'static str) {
    let (_, send) = server.next_request().await.unwrap();
    send.send_response(
        Response::builder()
            .status(code)
            .body(Body::from(body.as_bytes().to_vec()))
            .unwrap(),
    );
}

#[tokio::test]
async fn success_and_not_modified_are_answers_and_the_rest_are_errors() {
    let (upstream, mut server) = mocked();
    for (code, ok) in [
        (200, true),
        (304, true),
        (302, false),
        (404, false),
        (503, false),
    ] {
        let (got, ()) = tokio::join!(
            upstream.send(Verb::Get, get("/version")),
            answer(&mut server, code, "")
        );
        assert_eq!(got.is_ok(), ok, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_sends_no_headers_is_given_up_in_time() {
    let (upstream, _server) = mocked();
    for (verb, patience) in [(Verb::Watch, 15), (Verb::List, 60), (Verb::Get, 15)] {
        let begun = tokio::time::Instant::now();
        let error = upstream.send(verb, get("/api/v1/pods")).await.unwrap_err();
        assert!(matches!(error, UpstreamError::HeaderTimeout(_)), "{error}");
        assert_eq!(begun.elapsed().as_secs(), patience, "{verb:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_401_asks_for_new_credentials() {
    let (upstream, mut server) = mocked();
    let (got, ()) = tokio::join!(
        upstream.send(Verb::Get, get("/api")),
        answer(&mut server, 401, "")
    );
    assert!(matches!(got, Err(UpstreamError::Unauthorized(_))));
    timeout(Duration::from_millis(1), upstream.shared.invalid.notified())
        .await
        .expect("asked");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let (upstream, mut server) = mocked();
    let (got, ()) = tokio::join!(
        upstream.fetch(Verb::Get, get("/api"), 3),
        answer(&mut server, 200, "four")
    );
    assert!(matches!(got, Err(UpstreamError::TooLarge(3))));
    let (got, ()) = tokio::join!(
        upstream.fetch(Verb::Get, get("/api"), 4),
        answer(&mut server, 200, "four")
    );
    assert_eq!(got.unwrap().1, "four");
}

/// A plain HTTP/1.1 server that answers everything with `{}` and hands out the requests' heads.
async fn http_server() -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (heads, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let heads = heads.clone();
            tokio::spawn(async move {
                let mut socket = socket;
                while let Some(head) = read_head(&mut socket).await {
                    let _ = heads.send(head.to_lowercase());
                    let _ = socket
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                        .await;
                }
            });
        }
    });
    (address, seen)
}

async fn read_head(socket: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

fn kubeconfig(dir: &Path, server: &str, cluster: &str, user: &str) -> KubeSource {
    let path = dir.join("config");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
         contexts:\n- {{name: here, context: {{cluster: c, user: u}}}}\n- {{name: other, context: {{cluster: d, user: u}}}}\n\
         clusters:\n- {{name: c, cluster: {{server: \"{server}\"{cluster}}}}}\n- {{name: d, cluster: {{server: \"http://127.0.0.1:1\"}}}}\n\
         users:\n- {{name: u, user: {{{user}}}}}\n"
    );
    std::fs::write(&path, text).unwrap();
    KubeSource {
        kubeconfig: Some(path),
        context: None,
    }
}

async fn head_of(upstream: &Upstream, seen: &mut mpsc::UnboundedReceiver<String>) -> String {
    upstream
        .fetch(Verb::Get, get("/version"), 100)
        .await
        .unwrap();
    seen.recv().await.unwrap()
}

#[tokio::test]
async fn every_request_carries_the_token_our_name_and_no_wish_for_compression() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("token"), "first\n").unwrap();
    let (address, mut seen) = http_server().await;
    let source = kubeconfig(
        dir.path(),
        &format!("http://{address}"),
        "",
        "tokenFile: token",
    );
    let (upstream, _) = Upstream::connect(source, UpstreamSettings::default())
        .await
        .unwrap();
    let head = head_of(&upstream, &mut seen).await;
    assert!(
        head.contains("\r\nauthorization: bearer first\r\n"),
        "{head}"
    );
    assert!(
        head.contains(concat!(
            "\r\nuser-agent: informerd/",
            env!("CARGO_PKG_VERSION"),
            "\r\n"
        )),
        "{head}"
    );
    assert!(head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
}

#[tokio::test]
async fn a_rotated_token_is_used_and_announced_and_a_half_written_one_is_not() {
    let dir = TempDir::new().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "first").unwrap();
    let (address, mut seen) = http_server().await;
    let source = kubeconfig(
        dir.path(),
        &format!("http://{address}"),
        "",
        "tokenFile: token",
    );
    let (upstream, mut reloader) = Upstream::connect(source, UpstreamSettings::default())
        .await
        .unwrap();
    let changed = upstream.changed();

    std::fs::write(&token, "").unwrap();
    reloader.refresh(false).await;
    assert!(head_of(&upstream, &mut seen).await.contains("bearer first"));
    assert!(!changed.has_changed().unwrap());

    std::fs::write(&token, "second").unwrap();
    reloader.refresh(false).await;
    assert!(
        head_of(&upstream, &mut seen)
            .await
            .contains("bearer second")
    );
    assert!(changed.has_changed().unwrap());
    assert_eq!(upstream.current().generation, 1);
}

#[tokio::test]
async fn nothing_new_is_announced_when_nothing_changed() {
    let dir = TempDir::new().unwrap();
    let source = kubeconfig(dir.path(), "http://127.0.0.1:1", "", "token: static");
    let (upstream, mut reloader) = Upstream::connect(source, UpstreamSettings::default())
        .await
        .unwrap();
    reloader.refresh(false).await;
    reloader.refresh(true).await;
    assert!(!upstream.changed().has_changed().unwrap());
    assert_eq!(upstream.current().generation, 0);
}

#[tokio::test]
async fn an_exec_plugin_runs_again_when_asked_and_its_new_token_counts() {
    let dir = TempDir::new().unwrap();
    let token = dir.path().join("plugin-state");
    std::fs::write(&token, "one").unwrap();
    let (address, mut seen) = http_server().await;
    let script = format!(
        r#"printf '{{"status":{{"token":"%s"}}}}' $(cat {})"#,
        token.display()
    );
    let user = format!(
        "exec: {{command: sh, args: [-c, {}]}}",
        serde_json::to_string(&script).unwrap()
    );
    let source = kubeconfig(dir.path(), &format!("http://{address}"), "", &user);
    let (upstream, mut reloader) = Upstream::connect(source, UpstreamSettings::default())
        .await
        .unwrap();
    assert!(head_of(&upstream, &mut seen).await.contains("bearer one"));
    std::fs::write(&token, "two").unwrap();
    reloader.refresh(false).await;
    assert!(
        head_of(&upstream, &mut seen).await.contains("bearer one"),
        "not asked yet"
    );
    reloader.refresh(true).await;
    assert!(head_of(&upstream, &mut seen).await.contains("bearer two"));
}

#[tokio::test]
async fn another_current_context_does_not_move_a_running_daemon() {
    let dir = TempDir::new().unwrap();
    let (address, mut seen) = http_server().await;
    let source = kubeconfig(dir.path(), &format!("http://{address}"), "", "token: a");
    let path = source.kubeconfig.clone().unwrap();
    let (upstream, mut reloader) = Upstream::connect(source, UpstreamSettings::default())
        .await
        .unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text
        .replace("current-context: here", "current-context: other")
        .replace("token: a", "token: b");
    std::fs::write(&path, text).unwrap();
    reloader.refresh(false).await;
    assert!(head_of(&upstream, &mut seen).await.contains("bearer b"));
}

#[tokio::test]
async fn a_certificate_whose_key_is_not_written_yet_keeps_the_old_clients() {
    let dir = TempDir::new().unwrap();
    let write = |certificate: &KeyPair, key: &KeyPair| {
        let signed = CertificateParams::new(vec![])
            .unwrap()
            .self_signed(certificate)
            .unwrap();
        std::fs::write(dir.path().join("crt"), signed.pem()).unwrap();
        std::fs::write(dir.path().join("key"), key.serialize_pem()).unwrap();
    };
    let (old, new) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    write(&old, &old);
    let source = kubeconfig(
        dir.path(),
        "https://127.0.0.1:1",
        ", insecure-skip-tls-verify: true",
        "client-certificate: crt, client-key: key",
    );
    let (upstream, mut reloader) = Upstream::connect(source, UpstreamSettings::default())
        .await
        .unwrap();
    write(&new, &old);
    reloader.refresh(false).await;
    assert_eq!(upstream.current().generation, 0);
    write(&new, &new);
    reloader.refresh(false).await;
    assert_eq!(upstream.current().generation, 1);
}

#[tokio::test(start_paused = true)]
async fn the_reloader_finds_a_change_by_itself() {
    let dir = TempDir::new().unwrap();
    let source = kubeconfig(dir.path(), "http://127.0.0.1:1", "", "tokenFile: token");
    std::fs::write(dir.path().join("token"), "first").unwrap();
    let (upstream, reloader) = Upstream::connect(source, UpstreamSettings::default())
        .await
        .unwrap();
    let mut changed = upstream.changed();
    let task = tokio::spawn(reloader.run());
    std::fs::write(dir.path().join("token"), "second").unwrap();
    changed.changed().await.unwrap();
    task.abort();
}

/// Copies bytes both ways between a client and `to`.
async fn relay(mut client: TcpStream, to: &str) {
    let mut server = TcpStream::connect(to).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

#[tokio::test]
async fn an_http_proxy_is_asked_to_connect_with_its_password() {
    let (address, mut seen) = http_server().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    let target = address.clone();
    let proxied = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let head = read_head(&mut client).await.unwrap();
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        tokio::spawn(async move { relay(client, &target).await });
        head
    });
    let dir = TempDir::new().unwrap();
    let cluster = format!(", proxy-url: \"http://user:p%40ss@{proxy}\"");
    let source = kubeconfig(dir.path(), "http://api.example:6443", &cluster, "token: a");
    let (upstream, _) = Upstream::connect(source, UpstreamSettings::default())
        .await
        .unwrap();
    assert!(
        head_of(&upstream, &mut seen)
            .await
            .contains("host: api.example:6443")
    );
    let head = proxied.await.unwrap();
    assert!(
        head.starts_with("CONNECT api.example:6443 HTTP/1.1\r\n"),
        "{head}"
    );
    // user:p@ss
    assert!(
        head.contains("Proxy-Authorization: Basic dXNlcjpwQHNz\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn a_socks5_proxy_resolves_the_name_itself() {
    let (address, mut seen) = http_server().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    let proxied = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut hello = [0; 2];
        client.read_exact(&mut hello).await.unwrap();
        let mut methods = vec![0; hello[1].into()];
        client.read_exact(&mut methods).await.unwrap();
        client.write_all(&[5, 0]).await.unwrap();
        let mut request = [0; 5];
        client.read_exact(&mut request).await.unwrap();
        assert_eq!(request[..4], [5, 1, 0, 3], "CONNECT to a name");
        let mut name = vec![0; usize::from(request[4]) + 2];
        client.read_exact(&mut name).await.unwrap();
        client
            .write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0])
            .await
            .unwrap();
        tokio::spawn(async move { relay(client, &address).await });
        name
    });
    let dir = TempDir::new().unwrap();
    let cluster = format!(", proxy-url: \"socks5://{proxy}\"");
    let source = kubeconfig(dir.path(), "http://api.example:6443", &cluster, "token: a");
    let (upstream, _) = Upstream::connect(source, UpstreamSettings::default())
        .await
        .unwrap();
    head_of(&upstream, &mut seen).await;
    assert_eq!(proxied.await.unwrap(), b"api.example\x19\x2b");
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_says_what_to_write() {
    let dir = TempDir::new().unwrap();
    let fail = async |source| {
        Upstream::connect(source, UpstreamSettings::default())
            .await
            .err()
            .expect("an error")
            .to_string()
    };
    let error = fail(kubeconfig(
        dir.path(),
        "http://x",
        ", proxy-url: \"ftp://u:secret@p:1\"",
        "",
    ))
    .await;
    assert_eq!(
        error,
        "proxy-url ftp://***@p:1: write http://host:port, https://host:port or socks5://host:port"
    );
    let error = fail(kubeconfig(dir.path(), "http://x", "", "tokenFile: none")).await;
    assert!(
        error.starts_with(&format!(
            "token file {}: ",
            dir.path().join("none").display()
        )),
        "{error}"
    );
    let error = fail(kubeconfig(dir.path(), "http://x", "", "token: \"a\\nb\"")).await;
    assert!(error.contains("write it on one line"), "{error}");
    let mut source = kubeconfig(dir.path(), "http://x", "", "");
    source.context = Some("nowhere".to_owned());
    let error = fail(source).await;
    assert!(
        error.ends_with("it has no context \"nowhere\": write one of here, other"),
        "{error}"
    );
    let missing = KubeSource {
        kubeconfig: Some(dir.path().join("missing")),
        context: None,
    };
    let path = dir.path().join("missing");
    let wanted = format!("kubeconfig {}: No such file or directory", path.display());
    let error = fail(missing).await;
    assert!(error.starts_with(&wanted), "{error}");
}

#[test]
fn a_method_is_a_label_of_few_values() {
    assert_eq!(method_label(&Method::GET), "GET");
    assert_eq!(method_label(&Method::TRACE), "other");
    assert_eq!(Verb::Watch.as_str(), "watch");
}
