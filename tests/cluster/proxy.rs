//! A TCP proxy that misbehaves as networks do: it cuts, refuses, goes silent and is slow.
//!
//! TLS passes through it untouched: the certificate is for 127.0.0.1, whatever the port.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{Error, free_port};

/// A proxy before a server on loopback. Lives on the runtime that started it; ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    listening: watch::Receiver<bool>,
    counters: Arc<Counters>,
    tap: Tap,
    task: JoinHandle<()>,
}

/// What came from the server, where that is kept.
type Tap = Arc<Mutex<Option<Vec<u8>>>>;

fn lock(tap: &Tap) -> std::sync::MutexGuard<'_, Option<Vec<u8>>> {
    tap.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone, Copy, Debug)]
struct Mode {
    target: SocketAddr,
    refuse: bool,
    mute: bool,
    delay: Duration,
    /// Bytes from the server after which a connection is cut.
    limit: Option<usize>,
    /// How many times all connections were cut.
    cuts: u64,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicUsize,
    open: AtomicUsize,
}

impl Proxy {
    /// Listens on a free port and passes everything on to `target`.
    pub async fn start(target: SocketAddr) -> Result<Self, Error> {
        let address = (Ipv4Addr::LOCALHOST, free_port()).into();
        let mode = Mode {
            target,
            refuse: false,
            mute: false,
            delay: Duration::ZERO,
            limit: None,
            cuts: 0,
        };
        let mode = watch::Sender::new(mode);
        let (listening, is_listening) = watch::channel(false);
        let counters = Arc::new(Counters::default());
        let tap = Arc::default();
        let task = tokio::spawn(accept(
            address,
            mode.subscribe(),
            listening,
            Arc::clone(&counters),
            Arc::clone(&tap),
        ));
        let proxy = Self {
            address,
            mode,
            listening: is_listening,
            counters,
            tap,
            task,
        };
        proxy.settled(true).await?;
        Ok(proxy)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection that is open. New ones are taken.
    pub fn cut_all(&self) {
        self.mode.send_modify(|mode| mode.cuts += 1);
    }

    /// While set, new connections are refused (by the kernel: nobody listens). Open ones live on.
    pub async fn refuse(&self, refuse: bool) -> Result<(), Error> {
        self.mode.send_modify(|mode| mode.refuse = refuse);
        self.settled(!refuse).await
    }

    /// While set, connections stay open, new ones are taken, and nothing arrives in either direction: half-open.
    /// What is sent meanwhile is lost, so connections that lost something are closed at the end.
    pub fn mute(&self, mute: bool) {
        self.mode.send_modify(|mode| mode.mute = mute);
    }

    /// Everything arrives this much later, in each direction, in order.
    pub fn delay(&self, delay: Duration) {
        self.mode.send_modify(|mode| mode.delay = delay);
    }

    /// While set, a connection that has passed so many bytes of its server on passes no more and is cut: in the
    /// middle of an answer that is larger.
    pub fn cut_after(&self, bytes: Option<usize>) {
        self.mode.send_modify(|mode| mode.limit = bytes);
    }

    /// Keeps from now on whatever comes from the server, of all connections in one.
    pub fn record(&self) {
        lock(&self.tap).get_or_insert_default();
    }

    /// What has come since then, byte by byte; also what could not be passed on yet.
    pub fn recorded(&self) -> Vec<u8> {
        lock(&self.tap).clone().unwrap_or_default()
    }

    /// New connections go to another server.
    pub fn retarget(&self, target: SocketAddr) {
        self.mode.send_modify(|mode| mode.target = target);
    }

    /// How many connections were ever taken.
    pub fn accepted(&self) -> usize {
        self.counters.accepted.load(Ordering::Relaxed)
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.counters.open.load(Ordering::Relaxed)
    }

    async fn settled(&self, listening: bool) -> Result<(), Error> {
        let mut state = self.listening.clone();
        state
            .wait_for(|state| *state == listening)
            .await
            .map_err(|_| "the proxy has ended")?;
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Writes the kubeconfig of the server at `from` anew beside it, for the proxy at `to`; returns the path.
pub fn rerouted(kubeconfig: &Path, from: SocketAddr, to: SocketAddr) -> Result<PathBuf, Error> {
    let own = fs::read_to_string(kubeconfig)?;
    let path = kubeconfig.with_file_name("rerouted.kubeconfig");
    fs::write(&path, own.replace(&from.to_string(), &to.to_string()))?;
    Ok(path)
}

async fn accept(
    address: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    listening: watch::Sender<bool>,
    counters: Arc<Counters>,
    tap: Tap,
) {
    // Ends when the Proxy goes, with all that was spawned on it.
    let mut connections = tokio::task::JoinSet::new();
    let modes = mode.clone();
    while mode.wait_for(|mode| !mode.refuse).await.is_ok() {
        let Ok(listener) = TcpListener::bind(address).await else {
            return;
        };
        listening.send_replace(true);
        loop {
            tokio::select! {
                biased;
                refuse = mode.wait_for(|mode| mode.refuse) => {
                    if refuse.is_err() {
                        return;
                    }
                    break;
                }
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => {
                    let Ok((client, _)) = accepted else { continue };
                    counters.accepted.fetch_add(1, Ordering::Relaxed);
                    let counters = Arc::clone(&counters);
                    connections.spawn(connection(client, modes.clone(), counters, Arc::clone(&tap)));
                }
            }
        }
        drop(listener);
        listening.send_replace(false);
    }
}

async fn connection(
    client: TcpStream,
    mode: watch::Receiver<Mode>,
    counters: Arc<Counters>,
    tap: Tap,
) {
    let Mode { target, cuts, .. } = *mode.borrow();
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    counters.open.fetch_add(1, Ordering::Relaxed);
    // Small writes must not wait for each other: the tests measure latency through this too.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let lost = AtomicBool::new(false);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let full = Notify::new();
    let pumps = async {
        tokio::join!(
            pump(from_client, to_server, mode.clone(), &lost, None),
            pump(
                from_server,
                to_client,
                mode.clone(),
                &lost,
                Some((&full, &tap))
            ),
        )
    };
    let mut watched = mode.clone();
    let ended =
        watched.wait_for(|mode| mode.cuts != cuts || (!mode.mute && lost.load(Ordering::Relaxed)));
    tokio::select! {
        _ = pumps => {}
        _ = ended => {}
        () = full.notified() => {}
    }
    counters.open.fetch_sub(1, Ordering::Relaxed);
}

/// One direction, until its source ends. Of the server's, what comes is kept and the limit counts, which is told.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    lost: &AtomicBool,
    from_server: Option<(&Notify, &Tap)>,
) {
    let mut passed = 0;
    let (sender, mut receiver) = mpsc::channel::<(Instant, Bytes)>(256);
    let delays = mode.clone();
    let full = from_server.map(|(full, _)| full);
    let read = async move {
        let mut buffer = BytesMut::new();
        while let Ok(1..) = from.read_buf(&mut buffer).await {
            let due = Instant::now() + delays.borrow().delay;
            if let Some((_, tap)) = from_server
                && let Some(kept) = &mut *lock(tap)
            {
                kept.extend_from_slice(&buffer);
            }
            if sender.send((due, buffer.split().freeze())).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            let limit = full.and(mode.borrow().limit);
            if limit.is_some_and(|limit| passed + bytes.len() > limit) {
                full.inspect(|full| full.notify_one());
                return;
            }
            passed += bytes.len();
            if mode.borrow().mute {
                lost.store(true, Ordering::Relaxed);
            } else if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // A goodbye does not arrive either while the line is dead.
        if mode.wait_for(|mode| !mode.mute).await.is_ok() {
            let _ = to.shutdown().await;
        }
    };
    tokio::join!(read, write);
}
