//! Tokens that change, and both sides of the crate over TLS with certificates made here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use longhaul_wire::v1::ClaimRequest;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tonic::Code;

use super::*;
use crate::operations::{Client, Error as CallError, TransportKind};
use crate::worker::{Grpc, Link as _};

#[tokio::test]
async fn a_token_file_is_read_again_when_it_has_changed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    assert!(Token::file(&path).is_err());
    std::fs::write(&path, "  \n").unwrap();
    assert!(Token::file(&path).unwrap_err().to_string().ends_with("holds no token"));
    std::fs::write(&path, "first\n").unwrap();
    let token = Token::file(&path).unwrap();
    assert_eq!(token.header().await.unwrap(), "Bearer first");
    assert!(token.header().await.unwrap().is_sensitive());
    std::fs::write(&path, "second one\n").unwrap();
    assert_eq!(token.header().await.unwrap(), "Bearer second one");
    // As secrets are replaced: another file under the same name.
    let next = folder.path().join("next");
    std::fs::write(&next, "third-ones\n").unwrap();
    std::fs::rename(&next, &path).unwrap();
    assert_eq!(token.header().await.unwrap(), "Bearer third-ones");
    std::fs::remove_file(&path).unwrap();
    assert!(token.header().await.unwrap_err().to_string().starts_with("cannot read a token from"));
}

#[tokio::test]
async fn a_fetched_token_is_asked_for_each_time_and_may_fail() {
    let count = Arc::new(AtomicUsize::new(0));
    let token = Token::from_fn(move || {
        let n = count.fetch_add(1, Ordering::Relaxed);
        async move { if n == 1 { Err("the vault is shut") } else { Ok(format!("t{n}")) } }
    });
    assert_eq!(token.header().await.unwrap(), "Bearer t0");
    let error = token.header().await.unwrap_err();
    assert_eq!(error.to_string(), "no token could be had: the vault is shut");
    assert_eq!(token.header().await.unwrap(), "Bearer t2");
}

#[test]
fn nothing_secret_is_printed() {
    let identity = Identity { certificate: b"c".to_vec(), key: b"hidden".to_vec() };
    let token = Token::fixed("hidden").unwrap();
    let all = Credentials { token: Some(token), ca: None, identity: Some(identity) };
    assert!(!format!("{all:?}").contains("hidden"), "{all:?}");
    assert!(Token::fixed("a\nb").unwrap_err().to_string().contains("no header can carry"));
}

#[test]
fn files_without_certificates_and_halves_of_pairs_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "no PEM").unwrap();
    let refused = |ca: Option<&Path>, certificate: Option<&Path>, key: Option<&Path>| {
        Credentials::from_files(None, ca, certificate, key).unwrap_err().to_string()
    };
    assert!(refused(Some(&path), None, None).ends_with("holds no certificate in PEM"));
    assert!(refused(None, Some(&path), None).contains("has no key"));
    assert!(refused(None, None, Some(&path)).contains("has no certificate"));
    assert!(refused(None, Some(&path), Some(&path)).contains("hold no certificate and private"));
    assert!(refused(Some(&folder.path().join("none")), None, None).starts_with("cannot read"));
}

/// A server over TLS whose certificate a CA of ours has signed, and that asks for one by the same CA.
/// Answers gets with an operation named after the token, and gRPC with UNIMPLEMENTED and the token.
struct Secured {
    url: String,
    files: TempDir,
}

impl Secured {
    async fn start() -> Self {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let files = TempDir::new().unwrap();
        let keep =
            |name: &str, text: String| std::fs::write(files.path().join(name), text).unwrap();
        keep("ca.pem", ca.pem());
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let names = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            keep(&format!("{name}.pem"), names.signed_by(&key, &ca).unwrap().pem());
            keep(&format!("{name}.key"), key.serialize_pem());
        }
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let file = |name: &str| files.path().join(name);
        let certificate = CertificateDer::from_pem_file(file("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let builder = Builder::new(TokioExecutor::new());
                    let io = TokioIo::new(stream);
                    let _ = builder.serve_connection(io, service_fn(answer)).await;
                });
            }
        });
        Self { url, files }
    }

    fn credentials(&self, identity: bool) -> Credentials {
        let file = |name: &str| self.files.path().join(name);
        let (certificate, key) = (file("client.pem"), file("client.key"));
        let identity = identity.then_some((&*certificate, &*key)).unzip();
        let all = Credentials::from_files(None, Some(&file("ca.pem")), identity.0, identity.1);
        all.unwrap().with_token(Token::fixed("me").unwrap())
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let token = request.headers()["authorization"].to_str().unwrap().replace(' ', "-");
    let grpc = request.headers().get("content-type").is_some_and(|kind| kind == "application/grpc");
    let response = Response::builder();
    let response = if grpc {
        let response = response.header("content-type", "application/grpc");
        response.header("grpc-status", "12").header("grpc-message", token).body(Full::default())
    } else {
        let body = serde_json::json!({"name": format!("operations/{token}")});
        response.header("content-type", "application/json").body(Full::from(body.to_string()))
    };
    response.map_err(std::io::Error::other)
}

#[tokio::test]
async fn the_client_speaks_tls_with_its_own_ca_and_certificate() {
    let server = Secured::start().await;
    let known = Client::connect_with(&server.url, &server.credentials(true)).unwrap();
    assert_eq!(known.get("operations/a").await.unwrap().name(), "operations/Bearer-me");
    for credentials in [server.credentials(false), Credentials::default()] {
        let client = Client::connect_with(&server.url, &credentials).unwrap();
        let error = client.get("operations/a").await.unwrap_err();
        let CallError::Transport(error) = error else { panic!("{error:?}") };
        assert_ne!(error.kind, TransportKind::Timeout, "{error:?}");
    }
}

#[tokio::test]
async fn the_worker_speaks_tls_with_its_own_ca_and_certificate() {
    let server = Secured::start().await;
    let claim = async |credentials: &Credentials| {
        let link = Grpc::connect_with(&server.url, credentials).unwrap();
        link.claim(ClaimRequest::default(), Duration::from_secs(5)).await.unwrap_err()
    };
    let known = claim(&server.credentials(true)).await;
    assert_eq!((known.code(), known.message()), (Code::Unimplemented, "Bearer-me"));
    for credentials in [server.credentials(false), Credentials::default()] {
        let refused = claim(&credentials).await;
        assert_ne!(refused.code(), Code::Unimplemented, "{refused:?}");
    }
}
