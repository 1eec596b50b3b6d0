//! Puts together who is let in and how connections are secured, from what the config says.

use std::sync::Arc;

use super::AppError;
use crate::{
    api::{Access, access::Names},
    auth::{ApiReviews, Authentication, CertificateTrust, Guard, Settings},
    config::Config,
    discovery::Registry,
    tls::{self, Reloader, Tls},
    upstream::Upstream,
};

/// The certificates that the config names, if it does, and what reads them again.
pub(super) fn tls(config: &Config) -> Result<Option<(Tls, Reloader)>, AppError> {
    let Some(own) = &config.tls else {
        return Ok(None);
    };
    let files = tls::Files {
        certificate: own.certificate.clone(),
        key: own.key.clone(),
        client_ca: config.auth.client_ca.clone(),
    };
    Ok(Some(Tls::load(files)?))
}

/// Who may call, and what they may see. A config that says nothing of it listens on loopback only.
pub(super) fn access(
    config: &Config,
    upstream: &Upstream,
    registry: &Registry,
    tls: Option<&Tls>,
) -> Result<Access, AppError> {
    let auth = &config.auth;
    if !auth.is_any() {
        return Ok(Access::Open);
    }
    let certificates = tls.filter(|_| auth.client_ca.is_some()).cloned();
    let how = Authentication {
        token_audience: auth.token_audience.clone(),
        certificates: certificates
            .map(|tls| CertificateTrust(Arc::new(move |chain| tls.believes(chain)))),
        insecure_loopback: auth.insecure_loopback,
    };
    let reviews = Arc::new(ApiReviews::new(upstream.clone()));
    let guard = Guard::new(how, reviews, Settings::default()).ok_or(AppError::NoRandomness)?;
    Ok(Access::Guarded {
        guard,
        names: names(registry.clone()),
    })
}

/// What kinds are called, as the API server has it.
fn names(registry: Registry) -> Names {
    Arc::new(move |name| {
        let kind = registry.known()?.resolve(name).ok()?;
        Some((kind.group.clone(), kind.plural.clone()))
    })
}
