//! Where the API server is and who we are there: the kubeconfig by the usual inference, or the pod's service
//! account; with a fingerprint of every file that says so, so that a rotation is noticed.

use std::{
    env,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    path::{Path, PathBuf},
};

use http::HeaderValue;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use jiff::Timestamp;
use kube::config::{AuthInfo, Cluster, Config, KubeConfigOptions, Kubeconfig};

use super::{
    exec::{self, ExecError},
    pod::{NotInPod, Pod},
};
use crate::args::KubeArgs;

/// Which kubeconfig, as given on the command line. The default is what kubectl would use: the files of
/// `KUBECONFIG`, else `~/.kube/config`, else the pod's service account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeSource {
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`.
    pub context: Option<String>,
}

impl From<KubeArgs> for KubeSource {
    fn from(args: KubeArgs) -> Self {
        Self {
            kubeconfig: args.kubeconfig,
            context: args.context,
        }
    }
}

/// Why the API server's address or the credentials for it are not known.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// A kubeconfig that cannot be used.
    #[error("kubeconfig {files}: {source}")]
    Kubeconfig {
        /// Its path, or paths.
        files: String,
        /// What is wrong.
        source: kube::config::KubeconfigError,
    },
    /// A file that cannot be read.
    #[error("kubeconfig {}: {source}", path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A context that is not there.
    #[error("kubeconfig {files}: it has no context {context:?}: {instead}")]
    NoContext {
        /// The file, or files.
        files: String,
        /// What was asked for, or is the current one.
        context: String,
        /// What to write instead.
        instead: String,
    },
    /// Neither a kubeconfig nor a pod.
    #[error(
        "no cluster: there is no kubeconfig ({looked}), and this is not a pod ({source}): write --kubeconfig FILE, or set KUBECONFIG"
    )]
    NoCluster {
        /// Where a kubeconfig was looked for.
        looked: String,
        /// Why it is not a pod either.
        source: NotInPod,
    },
    /// `--context` without a kubeconfig.
    #[error("--context {0}: there is no kubeconfig to find it in: write --kubeconfig FILE as well")]
    ContextWithoutKubeconfig(String),
    /// A token file that cannot be read, or is empty.
    #[error("token file {}: {message}", path.display())]
    Token {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A token with a line break or another control character inside.
    #[error(
        "the user's token has a line break or another control character in it: write it on one line"
    )]
    TokenCharacters,
    /// A proxy that cannot be used.
    #[error("proxy-url {0}: write http://host:port, https://host:port or socks5://host:port")]
    Proxy(String),
    /// The exec plugin gave no credentials.
    #[error(transparent)]
    Exec(#[from] ExecError),
}

/// Address and credentials as they are now.
pub(super) struct Loaded {
    /// Without token file, exec plugin and proxy: those are resolved.
    pub(super) config: Config,
    pub(super) proxy: Option<Intercept>,
    /// When the credentials end, where an exec plugin said so.
    pub(super) expires: Option<Timestamp>,
    /// The context in use; `None` in a pod.
    pub(super) context: Option<String>,
    pub(super) files: Files,
    /// Of the files and of what the exec plugin printed.
    pub(super) fingerprint: u64,
}

/// The files that were read, each with a hash taken just before it was used, so that no later change is missed.
#[derive(Default, Hash)]
pub(super) struct Files(Vec<(PathBuf, u64)>);

impl Files {
    fn note(&mut self, path: impl Into<PathBuf>) {
        let path = path.into();
        let hash = hash_file(&path);
        self.0.push((path, hash));
    }

    /// Whether any of them reads differently now.
    pub(super) fn changed(&self) -> bool {
        self.0.iter().any(|(path, hash)| hash_file(path) != *hash)
    }
}

/// A file that cannot be read counts as absent.
fn hash_file(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    std::fs::read(path).ok().hash(&mut hasher);
    hasher.finish()
}

/// Reads everything, and runs the exec plugin if there is one.
pub(super) async fn load(source: &KubeSource) -> Result<Loaded, KubeconfigError> {
    let loaded = match kubeconfig_files(source) {
        Some(files) => from_kubeconfig(source, files).await?,
        None => in_pod(source, &Pod::of_this_process()).await?,
    };
    with_credentials(loaded).await
}

async fn with_credentials(mut loaded: Loaded) -> Result<Loaded, KubeconfigError> {
    let auth = &mut loaded.config.auth_info;
    // An inline token goes before a token file, as in client-go.
    if let Some(path) = auth.token_file.take().filter(|_| auth.token.is_none()) {
        auth.token = Some(read_token(Path::new(&path))?.into());
    }
    let mut hasher = DefaultHasher::new();
    loaded.files.hash(&mut hasher);
    if let Some(exec) = auth.exec.take() {
        let credentials = exec::run(&exec).await?;
        credentials.hash(&mut hasher);
        loaded.expires = credentials.expires();
        credentials.put_into(auth);
    }
    check_token(auth)?;
    loaded.fingerprint = hasher.finish();
    Ok(loaded)
}

/// The kubeconfig files to read; `None` means to try the pod's service account.
fn kubeconfig_files(source: &KubeSource) -> Option<Vec<PathBuf>> {
    if let Some(file) = &source.kubeconfig {
        return Some(vec![file.clone()]);
    }
    let listed: Vec<PathBuf> = env::var_os("KUBECONFIG")
        .map(|list| {
            env::split_paths(&list)
                .filter(|path| !path.as_os_str().is_empty())
                .collect()
        })
        .unwrap_or_default();
    if !listed.is_empty() {
        return Some(listed);
    }
    home_kubeconfig()
        .filter(|path| path.exists())
        .map(|path| vec![path])
}

fn home_kubeconfig() -> Option<PathBuf> {
    Some(env::home_dir()?.join(".kube").join("config"))
}

async fn from_kubeconfig(
    source: &KubeSource,
    paths: Vec<PathBuf>,
) -> Result<Loaded, KubeconfigError> {
    let names = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ");
    let refuse = |source| match source {
        kube::config::KubeconfigError::ReadConfig(source, path) => {
            KubeconfigError::Unreadable { path, source }
        }
        source => KubeconfigError::Kubeconfig {
            files: names.clone(),
            source,
        },
    };
    let mut files = Files::default();
    let mut kubeconfig = Kubeconfig::default();
    for path in paths {
        files.note(path.clone());
        kubeconfig = Kubeconfig::read_from(path)
            .and_then(|next| kubeconfig.merge(next))
            .map_err(refuse)?;
    }
    let context = source
        .context
        .clone()
        .or_else(|| kubeconfig.current_context.clone());
    understand(&names, kubeconfig, context, files).await
}

/// That the context is there.
fn find_context(
    names: &str,
    kubeconfig: &Kubeconfig,
    context: &str,
) -> Result<(), KubeconfigError> {
    let mut there = kubeconfig.contexts.iter().map(|there| there.name.as_str());
    if there.clone().any(|there| there == context) {
        return Ok(());
    }
    let instead = match there.next() {
        None => "it has none at all".to_owned(),
        Some(first) => {
            let all: Vec<_> = std::iter::once(first).chain(there).collect();
            format!("write one of {}", all.join(", "))
        }
    };
    Err(KubeconfigError::NoContext {
        files: names.to_owned(),
        context: context.to_owned(),
        instead,
    })
}

/// What a kubeconfig, of these files, comes to.
async fn understand(
    names: &str,
    kubeconfig: Kubeconfig,
    context: Option<String>,
    mut files: Files,
) -> Result<Loaded, KubeconfigError> {
    if let Some(context) = &context {
        find_context(names, &kubeconfig, context)?;
    }
    let cluster = cluster_of(&kubeconfig, context.as_deref()).unwrap_or_default();
    if let Some(path) = &cluster.certificate_authority {
        files.note(path);
    }
    let options = KubeConfigOptions {
        context: context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|source| KubeconfigError::Kubeconfig {
            files: names.to_owned(),
            source,
        })?;
    let auth = &config.auth_info;
    for path in [&auth.client_certificate, &auth.client_key, &auth.token_file]
        .into_iter()
        .flatten()
    {
        files.note(path);
    }
    let proxy = proxy(cluster.proxy_url.as_deref(), &config)?;
    Ok(Loaded {
        config,
        proxy,
        expires: None,
        context,
        files,
        fingerprint: 0,
    })
}

fn cluster_of(kubeconfig: &Kubeconfig, context: Option<&str>) -> Option<Cluster> {
    let context = kubeconfig
        .contexts
        .iter()
        .find(|named| Some(named.name.as_str()) == context)?;
    let name = &context.context.as_ref()?.cluster;
    kubeconfig
        .clusters
        .iter()
        .find(|named| named.name == *name)?
        .cluster
        .clone()
}

/// As the pod's service account.
async fn in_pod(source: &KubeSource, pod: &Pod) -> Result<Loaded, KubeconfigError> {
    if let Some(context) = &source.context {
        return Err(KubeconfigError::ContextWithoutKubeconfig(context.clone()));
    }
    let kubeconfig = pod
        .kubeconfig()
        .map_err(|source| KubeconfigError::NoCluster {
            looked: home_kubeconfig().map_or("no home directory".to_owned(), |path| {
                path.display().to_string()
            }),
            source,
        })?;
    let names = pod.account.display().to_string();
    let context = kubeconfig.current_context.clone();
    let loaded = understand(&names, kubeconfig, context, Files::default()).await?;
    Ok(Loaded {
        context: None,
        ..loaded
    })
}

fn read_token(path: &Path) -> Result<String, KubeconfigError> {
    let refuse = |message: String| KubeconfigError::Token {
        path: path.to_owned(),
        message,
    };
    let token = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    match token.trim() {
        "" => Err(refuse("it is empty".to_owned())),
        token => Ok(token.to_owned()),
    }
}

/// kube panics on a token that cannot stand in a header, so it is looked at first. (Serializing is the one way to
/// see it.)
fn check_token(auth: &AuthInfo) -> Result<(), KubeconfigError> {
    let seen = serde_json::to_value(auth).unwrap_or_default();
    match seen["token"].as_str() {
        Some(token) if HeaderValue::from_str(token).is_err() => {
            Err(KubeconfigError::TokenCharacters)
        }
        _ => Ok(()),
    }
}

/// The kubeconfig's own proxy, else that of the environment (`HTTPS_PROXY`, `ALL_PROXY`), which `NO_PROXY` can
/// exempt the API server from, and which this machine itself never needs. (kube compares `NO_PROXY` with the
/// proxy's own address.)
fn proxy(configured: Option<&str>, config: &Config) -> Result<Option<Intercept>, KubeconfigError> {
    let Some(url) = configured.filter(|url| !url.is_empty()) else {
        let server = &config.cluster_url;
        return Ok(if is_loopback(server.host().unwrap_or_default()) {
            None
        } else {
            Matcher::from_env().intercept(server)
        });
    };
    let refuse = || KubeconfigError::Proxy(without_password(url));
    let found = Matcher::builder()
        .all(url)
        .build()
        .intercept(&config.cluster_url)
        .ok_or_else(refuse)?;
    match found.uri().scheme_str() {
        Some("http" | "https" | "socks5" | "socks5h") => Ok(Some(found)),
        _ => Err(refuse()),
    }
}

fn is_loopback(host: &str) -> bool {
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}://***{}", &url[..scheme], &url[at..])
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known in a pod with this token and these certificates.
    async fn loaded(dir: &Path) -> Result<Loaded, KubeconfigError> {
        let pod = Pod {
            host: Some("10.0.0.1".to_owned()),
            port: Some("6443".to_owned()),
            account: dir.to_owned(),
        };
        with_credentials(in_pod(&KubeSource::default(), &pod).await?).await
    }

    fn authority() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["ca".to_owned()]).unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    #[tokio::test]
    async fn in_a_pod_its_service_account_counts_and_each_rotation_is_noticed() {
        let dir = tempfile::TempDir::new().unwrap();
        let dir = dir.path();
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
        write("token", "first\n");
        write("ca.crt", &authority());
        let first = loaded(dir).await.unwrap();
        assert_eq!(first.config.cluster_url, "https://10.0.0.1:6443/");
        let token = |loaded: &Loaded| {
            let auth = serde_json::to_value(&loaded.config.auth_info).unwrap();
            auth["token"].as_str().unwrap_or_default().to_owned()
        };
        assert_eq!(token(&first), "first");
        let authorities = |loaded: &Loaded| loaded.config.root_cert.clone().unwrap();
        assert_eq!(authorities(&first).len(), 1);
        assert_eq!(first.context, None);
        assert!(!first.files.changed());

        write("token", "second\n");
        assert!(first.files.changed());
        let second = loaded(dir).await.unwrap();
        assert_eq!(token(&second), "second");
        assert_ne!(second.fingerprint, first.fingerprint);
        write("ca.crt", &authority());
        assert!(second.files.changed());
        let third = loaded(dir).await.unwrap();
        assert_ne!(third.fingerprint, second.fingerprint);
        assert_ne!(authorities(&third), authorities(&second));

        write("token", "");
        let why = loaded(dir).await.err().unwrap().to_string();
        assert!(why.ends_with("it is empty"), "{why}");
    }

    #[tokio::test]
    async fn without_a_kubeconfig_and_a_pod_both_are_said_to_be_missing() {
        let pod = Pod {
            host: None,
            port: None,
            account: PathBuf::new(),
        };
        let why = in_pod(&KubeSource::default(), &pod).await.err().unwrap();
        let why = why.to_string();
        assert!(why.contains("KUBERNETES_SERVICE_HOST is not set"), "{why}");
        assert!(why.contains("write --kubeconfig FILE"), "{why}");
        let source = KubeSource {
            context: Some("there".to_owned()),
            ..KubeSource::default()
        };
        let why = in_pod(&source, &pod).await.err().unwrap().to_string();
        assert!(why.starts_with("--context there: "), "{why}");
    }
}
