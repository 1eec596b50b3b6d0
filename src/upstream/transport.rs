//! The HTTP stack under both kube clients, built by hand.
//!
//! kube's own sets no TCP keepalive, so that a quiet watch over a dead connection is never noticed. HTTP/1.1
//! only: an HTTP/2 connection carries 100 streams, the next one hangs, and unread ones stall the others.

use std::time::Duration;

use http::{
    HeaderValue, Uri,
    header::{ACCEPT_ENCODING, USER_AGENT},
};
use hyper::rt::{Read, Write};
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{
        Client as HyperClient,
        connect::{
            Connection, HttpConnector,
            proxy::{SocksV5, Tunnel},
        },
    },
    client::proxy::matcher::Intercept,
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt},
};
use tower::{Service, ServiceBuilder};

use super::error::BoxError;

/// How the connections of one client behave.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    pub(super) user_agent: HeaderValue,
    pub(super) connect_timeout: Duration,
    /// The longest silence on a connection; `None` for watches, which may be quiet for as long as they like.
    pub(super) read_timeout: Option<Duration>,
}

/// Noticed within about a minute: a peer that is gone without a word. Its keepalive probes go unanswered, or what
/// was sent is not acknowledged.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// Builds a client for the API server of `config`, through `proxy` if there is one.
pub(super) fn client(
    mut config: Config,
    proxy: Option<&Intercept>,
    transport: &Transport,
) -> Result<Client, kube::Error> {
    config.headers = vec![
        (USER_AGENT, transport.user_agent.clone()),
        // Compressing costs the API server more than the bytes do, and a compressed watch needs a decoder that
        // restarts with each event.
        (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
    ];
    let http = connector(transport);
    let Some(proxy) = proxy else {
        return over(http, config, transport);
    };
    let to = proxy.uri().clone();
    match to.scheme_str() {
        Some("socks5" | "socks5h") => {
            let mut socks = SocksV5::new(to, http);
            if let Some((user, password)) = proxy.raw_auth() {
                socks = socks.with_auth(user.to_owned(), password.to_owned());
            }
            over(socks, config, transport)
        }
        Some("https") => {
            // The proxy is trusted as the API server is, but has a name of its own.
            let mut tls = config.clone();
            tls.tls_server_name = None;
            let tunnel = Tunnel::new(to, tls.rustls_https_connector_with_connector(http)?);
            over(with_auth(tunnel, proxy), config, transport)
        }
        _ => over(with_auth(Tunnel::new(to, http), proxy), config, transport),
    }
}

/// Connects by TCP, and has the system look whether the other end is still there.
fn connector(transport: &Transport) -> HttpConnector {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(transport.connect_timeout));
    http.set_keepalive(Some(KEEPALIVE_IDLE));
    http.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    http.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    #[cfg(target_os = "linux")]
    http.set_tcp_user_timeout(Some(
        KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_RETRIES,
    ));
    http
}

fn with_auth<C>(tunnel: Tunnel<C>, proxy: &Intercept) -> Tunnel<C> {
    match proxy.basic_auth() {
        Some(auth) => tunnel.with_auth(auth.clone()),
        None => tunnel,
    }
}

fn over<C>(connector: C, config: Config, transport: &Transport) -> Result<Client, kube::Error>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + Read + Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: Into<BoxError> + Send + Sync + 'static,
{
    let mut connector =
        TimeoutConnector::new(config.rustls_https_connector_with_connector(connector)?);
    // Covers the TLS handshake and the proxy's as well.
    connector.set_connect_timeout(Some(transport.connect_timeout));
    connector.set_read_timeout(transport.read_timeout);
    // Else the time that a connection idled in the pool would count.
    connector.set_reset_reader_on_write(true);
    let hyper: HyperClient<_, Body> = HyperClient::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(hyper);
    Ok(Client::new(service, config.default_namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn the_system_is_told_to_look_whether_the_other_end_is_there() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let mut connector = connector(&Transport {
            user_agent: HeaderValue::from_static("tests"),
            connect_timeout: Duration::from_secs(5),
            read_timeout: None,
        });
        let connected = connector.call(uri.parse().unwrap()).await.unwrap();
        let stream = connected.into_inner();
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_RETRIES);
        let timeout = socket.tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(Duration::from_secs(60)));
        assert!(socket.tcp_nodelay().unwrap());
    }
}
