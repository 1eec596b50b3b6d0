//! The kubeconfig of a server that speaks Kubernetes's protocol: the facade's, and the sandbox's. Credentials are
//! named in it by their files, so that there are no secrets in it.

use std::{io, path::PathBuf};

use serde_json::{Map, Value, json};

/// Where a caller's credentials are, and the authority that signs the server's certificate.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Of the server's certificate.
    pub ca: Option<PathBuf>,
    /// The caller's.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The caller's token.
    pub token: Option<PathBuf>,
}

/// With one context, in this namespace, and without credentials.
pub fn without_credentials(name: &str, server: &str, namespace: &str) -> String {
    written(name, server, namespace, Map::new(), Map::new())
}

/// With one context, in this namespace, and the credentials in these files, by paths that hold wherever the
/// kubeconfig is put.
///
/// # Errors
///
/// There is no current directory to find relative paths from.
pub fn with_files(
    name: &str,
    server: &str,
    namespace: &str,
    files: &Files,
) -> Result<String, io::Error> {
    let (mut cluster, mut user) = (Map::new(), Map::new());
    let add = |to: &mut Map<String, Value>, key: &str, path: &Option<PathBuf>| {
        if let Some(path) = path {
            let path = std::path::absolute(path)?;
            to.insert(key.to_owned(), json!(path.display().to_string()));
        }
        Ok::<_, io::Error>(())
    };
    add(&mut cluster, "certificate-authority", &files.ca)?;
    add(&mut user, "client-certificate", &files.certificate)?;
    add(&mut user, "client-key", &files.key)?;
    add(&mut user, "tokenFile", &files.token)?;
    Ok(written(name, server, namespace, cluster, user))
}

fn written(
    name: &str,
    server: &str,
    namespace: &str,
    mut cluster: Map<String, Value>,
    user: Map<String, Value>,
) -> String {
    cluster.insert("server".to_owned(), json!(server));
    // JSON is YAML.
    let [cluster, user] = [cluster, user].map(Value::Object);
    let [name, namespace] = [name, namespace].map(Value::from);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: {name}
  cluster: {cluster}
contexts:
- name: {name}
  context:
    cluster: {name}
    user: {name}
    namespace: {namespace}
users:
- name: {name}
  user: {user}
current-context: {name}
"
    )
}

#[cfg(test)]
mod tests {
    use kube::config::{KubeConfigOptions, Kubeconfig};

    use super::*;

    #[tokio::test]
    async fn it_is_one_that_clients_read_whatever_its_words_are() {
        let text = without_credentials("a: \"b\"", "http://127.0.0.1:7481", "yes");
        let config = Kubeconfig::from_yaml(&text).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options);
        let config = config.await.unwrap();
        assert_eq!(config.cluster_url.to_string(), "http://127.0.0.1:7481/");
        assert_eq!(config.default_namespace, "yes");
    }

    #[test]
    fn credentials_are_named_by_paths_that_hold_everywhere() {
        let files = Files {
            ca: Some("ca.crt".into()),
            certificate: Some("/certs/client.crt".into()),
            key: Some("/certs/client.key".into()),
            token: Some("/var/run/token".into()),
        };
        let text = with_files("informerd", "https://informerd:7481", "shop", &files).unwrap();
        let config = Kubeconfig::from_yaml(&text).unwrap();
        let cluster = config.clusters[0].cluster.clone().unwrap();
        let ca = std::path::absolute("ca.crt").unwrap().display().to_string();
        assert_eq!(cluster.certificate_authority, Some(ca));
        let user = config.auth_infos[0].auth_info.clone().unwrap();
        assert_eq!(
            user.client_certificate.as_deref(),
            Some("/certs/client.crt")
        );
        assert_eq!(user.client_key.as_deref(), Some("/certs/client.key"));
        assert_eq!(user.token_file.as_deref(), Some("/var/run/token"));
    }
}
