//! The daemon as its users run it: the built binary, as a process of its own.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{Error, Process, Scratch, free_port, http};

const BINARY: &str = env!("CARGO_BIN_EXE_informerd");

/// Where a daemon listens, on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// gRPC.
    pub grpc: u16,
    /// /metrics, /livez, /readyz.
    pub admin: u16,
    /// Kubernetes's protocol.
    pub kube: u16,
}

/// `informerd serve`, killed when dropped. Its output is shown where the test fails.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    ports: Ports,
    scratch: Scratch,
}

impl Daemon {
    /// Starts it with this configuration (YAML; the addresses are set by flags) and waits until it is ready.
    /// Panics with its log where that takes more than 60 s.
    pub async fn start(config: &str, kubeconfig: &Path) -> Self {
        let mut daemon = Self::spawn(config, kubeconfig);
        daemon.wait_ready(Duration::from_secs(60)).await;
        daemon
    }

    /// The same with a bug in it, by its name in src/planted.rs; only where that is built in.
    #[cfg(feature = "planted")]
    pub async fn start_with_bug(config: &str, kubeconfig: &Path, bug: &str) -> Self {
        let ports = Ports {
            grpc: free_port(),
            admin: free_port(),
            kube: free_port(),
        };
        let daemon = Self::spawn_as(ports, config, kubeconfig, &[("INFORMERD_PLANTED", bug)]);
        let mut daemon = daemon.expect("the daemon's process starts");
        daemon.wait_ready(Duration::from_secs(60)).await;
        daemon
    }

    /// Starts it and does not wait: for kinds that are not to become ready yet.
    pub fn spawn(config: &str, kubeconfig: &Path) -> Self {
        let ports = Ports {
            grpc: free_port(),
            admin: free_port(),
            kube: free_port(),
        };
        Self::spawn_on(ports, config, kubeconfig).expect("the daemon's process starts")
    }

    /// Starts it on given ports: again at an address where it was before.
    pub fn spawn_on(ports: Ports, config: &str, kubeconfig: &Path) -> Result<Self, Error> {
        Self::spawn_as(ports, config, kubeconfig, &[])
    }

    fn spawn_as(
        ports: Ports,
        config: &str,
        kubeconfig: &Path,
        environment: &[(&str, &str)],
    ) -> Result<Self, Error> {
        let scratch = Scratch::new("daemon")?;
        let file = scratch.path().join("config.yaml");
        fs::write(&file, config)?;
        let mut command = Command::new(BINARY);
        command
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .arg("--kubeconfig")
            .arg(kubeconfig);
        command
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", ports.grpc));
        command
            .arg("--admin")
            .arg(format!("127.0.0.1:{}", ports.admin));
        command
            .arg("--kube-listen")
            .arg(format!("127.0.0.1:{}", ports.kube));
        command.env("RUST_BACKTRACE", "1");
        command.envs(environment.iter().copied());
        let process = Process::start("informerd", &command, &scratch.path().join("daemon.log"))?;
        Ok(Self {
            process,
            ports,
            scratch,
        })
    }

    /// Waits until /readyz says yes. Panics with the log where it does not, or the daemon ends.
    pub async fn wait_ready(&mut self, within: Duration) {
        let deadline = Instant::now() + within;
        let mut last = String::from("no answer");
        while Instant::now() < deadline && self.process.exit_code().is_none() {
            match http::get(&self.admin_url("/readyz")).await {
                Ok((200, _)) => return,
                Ok((status, body)) => last = format!("{status} {body}"),
                Err(e) => last = e.to_string(),
            }
            sleep(Duration::from_millis(50)).await;
        }
        let code = self.process.exit_code();
        panic!("the daemon is not ready (exit code {code:?}): {last}");
    }

    /// Of its gRPC port, as `--server` and clients take it.
    pub fn server(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.grpc).into()
    }

    /// `path` at its Kubernetes port.
    pub fn kube_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports.kube)
    }

    /// A kubeconfig for its Kubernetes port, as `informerd kubeconfig` writes it.
    pub async fn kubeconfig(&self) -> PathBuf {
        let mut command = tokio::process::Command::new(BINARY);
        let server = format!("127.0.0.1:{}", self.ports.kube);
        let output = command
            .args(["kubeconfig", "--kube-server", &server])
            .output();
        let output = output.await.expect("informerd starts");
        assert!(output.status.success(), "{output:?}");
        let file = self.scratch.path().join("facade.kubeconfig");
        fs::write(&file, output.stdout).expect("the kubeconfig can be written");
        file
    }

    /// Its ports.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.scratch.path().join("config.yaml")
    }

    /// `path` at its admin port.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports.admin)
    }

    /// The text of /metrics.
    pub async fn metrics(&self) -> String {
        let (status, text) = http::get(&self.admin_url("/metrics"))
            .await
            .expect("/metrics answers");
        assert_eq!(status, 200, "/metrics: {text}");
        text
    }

    /// The first sample of a metric whose line begins with `series` (name, or name and labels), if there is one.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics().await;
        let line = text.lines().find(|line| {
            line.strip_prefix(series)
                .is_some_and(|rest| rest.starts_with(['{', ' ', ',']))
        })?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Runs `informerd ARGS --server ...` against it.
    pub async fn cli(&self, args: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(BINARY);
        command
            .args(args)
            .arg("--server")
            .arg(self.server().to_string());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command.output().await.expect("informerd starts")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.process.log()).unwrap_or_default()
    }

    /// The process, for signals and its memory.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// SIGTERM, then waits for its end: the exit code, or `None` where it still runs.
    pub async fn terminate(&mut self, within: Duration) -> Option<i32> {
        self.process.signal("TERM");
        self.process.wait(within).await
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.process.log_tail());
        }
    }
}
