//! Puts model nodes where they can be asked: on loopback TCP, or in memory.

use std::{fmt, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncWrite, duplex},
    net::TcpListener,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::codec::Framed;

use super::{
    super::{
        connect::{Connect, Stream},
        evidence::Failure,
        login,
        protocol::{Frame, FrameCodec, FrameType},
    },
    Manner, Model,
};

/// The longest wait without looking whether a port is to be opened or closed.
const LOOK: Duration = Duration::from_secs(1);

/// A node that is served over TCP until this is dropped.
#[derive(Debug)]
pub struct Served {
    address: SocketAddr,
    task: AbortHandle,
}

impl Served {
    /// Where the node listens, whenever it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves a node at this address. Its port is open when the node's is: while the node is down or loading its storage,
/// connections are refused. With port 0, the port is chosen now and kept.
///
/// # Errors
///
/// The address cannot be bound.
pub async fn serve(model: &Model, node: usize, address: SocketAddr) -> io::Result<Served> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let model = model.clone();
    let task = tokio::spawn(async move { listen(model, node, address, listener).await });
    Ok(Served {
        address,
        task: task.abort_handle(),
    })
}

async fn listen(model: Model, node: usize, address: SocketAddr, first: TcpListener) {
    let mut changed = model.changed.subscribe();
    // Loading ends by itself, without a word.
    let next = |model: &Model| {
        let soon = Instant::now() + LOOK;
        model.next_change().map_or(soon, |at| at.min(soon))
    };
    let mut listener = Some(first);
    loop {
        if !model.is_serving(node) {
            listener = None;
            let at = next(&model);
            tokio::select! {
                _ = changed.changed() => {}
                () = sleep_until(at) => {}
            }
            continue;
        }
        let open = match listener.take() {
            Some(open) => open,
            None => match TcpListener::bind(address).await {
                Ok(open) => open,
                Err(error) => {
                    tracing::warn!(%address, %error, "the model node cannot open its port; trying again");
                    sleep(LOOK).await;
                    continue;
                }
            },
        };
        let mut connections = JoinSet::new();
        // Dropping the set at the end closes what the process had open.
        while model.is_serving(node) {
            tokio::select! {
                _ = changed.changed() => {}
                accepted = open.accept() => if let Ok((stream, _)) = accepted {
                    connections.spawn(converse(model.clone(), node, stream));
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// All nodes of a model, in memory: node n answers at 10.0.0.(n+1):3000.
#[derive(Clone)]
pub struct Wire {
    model: Model,
}

impl Wire {
    /// The wire to this model.
    pub fn new(model: &Model) -> Self {
        Self {
            model: model.clone(),
        }
    }

    /// Where a node is. There is room for 250 of them.
    pub fn address(node: usize) -> SocketAddr {
        let last = u8::try_from(node + 1).unwrap_or(u8::MAX);
        SocketAddr::from(([10, 0, 0, last], 3000))
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Connect for Wire {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, Result<Box<dyn Stream>, Failure>> {
        let model = self.model.clone();
        async move {
            let node = (0..250).find(|node| Self::address(*node) == address);
            let Some(node) = node.filter(|node| model.is_serving(*node)) else {
                return Err(Failure::Refused);
            };
            let (near, far) = duplex(64 << 10);
            tokio::spawn(converse(model, node, far));
            Ok(Box::new(near) as Box<dyn Stream>)
        }
        .boxed()
    }
}

/// One connection, until the other end or the node's process is gone.
async fn converse(model: Model, node: usize, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut changed = model.changed.subscribe();
    let life = |model: &Model| model.look(|cluster| cluster.node(node).map(|node| node.life));
    let born = life(&model);
    let talk = talk(&model, node, stream);
    tokio::pin!(talk);
    loop {
        tokio::select! {
            biased;
            () = &mut talk => return,
            told = changed.changed() => if told.is_err() || life(&model) != born {
                return;
            },
        }
    }
}

async fn talk(model: &Model, node: usize, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut link = Framed::new(stream, FrameCodec);
    let credentials = model.look(|cluster| cluster.rules.credentials.clone());
    let mut admitted = credentials.is_none();
    while let Some(Ok(request)) = link.next().await {
        let manner = model.look(|cluster| cluster.node(node).map(|node| node.manner));
        let half = match manner {
            Some(Manner::Mute) => continue,
            Some(Manner::Slow(delay)) => delay / 2,
            _ => Duration::ZERO,
        };
        if !half.is_zero() {
            sleep(half).await;
        }
        let answer = match request.kind {
            _ if manner == Some(Manner::Garbage) => Frame {
                kind: FrameType::Info,
                body: Bytes::from_static(b"\xff\xfenode\tis\tnot\n\n\tstatistics=\n"),
            },
            FrameType::Security => {
                let admits = credentials.as_ref().map(|known| known.admits(&request));
                admitted |= admits == Some(true);
                login::answer(match admits {
                    None => 52,
                    Some(true) => 0,
                    Some(false) => 65,
                })
            }
            FrameType::Info if admitted => info(model, node, &request),
            FrameType::Info => Frame {
                kind: FrameType::Info,
                body: Bytes::from_static(b"ERROR:80:not authenticated\n"),
            },
        };
        if !half.is_zero() {
            sleep(half).await;
        }
        if link.send(answer).await.is_err() {
            return;
        }
    }
}

fn info(model: &Model, node: usize, request: &Frame) -> Frame {
    let mut body = String::new();
    for command in request.commands() {
        let value = model.answer(node, &command);
        body.push_str(&format!("{command}\t{value}\n"));
    }
    Frame {
        kind: FrameType::Info,
        body: body.into(),
    }
}
