//! A Kubernetes cluster for tests: a real etcd and kube-apiserver, and with [`Extent::Full`] the controllers, the
//! scheduler and KWOK's nodes too; on loopback and free ports, gone with the test process.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::future::try_join_all;
use http::{HeaderValue, Request, header::USER_AGENT};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep},
};

use super::{
    Error, audit,
    audit::AuditLog,
    binaries::{self, ControlPlaneBinaries},
    http as plain_http,
    pki::{Authority, Certificate},
    process::{Process, Scratch, free_port},
};

/// Users that the API server knows by a token, beside the administrator. They have no rights but what a test
/// grants them.
pub const USERS: [&str; 4] = ["informerd", "alice", "bob", "mallory"];

/// KWOK's nodes: `node-0` and so on.
pub const NODES: usize = 5;

/// The User-Agent of the tests' own clients in the audit log.
pub const TEST_USER_AGENT: &str = "informerd-tests";

const POLICY: &str = include_str!("audit-policy.yaml");

/// How much of a control plane to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// etcd and kube-apiserver: objects stay as they were written. Up in some 4 s.
    Api,
    /// And kube-controller-manager, kube-scheduler, KWOK and its Ready nodes: pods run, rollouts proceed,
    /// namespaces go.
    Full,
}

/// Who a kubeconfig speaks for.
#[derive(Clone, Copy, Debug)]
pub enum Credential<'a> {
    /// May do everything (group system:masters, which priority and fairness does not hold back).
    Admin,
    /// One of [`USERS`], by token.
    User(&'a str),
    /// A client certificate; written to files beside the kubeconfig, which then can be rotated.
    Certificate(&'a Certificate),
}

/// A cluster: our own, or the one that INFORMERD_TEST_KUBECONFIG names.
#[derive(Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    extent: Extent,
    own: Option<Own>,
}

/// A cluster that the tests started. Fields are dropped in this order: first the processes, then their files.
#[derive(Debug)]
struct Own {
    others: Vec<Process>,
    apiserver: Option<Process>,
    etcd: Option<Process>,
    binaries: ControlPlaneBinaries,
    etcd_port: u16,
    peer_port: u16,
    api_port: u16,
    /// Of the API server, beside the usual ones.
    flags: Vec<String>,
    /// How many times the API server was started: each time with its own audit log.
    starts: u32,
    scratch: Scratch,
}

impl Cluster {
    /// A cluster that is there already.
    pub fn existing(kubeconfig: PathBuf) -> Self {
        Self {
            kubeconfig,
            extent: Extent::Full,
            own: None,
        }
    }

    /// Builds what is not built yet, starts a cluster and waits until it is ready.
    pub async fn start(extent: Extent) -> Result<Self, Error> {
        Self::start_with(extent, Vec::new()).await
    }

    /// The same with further flags of the API server.
    pub async fn start_with(extent: Extent, flags: Vec<String>) -> Result<Self, Error> {
        let binaries = binaries::control_plane().await?;
        let scratch = Scratch::new("cluster")?;
        write_files(&scratch)?;
        let (etcd_port, api_port) = (free_port(), free_port());
        let peer_port = free_port();
        let etcd = start_etcd(&binaries, &scratch, etcd_port, peer_port)?;
        let kubeconfig = scratch.path().join("admin.kubeconfig");
        let own = Own {
            others: Vec::new(),
            apiserver: None,
            etcd: Some(etcd),
            binaries,
            etcd_port,
            peer_port,
            api_port,
            flags,
            starts: 0,
            scratch,
        };
        let mut cluster = Self {
            kubeconfig,
            extent,
            own: Some(own),
        };
        let admin = cluster.kubeconfig_for("admin", Credential::Admin, cluster.address())?;
        debug_assert_eq!(admin, cluster.kubeconfig);
        cluster.start_apiserver().await?;
        if extent == Extent::Full {
            cluster.start_the_rest().await?;
        }
        Ok(cluster)
    }

    /// Whether the tests started it: then it has an audit log, users and nodes that are known.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// How much of a control plane it has.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where the API server listens, for a proxy before it. Only of our own cluster.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.own().api_port).into()
    }

    /// Writes a kubeconfig `NAME.kubeconfig` for the API server at `address` (its own, or a proxy's).
    pub fn kubeconfig_for(
        &self,
        name: &str,
        credential: Credential<'_>,
        address: SocketAddr,
    ) -> Result<PathBuf, Error> {
        let scratch = &self.own().scratch;
        let user = match credential {
            Credential::Admin => json!({ "token": token("admin") }),
            Credential::User(user) => json!({ "token": token(user) }),
            Credential::Certificate(certificate) => {
                let (crt, key) = (format!("{name}.crt"), format!("{name}.key"));
                let dir = scratch.path();
                certificate.write(&dir.join(&crt), &dir.join(&key))?;
                json!({
                    "client-certificate": scratch.file(&crt),
                    "client-key": scratch.file(&key),
                })
            }
        };
        let server = json!({
            "server": format!("https://{address}"),
            "certificate-authority": scratch.file("ca.crt"),
        });
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "contexts": [{ "name": "tests", "context": { "cluster": "tests", "user": name } }],
            "clusters": [{ "name": "tests", "cluster": server }],
            "users": [{ "name": name, "user": user }],
        });
        let path = scratch.path().join(format!("{name}.kubeconfig"));
        // JSON is YAML.
        fs::write(&path, serde_json::to_vec_pretty(&kubeconfig)?)?;
        Ok(path)
    }

    /// A new client for the administrator. Not to be shared between tests: its connections live on the runtime of
    /// the test that made them.
    pub async fn client(&self) -> Client {
        client(&self.kubeconfig)
            .await
            .expect("a client from a kubeconfig that the tests wrote")
    }

    /// The key that the API server signs tokens of service accounts with. Only of our own cluster.
    pub(super) fn signing_key(&self) -> PathBuf {
        self.own().scratch.path().join("service-account.key")
    }

    /// Runs kubectl as the administrator.
    pub async fn kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_with(&self.kubeconfig, args).await
    }

    /// Runs kubectl with another kubeconfig than the administrator's.
    pub async fn kubectl_with(&self, kubeconfig: &Path, args: &[&str]) -> Output {
        let run = self.run_kubectl(kubeconfig, args, None);
        run.await.expect("kubectl starts")
    }

    /// kubectl with a kubeconfig, to be run by the caller.
    pub fn kubectl_command(&self, kubeconfig: &Path) -> tokio::process::Command {
        let mut command = match &self.own {
            Some(own) => {
                let mut command = tokio::process::Command::new(&own.binaries.control_plane);
                // Its caches go where everything else goes.
                command.arg("kubectl").env("HOME", own.scratch.path());
                command
            }
            None => tokio::process::Command::new("kubectl"),
        };
        command.arg("--kubeconfig").arg(kubeconfig);
        command.kill_on_drop(true);
        command
    }

    /// Runs kubectl, which must succeed, and returns what it printed.
    pub async fn kubectl_ok(&self, args: &[&str]) -> String {
        succeeded(args, self.kubectl(args).await)
    }

    /// `kubectl apply` of a YAML text, which must succeed.
    pub async fn apply(&self, yaml: &str) -> String {
        self.apply_to(&self.kubeconfig, yaml).await
    }

    /// The same with another kubeconfig, perhaps of another server.
    pub async fn apply_to(&self, kubeconfig: &Path, yaml: &str) -> String {
        let args = ["apply", "-f", "-"];
        let run = self.run_kubectl(kubeconfig, &args, Some(yaml));
        succeeded(&args, run.await.expect("kubectl starts"))
    }

    async fn run_kubectl(
        &self,
        kubeconfig: &Path,
        args: &[&str],
        input: Option<&str>,
    ) -> io::Result<Output> {
        let mut command = self.kubectl_command(kubeconfig);
        command.args(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // Fails where kubectl did not want it all; it says why itself.
            let _ = stdin.write_all(input.unwrap_or_default().as_bytes()).await;
        }
        child.wait_with_output().await
    }

    /// What the API server recorded since it last started; `None` for an existing cluster.
    pub fn audit_log(&self) -> Option<AuditLog> {
        let own = self.own.as_ref()?;
        Some(audit::read(&own.audit_log()).expect("the API server writes an audit log"))
    }

    /// The API server's process: what it costs.
    pub fn apiserver(&self) -> Option<&Process> {
        self.own.as_ref()?.apiserver.as_ref()
    }

    /// Stops the API server at once (SIGKILL), as a crash would. etcd goes on.
    pub fn stop_apiserver(&mut self) {
        self.own_mut().apiserver = None;
    }

    /// Starts the API server that was stopped, at the same address, and waits until it is ready.
    pub async fn start_apiserver(&mut self) -> Result<(), Error> {
        let kubeconfig = self.kubeconfig.clone();
        let own = self.own_mut();
        own.apiserver = None;
        own.starts += 1;
        let mut command = Command::new(&own.binaries.control_plane);
        command.arg("kube-apiserver").args(own.apiserver_flags());
        let log = own.scratch.path().join("kube-apiserver.log");
        let process = own
            .apiserver
            .insert(Process::start("kube-apiserver", &command, &log)?);
        let client = client(&kubeconfig).await?;
        let mut last = String::new();
        let deadline = Instant::now() + Duration::from_secs(90);
        while Instant::now() < deadline && process.exit_code().is_none() {
            let request = Request::get("/readyz").body(Vec::new())?;
            match tokio::time::timeout(Duration::from_secs(5), client.request_text(request)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(e)) => last = e.to_string(),
                Err(_) => last = "no answer in 5 s".into(),
            }
            sleep(Duration::from_millis(100)).await;
        }
        Err(format!(
            "the API server is not ready: {last}\n{}\n{}",
            process.log_tail(),
            own.etcd.as_ref().map(Process::log_tail).unwrap_or_default()
        )
        .into())
    }

    /// Stops the API server and starts it again: every connection is cut, the watch cache begins empty.
    pub async fn restart_apiserver(&mut self) -> Result<(), Error> {
        self.stop_apiserver();
        self.start_apiserver().await
    }

    /// Drops etcd's history before its current revision, and returns that revision. The API server still has its
    /// watch cache; only after a restart does it answer an older watch with 410.
    pub async fn compact(&self) -> Result<u64, Error> {
        let etcd = format!("http://127.0.0.1:{}", self.own().etcd_port);
        let any = json!({ "key": BASE64_STANDARD.encode("/"), "keys_only": true });
        let found: Value = plain_http::post(&format!("{etcd}/v3/kv/range"), &any).await?;
        let revision = found["header"]["revision"]
            .as_str()
            .ok_or("etcd told no revision")?;
        let body = json!({ "revision": revision, "physical": true });
        plain_http::post(&format!("{etcd}/v3/kv/compaction"), &body).await?;
        Ok(revision.parse()?)
    }

    /// Keeps a copy of all that etcd has, for [`Cluster::restore_etcd`].
    pub async fn save_etcd(&mut self) -> Result<(), Error> {
        self.exchange_etcd("etcd", "etcd-saved").await
    }

    /// Puts etcd back to where it was when it was saved: its revision goes back, and nobody says so.
    pub async fn restore_etcd(&mut self) -> Result<(), Error> {
        self.exchange_etcd("etcd-saved", "etcd").await
    }

    /// Copies one folder over another while neither etcd nor the API server runs.
    async fn exchange_etcd(&mut self, from: &str, to: &str) -> Result<(), Error> {
        let own = self.own_mut();
        (own.apiserver, own.etcd) = (None, None);
        let (from, to) = (own.scratch.path().join(from), own.scratch.path().join(to));
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        copy(&from, &to)?;
        let etcd = start_etcd(&own.binaries, &own.scratch, own.etcd_port, own.peer_port)?;
        own.etcd = Some(etcd);
        self.start_apiserver().await
    }

    async fn start_the_rest(&mut self) -> Result<(), Error> {
        let kubeconfig = self.kubeconfig.display().to_string();
        let client = self.client().await;
        let own = self.own_mut();
        let key = own.scratch.file("service-account.key");
        let ports: Vec<String> = (0..3).map(|_| free_port().to_string()).collect();
        let cert_dir = own.scratch.file("certificates");
        let stages = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/control-plane/stages.yaml"
        );
        let control_plane = own.binaries.control_plane.clone();
        let kwok_server = format!("127.0.0.1:{}", ports[2]);
        let commands: [(&str, &Path, Vec<&str>); 3] = [
            (
                "kube-controller-manager",
                &control_plane,
                vec![
                    "kube-controller-manager",
                    "--bind-address=127.0.0.1",
                    "--leader-elect=false",
                    "--secure-port",
                    &ports[0],
                    "--cert-dir",
                    &cert_dir,
                    "--service-account-private-key-file",
                    &key,
                    // The tests' loads are above what a controller may ask by default.
                    "--kube-api-qps=200",
                    "--kube-api-burst=400",
                ],
            ),
            (
                "kube-scheduler",
                &control_plane,
                vec![
                    "kube-scheduler",
                    "--bind-address=127.0.0.1",
                    "--leader-elect=false",
                    "--secure-port",
                    &ports[1],
                    "--cert-dir",
                    &cert_dir,
                ],
            ),
            (
                "kwok",
                &own.binaries.kwok.clone(),
                vec![
                    "--config",
                    stages,
                    "--manage-all-nodes=true",
                    "--server-address",
                    &kwok_server,
                    "--node-port",
                    &ports[2],
                ],
            ),
        ];
        for (name, program, args) in commands {
            let mut command = Command::new(program);
            command.args(args).args(["--kubeconfig", &kubeconfig]);
            command.env("HOME", own.scratch.path());
            let log = own.scratch.path().join(format!("{name}.log"));
            own.others.push(Process::start(name, &command, &log)?);
        }
        let nodes: Api<Node> = Api::all(client);
        try_join_all((0..NODES).map(|n| {
            let nodes = nodes.clone();
            async move {
                let name = format!("node-{n}");
                let labels = json!({ "kubernetes.io/hostname": name, "type": "kwok" });
                let node = serde_json::from_value(
                    json!({ "metadata": { "name": name, "labels": labels } }),
                )?;
                nodes.create(&Default::default(), &node).await?;
                Ok::<_, Error>(())
            }
        }))
        .await?;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let all = nodes.list(&Default::default()).await?;
            if all.items.iter().filter(|node| usable(node)).count() == NODES {
                return Ok(());
            }
            let ended = own
                .others
                .iter_mut()
                .any(|process| process.exit_code().is_some());
            if ended || Instant::now() > deadline {
                let logs: Vec<_> = own.others.iter().map(Process::log_tail).collect();
                return Err(format!("the nodes are not ready\n{}", logs.join("\n")).into());
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn own(&self) -> &Own {
        self.own
            .as_ref()
            .expect("this needs a cluster that the tests started: see Cluster::is_own")
    }

    fn own_mut(&mut self) -> &mut Own {
        self.own
            .as_mut()
            .expect("this needs a cluster that the tests started: see Cluster::is_own")
    }
}

impl Own {
    fn audit_log(&self) -> PathBuf {
        self.scratch
            .path()
            .join(format!("audit-{}.log", self.starts))
    }

    fn apiserver_flags(&self) -> Vec<String> {
        let file = |name: &str| self.scratch.file(name);
        let flags = [
            ("bind-address", "127.0.0.1".into()),
            ("secure-port", self.api_port.to_string()),
            (
                "etcd-servers",
                format!("http://127.0.0.1:{}", self.etcd_port),
            ),
            ("cert-dir", file("certificates")),
            ("tls-cert-file", file("server.crt")),
            ("tls-private-key-file", file("server.key")),
            ("client-ca-file", file("ca.crt")),
            ("token-auth-file", file("tokens.csv")),
            ("service-account-key-file", file("service-account.pub")),
            (
                "service-account-signing-key-file",
                file("service-account.key"),
            ),
            (
                "service-account-issuer",
                "https://tests.informerd.invalid".into(),
            ),
            ("authorization-mode", "RBAC".into()),
            ("service-cluster-ip-range", "10.0.0.0/24".into()),
            ("disable-admission-plugins", "ServiceAccount".into()),
            // The service `kubernetes` would want an endpoint that is not loopback.
            ("endpoint-reconciler-type", "none".into()),
            ("audit-policy-file", file("audit-policy.yaml")),
            ("audit-log-path", self.audit_log().display().to_string()),
        ];
        flags
            .into_iter()
            .map(|(name, value): (_, String)| format!("--{name}={value}"))
            .chain(self.flags.iter().cloned())
            .collect()
    }
}

fn start_etcd(
    binaries: &ControlPlaneBinaries,
    scratch: &Scratch,
    port: u16,
    peer_port: u16,
) -> io::Result<Process> {
    let mut etcd = Command::new(&binaries.control_plane);
    etcd.arg("etcd").args(["--data-dir", &scratch.file("etcd")]);
    etcd.args(["--client-port", &port.to_string()]);
    etcd.args(["--peer-port", &peer_port.to_string()]);
    Process::start("etcd", &etcd, &scratch.path().join("etcd.log"))
}

/// A folder and all in it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(from, to)?;
        }
    }
    Ok(())
}

/// Ready, and rid of the taint that a new node has.
fn usable(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let ready = conditions
        .into_iter()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    ready
        && node
            .spec
            .iter()
            .all(|spec| spec.taints.iter().flatten().next().is_none())
}

fn write_files(scratch: &Scratch) -> Result<(), Error> {
    let dir = scratch.path();
    let authority = Authority::get();
    fs::write(dir.join("ca.crt"), authority.pem())?;
    authority
        .server()?
        .write(&dir.join("server.crt"), &dir.join("server.key"))?;
    let service_account = KeyPair::generate()?;
    fs::write(
        dir.join("service-account.key"),
        service_account.serialize_pem(),
    )?;
    fs::write(
        dir.join("service-account.pub"),
        service_account.public_key_pem(),
    )?;
    let mut tokens = format!("{},admin,admin,system:masters\n", token("admin"));
    for user in USERS {
        tokens.push_str(&format!("{},{user},{user}\n", token(user)));
    }
    fs::write(dir.join("tokens.csv"), tokens)?;
    fs::write(dir.join("audit-policy.yaml"), POLICY)?;
    Ok(())
}

/// The bearer token of the administrator ("admin") or one of [`USERS`].
pub fn token(user: &str) -> String {
    format!("token-of-{user}")
}

/// A client as a kubeconfig says, with the tests' own User-Agent.
pub async fn client(kubeconfig: &Path) -> Result<Client, Error> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // A quiet watch is no failure.
    config.read_timeout = None;
    // What the server says is to be seen, not what comes of asking again.
    config.default_retry = false;
    config
        .headers
        .push((USER_AGENT, HeaderValue::from_static(TEST_USER_AGENT)));
    Ok(Client::try_from(config)?)
}

fn succeeded(args: &[&str], output: Output) -> String {
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b));
    assert!(
        output.status.success(),
        "kubectl {args:?} failed: {stdout}{stderr}"
    );
    stdout.into_owned()
}
