//! The kubeconfig of a server that speaks Kubernetes's protocol and has no sign-in: the facade's, and the sandbox's.

/// With one context, in this namespace. There are no credentials in it, and so no secrets.
pub fn without_credentials(name: &str, server: &str, namespace: &str) -> String {
    // JSON strings are YAML strings.
    let [name, server, namespace] = [name, server, namespace].map(serde_json::Value::from);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: {name}
  cluster:
    server: {server}
contexts:
- name: {name}
  context:
    cluster: {name}
    user: {name}
    namespace: {namespace}
users:
- name: {name}
  user: {{}}
current-context: {name}
"
    )
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn it_is_one_that_clients_read_whatever_its_words_are() {
        let text = super::without_credentials("a: \"b\"", "http://127.0.0.1:7481", "yes");
        let config = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options);
        let config = config.await.unwrap();
        assert_eq!(config.cluster_url.to_string(), "http://127.0.0.1:7481/");
        assert_eq!(config.default_namespace, "yes");
    }
}
