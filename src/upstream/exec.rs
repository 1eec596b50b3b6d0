//! Credentials from an exec plugin (`aws eks get-token`, `kubelogin`, ...), run by ourselves and once per renewal.
//!
//! kube runs the plugin up to seven times to build two clients, never renews the client certificates that a
//! plugin may print, and waits for a hanging one for ever.

use std::{process::Stdio, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use serde::Deserialize;
use tokio::process::Command;

/// Why there are no credentials from an exec plugin. Every text names the plugin.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The kubeconfig's `exec` has no `command`.
    #[error("the kubeconfig's user.exec has no command: write the plugin's name or path there")]
    NoCommand,
    /// `interactiveMode: Always`.
    #[error(
        "exec plugin {0}: interactiveMode is Always, and a daemon has no terminal: use a user that signs in without one"
    )]
    Interactive(String),
    /// The program is missing or may not be run. `hint` is the kubeconfig's installHint, or empty.
    #[error("exec plugin {command}: cannot run it: {source}{hint}")]
    Start {
        /// The plugin.
        command: String,
        /// Why.
        source: std::io::Error,
        /// What the kubeconfig says about installing it.
        hint: String,
    },
    /// It ended with an error.
    #[error("exec plugin {command}: {status}: {stderr}")]
    Failed {
        /// The plugin.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// It did not end.
    #[error("exec plugin {0}: did not end within {1:?}")]
    TimedOut(String, Duration),
    /// It printed something else than credentials.
    #[error("exec plugin {command}: {message}")]
    Output {
        /// The plugin.
        command: String,
        /// What is wrong with its output.
        message: String,
    },
}

/// How long a plugin may take, sign-in over a slow network included.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct ExecCredential {
    status: Option<Credentials>,
}

/// What a plugin printed.
#[derive(Deserialize, Hash)]
#[serde(rename_all = "camelCase")]
pub(super) struct Credentials {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<Timestamp>,
}

impl Credentials {
    pub(super) fn expires(&self) -> Option<Timestamp> {
        self.expiration_timestamp
    }

    pub(super) fn put_into(self, auth: &mut AuthInfo) {
        if let Some(token) = self.token {
            auth.token = Some(token.into());
        }
        if let (Some(certificate), Some(key)) = (self.client_certificate_data, self.client_key_data)
        {
            auth.client_certificate_data = Some(BASE64_STANDARD.encode(certificate));
            auth.client_key_data = Some(BASE64_STANDARD.encode(key).into());
        }
    }
}

/// Runs a plugin.
pub(super) async fn run(exec: &ExecConfig) -> Result<Credentials, ExecError> {
    let command = exec.command.clone().ok_or(ExecError::NoCommand)?;
    if exec.interactive_mode == Some(ExecInteractiveMode::Always) {
        return Err(ExecError::Interactive(command));
    }
    let mut spec = serde_json::json!({ "interactive": false });
    if let Some(cluster) = exec.cluster.as_ref().filter(|_| exec.provide_cluster_info) {
        spec["cluster"] = serde_json::to_value(cluster).map_err(|error| ExecError::Output {
            command: command.clone(),
            message: format!("cannot write the cluster for it: {error}"),
        })?;
    }
    let info = serde_json::json!({
        "apiVersion": exec.api_version.as_deref().unwrap_or("client.authentication.k8s.io/v1"),
        "kind": "ExecCredential",
        "spec": spec,
    });

    let mut process = Command::new(&command);
    process
        .args(exec.args.iter().flatten())
        .envs(
            exec.env
                .iter()
                .flatten()
                .filter_map(|env| Some((env.get("name")?, env.get("value")?))),
        )
        .env("KUBERNETES_EXEC_INFO", info.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = match tokio::time::timeout(PATIENCE, process.output()).await {
        Err(_) => return Err(ExecError::TimedOut(command, PATIENCE)),
        Ok(Err(source)) => {
            let hint = exec
                .install_hint
                .as_deref()
                .map(|hint| format!(". {hint}"))
                .unwrap_or_default();
            return Err(ExecError::Start {
                command,
                source,
                hint,
            });
        }
        Ok(Ok(output)) => output,
    };
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let start = stderr.len().saturating_sub(512);
        let stderr = stderr[stderr.ceil_char_boundary(start)..].to_owned();
        return Err(ExecError::Failed {
            command,
            status: output.status,
            stderr,
        });
    }
    // The output is a secret: an error may say where it is wrong, never what it holds.
    let credential: ExecCredential =
        serde_json::from_slice(&output.stdout).map_err(|error| ExecError::Output {
            command: command.clone(),
            message: format!(
                "printed no ExecCredential: not the JSON expected at line {}, column {}",
                error.line(),
                error.column()
            ),
        })?;
    let message = match credential.status {
        None => "printed an ExecCredential without a status",
        Some(status)
            if status.client_certificate_data.is_some() != status.client_key_data.is_some() =>
        {
            "printed a client certificate without its key, or the key without the certificate"
        }
        Some(status) if status.token.is_none() && status.client_key_data.is_none() => {
            "printed neither a token nor a client certificate"
        }
        Some(status) => return Ok(status),
    };
    Err(ExecError::Output {
        command,
        message: message.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn plugin(script: &str) -> ExecConfig {
        ExecConfig {
            command: Some("sh".to_owned()),
            args: Some(vec!["-c".to_owned(), script.to_owned()]),
            env: Some(vec![HashMap::from([
                ("name".to_owned(), "PLUGIN_TOKEN".to_owned()),
                ("value".to_owned(), "from-env".to_owned()),
            ])]),
            ..ExecConfig::default()
        }
    }

    async fn error_of(script: &str) -> String {
        run(&plugin(script))
            .await
            .err()
            .expect("an error")
            .to_string()
    }

    #[tokio::test]
    async fn a_printed_token_becomes_the_users_token() {
        let printed = run(&plugin(
            r#"echo "{\"kind\":\"ExecCredential\",\"status\":{\"token\":\"$PLUGIN_TOKEN\",\"expirationTimestamp\":\"2030-01-01T00:00:00Z\"}}""#,
        ))
        .await
        .unwrap();
        assert_eq!(printed.token.as_deref(), Some("from-env"));
        assert_eq!(
            printed.expires(),
            Some("2030-01-01T00:00:00Z".parse().unwrap())
        );
        let mut auth = AuthInfo::default();
        printed.put_into(&mut auth);
        assert!(auth.token.is_some());
    }

    #[tokio::test]
    async fn a_printed_certificate_becomes_the_users_certificate() {
        let printed = run(&plugin(
            r#"echo '{"status":{"clientCertificateData":"CERT","clientKeyData":"KEY"}}'"#,
        ))
        .await
        .unwrap();
        let mut auth = AuthInfo::default();
        printed.put_into(&mut auth);
        assert_eq!(auth.client_certificate_data.as_deref(), Some("Q0VSVA=="));
        assert!(auth.client_key_data.is_some());
    }

    #[tokio::test]
    async fn a_failing_plugin_is_quoted() {
        assert_eq!(
            error_of("echo please sign in >&2; exit 3").await,
            "exec plugin sh: exit status: 3: please sign in"
        );
    }

    #[tokio::test]
    async fn output_that_is_no_credential_is_refused_without_showing_it() {
        let error = error_of("echo secret").await;
        assert!(error.contains("printed no ExecCredential"), "{error}");
        assert!(!error.contains("secret"), "{error}");
        let error = error_of(r#"echo '{"status":{"clientKeyData":"KEY"}}'"#).await;
        assert!(
            error.contains("or the key without the certificate"),
            "{error}"
        );
        assert!(error_of("echo '{}'").await.contains("without a status"));
    }

    #[tokio::test]
    async fn a_missing_plugin_shows_the_install_hint() {
        let exec = ExecConfig {
            command: Some("no-such-plugin".to_owned()),
            install_hint: Some("Install it with the cloud's tools.".to_owned()),
            ..ExecConfig::default()
        };
        let error = run(&exec).await.err().expect("an error").to_string();
        assert!(
            error.starts_with("exec plugin no-such-plugin: cannot run it: "),
            "{error}"
        );
        assert!(
            error.ends_with("Install it with the cloud's tools."),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_interactive_plugin_is_refused() {
        let exec = ExecConfig {
            interactive_mode: Some(ExecInteractiveMode::Always),
            ..plugin("")
        };
        let error = run(&exec).await.err().expect("an error").to_string();
        assert!(error.contains("a daemon has no terminal"), "{error}");
    }
}
