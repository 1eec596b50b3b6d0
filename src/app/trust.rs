//! Puts together who is let in and how connections are secured, from what the config says.

use std::sync::Arc;

use super::AppError;
use crate::{
    api::{Access, access::Names},
    auth::{ApiReviews, Authentication, Calls, CertificateTrust, Guard, Limits, Settings},
    config::{Config, LimitsConfig},
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
        let limits = limits(&config.limits);
        return Ok(Access::Limited(Calls::of_nobody_in_particular(limits)));
    }
    let certificates = tls.filter(|_| auth.client_ca.is_some()).cloned();
    let how = Authentication {
        token_audience: auth.token_audience.clone(),
        certificates: certificates
            .map(|tls| CertificateTrust(Arc::new(move |chain| tls.believes(chain)))),
        insecure_loopback: auth.insecure_loopback,
    };
    let reviews = Arc::new(ApiReviews::new(upstream.clone()));
    let settings = Settings {
        limits: limits(&config.limits),
        ..Settings::default()
    };
    let guard = Guard::new(how, reviews, settings).ok_or(AppError::NoRandomness)?;
    Ok(Access::Guarded {
        guard,
        names: names(registry.clone()),
    })
}

fn limits(config: &LimitsConfig) -> Limits {
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let rate = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Limits {
        calls: size(config.calls),
        calls_of_one: size(config.calls_of_one),
        calls_per_second: rate(config.calls_per_second_of_one),
        calls_per_second_of_all: rate(config.calls_per_second),
        bytes: size(config.unread),
        bytes_of_one: size(config.unread_of_one),
        snapshots: size(config.snapshots),
        snapshots_of_one: size(config.snapshots_of_one),
        listed_per_second: config.listed_per_second,
        listed_per_second_of_one: config.listed_per_second_of_one,
    }
}

/// What kinds are called, as the API server has it.
fn names(registry: Registry) -> Names {
    Arc::new(move |name| {
        let kind = registry.known()?.resolve(name).ok()?;
        Some((kind.group.clone(), kind.plural.clone()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_config_says_of_nothing_is_the_default() {
        assert_eq!(limits(&LimitsConfig::default()), Limits::default());
    }
}
