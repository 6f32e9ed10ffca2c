//! TLS at the ports: both protocols, certificates that change, and clear ends for who does not fit.

use std::sync::Arc;
use std::time::Duration;

use longhaul_server::config::ApiListener;
use longhaul_server::tls::{ClientAuth, MinVersion, TlsConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::client::Wire;
use crate::harness::grpc::Connection;
use crate::harness::http::{exchange_bytes, exchange_last_bytes};
use crate::harness::samples::DEPLOY;
use crate::harness::tls::{Authority, Dial, TlsFiles, der};
use crate::harness::{Kept, Place, Server, soon};

/// How often a server under test looks at its files.
const LOOK: Duration = Duration::from_millis(10);

async fn server(tls: TlsConfig) -> Server {
    Server::with(Kept::InMemory, |config| config.tls = Some(tls)).await
}

fn quick(tls: TlsConfig) -> TlsConfig {
    TlsConfig { reload_every: LOOK, ..tls }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_protocols_are_spoken_at_one_port_as_the_client_likes() {
    let authority = Authority::new("ours");
    let files = TlsFiles::new(&authority.server());
    let server = server(files.config()).await;
    let dial = Dial::trusting(&authority);
    for (dial, agreed) in [
        (dial.clone(), "h2"),
        (dial.clone().speaking(b"http/1.1"), "http/1.1"),
        (dial.clone().speaking(b"h2"), "h2"),
        (Dial { protocols: Vec::new(), ..dial.clone() }, ""),
        (Dial { newest: false, ..dial.clone() }, "h2"),
    ] {
        let ready = dial.get(server.address, "/readyz").await.unwrap();
        assert_eq!(ready, (200, agreed.to_owned(), "ok\n".to_owned()));
    }
    let strange = dial.clone().speaking(b"spdy/3").connect(server.address).await;
    assert!(strange.unwrap_err().contains("NoApplicationProtocol"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_and_health_work_over_tls_and_at_the_ports_of_single_apis() {
    let authority = Authority::new("ours");
    let files = TlsFiles::new(&authority.server());
    let server = Server::with(Kept::InMemory, |config| {
        config.tls = Some(files.config());
        let listen = "127.0.0.1:0".parse().unwrap();
        config.listeners.push(ApiListener { listen, api: "clouddeploy".into() });
    })
    .await;
    let further = server.further_addresses().await[0];
    for address in [server.address, further] {
        let dial = Dial::trusting(&authority);
        assert_eq!(dial.get(address, "/healthz").await.unwrap().0, 200);
        let connection = Connection::over_tls(address, DEPLOY.host, dial);
        let health = connection
            .call_bytes("/grpc.health.v1.Health/Check", Default::default(), None)
            .await
            .unwrap();
        assert_eq!(&*health, b"\x08\x01");
        let start = DEPLOY.start_message(
            "p",
            crate::harness::samples::Asked {
                id: &format!("at-{}", address.port()),
                ..Default::default()
            },
        );
        connection.call_bytes(&DEPLOY.grpc_path(), start.into(), None).await.unwrap();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_while_old_connections_live_on() {
    let authority = Authority::new("ours");
    let (first, second, third) = (authority.server(), authority.server(), authority.server());
    let files = TlsFiles::new(&first);
    let server = server(quick(files.config())).await;
    let dial = Dial::trusting(&authority);
    assert_eq!(dial.shown_by(server.address).await.unwrap(), der(&first.cert));
    let old = Connection::over_tls(server.address, DEPLOY.host, dial.clone());
    let alive = async || {
        let check = "/grpc.health.v1.Health/Check";
        old.call_bytes(check, Default::default(), None).await.unwrap()
    };
    alive().await;

    let shown = async |pair: &crate::harness::tls::Pair| {
        let is_shown = async {
            while dial.shown_by(server.address).await.unwrap() != der(&pair.cert) {
                // tidy: sleep: a pause between two looks; the caller has a deadline
                tokio::time::sleep(LOOK).await;
            }
        };
        soon("the new certificate", is_shown).await;
    };
    files.put(&second);
    shown(&second).await;
    alive().await;

    // A key that does not go with it, and then no certificate at all, change nothing.
    files.write("key.pem", &third.key);
    for broken in [second.cert.as_str(), "no certificate", ""] {
        files.write("cert.pem", broken);
        for _ in 0..20 {
            assert_eq!(dial.shown_by(server.address).await.unwrap(), der(&second.cert));
            // tidy: sleep: time for the server to look twice; a server that took the files would fail above
            tokio::time::sleep(LOOK).await;
        }
    }
    files.put(&third);
    shown(&third).await;
    alive().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_needs_a_certificate_of_the_right_authority_that_has_not_ended() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let files = TlsFiles::new(&ours.server());
    let client_ca = files.write("client_ca.pem", &ours.pem());
    let good = ours.client("ann", Vec::new(), 2099);
    let refused = [
        ("wrong authority", theirs.client("ann", Vec::new(), 2099)),
        ("expired", ours.client("ann", Vec::new(), 2020)),
        ("not for clients", ours.server()),
    ];
    for (client_auth, without) in [(ClientAuth::Required, false), (ClientAuth::Optional, true)] {
        let server =
            server(TlsConfig { client_ca: Some(client_ca.clone()), client_auth, ..files.config() })
                .await;
        for newest in [true, false] {
            let dial = Dial { newest, ..Dial::trusting(&ours) };
            let shown = dial.clone().showing(&good).get(server.address, "/readyz").await;
            assert_eq!(shown.unwrap().0, 200);
            let none = dial.get(server.address, "/readyz").await;
            assert_eq!(none.is_ok(), without, "{client_auth:?}: {none:?}");
            for (why, pair) in &refused {
                let got = dial.clone().showing(pair).get(server.address, "/readyz").await;
                assert!(got.is_err(), "{why}, {client_auth:?}: {got:?}");
            }
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_for_clients_counts_without_a_restart() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let files = TlsFiles::new(&ours.server());
    let client_ca = Some(files.write("client_ca.pem", &ours.pem()));
    let tls = TlsConfig { client_ca, client_auth: ClientAuth::Required, ..files.config() };
    let server = server(quick(tls)).await;
    let (old, new) = (ours.client("ann", Vec::new(), 2099), theirs.client("ann", Vec::new(), 2099));
    let known = async |pair| {
        let dial = Dial::trusting(&ours).showing(pair);
        dial.get(server.address, "/livez").await.is_ok()
    };
    assert_eq!((known(&old).await, known(&new).await), (true, false));
    files.write("client_ca.pem", &theirs.pem());
    let changed = async {
        while !known(&new).await {
            // tidy: sleep: a pause between two looks; the caller has a deadline
            tokio::time::sleep(LOOK).await;
        }
    };
    soon("the other authority", changed).await;
    assert!(!known(&old).await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_refuse_a_server_of_another_authority_or_whose_certificate_has_ended() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let files = TlsFiles::new(&ours.server());
    let server = server(quick(files.config())).await;
    let error = Dial::trusting(&theirs).connect(server.address).await.unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");
    assert!(Dial::trusting(&ours).connect(server.address).await.is_ok());
    server.stop().await;

    let files = TlsFiles::new(&ours.expired_server());
    let server = self::server(files.config()).await;
    let error = Dial::trusting(&ours).connect(server.address).await.unwrap_err();
    assert!(error.to_lowercase().contains("expired"), "{error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_below_the_lowest_are_refused_with_an_alert() {
    let authority = Authority::new("ours");
    let files = TlsFiles::new(&authority.server());
    let from_1_2 = server(files.config()).await;
    let from_1_3 = server(TlsConfig { min_version: MinVersion::V1_3, ..files.config() }).await;
    // A hello of TLS 1.1, the last version before 1.2. Source: RFC 4346, 7.4.1.2.
    let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0, 0x2f, 1, 0]);
    for server in [&from_1_2, &from_1_3] {
        let answer = exchange_bytes(server.address, &hello).await;
        // A fatal alert: handshake_failure or protocol_version. Source: RFC 8446, 6.
        assert_eq!((answer[0], answer[5], answer.len()), (0x15, 2, 7), "{answer:x?}");
        assert!(matches!(answer[6], 40 | 70), "{answer:x?}");
    }
    let only_1_2 = Dial { newest: false, ..Dial::trusting(&authority) };
    assert!(only_1_2.connect(from_1_2.address).await.is_ok());
    let error = only_1_2.connect(from_1_3.address).await.unwrap_err();
    assert!(error.contains("ProtocolVersion"), "{error}");
    from_1_2.stop().await;
    from_1_3.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_at_a_tls_port_is_told_so_in_its_own_protocol() {
    let authority = Authority::new("ours");
    let files = TlsFiles::new(&authority.server());
    let server = server(files.config()).await;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    for verb in ["GET", "POST", "DELETE"] {
        let request = format!("{verb} /readyz HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
        let answer = text(exchange_last_bytes(server.address, request.as_bytes()).await);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("TLS_REQUIRED") && answer.contains("https://"), "{answer}");
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    let headers = b"\x00\x00\x00\x01\x05\x00\x00\x00\x01";
    for request in [&preface[..], &[&preface[..], headers].concat()] {
        let answer = exchange_last_bytes(server.address, request).await;
        assert_eq!((answer[3], answer[12]), (4, 7), "settings, then goaway: {answer:x?}");
        assert!(text(answer).contains("TLS only"));
    }
    let place = Place::on(Arc::new(server), Wire::Grpc);
    let error = place.client().try_get("projects/p/locations/l/operations/o").await.unwrap_err();
    // What gRPC makes of INADEQUATE_SECURITY; nothing repeats it.
    assert_eq!(error.code, "PERMISSION_DENIED", "{error:?}");
    place.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_handshakes_keep_nobody_waiting_and_are_cut() {
    let authority = Authority::new("ours");
    let files = TlsFiles::new(&authority.server());
    let server = server(TlsConfig {
        handshakes_max: 4,
        handshake_timeout: Duration::from_millis(1_500),
        ..files.config()
    })
    .await;
    let dial = Dial::trusting(&authority);
    let mut slow = Vec::new();
    for number in 0..12 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(&[0x16, 3, 1, 1]).await.unwrap();
        }
        slow.push(stream);
        assert_eq!(dial.get(server.address, "/livez").await.unwrap().0, 200, "{number}");
    }
    for mut stream in slow {
        let mut rest = Vec::new();
        // Cut with an alert, an end or a reset; what counts is that it comes.
        let _ = soon("the end of a slow handshake", stream.read_to_end(&mut rest)).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_do_not_fit_are_refused_at_the_start_with_their_name() {
    let authority = Authority::new("ours");
    let (pair, other) = (authority.server(), authority.server());
    let start = async |files: &TlsFiles| {
        let config = crate::harness::server::config(None, |config| {
            config.tls = Some(files.config());
        });
        match longhaul_server::serve(config).await {
            Ok(_) => panic!("it started"),
            Err(error) => error.message,
        }
    };
    let files = TlsFiles::new(&pair);
    files.write("key.pem", &other.key);
    let message = start(&files).await;
    assert!(message.contains("key.pem") && message.contains("does not go with"), "{message}");
    assert!(!message.contains("PRIVATE"), "{message}");
    files.put(&pair);
    files.write("cert.pem", "");
    let message = start(&files).await;
    assert!(message.contains("cert.pem") && message.contains("no PEM certificate"), "{message}");
}
