//! The tests' own certificate authority: serves the API servers, and clients with lifetimes as a test likes them.

use std::{fs, io, path::Path, sync::OnceLock, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::Error;

/// The authority of this test process: one for all its clusters, so that a kubeconfig made for one API server is
/// still believed by another (a test that swaps them behind a proxy relies on it).
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its private key, in PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate alone, without the authority's.
    pub certificate: String,
    /// PKCS#8.
    pub key: String,
}

impl Authority {
    /// The one of this process.
    pub fn get() -> &'static Self {
        static AUTHORITY: OnceLock<Authority> = OnceLock::new();
        AUTHORITY
            .get_or_init(|| Self::new().expect("a certificate authority is made from constants"))
    }

    fn new() -> Result<Self, Error> {
        let mut params = params("informerd-tests", None, Duration::from_secs(86_400))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?,
        })
    }

    /// Its own certificate, in PEM: what clients and servers are to trust.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// For a server on 127.0.0.1 and localhost, for a day.
    pub fn server(&self) -> Result<Certificate, Error> {
        let mut params = params("kube-apiserver", None, Duration::from_secs(86_400))?;
        params.subject_alt_names =
            CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?
                .subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// For a client that the API server knows as `user` in `group`, from a minute ago until `lifetime` from now.
    pub fn client(
        &self,
        user: &str,
        group: Option<&str>,
        lifetime: Duration,
    ) -> Result<Certificate, Error> {
        let mut params = params(user, group, lifetime)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Certificate, Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Certificate {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

impl Certificate {
    /// Puts certificate and key where they are read from, each in one step, as whoever rotates them should: a
    /// reader sees an old or a new file, never half of one.
    pub fn write(&self, certificate: &Path, key: &Path) -> io::Result<()> {
        for (path, content) in [(key, &self.key), (certificate, &self.certificate)] {
            let unfinished = path.with_extension("unfinished");
            fs::write(&unfinished, content)?;
            fs::rename(&unfinished, path)?;
        }
        Ok(())
    }
}

fn params(name: &str, group: Option<&str>, lifetime: Duration) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
    }
    let now = date_time_ymd(1970, 1, 1)
        + std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    params.not_before = now - Duration::from_secs(60);
    params.not_after = now + lifetime;
    Ok(params)
}
