//! An identity as Kubernetes has it, and a caller that proved to have one.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{
    attributes::Attributes,
    authenticate::Presented,
    secret::{Fingerprint, Fingerprints, Token},
};

/// Everybody who is known is in it.
pub(super) const AUTHENTICATED: &str = "system:authenticated";
/// Everybody else.
pub(super) const UNAUTHENTICATED: &str = "system:unauthenticated";
/// What Kubernetes calls whoever gave no name.
pub(super) const ANONYMOUS: &str = "system:anonymous";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Who somebody is: what RBAC knows of them. Spelled as reviews spell it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The user's name.
    #[serde(default, rename = "username")]
    pub user: String,
    /// Tells users of one name apart, over time.
    #[serde(default)]
    pub uid: String,
    /// The groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What authenticators add, such as a token's pod.
    #[serde(default)]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// With everything that a permission could depend on.
    pub(super) fn fingerprint(&self, fingerprints: &Fingerprints) -> Fingerprint {
        let mut groups: Vec<&str> = self.groups.iter().map(String::as_str).collect();
        groups.sort_unstable();
        let mut parts: Vec<&[u8]> = vec![self.user.as_bytes(), self.uid.as_bytes(), b"groups"];
        parts.extend(groups.iter().map(|group| group.as_bytes()));
        for (key, values) in &self.extra {
            parts.extend([&b"extra"[..], key.as_bytes()]);
            parts.extend(values.iter().map(|value| value.as_bytes()));
        }
        fingerprints.of("identity", parts)
    }
}

/// Namespace and name of a service account, from a user's name.
pub(super) fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// How a caller proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A Kubernetes token.
    Token,
    /// A client certificate.
    Certificate,
    /// It called from this machine, where the config takes that for enough. May do everything.
    Loopback,
}

impl Method {
    /// For the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Certificate => "certificate",
            Self::Loopback => "loopback",
        }
    }
}

/// What proved it, kept so that it can be asked again.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    Token(Arc<Token>),
    Certificate(Arc<Presented>),
    Loopback,
}

/// A caller that was authenticated. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Subject {
    /// For whom it acts.
    pub(super) identity: Arc<Identity>,
    /// Who it is itself, where it acts for somebody else.
    pub(super) real: Arc<Identity>,
    /// The permissions that let it act for somebody else; empty where it does not.
    pub(super) impersonation: Arc<[Attributes]>,
    pub(super) expires: Option<SystemTime>,
    pub(super) proof: Proof,
}

impl Subject {
    pub(super) fn new(identity: Arc<Identity>, expires: Option<SystemTime>, proof: Proof) -> Self {
        Self {
            real: Arc::clone(&identity),
            identity,
            impersonation: Arc::default(),
            expires,
            proof,
        }
    }

    /// The user whose credentials they are, which acts for itself or for somebody else.
    pub fn owner(&self) -> &str {
        &self.real.user
    }

    /// Whose permissions count.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Who it is itself, where it acts for somebody else.
    pub fn impersonator(&self) -> Option<&Identity> {
        self.is_impersonated().then_some(&*self.real)
    }

    /// How it proved that.
    pub fn method(&self) -> Method {
        match self.proof {
            Proof::Token(_) => Method::Token,
            Proof::Certificate(_) => Method::Certificate,
            Proof::Loopback => Method::Loopback,
        }
    }

    /// Whether it need not be asked for: somebody on this machine, where the config takes that for enough, who
    /// acts for nobody else.
    pub fn is_trusted(&self) -> bool {
        matches!(self.proof, Proof::Loopback) && !self.is_impersonated()
    }

    pub(super) fn is_impersonated(&self) -> bool {
        !self.impersonation.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_is_known_by_its_name() {
        assert_eq!(
            service_account("system:serviceaccount:shop:web"),
            Some(("shop", "web"))
        );
        for other in [
            "alice",
            "system:serviceaccount:shop",
            "system:serviceaccount::web",
            "system:serviceaccount:shop:",
            "system:serviceaccount:a:b:c",
        ] {
            assert_eq!(service_account(other), None, "{other}");
        }
    }

    #[test]
    fn identities_that_differ_in_anything_have_other_fingerprints() {
        let fingerprints = Fingerprints::random().unwrap();
        let base = Identity {
            user: "alice".into(),
            groups: vec!["a".into(), "b".into()],
            ..Identity::default()
        };
        let of = |identity: &Identity| identity.fingerprint(&fingerprints);
        let reordered = Identity {
            groups: vec!["b".into(), "a".into()],
            ..base.clone()
        };
        assert_eq!(of(&base), of(&reordered));
        let fewer = Identity {
            groups: vec!["a".into()],
            ..base.clone()
        };
        let uid = Identity {
            uid: "1".into(),
            ..base.clone()
        };
        let extra = Identity {
            extra: [("scopes".to_owned(), vec!["x".to_owned()])].into(),
            ..base.clone()
        };
        for other in [fewer, uid, extra] {
            assert_ne!(of(&base), of(&other), "{other:?}");
        }
    }
}
