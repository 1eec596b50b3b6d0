//! TLS for the daemon's own ports: rustls, with certificates that are read again when their files change.
//!
//! Certificates are short-lived and mounted as files. A new one counts for the next handshake; connections that
//! are open keep the one that they have, so that nothing is dropped. A file that cannot be used keeps the old
//! one, and says so in the log and a metric.

use std::{io, path::PathBuf};

mod accept;
mod dev;
mod reload;

pub use accept::{Acceptor, Limits, Secured};
pub use dev::{DevCertificates, write as write_dev_certificates};
pub use reload::{Files, Reloader, Tls};

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{what} {path}: {source}")]
    Read {
        /// What it should hold.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{what} {path}: {why}")]
    Content {
        /// What it should hold.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Certificate and key do not belong together, or cannot be used.
    #[error("certificate and key cannot be used: {0}")]
    Pair(rustls::Error),
    /// Certificates for trying out could not be made.
    #[error("cannot make certificates: {0}")]
    Make(#[from] rcgen::Error),
    /// Nor written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Says what this module's metrics mean.
pub fn describe_metrics() {
    use metrics::describe_counter;
    describe_counter!(
        "informerd_tls_handshakes_total",
        "TLS handshakes, by result: done, failed, timeout, refused (too many at once: the oldest of them goes)."
    );
    describe_counter!(
        "informerd_tls_reloads_total",
        "Times that changed certificate files were read, by result."
    );
}
