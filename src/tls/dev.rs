//! Certificates for trying out: an authority of one's own, a server's certificate for this machine, and a client's.
//!
//! Not for production, where cert-manager or the platform makes and renews them: these end after a year, and
//! whoever reads the authority's key can be anybody.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::TlsError;

/// Whom the certificates are for.
#[derive(Clone, Debug)]
pub struct DevCertificates {
    /// Where the files go.
    pub folder: PathBuf,
    /// Names and addresses of the server.
    pub hosts: Vec<String>,
    /// The client's user name.
    pub user: String,
    /// The client's group, if it has one.
    pub group: Option<String>,
}

const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Writes ca.crt, ca.key, server.crt, server.key, client.crt and client.key; refuses where one is there already.
pub fn write(asked: &DevCertificates) -> Result<Vec<PathBuf>, TlsError> {
    let mut authority = params("informerd-dev-ca", None);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let sign = |mut params: CertificateParams, usage| {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        Ok::<_, rcgen::Error>((certificate.pem(), key.serialize_pem()))
    };
    let mut server = params("informerd", None);
    server.subject_alt_names = CertificateParams::new(asked.hosts.clone())?.subject_alt_names;
    let server = sign(server, ExtendedKeyUsagePurpose::ServerAuth)?;
    let client = params(&asked.user, asked.group.as_deref());
    let client = sign(client, ExtendedKeyUsagePurpose::ClientAuth)?;

    let files = [
        ("ca.crt", authority.pem()),
        ("ca.key", authority.key().serialize_pem()),
        ("server.crt", server.0),
        ("server.key", server.1),
        ("client.crt", client.0),
        ("client.key", client.1),
    ];
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Write { path, source }
    };
    fs::create_dir_all(&asked.folder).map_err(failed(&asked.folder))?;
    let mut written = Vec::new();
    for (name, content) in files {
        let path = asked.folder.join(name);
        create(&path, &content, name.ends_with(".key")).map_err(failed(&path))?;
        written.push(path);
    }
    Ok(written)
}

fn create(path: &Path, content: &str, secret: bool) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .mode(if secret { 0o600 } else { 0o644 });
    options.open(path)?.write_all(content.as_bytes())
}

fn params(name: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
    }
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = date_time_ymd(1970, 1, 1) + since_1970;
    // Clocks differ a little.
    params.not_before = now - Duration::from_secs(300);
    params.not_after = now + YEAR;
    params
}
