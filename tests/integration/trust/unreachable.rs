//! The API server is away: who is known stays so for a while, and nobody new is let in.

use super::*;

#[tokio::test]
async fn nobody_new_is_let_in_while_the_api_server_is_away() {
    let Some(mut cluster) = cluster::private().await else {
        return;
    };
    cluster
        .kubectl_ok(&["create", "serviceaccount", "reader"])
        .await;
    cluster
        .kubectl_ok(&["create", "serviceaccount", "late"])
        .await;
    for name in ["reader", "late"] {
        let account = format!("--serviceaccount=default:{name}");
        cluster
            .kubectl_ok(&[
                "create",
                "clusterrolebinding",
                name,
                "--clusterrole=cluster-admin",
                &account,
            ])
            .await;
    }
    let kubeconfig = cluster
        .kubeconfig_for("daemon", Credential::Admin, cluster.address())
        .unwrap();
    let daemon = Daemon::start("auth: {tokens: {}}\nkinds: [configmaps]", &kubeconfig).await;
    let reader = Caller::new(&daemon, &token(&cluster, "default", "reader", &[]).await).await;
    let late = Caller::new(&daemon, &token(&cluster, "default", "late", &[]).await).await;
    let cell = Cell {
        method: "ListObjects",
        scope: scope("configmaps", &[]),
        view: View::Keys,
    };
    let mut stream = reader
        .watch(cell.scope.clone(), bytes::Bytes::new())
        .await
        .unwrap();
    assert_eq!(cell.call(&reader).await, Code::Ok);
    let asked = Instant::now();
    cluster.stop_apiserver();
    assert_eq!(cell.call(&late).await, Code::Unavailable);
    if asked.elapsed() < Duration::from_secs(8) {
        assert_eq!(
            cell.call(&reader).await,
            Code::Ok,
            "for ten seconds that is known"
        );
    }
    eventually("what is known of the reader ends", async || {
        cell.call(&reader).await == Code::Unavailable
    })
    .await;
    assert!(asked.elapsed() < Duration::from_secs(20));
    // The open stream goes on, with a bookmark every ten seconds.
    let mut bookmarks = 0;
    while bookmarks < 4 {
        let message = timeout(Duration::from_secs(15), stream.message()).await;
        let message = message
            .expect("in time")
            .expect("no error")
            .expect("no end");
        let mark = message.mark.map(|mark| mark.r#type());
        bookmarks += usize::from(mark == Some(MarkType::Bookmark));
    }
    cluster.start_apiserver().await.unwrap();
    eventually("both are let in again", async || {
        cell.call(&late).await == Code::Ok && cell.call(&reader).await == Code::Ok
    })
    .await;
}
