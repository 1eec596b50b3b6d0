//! An authorizer beside RBAC, which the API server asks by a webhook: it can look at what RBAC does not, such as the
//! selectors of a request.

use std::{fs, net::Ipv4Addr, sync::Arc};

use axum::{Router, body::Bytes, extract::State, routing::post};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{Error, Scratch};

/// Whether the `spec` of a SubjectAccessReview is to be allowed.
type Decide = dyn Fn(&Value) -> bool + Send + Sync;

/// Lives on the runtime that started it; ends when dropped.
#[derive(Debug)]
pub struct Webhook {
    scratch: Scratch,
    task: JoinHandle<()>,
}

impl Webhook {
    /// Allows what `decide` does, and has no opinion on the rest.
    pub async fn start(
        decide: impl Fn(&Value) -> bool + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let scratch = Scratch::new("webhook")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let server = format!("http://{}", listener.local_addr()?);
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "webhook",
            "contexts": [{"name": "webhook", "context": {"cluster": "webhook", "user": "webhook"}}],
            "clusters": [{"name": "webhook", "cluster": {"server": server}}],
            "users": [{"name": "webhook", "user": {}}],
        });
        fs::write(scratch.path().join("kubeconfig"), kubeconfig.to_string())?;
        let decide: Arc<Decide> = Arc::new(decide);
        let router = Router::new().route("/", post(review)).with_state(decide);
        let task = tokio::spawn(async move {
            // Never ends by itself.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { scratch, task })
    }

    /// What the API server needs to know, with the node authorizer, to ask it where RBAC does not allow.
    pub fn flags(&self) -> Vec<String> {
        let kubeconfig = self.scratch.file("kubeconfig");
        vec![
            "--authorization-mode=Node,Webhook".to_owned(),
            "--authorization-webhook-version=v1".to_owned(),
            format!("--authorization-webhook-config-file={kubeconfig}"),
        ]
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn review(State(decide): State<Arc<Decide>>, body: Bytes) -> String {
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let answer = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "status": {"allowed": decide(&review["spec"])},
    });
    answer.to_string()
}
