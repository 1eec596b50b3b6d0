//! What a path names. Pure.

use std::borrow::Cow;

use super::read::Target;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/api`: discovery of the core group.
    Core,
    /// `/apis`: discovery of all other groups.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`.
    GroupVersion(String, String),
    /// Objects.
    Objects(Target),
    /// `/version`.
    Version,
    /// `/healthz`, `/livez`, `/readyz`.
    Health,
    /// `/openapi/v3`.
    OpenApi,
    /// `/openapi/v3/PATH`.
    OpenApiOf(String),
    /// Anything else.
    Unknown,
}

impl Route {
    /// Of a path; `query` tells a watch from a list.
    pub(super) fn of(method: &http::Method, path: &str, watch: bool) -> Self {
        let parts: Vec<Cow<'_, str>> = path
            .trim_matches('/')
            .split('/')
            .map(|part| percent_decoded(part))
            .collect();
        let parts: Vec<&str> = parts.iter().map(|part| &**part).collect();
        match parts.as_slice() {
            ["version"] => Self::Version,
            ["healthz" | "livez" | "readyz", ..] => Self::Health,
            ["openapi", "v3"] => Self::OpenApi,
            ["openapi", "v3", rest @ ..] => Self::OpenApiOf(rest.join("/")),
            ["api"] => Self::Core,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).to_owned()),
            ["api", version] => Self::GroupVersion(String::new(), (*version).to_owned()),
            ["apis", group, version] => {
                Self::GroupVersion((*group).to_owned(), (*version).to_owned())
            }
            ["api", version, rest @ ..] => objects(method, "", version, rest, watch),
            ["apis", group, version, rest @ ..] => objects(method, group, version, rest, watch),
            _ => Self::Unknown,
        }
    }
}

fn objects(method: &http::Method, group: &str, version: &str, rest: &[&str], watch: bool) -> Route {
    // The old way to ask for a watch.
    let (rest, watch) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (rest, true),
        rest => (rest, watch),
    };
    let (namespace, rest) = match rest {
        // A namespace is in itself, and is the only object with these two subresources.
        ["namespaces", name] | ["namespaces", name, "status" | "finalize"] if !name.is_empty() => {
            ("", rest)
        }
        ["namespaces", namespace, rest @ ..] => (*namespace, rest),
        rest => ("", rest),
    };
    let [plural, rest @ ..] = rest else {
        return Route::Unknown;
    };
    let name = rest.first().filter(|name| !name.is_empty());
    let subresource = rest
        .get(1..)
        .map(|rest| rest.join("/"))
        .filter(|rest| !rest.is_empty());
    let verb = match (method.as_str(), name, watch) {
        ("GET" | "HEAD", Some(_), false) => "get",
        ("GET" | "HEAD", None, false) => "list",
        // As the API server has it, a watch of one object by its path is a read of it.
        ("GET" | "HEAD", Some(_), true) if !rest.is_empty() => "get",
        ("GET" | "HEAD", _, true) => "watch",
        ("POST", ..) => "create",
        ("PUT", ..) => "update",
        ("PATCH", ..) => "patch",
        ("DELETE", Some(_), _) => "delete",
        ("DELETE", None, _) => "deletecollection",
        _ => "unknown",
    };
    Route::Objects(Target {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: (*plural).to_owned(),
        namespace: namespace.to_owned(),
        name: name.map(|name| (*name).to_owned()),
        subresource,
        verb,
    })
}

/// The text of a part of a URL; as it is where it is not well formed.
pub(super) fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = |at: usize| {
            after
                .get(at)
                .and_then(|byte| char::from(*byte).to_digit(16))
        };
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn target(method: &Method, path: &str, watch: bool) -> Target {
        match Route::of(method, path, watch) {
            Route::Objects(target) => target,
            other => panic!("{path}: {other:?}"),
        }
    }

    fn brief(method: &Method, path: &str, watch: bool) -> String {
        let it = target(method, path, watch);
        format!(
            "{} {}/{} {} ns={} name={} sub={}",
            it.verb,
            it.group,
            it.version,
            it.plural,
            it.namespace,
            it.name.unwrap_or_default(),
            it.subresource.unwrap_or_default()
        )
    }

    #[test]
    fn paths_name_objects_as_the_api_server_reads_them() {
        let get = Method::GET;
        for (path, watch, expected) in [
            ("/api/v1/pods", false, "list /v1 pods ns= name= sub="),
            ("/api/v1/pods", true, "watch /v1 pods ns= name= sub="),
            (
                "/api/v1/namespaces/a/pods/b",
                false,
                "get /v1 pods ns=a name=b sub=",
            ),
            (
                "/api/v1/namespaces/a",
                false,
                "get /v1 namespaces ns= name=a sub=",
            ),
            (
                "/api/v1/namespaces/a/status",
                false,
                "get /v1 namespaces ns= name=a sub=status",
            ),
            (
                "/api/v1/namespaces",
                false,
                "list /v1 namespaces ns= name= sub=",
            ),
            (
                "/api/v1/watch/namespaces/a/pods",
                false,
                "watch /v1 pods ns=a name= sub=",
            ),
            (
                "/apis/apps/v1/namespaces/a/deployments/b/scale",
                false,
                "get apps/v1 deployments ns=a name=b sub=scale",
            ),
            (
                "/api/v1/namespaces/a%2Db/pods",
                false,
                "list /v1 pods ns=a-b name= sub=",
            ),
        ] {
            assert_eq!(brief(&get, path, watch), expected, "{path}");
        }
        assert_eq!(
            brief(&Method::DELETE, "/api/v1/nodes", false),
            "deletecollection /v1 nodes ns= name= sub="
        );
        assert_eq!(
            brief(&Method::PATCH, "/api/v1/nodes/n/status", false),
            "patch /v1 nodes ns= name=n sub=status"
        );
    }

    #[test]
    fn other_paths_are_told_apart() {
        let of = |path: &str| Route::of(&Method::GET, path, false);
        assert_eq!(of("/api"), Route::Core);
        assert_eq!(of("/apis/"), Route::Groups);
        assert_eq!(of("/apis/apps"), Route::Group("apps".to_owned()));
        assert_eq!(
            of("/api/v1"),
            Route::GroupVersion(String::new(), "v1".to_owned())
        );
        assert_eq!(of("/readyz"), Route::Health);
        assert_eq!(
            of("/openapi/v3/apis/apps/v1"),
            Route::OpenApiOf("apis/apps/v1".to_owned())
        );
        assert_eq!(of("/"), Route::Unknown);
        assert_eq!(of("/metrics"), Route::Unknown);
    }

    #[test]
    fn a_part_that_is_not_well_formed_stays_as_it_is() {
        assert_eq!(percent_decoded("a%2fb"), "a/b");
        assert_eq!(percent_decoded("a%2"), "a%2");
        assert_eq!(percent_decoded("%zz"), "%zz");
        assert_eq!(percent_decoded("%ff"), "%ff", "not UTF-8");
    }
}
