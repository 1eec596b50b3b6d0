//! The account of a pod, told as a kubeconfig, so that whatever holds for one holds for the other: which files are
//! read, and that a rotation of any of them is noticed.
//!
//! Not kube's own `Config::incluster`: it looks in one place only, where no test can put anything, and reads the
//! certificates once.

use std::{
    env,
    path::{Path, PathBuf},
};

use kube::config::{
    AuthInfo, Cluster, Context, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};

/// Where Kubernetes puts it.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What the parts of the kubeconfig are called.
const NAME: &str = "pod";

/// What a pod is told of the API server, and of itself.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    /// `KUBERNETES_SERVICE_HOST`.
    pub(super) host: Option<String>,
    /// `KUBERNETES_SERVICE_PORT`.
    pub(super) port: Option<String>,
    /// Where the token and the certificates are.
    pub(super) account: PathBuf,
}

/// Why this is not a pod, or none that may ask.
#[derive(Debug, thiserror::Error)]
pub enum NotInPod {
    /// Kubernetes says where its API server is to each container.
    #[error("{0} is not set")]
    Unset(&'static str),
    /// A port that is none.
    #[error("KUBERNETES_SERVICE_PORT: {0:?} is not a port")]
    Port(String),
    /// The pod's spec may say that it is not to have one.
    #[error("there is no service account: {} cannot be read", .0.display())]
    Account(PathBuf),
}

impl Pod {
    /// As this process is told.
    pub(super) fn of_this_process() -> Self {
        Self {
            host: env::var("KUBERNETES_SERVICE_HOST").ok(),
            port: env::var("KUBERNETES_SERVICE_PORT").ok(),
            account: SERVICE_ACCOUNT.into(),
        }
    }

    /// The same for whoever reads kubeconfigs.
    pub(super) fn kubeconfig(&self) -> Result<Kubeconfig, NotInPod> {
        let host = self.host.as_deref().filter(|host| !host.is_empty());
        let host = host.ok_or(NotInPod::Unset("KUBERNETES_SERVICE_HOST"))?;
        let port = self.port.as_deref().filter(|port| !port.is_empty());
        let port = port.ok_or(NotInPod::Unset("KUBERNETES_SERVICE_PORT"))?;
        let port: u16 = port.parse().map_err(|_| NotInPod::Port(port.to_owned()))?;
        // An IPv6 address has its own colons.
        let host = match host.contains(':') && !host.starts_with('[') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        let cluster = Cluster {
            server: Some(format!("https://{host}:{port}")),
            certificate_authority: Some(self.file("ca.crt")?),
            ..Cluster::default()
        };
        let user = AuthInfo {
            token_file: Some(self.file("token")?),
            ..AuthInfo::default()
        };
        let context = Context {
            cluster: NAME.to_owned(),
            user: Some(NAME.to_owned()),
            ..Context::default()
        };
        Ok(Kubeconfig {
            current_context: Some(NAME.to_owned()),
            clusters: vec![NamedCluster {
                name: NAME.to_owned(),
                cluster: Some(cluster),
                ..NamedCluster::default()
            }],
            auth_infos: vec![NamedAuthInfo {
                name: NAME.to_owned(),
                auth_info: Some(user),
                ..NamedAuthInfo::default()
            }],
            contexts: vec![NamedContext {
                name: NAME.to_owned(),
                context: Some(context),
                ..NamedContext::default()
            }],
            ..Kubeconfig::default()
        })
    }

    fn file(&self, name: &str) -> Result<String, NotInPod> {
        let path = self.account.join(name);
        if !is_readable(&path) {
            return Err(NotInPod::Account(path));
        }
        Ok(path.display().to_string())
    }
}

fn is_readable(path: &Path) -> bool {
    std::fs::File::open(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(host: &str, port: &str, account: &Path) -> Pod {
        Pod {
            host: Some(host.to_owned()),
            port: Some(port.to_owned()),
            account: account.to_owned(),
        }
    }

    fn account() -> tempfile::TempDir {
        let dir = tempfile::TempDir::new().unwrap();
        std::fs::write(dir.path().join("ca.crt"), "").unwrap();
        std::fs::write(dir.path().join("token"), "t").unwrap();
        dir
    }

    fn server(pod: &Pod) -> Result<String, String> {
        let kubeconfig = pod.kubeconfig().map_err(|error| error.to_string())?;
        let cluster = kubeconfig.clusters[0].cluster.clone().unwrap();
        Ok(cluster.server.unwrap())
    }

    #[test]
    fn the_api_server_is_where_the_environment_says() {
        let dir = account();
        let dir = dir.path();
        for (host, expected) in [
            ("10.0.0.1", "https://10.0.0.1:443"),
            (
                "kubernetes.default.svc",
                "https://kubernetes.default.svc:443",
            ),
            ("fd00::1", "https://[fd00::1]:443"),
            ("[fd00::1]", "https://[fd00::1]:443"),
        ] {
            assert_eq!(server(&pod(host, "443", dir)).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = account();
        let why = |pod: &Pod| server(pod).unwrap_err();
        let none = Pod {
            host: None,
            ..pod("", "", dir.path())
        };
        assert_eq!(why(&none), "KUBERNETES_SERVICE_HOST is not set");
        let portless = pod("10.0.0.1", "", dir.path());
        assert_eq!(why(&portless), "KUBERNETES_SERVICE_PORT is not set");
        // As Docker's links once had it.
        let odd = pod("10.0.0.1", "tcp://10.0.0.1:443", dir.path());
        assert!(why(&odd).ends_with("is not a port"));
        std::fs::remove_file(dir.path().join("token")).unwrap();
        let why = why(&pod("10.0.0.1", "443", dir.path()));
        assert!(why.starts_with("there is no service account: "), "{why}");
        assert!(why.contains("/token cannot be read"), "{why}");
    }
}
