//! HTTP/1.1 and HTTP/2 on one port, with TLS or, on loopback, without; there HTTP/2 is spoken by those who know
//! beforehand.

use std::{convert::Infallible, io, time::Duration};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tracing::debug;

use super::{Body, KubeApi, Peer, Status};
use crate::{
    auth::Presented,
    connections::{Connections, Socket},
    patience::{Patient, Requests},
    tls::Acceptor,
};

/// How long an idle connection of HTTP/1.1 is kept: longer than clients keep theirs, so that none is closed under a
/// request. (Headers that have begun have less; see [`Patient`].)
const IDLE: Duration = Duration::from_secs(120);
/// How often a silent HTTP/2 connection is probed, and how long the answer may take.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Requests that one HTTP/2 connection may have open at once.
const STREAMS: u32 = 1000;
/// Largest header list that is read.
const MAX_HEADERS: usize = 64 << 10;
/// Largest frame that is read.
const MAX_FRAME: u32 = 16 << 10;
/// Most of requests that is read ahead of who takes them, of one stream of HTTP/2 and of a whole connection.
const AHEAD: u32 = 64 << 10;
const AHEAD_OF_ALL: u32 = 256 << 10;
/// Most that is made ready for one stream of HTTP/2 beyond what its reader takes.
const MAX_SEND: usize = 256 << 10;
/// Streams that a peer may have reset before anybody looked at them; and those that were reset for its errors.
/// Whoever does more of that is cut off.
const MAX_RESETS: usize = 64;
const MAX_ERROR_RESETS: usize = 256;

impl KubeApi {
    /// Accepts connections until the shutdown begins to drain, then waits for the open requests to end; the caller
    /// bounds that.
    ///
    /// # Errors
    ///
    /// The listener has no address.
    pub async fn serve(self, listener: TcpListener, tls: Option<Acceptor>) -> io::Result<()> {
        let is_loopback = listener.local_addr()?.ip().is_loopback();
        let connections = Connections::default();
        let graceful = GracefulShutdown::new();
        let holds = self.0.holds.clone();
        let mut expiring = std::pin::pin!(async move { holds.run().await });
        let mut draining = std::pin::pin!(self.0.shutdown.draining_owned());
        let server = server();
        loop {
            let accepted = tokio::select! {
                () = &mut draining => break,
                () = &mut expiring => break,
                accepted = connections.accept(&listener) => accepted,
            };
            let (socket, peer, place) = accepted;
            // Small answers to small requests; a delay gains nothing.
            if let Err(error) = socket.set_nodelay(true) {
                debug!(%error, "a connection closed at once");
                continue;
            }
            let (api, tls) = (self.clone(), tls.clone());
            let (server, watcher) = (server.clone(), graceful.watcher());
            let mut presented = Presented {
                peer: Some(peer),
                chain: Vec::new(),
            };
            let socket = Socket::new(socket, &place);
            tokio::spawn(async move {
                let Some(tls) = tls else {
                    let peer = Peer::new(presented, &place);
                    return api
                        .connection(server, socket, peer, is_loopback, watcher)
                        .await;
                };
                let secured = place.cut().run_until_cancelled(tls.accept(socket)).await;
                if let Some(secured) = secured.flatten() {
                    presented.chain = secured.client_chain();
                    let peer = Peer::new(presented, &place);
                    api.connection(server, secured, peer, is_loopback, watcher)
                        .await;
                }
            });
        }
        drop(listener);
        graceful.shutdown().await;
        Ok(())
    }

    /// One connection, until it ends, or is cut: for an answer that its reader may not have any more, or for another
    /// connection that needs its place.
    async fn connection(
        self,
        server: auto::Builder<TokioExecutor>,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        is_loopback: bool,
        watcher: Watcher,
    ) {
        let cut = peer.cut.clone();
        let requests = Requests::default();
        let io = Patient::new(io).with_headers_of(&requests);
        let service = service_fn(move |request: Request<Incoming>| {
            let (api, peer) = (self.clone(), peer.clone());
            let answering = requests.begin();
            async move {
                let answer = api.take(request, peer, is_loopback).await;
                // It goes with the body, at whose end nothing is called.
                let until_sent = move |error| {
                    let _ = &answering;
                    error
                };
                Ok::<_, Infallible>(answer.map(|body| body.map_err(until_sent).boxed_unsync()))
            }
        });
        let connection = server
            .serve_connection(TokioIo::new(io), service)
            .into_owned();
        tokio::select! {
            ended = watcher.watch(connection) => {
                if let Err(error) = ended {
                    debug!(error, "a connection ended");
                }
            }
            () = cut.cancelled() => debug!("a connection was cut"),
        }
    }

    async fn take(
        &self,
        request: Request<Incoming>,
        peer: Peer,
        is_loopback: bool,
    ) -> Response<Body> {
        if let Some(status) = foreign_host(&request).filter(|_| is_loopback) {
            return status.response();
        }
        let request = request.map(|body| {
            body.map_err(|error| Box::new(error) as super::BodyError)
                .boxed_unsync()
        });
        self.handle(request, peer).await
    }
}

fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(MAX_HEADERS.max(8192));
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .max_concurrent_streams(STREAMS)
        .max_frame_size(MAX_FRAME)
        .initial_stream_window_size(AHEAD)
        .initial_connection_window_size(AHEAD_OF_ALL)
        .max_send_buf_size(MAX_SEND)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .max_header_list_size(MAX_HEADERS as u32);
    server
}

/// A page in a browser can be made to ask a loopback port under a name of its own; nobody else has reason to.
fn foreign_host<B>(request: &Request<B>) -> Option<Status> {
    let host = match request.uri().host() {
        Some(host) => host,
        None => {
            let header = request.headers().get(http::header::HOST)?;
            let text = header.to_str().unwrap_or("?");
            match text.rsplit_once(':') {
                Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
                _ => text,
            }
        }
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    (!is_loopback).then(|| {
        let message = format!("forbidden: this port is for this machine, not for {host:?}");
        Status::new(http::StatusCode::FORBIDDEN, "Forbidden", message)
    })
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::Instant,
    };

    use super::*;
    use crate::{
        kubeapi::tests::World,
        patience::{GREETING, HEADERS},
    };

    /// The other end of a connection that is served, and what would end it.
    fn connect() -> (DuplexStream, GracefulShutdown) {
        let (client, io) = duplex(1 << 16);
        let graceful = GracefulShutdown::new();
        let mut world = World::new();
        world.list(&[], 10);
        let api = world.api;
        let serving = api.connection(server(), io, Peer::default(), true, graceful.watcher());
        tokio::spawn(serving);
        (client, graceful)
    }

    /// Until the server closes it: what it says, and when it does.
    async fn until_closed(mut client: DuplexStream) -> (String, Duration) {
        let begun = Instant::now();
        let mut answer = Vec::new();
        // Closed in one way or the other.
        let _ = client.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        (answer, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_come_before_their_answers_are_answered_in_order() {
        let (mut client, _serving) = connect();
        let request = |path: &str, more: &str| {
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n")
        };
        let pipelined = request("/livez", "") + &request("/nothing", "");
        let all = pipelined + &request("/readyz", "Connection: close\r\n");
        client.write_all(all.as_bytes()).await.unwrap();
        let (answers, _) = until_closed(client).await;
        let codes: Vec<_> = answers
            .match_indices("HTTP/1.1 ")
            .map(|(at, _)| &answers[at + 9..at + 12])
            .collect();
        assert_eq!(codes, ["200", "418", "200"], "{answers}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_say_what_it_speaks_is_closed_soon() {
        for said in ["", "PRI", "PRI * HTTP/2.0\r\n"] {
            let (mut client, _serving) = connect();
            client.write_all(said.as_bytes()).await.unwrap();
            let (_, after) = until_closed(client).await;
            assert_eq!(after, GREETING, "{said:?}");
        }
    }

    /// Sends this and then a byte a second; until the server closes the connection.
    async fn dribbles(client: DuplexStream, said: &str) -> Duration {
        let (mut read, mut write) = tokio::io::split(client);
        let saying = async {
            write.write_all(said.as_bytes()).await.unwrap();
            while write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let begun = Instant::now();
        let hearing = async {
            let mut answer = Vec::new();
            // Closed in one way or the other.
            let _ = read.read_to_end(&mut answer).await;
            begun.elapsed()
        };
        tokio::join!(saying, hearing).1
    }

    #[tokio::test(start_paused = true)]
    async fn headers_that_come_a_byte_at_a_time_have_a_time_for_all_of_them() {
        const WHOLE: &str = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
        for before in ["", WHOLE] {
            let (client, _serving) = connect();
            let after = dribbles(client, &format!("{before}GET /livez HTTP/1.1\r\nX: ")).await;
            assert!(
                after <= HEADERS + Duration::from_secs(2),
                "{before:?}: {after:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn headers_of_http_2_that_come_a_byte_at_a_time_are_no_sign_of_life() {
        let (client, _serving) = connect();
        // Settings, and the beginning of headers of 880 bytes.
        let settings = "\0\0\0\x04\0\0\0\0\0";
        let headers = "\0\x03\x70\x01\0\0\0\0\x01";
        let said = format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{settings}{headers}");
        let after = dribbles(client, &said).await;
        assert!(after <= 2 * KEEPALIVE + Duration::from_secs(2), "{after:?}");
    }

    /// Reads one answer that has a length.
    async fn answer(client: &mut DuplexStream) -> String {
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok") {
            answer.push(client.read_u8().await.expect("the connection is open"));
        }
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_kept_for_longer_than_clients_keep_theirs() {
        let (mut client, _serving) = connect();
        for _ in 0..3 {
            // In two parts, with less between them than there may be.
            client.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
            tokio::time::sleep(HEADERS - Duration::from_secs(1)).await;
            client.write_all(b"Host: localhost\r\n\r\n").await.unwrap();
            assert!(answer(&mut client).await.starts_with("HTTP/1.1 200"));
            // As client-go does.
            tokio::time::sleep(Duration::from_secs(90)).await;
        }
        let (_, after) = until_closed(client).await;
        assert_eq!(after, IDLE - Duration::from_secs(90));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_waits_behind_a_watch_does_not_end_it() {
        let (mut client, _serving) = connect();
        let watch =
            "GET /api/v1/pods?watch=1&timeoutSeconds=60 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        client.write_all(watch.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
        let (answers, after) = until_closed(client).await;
        assert!(answers.starts_with("HTTP/1.1 200"), "{answers}");
        assert!(
            answers.ends_with("0\r\n\r\n"),
            "the watch has its end: {answers}"
        );
        assert!(after >= Duration::from_secs(59), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_read_ahead_of_an_answer_than_headers_may_have() {
        let (mut client, _serving) = connect();
        let watch =
            "GET /api/v1/pods?watch=1&timeoutSeconds=60 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        client.write_all(watch.as_bytes()).await.unwrap();
        let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut taken = 0;
        let flood = async {
            loop {
                taken += client.write(request.as_bytes()).await.unwrap();
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(30), flood)
                .await
                .is_err()
        );
        // What is between the two ends here, and what is read.
        assert!(taken <= (1 << 16) + 2 * MAX_HEADERS, "{taken} bytes");
    }

    fn refuses(host: &str) -> bool {
        let request = Request::builder()
            .uri("/api")
            .header("host", host)
            .body(())
            .unwrap();
        foreign_host(&request).is_some()
    }

    #[test]
    fn only_loopback_names_are_answered() {
        for own in [
            "127.0.0.1:7481",
            "localhost",
            "LOCALHOST:1",
            "[::1]:7481",
            "127.1.2.3",
        ] {
            assert!(!refuses(own), "{own}");
        }
        for other in ["evil.example", "10.0.0.1:7481", "127.0.0.1.evil.example:80"] {
            assert!(refuses(other), "{other}");
        }
    }
}
