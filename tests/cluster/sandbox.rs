//! The sandbox as a process of its own: a cluster that needs no Go.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{Error, Process, Scratch, free_port, http};

/// `informerd sandbox`, killed when dropped. Its output is shown where the test fails.
#[derive(Debug)]
pub struct Sandbox {
    process: Process,
    scratch: Scratch,
    address: SocketAddr,
}

impl Sandbox {
    /// Starts it with further arguments, and waits until it answers.
    pub async fn start(args: &[&str]) -> Result<Self, Error> {
        let scratch = Scratch::new("sandbox")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_informerd"));
        command.args(["sandbox", "--listen", &address.to_string(), "--kubeconfig"]);
        command.arg(scratch.file("kubeconfig")).args(args);
        command.env("RUST_BACKTRACE", "1");
        let log = scratch.path().join("sandbox.log");
        let mut sandbox = Self {
            process: Process::start("sandbox", &command, &log)?,
            scratch,
            address,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while http::get(&sandbox.url("/readyz")).await.is_err() {
            if sandbox.process.exit_code().is_some() || Instant::now() > deadline {
                return Err(format!("it does not answer\n{}", sandbox.process.log_tail()).into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(sandbox)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `path` at it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The kubeconfig that it has written.
    pub fn kubeconfig(&self) -> PathBuf {
        self.scratch.path().join("kubeconfig")
    }

    /// A directory that goes with it.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.process.log()).unwrap_or_default()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.process.log_tail());
        }
    }
}
