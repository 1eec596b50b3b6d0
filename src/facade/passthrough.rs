//! Hands a read on to the API server, as its caller: with the credentials that came with it, and no others.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, Request, Response,
    header::{
        ACCEPT, AUTHORIZATION, CONNECTION, IF_NONE_MATCH, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
    },
    request::Parts,
};
use http_body_util::BodyExt;

use crate::{
    kubeapi::{Body, BodyError, Status},
    upstream::Upstream,
};

/// The headers that the API server is given. Whatever else a caller sends (cookies, addresses, identities that only
/// a proxy of its own may claim) stays here.
const FORWARDED: [HeaderName; 4] = [ACCEPT, AUTHORIZATION, IF_NONE_MATCH, USER_AGENT];
/// What the caller wants to be taken for; the API server asks whether it may.
const IMPERSONATE: &str = "impersonate-";
/// Headers of one connection, not of an answer.
const HOP_BY_HOP: [HeaderName; 3] = [CONNECTION, TRANSFER_ENCODING, UPGRADE];

pub(super) async fn forward(upstream: Upstream, request: Request<Body>) -> Response<Body> {
    // A read has no body, and what is left of it is shared with nobody.
    let (parts, _) = request.into_parts();
    match ask(&upstream, &parts).await {
        Ok(answer) => answer,
        Err(why) => Status::unavailable(
            format!("informerd cannot reach the API server: {why}"),
            Duration::from_secs(1),
        )
        .response(),
    }
}

async fn ask(upstream: &Upstream, parts: &Parts) -> Result<Response<Body>, String> {
    let target = parts.uri.path_and_query();
    let target = target.map_or("/", |target| target.as_str());
    let mut forwarded = Request::builder().method(parts.method.clone()).uri(target);
    if let Some(headers) = forwarded.headers_mut() {
        *headers = headers_of(&parts.headers);
    }
    let forwarded = forwarded
        .body(Vec::new())
        .map_err(|error| error.to_string())?;
    let answer = upstream
        .as_caller(forwarded)
        .await
        .map_err(|error| error.to_string())?;
    let (mut parts, body) = answer.into_parts();
    for name in HOP_BY_HOP {
        parts.headers.remove(name);
    }
    let body = body
        .map_err(|error| Box::new(error) as BodyError)
        .boxed_unsync();
    Ok(Response::from_parts(parts, body))
}

fn headers_of(headers: &HeaderMap) -> HeaderMap {
    let wanted =
        |name: &HeaderName| FORWARDED.contains(name) || name.as_str().starts_with(IMPERSONATE);
    headers
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_the_caller_says_of_itself_is_handed_on() {
        let mut headers = HeaderMap::new();
        for name in [
            "authorization",
            "accept",
            "impersonate-user",
            "cookie",
            "x-remote-user",
            "x-forwarded-for",
            "host",
            "connection",
        ] {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        let headers = headers_of(&headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "authorization", "impersonate-user"]);
    }
}
