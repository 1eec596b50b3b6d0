//! Real sockets: nodes on loopback TCP, with and without TLS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::PrivatePkcs8KeyDer};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};
use tokio_rustls::TlsAcceptor;

use super::{
    breaker::BreakerSettings,
    connect::{Network, Tls},
    evidence::{Failure, Member},
    model::{self, Model, Rules},
    probe::{ProbeSettings, Prober},
    verdict::{Expected, Judgement, State, judge},
};

/// Nodes on real sockets start in real time: quickly.
fn quick() -> Rules {
    let moment = Duration::from_millis(20);
    Rules {
        load: moment,
        notice: moment,
        agree: moment,
        spread: moment,
        balance: moment,
        migration_rate: 1_000_000,
        ..Rules::default()
    }
}

async fn until_ready(prober: &mut Prober, members: &[Member]) -> Judgement {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let size = members.len();
        let survey = prober.survey(size.try_into().unwrap(), members).await;
        let expected = Expected {
            size: size.try_into().unwrap(),
            members,
            interval: Duration::from_secs(5),
        };
        let judged = judge(&expected, &survey);
        if judged.safe_to_disrupt.state == State::Ready {
            return judged;
        }
        let message = &judged.safe_to_disrupt.message;
        assert!(Instant::now() < deadline, "not ready in time: {message}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn patient() -> ProbeSettings {
    ProbeSettings {
        timeout: Duration::from_secs(5),
        breaker: BreakerSettings {
            failures: 1000,
            pause: Duration::from_millis(10),
        },
    }
}

const ANY_PORT: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

#[tokio::test]
async fn over_tcp_a_node_that_is_down_refuses_and_comes_back_on_the_same_port() {
    let model = Model::new(2, quick(), 1);
    let mut served = Vec::new();
    let mut members = Vec::new();
    for node in 0..2 {
        let one = model::serve(&model, node, ANY_PORT.into()).await.unwrap();
        members.extend(model.member(node, one.address()));
        served.push(one);
    }
    let mut prober = Prober::new(Arc::new(Network::plain()), patient(), None);
    let judged = until_ready(&mut prober, &members).await;
    assert!(judged.nodes[0].details.round_trip.unwrap() > Duration::ZERO);

    model.stop(1);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let survey = prober.survey(2, &members).await;
        match &survey.first.reports[1].outcome {
            Err(Failure::Refused) => break,
            // The listener may need a moment to close.
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
    model.start(1);
    members[1] = model.member(1, served[1].address()).unwrap();
    until_ready(&mut prober, &members).await;
}

#[tokio::test]
async fn over_tls_a_node_is_asked_under_its_certificates_name_and_no_other() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["cache.example".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);

    let model = Model::new(1, quick(), 1);
    let plain = model::serve(&model, 0, ANY_PORT.into()).await.unwrap();
    let front = TcpListener::bind(SocketAddr::from(ANY_PORT)).await.unwrap();
    let member = model.member(0, front.local_addr().unwrap()).unwrap();
    let (acceptor, behind) = (TlsAcceptor::from(Arc::new(server)), plain.address());
    let proxy = tokio::spawn(async move {
        while let Ok((stream, _)) = front.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.ok()?;
                let mut node = TcpStream::connect(behind).await.ok()?;
                copy_bidirectional(&mut stream, &mut node).await.ok()
            });
        }
    });
    let members = [member];
    let network = |name: &str| Arc::new(Network::tls(Tls::new(client.clone(), name).unwrap()));
    let mut prober = Prober::new(network("cache.example"), patient(), None);
    until_ready(&mut prober, &members).await;

    let mut other = Prober::new(network("other.example"), patient(), None);
    let survey = other.survey(1, &members).await;
    assert!(
        matches!(survey.first.reports[0].outcome, Err(Failure::Tls(_))),
        "{survey:?}"
    );
    let mut plain = Prober::new(Arc::new(Network::plain()), patient(), None);
    let survey = plain.survey(1, &members).await;
    assert!(survey.first.reports[0].outcome.is_err());
    proxy.abort();
    assert!(Tls::new(client, "not a name").is_err());
}
