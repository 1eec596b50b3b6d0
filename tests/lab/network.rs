//! What lies between a daemon and its API servers, and misbehaves: the fault injector.
//!
//! Each answer may get one [`Fault`], planned by a test or by chance; whatever is open may get an [`Order`]. All that
//! was done is counted by name, so that a test can say what it has been through.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use futures::{StreamExt, stream};
use http::{Request, Response, StatusCode, Uri, header::RETRY_AFTER};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use informerd::kubeapi;
use kube::Client;
use serde_json::json;
use tokio::{sync::watch, time::sleep};

use super::etcd::{ApiServer, Etcd, UNREADABLE};

/// What comes of it: how often what was done.
pub type Tally = BTreeMap<String, u64>;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, Error>;

/// What goes wrong with one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection.
    Refuse,
    /// A connection, and then nothing.
    Mute,
    /// It comes so much later.
    Late(Duration),
    /// This status; with so many seconds of `Retry-After`.
    Fail(u16, Option<u32>),
    /// 410 as HTTP status.
    Gone,
    /// 410 as `ERROR` event, after so many lines.
    GoneAfter(usize),
    /// The connection is cut after so many bytes.
    Cut(usize),
    /// The answer ends after so many bytes as though that were all.
    Truncate(usize),
    /// Nothing comes after so many bytes, for ever.
    Hang(usize),
    /// A stream of what is there is refused, as by an API server without it.
    NoStream,
    /// A stream of what is there is answered by a plain watch: its end mark never comes.
    NoEndMark,
    /// Events come again, the last one and older ones.
    Repeat,
    /// Bookmarks come before the end mark, ahead of it.
    EarlyBookmarks,
    /// It comes in pieces of so many bytes.
    Drip(usize),
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// What is served.
    Discovery,
    /// A list that begins, or a probe.
    List,
    /// A list that goes on.
    Continue,
    /// A watch that begins with what is there.
    Stream,
    /// A watch.
    Watch,
}

/// What happens to all watches that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// They go on.
    Nothing,
    /// They are cut.
    Cut,
    /// They end in good order.
    End,
    /// Nothing comes any more.
    Mute,
    /// They end with a 410.
    Gone,
    /// They end with another `ERROR`.
    Error,
}

/// How often something goes wrong: in so many of a thousand answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather(pub u32);

/// One daemon's way to its API servers. Clones are the same.
#[derive(Clone)]
pub struct Network(Arc<Shared>);

struct Shared {
    etcd: Etcd,
    servers: Vec<ApiServer>,
    orders: watch::Sender<Order>,
    state: Mutex<State>,
}

struct State {
    rng: Rng,
    weather: Weather,
    planned: VecDeque<(Ask, Fault)>,
    tally: Tally,
}

impl Fault {
    /// Its name, for the tally.
    fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refused",
            Self::Mute => "mute before the answer",
            Self::Late(_) => "late",
            Self::Fail(429, Some(_)) => "429 with Retry-After",
            Self::Fail(429, None) => "429 without Retry-After",
            Self::Fail(..) => "5xx",
            Self::Gone => "410 as HTTP status",
            Self::GoneAfter(_) => "410 in the stream",
            Self::Cut(_) => "cut inside",
            Self::Truncate(_) => "truncated",
            Self::Hang(_) => "mute inside",
            Self::NoStream => "WatchList refused",
            Self::NoEndMark => "WatchList without an end mark",
            Self::Repeat => "duplicates",
            Self::EarlyBookmarks => "early bookmarks",
            Self::Drip(_) => "in pieces",
        }
    }

    /// One that can happen to such an answer.
    fn any(ask: Ask, rng: &mut Rng) -> Self {
        let bytes = match rng.u8(..4) {
            0 => rng.usize(..60),
            1 => rng.usize(..700),
            _ => rng.usize(..6000),
        };
        let retry_after = rng.bool().then(|| rng.u32(1..6));
        let anywhere = [
            Self::Refuse,
            Self::Late(Duration::from_millis(rng.u64(1..4000))),
            Self::Fail(429, retry_after),
            Self::Fail([500, 502, 503, 504][rng.usize(..4)], None),
            Self::Mute,
        ];
        let inside = [
            Self::Cut(bytes),
            Self::Truncate(bytes),
            Self::Hang(bytes),
            Self::Drip(rng.usize(1..200)),
        ];
        let watch = [
            Self::Gone,
            Self::GoneAfter(rng.usize(..6)),
            Self::Repeat,
            Self::Repeat,
        ];
        let stream = [Self::NoStream, Self::NoEndMark, Self::EarlyBookmarks];
        let own: &[Self] = match ask {
            Ask::Discovery | Ask::List => &[],
            Ask::Continue => &[Self::Gone],
            Ask::Watch => &watch,
            Ask::Stream => &stream,
        };
        let among: Vec<_> = match ask {
            Ask::Discovery => anywhere.to_vec(),
            _ => [&anywhere[..], &inside, own, own].concat(),
        };
        among[rng.usize(..among.len())]
    }
}

impl Ask {
    fn of(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        let path = uri.path();
        if !path.starts_with("/api/v1/") {
            Self::Discovery
        } else if query.contains("sendInitialEvents") {
            Self::Stream
        } else if query.contains("watch=1") || query.contains("watch=true") {
            Self::Watch
        } else if query.contains("continue=") {
            Self::Continue
        } else {
            Self::List
        }
    }
}

impl Network {
    /// To these API servers, of which each answer comes from any.
    pub fn new(etcd: &Etcd, servers: &[ApiServer], seed: u64) -> Self {
        Self(Arc::new(Shared {
            etcd: etcd.clone(),
            servers: servers.to_vec(),
            orders: watch::Sender::new(Order::Nothing),
            state: Mutex::new(State {
                rng: Rng::with_seed(seed),
                weather: Weather::default(),
                planned: VecDeque::new(),
                tally: Tally::new(),
            }),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("nobody panics while holding it")
    }

    /// A client at this end of it.
    pub fn client(&self) -> Client {
        let network = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let network = network.clone();
            async move { network.ask(request.map(drop)).await }
        });
        Client::new(service, "default")
    }

    /// From now on.
    pub fn weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// The next answer of this kind goes wrong like this, and so on, in order.
    pub fn plan(&self, ask: Ask, fault: Fault) {
        self.lock().planned.push_back((ask, fault));
    }

    /// Does this to all watches that are open.
    pub fn order(&self, order: Order) {
        let name = match order {
            Order::Nothing => return,
            Order::Cut => "watches cut",
            Order::End => "watches ended",
            Order::Mute => "watches half-open",
            Order::Gone => "watches ended by a 410",
            Order::Error => "watches ended by an ERROR",
        };
        self.count(name);
        self.0.orders.send_replace(order);
    }

    /// Counts something that happened.
    pub fn count(&self, what: &str) {
        *self.lock().tally.entry(what.to_owned()).or_default() += 1;
    }

    /// All that was counted.
    pub fn tally(&self) -> Tally {
        self.lock().tally.clone()
    }

    async fn ask(&self, request: Request<()>) -> Result<Response<Body>, Error> {
        let ask = Ask::of(request.uri());
        let (fault, server) = {
            let mut state = self.lock();
            let planned = state.planned.iter().position(|(of, _)| *of == ask);
            let planned = planned.and_then(|at| state.planned.remove(at));
            let Weather(often) = state.weather;
            let fault = match planned {
                Some((_, fault)) => Some(fault),
                None if state.rng.u32(..1000) < often => Some(Fault::any(ask, &mut state.rng)),
                None => None,
            };
            let server = state.rng.usize(..self.0.servers.len());
            (fault, &self.0.servers[server])
        };
        if let Some(fault) = fault {
            let of = match ask {
                Ask::Continue if fault == Fault::Gone => "lost continue token",
                _ => fault.name(),
            };
            self.count(of);
        }
        match fault {
            Some(Fault::Refuse) => return Err("connection refused".into()),
            Some(Fault::Mute) => return std::future::pending().await,
            Some(Fault::Late(late)) => sleep(late).await,
            Some(Fault::Fail(code, retry_after)) => return Ok(failure(code, "", retry_after)),
            Some(Fault::Gone) => return Ok(failure(410, "Expired", None)),
            Some(Fault::NoStream) => return Ok(failure(400, "BadRequest", None)),
            _ => {}
        }
        let mut uri = request.uri().clone();
        if fault == Some(Fault::NoEndMark) {
            uri = without_stream(&uri);
        }
        let (mut parts, ()) = request.into_parts();
        parts.uri = uri;
        let request = Request::from_parts(parts, kubeapi::full(""));
        let (parts, inner) = server.answer(request).await.into_parts();
        let orders = self.0.orders.subscribe();
        let pipe = Pipe {
            inner,
            fault,
            ask,
            orders,
            etcd: self.0.etcd.clone(),
            ready: VecDeque::new(),
            partial: BytesMut::new(),
            told: Vec::new(),
            lines: 0,
            sent: 0,
            marked: ask != Ask::Stream,
            over: false,
        };
        let pieces = stream::unfold(pipe, |mut pipe| async move {
            let piece = pipe.next().await?;
            Some((piece.map(Frame::data), pipe))
        })
        .fuse();
        Ok(Response::from_parts(
            parts,
            StreamBody::new(pieces).boxed_unsync(),
        ))
    }
}

/// An answer on its way.
struct Pipe {
    inner: kubeapi::Body,
    fault: Option<Fault>,
    ask: Ask,
    orders: watch::Receiver<Order>,
    etcd: Etcd,
    /// To be passed on.
    ready: VecDeque<Bytes>,
    /// The beginning of a line.
    partial: BytesMut,
    /// Changes that a watch has told, to be told again.
    told: Vec<Bytes>,
    lines: usize,
    sent: usize,
    /// What it begins with is complete.
    marked: bool,
    over: bool,
}

impl Pipe {
    fn is_watch(&self) -> bool {
        matches!(self.ask, Ask::Stream | Ask::Watch)
    }

    async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return self.pass(piece).await;
            }
            if self.over {
                return None;
            }
            let (watches, mut orders) = (self.is_watch(), self.orders.clone());
            let ordered = async {
                match orders.changed().await {
                    Ok(()) if watches => *orders.borrow_and_update(),
                    _ => std::future::pending().await,
                }
            };
            let frame = tokio::select! {
                biased;
                order = ordered => {
                    self.orders.mark_unchanged();
                    match self.obey(order).await {
                        Some(error) => return Some(Err(error)),
                        None => continue,
                    }
                }
                frame = self.inner.frame() => frame,
            };
            match frame {
                None => {
                    self.over = true;
                    let rest = self.partial.split().freeze();
                    self.ready.extend((!rest.is_empty()).then_some(rest));
                }
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    if self.is_watch() {
                        self.take_lines(&data);
                    } else {
                        self.ready.push_back(garbled(data));
                    }
                }
            }
        }
    }

    /// What an order does to a watch: it fails, or ends after what is ready.
    async fn obey(&mut self, order: Order) -> Option<Error> {
        match order {
            Order::Nothing => {}
            Order::Cut => return Some("cut".into()),
            Order::End => self.over = true,
            Order::Mute => std::future::pending().await,
            Order::Gone => self.end_with(410, "Expired"),
            Order::Error => self.end_with(500, "InternalError"),
        }
        None
    }

    fn end_with(&mut self, code: u16, reason: &str) {
        let line = json!({"type": "ERROR", "object": status(code, reason)});
        self.ready.push_back(format!("{line}\n").into());
        self.over = true;
    }

    fn take_lines(&mut self, data: &[u8]) {
        self.partial.extend_from_slice(data);
        while let Some(end) = memchr::memchr(b'\n', &self.partial) {
            let line = garbled(self.partial.split_to(end + 1).freeze());
            let is_bookmark = line.starts_with(br#"{"type":"BOOKMARK""#);
            let is_end =
                is_bookmark && memchr::memmem::find(&line, b"k8s.io/initial-events-end").is_some();
            if self.fault == Some(Fault::EarlyBookmarks) && !self.marked {
                let revision = self.etcd.revision().to_string();
                let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": revision}});
                let bookmark = json!({"type": "BOOKMARK", "object": object});
                self.ready.push_back(format!("{bookmark}\n").into());
            }
            self.ready.push_back(line.clone());
            if self.fault == Some(Fault::Repeat) && !is_bookmark {
                self.ready.push_back(line.clone());
                if self.marked && self.told.len() > 1 {
                    let again = self.told.len() / 2;
                    self.ready.push_back(self.told[again].clone());
                }
                self.told.push(line);
            }
            self.marked |= is_end;
            self.lines += 1;
            if matches!(self.fault, Some(Fault::GoneAfter(lines)) if self.lines >= lines) {
                self.end_with(410, "Expired");
                return;
            }
        }
    }

    /// Passes a piece on, or what the fault leaves of it.
    async fn pass(&mut self, mut piece: Bytes) -> Option<Result<Bytes, Error>> {
        if let Some(Fault::Drip(size)) = self.fault
            && piece.len() > size
        {
            self.ready.push_front(piece.split_off(size));
            tokio::task::yield_now().await;
        }
        let limit = match self.fault {
            Some(Fault::Cut(limit) | Fault::Truncate(limit) | Fault::Hang(limit)) => limit,
            _ => usize::MAX,
        };
        if self.sent + piece.len() <= limit {
            self.sent += piece.len();
            return Some(Ok(piece));
        }
        let rest = limit - self.sent;
        if rest > 0 {
            // Comes again for what happens then.
            self.ready.push_front(piece.split_off(rest));
            self.sent = limit;
            return Some(Ok(piece));
        }
        match self.fault {
            Some(Fault::Cut(_)) => Some(Err("cut".into())),
            Some(Fault::Hang(_)) => std::future::pending().await,
            _ => None,
        }
    }
}

/// With what cannot be read made so.
fn garbled(text: Bytes) -> Bytes {
    let readable = memchr::memmem::find(&text, UNREADABLE.as_bytes()).is_none();
    if readable {
        return text;
    }
    let text = String::from_utf8_lossy(&text);
    text.replace(UNREADABLE, r#""generation":"seven""#).into()
}

fn without_stream(uri: &Uri) -> Uri {
    let query = uri.query().unwrap_or_default();
    let kept: Vec<_> = query
        .split('&')
        .filter(|it| {
            !it.starts_with("sendInitialEvents") && !it.starts_with("resourceVersionMatch")
        })
        .collect();
    let plain = format!("{}?{}", uri.path(), kept.join("&"));
    plain.parse().expect("it was a URI before")
}

fn status(code: u16, reason: &str) -> serde_json::Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": format!("planned: {code} {reason}"), "code": code,
    })
}

fn failure(code: u16, reason: &str, retry_after: Option<u32>) -> Response<Body> {
    let body = kubeapi::full(status(code, reason).to_string());
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = kubeapi::json(code, body);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response.map(|body| body.map_err(|error| error as Error).boxed_unsync())
}
