//! `informerd kubeconfig`: what kubectl and client libraries need to read from the facade.

use super::{Error, Output};

/// `informerd kubeconfig`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Address of informerd's Kubernetes port, its kubeListen
    #[arg(long, default_value = "127.0.0.1:7481", value_name = "HOST:PORT")]
    pub kube_server: String,
    /// Namespace of the context
    #[arg(long, short = 'n', default_value = "default", value_name = "NAME")]
    pub namespace: String,
}

/// Writes it. Nothing is asked of anybody: the facade has no sign-in, and so the file has no secrets.
///
/// # Errors
///
/// The address is none, or the output cannot be written.
pub async fn run(args: Args, out: &mut Output<'_>) -> Result<(), Error> {
    let Args {
        kube_server,
        namespace,
    } = args;
    let url = format!("http://{kube_server}");
    let address = url.parse::<http::Uri>().ok();
    let is_address = address.is_some_and(|uri| uri.port().is_some() && uri.path() == "/");
    if !is_address {
        let message = format!("--kube-server {kube_server}: write host:port, as in 127.0.0.1:7481");
        return Err(Error::Usage(message));
    }
    let text = crate::kubeconfig::without_credentials("informerd", &url, &namespace);
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
    async fn what_is_no_address_is_refused() {
        for wrong in ["", "localhost", "http://127.0.0.1:1", "a b:1", "h:1/x"] {
            assert!(
                matches!(print(wrong).await, Err(Error::Usage(_))),
                "{wrong}"
            );
        }
    }
}
