//! Authorities and certificates made for one test, and a client that speaks TLS as it is told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use longhaul_server::tls::TlsConfig;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::soon;

/// An authority of a test's own.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for the loopback address.
    pub fn server(&self) -> Pair {
        let names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        self.sign("server", names, ExtendedKeyUsagePurpose::ServerAuth, 2099)
    }

    /// A certificate for a client, good until the end of `year`.
    pub fn client(&self, common_name: &str, names: Vec<SanType>, year: i32) -> Pair {
        self.sign(common_name, names, ExtendedKeyUsagePurpose::ClientAuth, year)
    }

    /// A certificate for a client that ends at this many seconds since 1970.
    pub fn client_until(&self, common_name: &str, names: Vec<SanType>, end: u64) -> Pair {
        let mut params = Self::params(common_name, names, ExtendedKeyUsagePurpose::ClientAuth);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(end);
        self.signed(&params)
    }

    /// A certificate for the loopback address that has ended.
    pub fn expired_server(&self) -> Pair {
        let names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        self.sign("server", names, ExtendedKeyUsagePurpose::ServerAuth, 2020)
    }

    fn sign(
        &self,
        common_name: &str,
        names: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        year: i32,
    ) -> Pair {
        let mut params = Self::params(common_name, names, usage);
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        self.signed(&params)
    }

    fn params(
        common_name: &str,
        names: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
    ) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names;
        params.extended_key_usages = vec![usage];
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params
    }

    fn signed(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// The files of a server's TLS.
pub struct TlsFiles {
    folder: TempDir,
}

impl TlsFiles {
    /// Files that hold this.
    pub fn new(pair: &Pair) -> Self {
        let files = Self { folder: TempDir::new().unwrap() };
        files.put(pair);
        files
    }

    /// Puts others in their place, each whole at once, as certificate tools do.
    pub fn put(&self, pair: &Pair) {
        self.write("cert.pem", &pair.cert);
        self.write("key.pem", &pair.key);
    }

    /// One file, whole at once.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let half = self.folder.path().join(format!("{name}.half"));
        std::fs::write(&half, text).unwrap();
        let file = self.path(name);
        std::fs::rename(&half, &file).unwrap();
        file
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    /// A configuration that names them.
    pub fn config(&self) -> TlsConfig {
        TlsConfig { cert: self.path("cert.pem"), key: self.path("key.pem"), ..TlsConfig::default() }
    }
}

/// How to connect.
#[derive(Clone)]
pub struct Dial {
    /// Whom it believes, PEM.
    pub roots: String,
    /// What it shows.
    pub pair: Option<Pair>,
    /// What to offer, the dearest first.
    pub protocols: Vec<&'static [u8]>,
    /// Whether TLS 1.3 is spoken, too.
    pub newest: bool,
}

impl Dial {
    /// Believes one authority, shows nothing, takes both protocols.
    pub fn trusting(authority: &Authority) -> Self {
        Self {
            roots: authority.pem(),
            pair: None,
            protocols: vec![b"h2", b"http/1.1"],
            newest: true,
        }
    }

    /// Shows this certificate.
    pub fn showing(mut self, pair: &Pair) -> Self {
        self.pair = Some(pair.clone());
        self
    }

    /// Offers this protocol alone.
    pub fn speaking(mut self, protocol: &'static [u8]) -> Self {
        self.protocols = vec![protocol];
        self
    }

    /// Connects and shakes hands.
    pub async fn connect(&self, address: SocketAddr) -> Result<TlsStream<TcpStream>, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::new(self.config()));
        let name = ServerName::IpAddress(address.ip().into());
        let shaken = soon("a handshake", connector.connect(name, stream)).await;
        shaken.map_err(|error| error.to_string())
    }

    /// Connects, asks once over the protocol that was agreed on, and gives status, protocol and body.
    pub async fn get(
        &self,
        address: SocketAddr,
        path: &str,
    ) -> Result<(u16, String, String), String> {
        let stream = self.connect(address).await?;
        let agreed = stream.get_ref().1.alpn_protocol().unwrap_or_default().to_vec();
        let io = TokioIo::new(stream);
        let shown = |error: hyper::Error| format!("{error:?}");
        let request = hyper::Request::get(format!("https://{address}{path}"))
            .header("host", address.to_string())
            .body(Empty::<Bytes>::new())
            .unwrap();
        let answer = if agreed == b"h2" {
            let executor = TokioExecutor::new();
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(executor, io).await.map_err(shown)?;
            tokio::spawn(connection);
            soon("an answer", sender.send_request(request)).await.map_err(shown)?
        } else {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(io).await.map_err(shown)?;
            tokio::spawn(connection);
            soon("an answer", sender.send_request(request)).await.map_err(shown)?
        };
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.map_err(shown)?.to_bytes();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((code, text(&agreed), text(&body)))
    }

    /// The certificate that the server shows, PEM's contents.
    pub async fn shown_by(&self, address: SocketAddr) -> Result<CertificateDer<'static>, String> {
        let stream = self.connect(address).await?;
        Ok(stream.get_ref().1.peer_certificates().unwrap()[0].clone())
    }

    fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.roots.as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions: &[_] =
            if self.newest { rustls::ALL_VERSIONS } else { &[&rustls::version::TLS12] };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes());
                let chain = chain.map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = self.protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }
}

/// The contents of the first certificate of a PEM text.
pub fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}
