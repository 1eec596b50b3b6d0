//! How nodes are reached and who is asking, from files: certificates, keys and passwords, read again when they
//! change.
//!
//! A secret may be mounted late or be wrong for a while. That ends nothing here: nodes are asked when it can be read,
//! and until then verdicts say why nobody was asked.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    aerospike::{
        Network,
        connect::{Connect, Tls, TlsNameError},
        login::{Credentials, LoginError},
    },
    config::{AerospikeConfig, AerospikeLogin, AerospikeTls},
    heartbeat::Heartbeat,
    shutdown::Shutdown,
};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(5);

/// All that is needed to ask a node.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) plain: Arc<dyn Connect>,
    pub(super) tls: Option<Arc<dyn Connect>>,
    pub(super) credentials: Option<Arc<Credentials>>,
}

/// What there is, or why there is none.
pub(super) type Accessible = Result<Arc<Access>, String>;

/// The files.
#[derive(Clone, Debug)]
pub(super) struct AccessFiles {
    tls: Option<AerospikeTls>,
    login: Option<AerospikeLogin>,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccessError {
    #[error("cannot read {}: {source}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}: not PEM, or nothing of use in it: {source}", file.display())]
    Pem { file: PathBuf, source: pem::Error },
    #[error("{}: {source}", file.display())]
    Tls {
        file: PathBuf,
        source: rustls::Error,
    },
    #[error(transparent)]
    Name(#[from] TlsNameError),
    #[error(transparent)]
    Login(#[from] LoginError),
}

/// Contents of the files, in a fixed order.
type Contents = Vec<Vec<u8>>;

impl AccessFiles {
    /// Those of the config.
    pub(super) fn new(config: &AerospikeConfig) -> Self {
        Self {
            tls: config.tls.clone(),
            login: config.login.clone(),
        }
    }

    /// What there is before they are read: all, where there are none.
    pub(super) fn unread(&self) -> Accessible {
        if !self.is_empty() {
            return Err("certificates and password were not read yet".to_owned());
        }
        Ok(Arc::new(Access {
            plain: Arc::new(Network::plain()),
            tls: None,
            credentials: None,
        }))
    }

    fn is_empty(&self) -> bool {
        self.tls.is_none() && self.login.is_none()
    }

    /// Reads the files, again and again, until draining begins.
    pub(super) async fn keep(
        &self,
        told: &watch::Sender<Accessible>,
        heartbeat: Heartbeat,
        shutdown: Shutdown,
    ) {
        let mut tick = tokio::time::interval(EVERY);
        let mut last: Option<Contents> = None;
        loop {
            tokio::select! {
                () = shutdown.draining() => return,
                _ = tick.tick() => {}
            }
            heartbeat.beat();
            if self.is_empty() {
                continue;
            }
            let (files, before) = (self.clone(), last.clone());
            // Files and bcrypt: both may take a while.
            let read = tokio::task::spawn_blocking(move || files.changed(before.as_ref())).await;
            match read {
                Ok(Ok(Some((contents, access)))) => {
                    if last.is_some() {
                        info!("certificates or password for Aerospike nodes have changed");
                    }
                    last = Some(contents);
                    told.send_modify(|known| *known = Ok(Arc::new(access)));
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    warn!(%error, "certificates or password for Aerospike nodes cannot be used");
                    // What was good goes on being good: files are replaced one by one.
                    told.send_if_modified(|known| match known {
                        Err(why) if *why != error.to_string() => {
                            *why = error.to_string();
                            true
                        }
                        _ => false,
                    });
                }
                Err(_) => {}
            }
        }
    }

    /// What the files say, unless they say the same as before.
    fn changed(
        &self,
        before: Option<&Contents>,
    ) -> Result<Option<(Contents, Access)>, AccessError> {
        let contents = self.read()?;
        if before == Some(&contents) {
            return Ok(None);
        }
        let access = self.load()?;
        Ok(Some((contents, access)))
    }

    fn read(&self) -> Result<Contents, AccessError> {
        let tls = self.tls.iter().flat_map(|tls| {
            let client = tls.client.iter().flat_map(|(cert, key)| [cert, key]);
            std::iter::once(&tls.ca_file).chain(client)
        });
        let login = self.login.iter().map(|login| &login.password_file);
        tls.chain(login).map(|file| read(file)).collect()
    }

    /// Reads the files once.
    pub(super) fn load(&self) -> Result<Access, AccessError> {
        let tls = self.tls.as_ref().map(tls).transpose()?;
        let credentials = self.login.as_ref().map(credentials).transpose()?;
        Ok(Access {
            plain: Arc::new(Network::plain()),
            tls: tls.map(|tls| Arc::new(Network::tls(tls)) as Arc<dyn Connect>),
            credentials: credentials.map(Arc::new),
        })
    }
}

fn read(file: &Path) -> Result<Vec<u8>, AccessError> {
    std::fs::read(file).map_err(|source| AccessError::Read {
        file: file.to_owned(),
        source,
    })
}

fn credentials(login: &AerospikeLogin) -> Result<Credentials, AccessError> {
    let text = read(&login.password_file)?;
    let text = String::from_utf8_lossy(&text);
    let password = text.trim_end_matches(['\n', '\r']);
    Ok(Credentials::new(login.user.clone(), password)?)
}

fn tls(tls: &AerospikeTls) -> Result<Tls, AccessError> {
    let file = |file: &Path| file.to_owned();
    let pem = |path: &Path| {
        let file = file(path);
        move |source| AccessError::Pem { file, source }
    };
    let wrong = |path: &Path| {
        let file = file(path);
        move |source| AccessError::Tls { file, source }
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, AccessError> {
        let content = read(path)?;
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
        let all = all.map_err(pem(path))?;
        if all.is_empty() {
            return Err(pem(path)(pem::Error::NoItemsFound));
        }
        Ok(all)
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca_file)? {
        roots.add(certificate).map_err(wrong(&tls.ca_file))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong(&tls.ca_file))?
        .with_root_certificates(roots);
    let config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates(cert)?;
            let content = read(key)?;
            let secret = PrivateKeyDer::from_pem_slice(&content).map_err(pem(key))?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(wrong(cert))?
        }
    };
    Ok(Tls::new(Arc::new(config), &tls.name)?)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;
    use crate::heartbeat::Heartbeats;

    fn files(dir: &Path) -> AccessFiles {
        AccessFiles {
            tls: Some(AerospikeTls {
                name: "cache.example".to_owned(),
                ca_file: dir.join("ca.pem"),
                client: Some((dir.join("cert.pem"), dir.join("key.pem"))),
            }),
            login: Some(AerospikeLogin {
                user: "informerd".to_owned(),
                password_file: dir.join("password"),
            }),
        }
    }

    fn write(dir: &Path, password: &str) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["cache.example".to_owned()]).unwrap();
        for (file, content) in [
            ("ca.pem", cert.pem()),
            ("cert.pem", cert.pem()),
            ("key.pem", signing_key.serialize_pem()),
            ("password", password.to_owned()),
        ] {
            std::fs::write(dir.join(file), content).unwrap();
        }
    }

    #[test]
    fn what_is_wrong_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, files) = (dir.path(), files(dir.path()));
        let error = || files.load().unwrap_err().to_string();
        assert!(error().contains("ca.pem: "), "{}", error());
        write(dir, "secret\n");
        assert!(files.load().unwrap().tls.is_some());
        std::fs::write(dir.join("key.pem"), "no key").unwrap();
        assert!(error().contains("key.pem: not PEM"), "{}", error());
        write(dir, "\n");
        assert!(error().contains("it is empty"), "{}", error());
    }

    #[test]
    fn the_end_of_the_passwords_line_is_not_part_of_it() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "secret\r\n");
        let access = files(dir.path()).load().unwrap();
        let expected = Credentials::new("informerd", "secret").unwrap();
        assert_eq!(access.credentials.as_deref(), Some(&expected));
    }

    #[tokio::test]
    async fn files_may_come_late_and_be_replaced_and_bad_ones_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let shutdown = Shutdown::new();
        let (told, mut known) = watch::channel(Err("nobody has looked yet".to_owned()));
        let beat = Heartbeats::default().register("access");
        let (files, ending) = (files(dir.path()), shutdown.clone());
        tokio::spawn(async move { files.keep(&told, beat, ending).await });
        let deadline = Duration::from_secs(60);
        let until = async |known: &mut watch::Receiver<Accessible>,
                           is: &dyn Fn(&Accessible) -> bool| {
            let found = tokio::time::timeout(deadline, known.wait_for(|it| is(it))).await;
            found.expect("in time").expect("it is kept").clone()
        };
        let why = until(&mut known, &|it| {
            it.as_ref().is_err_and(|why| why.contains("ca.pem"))
        });
        why.await.unwrap_err();
        write(dir.path(), "first");
        let first = until(&mut known, &|it| it.is_ok()).await.unwrap();
        std::fs::write(dir.path().join("ca.pem"), "half a file").unwrap();
        std::fs::write(dir.path().join("password"), "second").unwrap();
        write(dir.path(), "second");
        let is_new = |it: &Accessible| {
            it.as_ref()
                .is_ok_and(|access| access.credentials != first.credentials)
        };
        until(&mut known, &is_new).await.unwrap();
        shutdown.drain();
    }
}
