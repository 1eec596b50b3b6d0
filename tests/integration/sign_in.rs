//! The clients in Go and Python at a daemon that asks who calls, over TLS. Their credentials end every few seconds and
//! are replaced in time, as a kubelet and cert-manager do it, and what they follow they follow to the end.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::{Map, Value, json};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::sleep,
};

use crate::{
    cluster::{
        self, Authority, Churn, ChurnOptions, Cluster, Daemon, Scratch, go_client, has_go,
        list_exact, short_token,
    },
    support::{Said, pods, seed, text, within},
};

/// For how long a token and a certificate are good, and after how long they are replaced.
const LIFETIME: Duration = Duration::from_secs(12);
const REPLACED: Duration = Duration::from_secs(6);

const ROLES: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [\"\"], resources: [pods], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects:
- {kind: ServiceAccount, name: reader, namespace: default}
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: alice}
";

/// A daemon behind TLS, under churn, and a folder of credentials that are replaced in time.
struct Stage {
    cluster: Cluster,
    daemon: Daemon,
    folder: Scratch,
    churn: Churn,
}

impl Stage {
    async fn set() -> Option<Self> {
        let cluster = cluster::private().await?;
        cluster.apply(ROLES).await;
        let folder = Scratch::new("sign-in").unwrap();
        let at = |name: &str| folder.path().join(name);
        let authority = Authority::get();
        std::fs::write(at("ca.crt"), authority.pem()).unwrap();
        let server = authority.server().unwrap();
        server.write(&at("server.crt"), &at("server.key")).unwrap();
        let (ca, certificate, key) = (
            folder.file("ca.crt"),
            folder.file("server.crt"),
            folder.file("server.key"),
        );
        let config = format!(
            "auth: {{tokens: {{audience: informerd}}, clientCertificates: {{ca: {ca}}}}}\n\
             tls: {{certificate: {certificate}, key: {key}}}\nkinds: [pods]"
        );
        let daemon = Daemon::start(&config, cluster.kubeconfig()).await;
        let options = ChurnOptions {
            seed: seed(),
            rate: 20,
            ..ChurnOptions::default()
        };
        let churn = Churn::start(cluster.client().await, options).await.unwrap();
        Some(Self {
            cluster,
            daemon,
            folder,
            churn,
        })
    }

    fn server(&self) -> String {
        format!("127.0.0.1:{}", self.daemon.ports().grpc)
    }

    /// The flags of either program: with a token, or with a certificate.
    fn flags(&self, with_token: bool) -> Vec<String> {
        let file = |name: &str| self.folder.file(name);
        let own = match with_token {
            true => vec!["--token-file".to_owned(), file("token")],
            false => vec![
                "--cert".to_owned(),
                file("client.crt"),
                "--key".to_owned(),
                file("client.key"),
            ],
        };
        [vec!["--ca".to_owned(), file("ca.crt")], own].concat()
    }
}

/// Puts a new token and a new certificate where the old ones are.
async fn renew(cluster: &Cluster, folder: &Scratch) {
    let at = |name: &str| folder.path().join(name);
    let token = short_token(cluster, "default", "reader", "informerd", LIFETIME).await;
    std::fs::write(at("unfinished"), token.unwrap()).unwrap();
    std::fs::rename(at("unfinished"), at("token")).unwrap();
    let certificate = Authority::get().client("alice", None, LIFETIME).unwrap();
    certificate
        .write(&at("client.crt"), &at("client.key"))
        .unwrap();
}

/// A program under way.
struct Program {
    child: Child,
    said: Said<Value>,
}

impl Program {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("it starts");
        let said = Said::by(&mut child);
        Self { child, said }
    }

    fn count(&self, what: &str) -> usize {
        let lines = self.said.lines();
        lines.iter().filter(|line| line["what"] == what).count()
    }
}

/// Has the programs follow while credentials come and go, and compares what they hold in the end. `refused` is one
/// whose token was made up.
async fn follow(stage: Stage, programs: Vec<Command>, mut refused: Command) {
    // Not sooner: what they were built with may have taken longer than these are good for.
    renew(&stage.cluster, &stage.folder).await;
    let mut programs: Vec<_> = programs.into_iter().map(Program::start).collect();
    let replace = async {
        loop {
            sleep(REPLACED).await;
            renew(&stage.cluster, &stage.folder).await;
        }
    };
    let cut = async {
        within(
            4 * LIFETIME,
            "each went on twice with new ones",
            async || programs.iter().all(|program| program.count("cut") >= 2),
        )
        .await;
    };
    tokio::select! {
        () = replace => {}
        () = cut => {}
    }
    // With the last ones they are at the end before those are.
    renew(&stage.cluster, &stage.folder).await;
    let (writes, failures) = stage.churn.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    let last = &writes.last().expect("there are some").resource_version;
    let client = stage.cluster.client().await;
    for program in &mut programs {
        let mut stdin = program.child.stdin.take().expect("it is piped");
        stdin
            .write_all(format!("{last}\n").as_bytes())
            .await
            .unwrap();
    }
    for mut program in programs {
        let patience = Duration::from_secs(20);
        let status = tokio::time::timeout(patience, program.child.wait()).await;
        let status = status.expect("it ends in time").expect("it has a status");
        let lines = program.said.all().await;
        assert!(status.success(), "{status}: {lines:?}");
        let cuts: Vec<_> = lines.iter().filter(|line| line["what"] == "cut").collect();
        println!("{} cuts: {:?}", cuts.len(), cuts.first());
        assert!(
            !lines.iter().any(|line| line["what"] == "reset"),
            "{cuts:?}"
        );
        let end = lines.last().unwrap();
        let revision = end["revision"].to_string();
        let listed = list_exact(&client, &pods(), None, &revision).await.unwrap();
        let listed: Map<_, _> = listed
            .into_iter()
            .map(|(key, it)| {
                (
                    key,
                    json!({"uid": it.uid, "resourceVersion": it.resource_version}),
                )
            })
            .collect();
        assert!(!listed.is_empty());
        assert_eq!(end["objects"], Value::Object(listed));
    }
    let log = stage.daemon.log();
    for who in [
        r#"user="system:serviceaccount:default:reader" by="token""#,
        r#"user="alice" by="certificate""#,
    ] {
        assert!(log.contains(who), "{who} is in the log");
    }
    std::fs::write(stage.folder.path().join("token"), "made-up").unwrap();
    let output = refused.kill_on_drop(true).output().await.unwrap();
    let (_, why) = text(&output);
    assert!(!output.status.success() && why.contains("token"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_in_go_follows_with_credentials_that_end_and_are_replaced() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    if !has_go() {
        return;
    }
    let program = go_client("follow").await.unwrap();
    let command = |with_token: bool| {
        let mut command = Command::new(&program);
        command.args(["--server", &stage.server(), "--to-revision"]);
        command.args(stage.flags(with_token));
        command
    };
    let programs = vec![command(true), command(false)];
    let refused = command(true);
    follow(stage, programs, refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_in_python_follows_with_credentials_that_end_and_are_replaced() {
    let Some(stage) = Stage::set().await else {
        return;
    };
    let Some(python) = cluster::python().await else {
        return;
    };
    let command = |with_token: bool, further: &[&str]| {
        let mut command = Command::new(&python);
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/python");
        command.arg(Path::new(folder).join("follow.py"));
        command.args(["--server", &format!("https://{}", stage.server()), "--list"]);
        command
            .args(stage.flags(with_token))
            .args(further)
            .arg("pods");
        command
    };
    let programs = [true, false].into_iter();
    let programs = programs.flat_map(|with| [command(with, &[]), command(with, &["--asyncio"])]);
    let programs = programs.collect();
    let refused = command(true, &[]);
    follow(stage, programs, refused).await;
}
