//! `informerd kubeconfig`: what kubectl and client libraries need to read from the facade.

use std::path::PathBuf;

use super::{Error, Output};
use crate::kubeconfig::{Files, with_files};

/// `informerd kubeconfig`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Address of informerd's Kubernetes port, its kubeListen; https://HOST:PORT where it has a certificate
    #[arg(long, default_value = "127.0.0.1:7481", value_name = "HOST:PORT")]
    pub kube_server: String,
    /// The authority that signs its certificate (PEM); for https:// addresses
    #[arg(long, env = "INFORMERD_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Your certificate (PEM)
    #[arg(long, env = "INFORMERD_CERT", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, env = "INFORMERD_KEY", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Your Kubernetes token, made with `kubectl create token NAME --audience informerd`
    #[arg(long, env = "INFORMERD_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Namespace of the context
    #[arg(long, short = 'n', default_value = "default", value_name = "NAME")]
    pub namespace: String,
}

/// Writes it. Nothing is asked of anybody, and the file has no secrets: it names the files that have them.
///
/// # Errors
///
/// The address is none, or the output cannot be written.
pub async fn run(args: Args, out: &mut Output<'_>) -> Result<(), Error> {
    let Args {
        kube_server,
        namespace,
        ca,
        cert,
        key,
        token_file,
    } = args;
    let is_secured = kube_server.starts_with("https://");
    let url = match is_secured {
        true => kube_server.clone(),
        false => format!("http://{kube_server}"),
    };
    let address = url.parse::<http::Uri>().ok();
    let is_address = address.is_some_and(|uri| uri.port().is_some() && uri.path() == "/");
    if !is_address {
        let message = format!(
            "--kube-server {kube_server}: write host:port, as in 127.0.0.1:7481, or https://host:port"
        );
        return Err(Error::Usage(message));
    }
    if !is_secured && (ca.is_some() || cert.is_some()) {
        let message = format!(
            "--ca and --cert are for addresses with TLS: write --kube-server https://{kube_server}"
        );
        return Err(Error::Usage(message));
    }
    let files = Files {
        ca,
        certificate: cert,
        key,
        token: token_file,
    };
    let text = with_files("informerd", &url, &namespace, &files)?;
    out.out.write_all(text.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn print(server: &str) -> Result<String, Error> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut output = Output {
            out: &mut out,
            err: &mut err,
            now: jiff::Timestamp::now,
        };
        let args = Args {
            kube_server: server.to_owned(),
            namespace: "shop".to_owned(),
            ca: server.starts_with("https").then(|| "ca.crt".into()),
            cert: None,
            key: None,
            token_file: None,
        };
        run(args, &mut output).await?;
        Ok(String::from_utf8(out).expect("is text"))
    }

    #[tokio::test]
    async fn the_kubeconfig_is_one_that_clients_read() {
        let text = print("127.0.0.1:7481").await.unwrap();
        let config = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options)
            .await
            .unwrap();
        assert_eq!(config.cluster_url.to_string(), "http://127.0.0.1:7481/");
        assert_eq!(config.default_namespace, "shop");
    }

    #[tokio::test]
    async fn over_tls_it_names_the_authority() {
        let text = print("https://informerd.informerd:7481").await.unwrap();
        let config = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let cluster = config.clusters[0].cluster.clone().unwrap();
        let server = cluster.server.as_deref();
        assert_eq!(server, Some("https://informerd.informerd:7481"));
        assert!(cluster.certificate_authority.unwrap().ends_with("/ca.crt"));
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused() {
        for wrong in ["", "localhost", "http://127.0.0.1:1", "a b:1", "h:1/x"] {
            assert!(
                matches!(print(wrong).await, Err(Error::Usage(_))),
                "{wrong}"
            );
        }
    }
}
