//! Plain HTTP to servers on loopback: etcd's gateway and the daemon's admin port.

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;

use super::Error;

/// GET: status and body.
pub async fn get(url: &str) -> Result<(u16, String), Error> {
    send(Request::get(url).body(Full::default())?).await
}

/// GET with a bearer token, if there is one.
pub async fn get_as(url: &str, token: Option<&str>) -> Result<(u16, String), Error> {
    let mut request = Request::get(url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    send(request.body(Full::default())?).await
}

/// GET with these headers: the status alone, so that of a watch it is had at once.
pub async fn status(url: &str, headers: &[(&str, &str)]) -> Result<u16, Error> {
    let mut request = Request::get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request.body(Full::<bytes::Bytes>::default())?);
    Ok(response.await?.status().as_u16())
}

/// POST of JSON: the JSON that came back, if the status is 200.
pub async fn post(url: &str, body: &Value) -> Result<Value, Error> {
    let (status, text) = send(Request::post(url).body(Full::from(body.to_string()))?).await?;
    if status != 200 {
        return Err(format!("POST {url}: status {status}: {text}").into());
    }
    Ok(serde_json::from_str(&text)?)
}

async fn send(request: Request<Full<bytes::Bytes>>) -> Result<(u16, String), Error> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
