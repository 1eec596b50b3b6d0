//! Acting for somebody else: the headers that `kubectl --as` sends, honoured as the API server does, which is after
//! asking whether the caller may.

use http::HeaderMap;

use super::{
    AuthError,
    attributes::{Attributes, ResourceAttributes, Verb},
    identity::{ANONYMOUS, AUTHENTICATED, Identity, UNAUTHENTICATED, service_account},
};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";
/// Each is a permission to be asked for.
const MOST: usize = 64;

/// For whom a call is to act, and the permissions that takes; `None` where it acts for its caller. Headers that
/// ask for it without naming a user are refused: to ignore them would be to do more than was asked for.
pub(crate) fn asked(headers: &HeaderMap) -> Result<Option<(Identity, Vec<Attributes>)>, AuthError> {
    let invalid = |why: String| AuthError::Invalid(format!("impersonation: {why}"));
    let mut user = None;
    let mut identity = Identity::default();
    let mut needed = 0;
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with("impersonate-") {
            continue;
        }
        needed += 1;
        if needed > MOST {
            return Err(invalid(format!("more than {MOST} headers")));
        }
        let value = std::str::from_utf8(value.as_bytes())
            .map_err(|_| invalid(format!("{name} is not plain text")))?
            .to_owned();
        match name {
            USER if user.replace(value.clone()).is_some() => {
                return Err(invalid(format!("{USER} stands twice")));
            }
            USER => {}
            UID if !identity.uid.is_empty() => {
                return Err(invalid(format!("{UID} stands twice")));
            }
            UID => identity.uid = value,
            GROUP => identity.groups.push(value),
            _ => match name.strip_prefix(EXTRA).and_then(decoded) {
                Some(key) if !key.is_empty() => identity.extra.entry(key).or_default().push(value),
                _ => return Err(invalid(format!("{name} is not a header that is known"))),
            },
        }
    }
    if needed == 0 {
        return Ok(None);
    }
    identity.user = user
        .filter(|user| !user.is_empty())
        .ok_or_else(|| invalid(format!("{USER} is missing")))?;
    let needed = permissions(&identity);
    complete(&mut identity);
    Ok(Some((identity, needed)))
}

fn permissions(identity: &Identity) -> Vec<Attributes> {
    let to = |group: &str, resource: &str, name: &str| ResourceAttributes {
        name: name.to_owned(),
        ..Attributes::on(Verb::Impersonate, group, resource)
    };
    let user = match service_account(&identity.user) {
        Some((namespace, name)) => ResourceAttributes {
            namespace: namespace.to_owned(),
            ..to("", "serviceaccounts", name)
        },
        None => to("", "users", &identity.user),
    };
    let mut needed = vec![user];
    let groups = identity.groups.iter();
    needed.extend(groups.map(|group| to("", "groups", group)));
    for (key, values) in &identity.extra {
        needed.extend(values.iter().map(|value| ResourceAttributes {
            subresource: key.clone(),
            ..to(AUTHENTICATION, "userextras", value)
        }));
    }
    if !identity.uid.is_empty() {
        needed.push(to(AUTHENTICATION, "uids", &identity.uid));
    }
    needed.into_iter().map(Attributes::from).collect()
}

/// What the API server would add.
fn complete(identity: &mut Identity) {
    if identity.groups.is_empty()
        && let Some((namespace, _)) = service_account(&identity.user)
    {
        let namespaced = format!("system:serviceaccounts:{namespace}");
        identity.groups = vec!["system:serviceaccounts".to_owned(), namespaced];
    }
    let has = |group: &str| identity.groups.iter().any(|own| own == group);
    let (authenticated, unauthenticated) = (has(AUTHENTICATED), has(UNAUTHENTICATED));
    if identity.user == ANONYMOUS {
        if !unauthenticated {
            identity.groups.push(UNAUTHENTICATED.to_owned());
        }
    } else if !authenticated && !unauthenticated {
        identity.groups.push(AUTHENTICATED.to_owned());
    }
}

/// A key of extra values: percent-encoded, since header names cannot have all characters.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes)
        .ok()
        .map(|key| key.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn read(
        headers: &[(&'static str, &'static str)],
    ) -> Result<Option<(Identity, Vec<Attributes>)>, AuthError> {
        let headers = headers.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        asked(&map)
    }

    fn shown(needed: &[Attributes]) -> Vec<String> {
        needed.iter().map(Attributes::to_string).collect()
    }

    #[test]
    fn a_call_without_such_headers_acts_for_its_caller() {
        assert_eq!(read(&[("authorization", "Bearer x")]), Ok(None));
    }

    #[test]
    fn each_part_of_the_other_identity_takes_a_permission_of_its_own() {
        let (identity, needed) = read(&[
            ("impersonate-user", "jane"),
            ("impersonate-group", "dev"),
            ("impersonate-group", "ops"),
            ("impersonate-uid", "u-1"),
            ("impersonate-extra-acme.com%2fproject", "shop"),
        ])
        .unwrap()
        .unwrap();
        assert_eq!(identity.user, "jane");
        assert_eq!(identity.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(
            identity.extra,
            std::collections::BTreeMap::from([(
                "acme.com/project".to_owned(),
                vec!["shop".to_owned()]
            )])
        );
        assert_eq!(
            shown(&needed),
            [
                r#"impersonate resource "users" in API group "", name "jane", at the cluster scope"#,
                r#"impersonate resource "groups" in API group "", name "dev", at the cluster scope"#,
                r#"impersonate resource "groups" in API group "", name "ops", at the cluster scope"#,
                r#"impersonate resource "userextras/acme.com/project" in API group "authentication.k8s.io", name "shop", at the cluster scope"#,
                r#"impersonate resource "uids" in API group "authentication.k8s.io", name "u-1", at the cluster scope"#,
            ]
        );
    }

    #[test]
    fn a_service_account_is_a_permission_in_its_namespace_and_brings_its_groups() {
        let (identity, needed) = read(&[("impersonate-user", "system:serviceaccount:shop:web")])
            .unwrap()
            .unwrap();
        assert_eq!(
            identity.groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:shop",
                "system:authenticated"
            ]
        );
        assert_eq!(
            shown(&needed),
            [
                r#"impersonate resource "serviceaccounts" in API group "", name "web", in the namespace "shop""#
            ]
        );
    }

    #[test]
    fn nobody_in_particular_is_not_authenticated() {
        let (identity, _) = read(&[("impersonate-user", "system:anonymous")])
            .unwrap()
            .unwrap();
        assert_eq!(identity.groups, ["system:unauthenticated"]);
    }

    #[test]
    fn headers_that_are_half_an_impersonation_are_refused_not_ignored() {
        for wrong in [
            &[("impersonate-group", "system:masters")][..],
            &[("impersonate-uid", "1")],
            &[("impersonate-extra-a", "b")],
            &[("impersonate-user", "")],
            &[("impersonate-user", "a"), ("impersonate-user", "b")],
            &[("impersonate-user", "a"), ("impersonate-extra-", "b")],
            &[("impersonate-user", "a"), ("impersonate-extra-%zz", "b")],
            &[("impersonate-user", "a"), ("impersonate-node", "b")],
        ] {
            assert!(
                matches!(read(wrong), Err(AuthError::Invalid(_))),
                "{wrong:?}"
            );
        }
    }
}
