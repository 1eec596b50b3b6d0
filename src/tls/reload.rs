//! The certificates in use, and how they are replaced.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::TlsError;

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The server's, and those that lead from it to its authority; PEM.
    pub certificate: PathBuf,
    /// Its private key; PEM.
    pub key: PathBuf,
    /// The authorities whose client certificates are believed; PEM. Nothing: clients have none.
    pub client_ca: Option<PathBuf>,
}

/// The certificates in use. Clones see the same.
#[derive(Clone)]
pub struct Tls(Arc<ArcSwap<Loaded>>);

struct Loaded {
    server: Arc<ServerConfig>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// Reads the files again when they change.
pub struct Reloader {
    files: Files,
    tls: Tls,
    held: Content,
    /// What was complained about last, so that each is logged once.
    complaint: Option<String>,
}

/// What the files held when they were last looked at.
#[derive(PartialEq, Eq)]
struct Content {
    certificate: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(5);

impl Tls {
    /// Reads the files. [`Reloader::run`] must run, or they are never read again.
    pub fn load(files: Files) -> Result<(Self, Reloader), TlsError> {
        let held = Content::read(&files)?;
        let loaded = held.load(&files)?;
        let tls = Self(Arc::new(ArcSwap::from_pointee(loaded)));
        let reloader = Reloader {
            files,
            tls: tls.clone(),
            held,
            complaint: None,
        };
        Ok((tls, reloader))
    }

    /// For the next handshake.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.load().server)
    }

    /// Whether a chain of client certificates, the client's own first, is believed now: by the authorities of this
    /// moment, which may be others than when the connection was made.
    pub fn believes(&self, chain: &[CertificateDer<'static>]) -> Result<(), String> {
        let loaded = self.0.load();
        let Some(clients) = &loaded.clients else {
            return Err("no authority for client certificates is configured".to_owned());
        };
        let (own, others) = chain.split_first().ok_or("there is none")?;
        clients
            .verify_client_cert(own, others, UnixTime::now())
            .map(|_| ())
            .map_err(|error| error.to_string())
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Reloader {
    /// Looks for ever. Beats once a round.
    pub async fn run(mut self, beat: impl Fn()) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            beat();
            self.look();
        }
    }

    /// Takes what has changed, if it can be used.
    pub(super) fn look(&mut self) {
        let content = Content::read(&self.files);
        let changed = match content {
            Ok(content) if content == self.held => {
                self.complaint = None;
                return;
            }
            Ok(content) => content.load(&self.files).map(|loaded| (content, loaded)),
            Err(error) => Err(error),
        };
        match changed {
            Ok((content, loaded)) => {
                self.tls.0.store(Arc::new(loaded));
                self.held = content;
                self.complaint = None;
                metrics::counter!("informerd_tls_reloads_total", "result" => "ok").increment(1);
                tracing::info!("new certificates are in use");
            }
            Err(error) => {
                // Such as a certificate whose key is not written yet.
                let complaint = error.to_string();
                if self.complaint.as_ref() != Some(&complaint) {
                    metrics::counter!("informerd_tls_reloads_total", "result" => "failed")
                        .increment(1);
                    tracing::warn!(error = complaint, "the old certificates stay in use");
                    self.complaint = Some(complaint);
                }
            }
        }
    }
}

impl Content {
    fn read(files: &Files) -> Result<Self, TlsError> {
        let read = |what, path: &Path| {
            fs::read(path).map_err(|source| TlsError::Read {
                what,
                path: path.to_owned(),
                source,
            })
        };
        let client_ca = files.client_ca.as_deref();
        Ok(Self {
            certificate: read("certificate", &files.certificate)?,
            key: read("private key", &files.key)?.into(),
            client_ca: client_ca.map(|path| read("client CA", path)).transpose()?,
        })
    }

    fn load(&self, files: &Files) -> Result<Loaded, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = certificates("certificate", &files.certificate, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| content("private key", &files.key, error))?;
        let clients = match (&files.client_ca, &self.client_ca) {
            (Some(path), Some(pem)) => Some(verifier(path, pem, &provider)?),
            _ => None,
        };
        // TLS 1.2 and 1.3 are all that rustls has.
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients)),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder
            .with_single_cert(chain, key)
            .map_err(TlsError::Pair)?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Loaded {
            server: Arc::new(server),
            clients,
        })
    }
}

/// Believes the authorities of a file; lets clients without a certificate in, whom somebody else has to ask.
fn verifier(
    path: &Path,
    pem: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("client CA", path, pem)? {
        roots
            .add(authority)
            .map_err(|error| content("client CA", path, error))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| content("client CA", path, error))
}

fn certificates(
    what: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| content(what, path, error))?;
    if found.is_empty() {
        return Err(content(what, path, "there is no certificate in it"));
    }
    Ok(found)
}

fn content(what: &'static str, path: &Path, why: impl fmt::Display) -> TlsError {
    TlsError::Content {
        what,
        path: path.to_owned(),
        why: why.to_string(),
    }
}
