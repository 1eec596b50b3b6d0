//! Real handshakes on loopback.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream as ClientStream};

use super::*;
use crate::tls::{DevCertificates, Files, Reloader, dev};

/// A folder of certificates, and a server that uses them.
struct Server {
    folder: tempfile::TempDir,
    reloader: Reloader,
    tls: Tls,
    acceptor: Acceptor,
    listener: TcpListener,
}

fn make(folder: &Path, user: &str) {
    let asked = DevCertificates {
        folder: folder.to_owned(),
        hosts: vec!["localhost".to_owned()],
        user: user.to_owned(),
        group: Some("tests".to_owned()),
    };
    dev::write(&asked).unwrap();
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), "alice");
        let at = |name: &str| folder.path().join(name);
        let files = Files {
            certificate: at("server.crt"),
            key: at("server.key"),
            client_ca: Some(at("ca.crt")),
        };
        let (tls, reloader) = Tls::load(files).unwrap();
        Self {
            acceptor: Acceptor::new(tls.clone(), limits),
            tls,
            reloader,
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            folder,
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Other certificates, of another authority, in the same files.
    fn rotate(&mut self) {
        for file in fs::read_dir(self.folder.path()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        make(self.folder.path(), "bob");
        self.reloader.look();
    }

    fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(file)).unwrap()
    }

    /// Connections from there that say so much and no more; whether each was not let in, once that is known.
    async fn connect_and_say(
        &self,
        said: &[u8],
        from: [u8; 4],
        count: usize,
    ) -> (Vec<TcpStream>, Vec<JoinHandle<bool>>) {
        let mut silent = (Vec::new(), Vec::new());
        for _ in 0..count {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((from, 0).into()).unwrap();
            let mut client = socket.connect(self.address()).await.unwrap();
            client.write_all(said).await.unwrap();
            silent.0.push(client);
            let (stream, _) = self.listener.accept().await.unwrap();
            let acceptor = self.acceptor.clone();
            let before = acceptor.under_way.came();
            let accepting = async move { acceptor.accept(socket_of(stream)).await.is_none() };
            let accepting = tokio::spawn(accepting);
            // Who says something has a place, or is refused.
            while !said.is_empty()
                && !accepting.is_finished()
                && self.acceptor.under_way.came() == before
            {
                tokio::task::yield_now().await;
            }
            silent.1.push(accepting);
        }
        silent
    }

    /// A client that believes the server's authority of this moment.
    fn client(&self, with_certificate: bool) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let chain = |pem: &[u8]| CertificateDer::from_pem_slice(pem).unwrap();
        roots.add(chain(&self.read("ca.crt"))).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = if with_certificate {
            let key = PrivateKeyDer::from_pem_slice(&self.read("client.key")).unwrap();
            builder
                .with_client_auth_cert(vec![chain(&self.read("client.crt"))], key)
                .unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    /// Both ends of a new connection; the server's is missing where it refused.
    async fn connect(
        &self,
        config: ClientConfig,
    ) -> (Option<Secured>, io::Result<ClientStream<TcpStream>>) {
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost").unwrap();
        let client = async {
            let stream = TcpStream::connect(self.address()).await?;
            connector.connect(name, stream).await
        };
        let server = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            self.acceptor.accept(socket_of(stream)).await
        };
        tokio::join!(server, client)
    }
}

/// At a place of its own.
fn socket_of(stream: TcpStream) -> Socket {
    let address = stream.peer_addr().unwrap().ip();
    Socket::new(stream, &Connections::default().enter(address).unwrap())
}

async fn say(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin)) {
    from.write_all(b"hello").await.unwrap();
    from.flush().await.unwrap();
    let mut heard = [0; 5];
    to.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test]
async fn a_client_with_a_certificate_is_known_by_it_and_one_without_is_let_through() {
    let server = Server::start(Limits::default()).await;
    let (known, client) = server.connect(server.client(true)).await;
    let (mut known, mut client) = (known.unwrap(), client.unwrap());
    say(&mut client, &mut known).await;
    say(&mut known, &mut client).await;
    assert_eq!(known.protocol(), b"h2");
    let chain = known.client_chain();
    assert_eq!(chain.len(), 1);
    assert_eq!(server.tls.believes(&chain), Ok(()));

    let (unknown, client) = server.connect(server.client(false)).await;
    let (mut unknown, mut client) = (unknown.unwrap(), client.unwrap());
    say(&mut client, &mut unknown).await;
    assert!(unknown.client_chain().is_empty());
    assert!(server.tls.believes(&[]).is_err());
}

#[tokio::test]
async fn a_client_certificate_of_another_authority_is_refused_in_the_handshake() {
    let server = Server::start(Limits::default()).await;
    let stranger = Server::start(Limits::default()).await;
    let mut config = server.client(false);
    config.client_auth_cert_resolver = stranger.client(true).client_auth_cert_resolver;
    let (refused, _) = server.connect(config).await;
    assert!(refused.is_none());
}

#[tokio::test]
async fn certificates_are_replaced_without_dropping_a_hundred_connections() {
    let mut server = Server::start(Limits::default()).await;
    let mut open = Vec::new();
    for _ in 0..100 {
        let (accepted, client) = server.connect(server.client(true)).await;
        open.push((accepted.unwrap(), client.unwrap()));
    }
    let (old_client, old_chain) = (server.client(true), open[0].0.client_chain());
    server.rotate();

    for (accepted, client) in &mut open {
        say(client, accepted).await;
        say(accepted, client).await;
    }
    let (accepted, client) = server.connect(server.client(true)).await;
    say(&mut client.unwrap(), &mut accepted.unwrap()).await;
    let (_, refused) = server.connect(old_client).await;
    assert!(
        refused.is_err(),
        "the server shows a certificate of the new authority"
    );
    assert!(
        server.tls.believes(&old_chain).is_err(),
        "what the old authority signed is not believed any more, also on open connections"
    );
}

#[tokio::test]
async fn files_that_do_not_fit_together_keep_the_old_certificates() {
    let mut server = Server::start(Limits::default()).await;
    let other = Server::start(Limits::default()).await;
    let key = server.folder.path().join("server.key");
    let old = server.read("server.key");
    for wrong in [&other.read("server.key")[..], b"", b"nonsense"] {
        fs::write(&key, wrong).unwrap();
        server.reloader.look();
        let (accepted, client) = server.connect(server.client(true)).await;
        say(&mut client.unwrap(), &mut accepted.unwrap()).await;
    }
    fs::remove_file(&key).unwrap();
    server.reloader.look();
    let (accepted, _) = server.connect(server.client(true)).await;
    assert!(accepted.is_some());
    fs::write(&key, old).unwrap();
    server.rotate();
    let (accepted, _) = server.connect(server.client(true)).await;
    assert!(accepted.is_some());
}

#[tokio::test]
async fn whoever_connects_and_says_nothing_is_cut_soon() {
    let limits = Limits {
        patience: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = Server::start(limits).await;
    let (silent, waiting) = server.connect_and_say(b"", [127, 0, 0, 1], 2).await;
    for waiting in waiting {
        assert!(waiting.await.unwrap());
    }
    for mut silent in silent {
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0, "cut");
    }
    let (accepted, _) = server.connect(server.client(true)).await;
    assert!(accepted.is_some());
}

/// How a handshake begins: a record of 512 bytes is to come.
const HELLO: &[u8] = &[22, 3, 1, 2, 0];

/// Handshakes, two of an address and four in all, that are left alone for so long.
fn few(keep: Duration) -> Limits {
    Limits {
        at_once: 4,
        of_one: 2,
        keep,
        patience: Duration::from_secs(60),
    }
}

#[tokio::test]
async fn whoever_says_nothing_has_no_place_among_those_that_shake_hands() {
    let server = Server::start(few(Duration::from_secs(60))).await;
    let (_silent, waiting) = server.connect_and_say(b"", [127, 0, 0, 1], 5).await;
    let (accepted, _) = server.connect(server.client(true)).await;
    assert!(accepted.is_some(), "beside those that say nothing");
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
}

#[tokio::test]
async fn handshakes_that_have_just_begun_get_done_and_who_comes_beyond_is_refused() {
    let server = Server::start(few(Duration::from_secs(60))).await;
    let (_first, waiting) = server.connect_and_say(HELLO, [127, 0, 0, 2], 2).await;
    let (_second, mut third) = server.connect_and_say(HELLO, [127, 0, 0, 2], 1).await;
    assert!(
        third.remove(0).await.unwrap(),
        "one too many of its address"
    );
    let (accepted, _) = server.connect(server.client(true)).await;
    assert!(accepted.is_some(), "of another address");
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
}

#[tokio::test]
async fn a_handshake_that_does_not_get_on_makes_place_for_the_next() {
    let server = Server::start(few(Duration::ZERO)).await;
    let over = |all: &[JoinHandle<bool>]| all.iter().filter(|one| one.is_finished()).count();
    let (_first, mut few) = server.connect_and_say(HELLO, [127, 0, 0, 2], 2).await;
    let (_second, more) = server.connect_and_say(HELLO, [127, 0, 0, 2], 1).await;
    assert!(few.remove(0).await.unwrap(), "one too many of its address");
    let (_third, others) = server.connect_and_say(HELLO, [127, 0, 0, 3], 2).await;
    assert_eq!((over(&few), over(&more), over(&others)), (0, 0, 0));
    let (accepted, client) = server.connect(server.client(true)).await;
    assert!(accepted.is_some() && client.is_ok(), "all were taken");
    assert!(few.remove(0).await.unwrap(), "the oldest had to go");
    assert_eq!((over(&more), over(&others)), (0, 0));
}

#[tokio::test]
async fn both_versions_of_tls_that_are_safe_are_spoken() {
    let server = Server::start(Limits::default()).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(&server.read("ca.crt")).unwrap();
        roots.add(authority).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (accepted, client) = server.connect(config).await;
        assert!(accepted.is_some());
        let agreed = client.unwrap().get_ref().1.protocol_version();
        assert_eq!(agreed, Some(version.version));
    }
}
