//! Connections on which nobody signs in, as many as there may be and more: who has rights finds a place, and keeps it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

/// More than one address may have, on each port.
const CROWD: usize = 1_100;
/// An HTTP/2 client that has nothing to ask: its preface and its settings.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// So many connections that greet and ask nothing.
async fn crowd(port: u16, count: usize) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        // Those before it are cut, and maybe it.
        let _ = stream.write_all(HELLO).await;
        crowd.push(stream);
    }
    crowd
}

/// How many of them are closed by now.
async fn closed(crowd: &mut [TcpStream]) -> usize {
    let is_closed = async |stream: &mut TcpStream| {
        let mut answer = [0; 4096];
        while let Ok(read) = timeout(Duration::from_secs(1), stream.read(&mut answer)).await {
            if !matches!(read, Ok(1..)) {
                return true;
            }
        }
        false
    };
    let all = futures::future::join_all(crowd.iter_mut().map(is_closed)).await;
    all.into_iter().filter(|is_closed| *is_closed).count()
}

#[tokio::test]
async fn whoever_signs_in_finds_a_place_in_a_crowd_and_keeps_it() {
    let Some(cluster) = cluster::shared().await.filter(|cluster| cluster.is_own()) else {
        return;
    };
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, most).unwrap();
    namespace_with_reader(cluster, "crowd").await;
    cluster.apply(&config_map("crowd", "first")).await;
    let daemon = Daemon::start(CONFIG, cluster.kubeconfig()).await;
    let token = token(cluster, "crowd", "reader", &[]).await;
    let scope = scope("configmaps", &["crowd"]);
    let early = Caller::new(&daemon, &token).await;
    let mut stream = early
        .watch(scope.clone(), bytes::Bytes::new())
        .await
        .unwrap();

    let ports = daemon.ports();
    let mut grpc = crowd(ports.grpc, CROWD).await;
    let kube: u16 = daemon
        .kube_url("")
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let mut kube = crowd(kube, CROWD).await;
    let admin = crowd(ports.admin, 100).await;
    // It has made place for itself; and so does the next.
    let late = Caller::new(&daemon, &token).await;
    let cell = Cell {
        method: "ListObjects",
        scope: scope.clone(),
        view: View::Full,
    };
    assert_eq!(cell.call(&late).await, Code::Ok);
    assert_eq!(late.kube(&scope, false).await, Code::Ok);
    let (ready, _) = cluster::get(&daemon.admin_url("/readyz")).await.unwrap();
    assert_eq!(ready, 200);
    for crowd in [&mut grpc, &mut kube] {
        let closed = closed(crowd).await;
        assert!((CROWD - 1024..200).contains(&closed), "{closed} of {CROWD}");
    }
    // Who was there before has stayed.
    cluster.apply(&config_map("crowd", "second")).await;
    let second = async {
        loop {
            let message = stream.message().await.unwrap().expect("it goes on");
            if message.events.iter().any(|event| event.name == "second") {
                break;
            }
        }
    };
    timeout(Duration::from_secs(20), second).await.unwrap();
    let evicted = daemon
        .metric("informerd_connections_evicted_total")
        .await
        .unwrap();
    assert!(evicted >= 100.0, "{evicted}");
    drop((grpc, kube, admin));
    discard(cluster, &["crowd"]).await;
}
