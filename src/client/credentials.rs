//! How a client proves who it is, and knows whom it talks to.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::{Certificate, ClientTlsConfig, Identity},
};

/// Files that a client proves itself with; none for a server on this machine that asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The authorities that sign the server's certificate (PEM). Needed for `https://`.
    pub ca: Option<PathBuf>,
    /// The client's certificate (PEM); it and its key are read anew when a watch goes on after the one before has ended.
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    pub key: Option<PathBuf>,
    /// A Kubernetes token; read anew for each call, since it is replaced before it ends.
    pub token_file: Option<PathBuf>,
}

impl Credentials {
    /// What is wrong with them for a server that is reached like this.
    pub(super) fn check(&self, is_tls: bool, host: &str) -> Result<(), String> {
        if is_tls {
            return match (&self.ca, &self.certificate, &self.key) {
                (None, ..) => {
                    Err("give the authority that signs its certificate (--ca)".to_owned())
                }
                (_, Some(_), None) | (_, None, Some(_)) => {
                    Err("a client certificate goes with its key: give both".to_owned())
                }
                _ => Ok(()),
            };
        }
        if self.ca.is_some() || self.certificate.is_some() {
            return Err("certificates are for https:// addresses".to_owned());
        }
        if self.token_file.is_some() && !is_this_machine(host) {
            return Err(
                "a token is not sent to another machine in plain text: use https://".into(),
            );
        }
        Ok(())
    }

    /// For a secured connection.
    pub(super) fn tls(&self) -> Result<ClientTlsConfig, String> {
        let read = |path: &Path| {
            fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let mut tls = ClientTlsConfig::new();
        if let Some(ca) = &self.ca {
            tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
        }
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(tls)
    }

    pub(super) fn bearer(&self) -> Bearer {
        Bearer(self.token_file.clone())
    }
}

fn is_this_machine(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Adds the token to each call.
#[derive(Clone, Debug)]
pub(super) struct Bearer(Option<PathBuf>);

impl Bearer {
    fn read(path: &Path) -> io::Result<MetadataValue<Ascii>> {
        let token = fs::read_to_string(path)?;
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
            .parse()
            .map_err(io::Error::other)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(path) = &self.0 {
            let value = Self::read(path).map_err(|error| {
                let path = path.display();
                Status::unauthenticated(format!("cannot read the token in {path}: {error}"))
            })?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_other_machines_only_over_tls() {
        let token = Credentials {
            token_file: Some("t".into()),
            ..Credentials::default()
        };
        for here in ["localhost", "127.0.0.1", "[::1]"] {
            assert_eq!(token.check(false, here), Ok(()), "{here}");
        }
        assert!(token.check(false, "informerd.example.com").is_err());
        let secured = Credentials {
            ca: Some("ca.crt".into()),
            ..token
        };
        assert_eq!(secured.check(true, "informerd.example.com"), Ok(()));
    }

    #[test]
    fn half_of_what_is_needed_is_refused() {
        assert!(Credentials::default().check(true, "localhost").is_err());
        let half = Credentials {
            ca: Some("ca.crt".into()),
            certificate: Some("c.crt".into()),
            ..Credentials::default()
        };
        assert!(half.check(true, "localhost").is_err());
        assert!(half.check(false, "localhost").is_err());
    }

    #[test]
    fn a_token_is_read_anew_for_each_call() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bearer = Credentials {
            token_file: Some(file.path().to_owned()),
            ..Credentials::default()
        }
        .bearer();
        for token in ["first", "second\n"] {
            fs::write(file.path(), token).unwrap();
            let request = bearer.call(Request::new(())).unwrap();
            let sent = request.metadata().get("authorization").unwrap();
            let sent = sent.to_str().unwrap();
            assert_eq!(sent, format!("Bearer {}", token.trim()));
        }
        fs::remove_file(file.path()).unwrap();
        assert!(bearer.call(Request::new(())).is_err());
    }
}
