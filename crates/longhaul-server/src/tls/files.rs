//! The PEM files of TLS: read together, checked together, or refused with the file's name.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;

use longhaul_core::{Error, Timestamp};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::{ClientAuth, MinVersion, TlsConfig, invalid};

/// Largest PEM file that is read, in bytes: hundreds of authorities fit.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Both protocols at one port; the first that both ends know is spoken.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What the files held at one moment.
pub(super) struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Files that fit together.
pub(super) struct Loaded {
    /// What connections are made with.
    pub(super) config: Arc<ServerConfig>,
    /// The end of the server's certificate.
    pub(super) expires_at: Timestamp,
    /// Of the files it was made from.
    pub(super) fingerprint: u64,
}

impl Files {
    /// Reads all of them. Fails with `CONFIG_INVALID`.
    pub(super) fn read(config: &TlsConfig) -> Result<Self, Error> {
        Ok(Self {
            cert: read(&config.cert, "cert")?,
            key: read(&config.key, "key")?,
            client_ca: match &config.client_ca {
                Some(file) => Some(read(file, "client_ca")?),
                None => None,
            },
        })
    }

    /// Another number for other contents.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.cert, &self.key, &self.client_ca).hash(&mut hasher);
        hasher.finish()
    }

    /// Puts them together. Fails with `CONFIG_INVALID`.
    pub(super) fn load(&self, config: &TlsConfig) -> Result<Loaded, Error> {
        let chain = certificates(&self.cert, &config.cert, "cert")?;
        let (_, own) = X509Certificate::from_der(&chain[0]).map_err(|error| {
            wrong(&config.cert, "cert", format!("holds no certificate that can be read ({error})"))
        })?;
        let expires_at = end_of(&own);
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| {
            wrong(&config.key, "key", format!("holds no private key that can be read ({error})"))
        })?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = self.verifier(config, &provider)?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions(config.min_version))
            .map_err(|error| invalid(format!("[tls] min_version cannot be had: {error}")))?
            .with_client_cert_verifier(verifier);
        let mut tls = builder.with_single_cert(chain, key).map_err(|error| {
            let cert = config.cert.display();
            wrong(
                &config.key,
                "key",
                format!("does not go with the certificate in {cert}: {error}"),
            )
        })?;
        tls.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Loaded { config: Arc::new(tls), expires_at, fingerprint: self.fingerprint() })
    }

    fn verifier(
        &self,
        config: &TlsConfig,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let (Some(file), Some(text)) = (&config.client_ca, &self.client_ca) else {
            return Ok(WebPkiClientVerifier::no_client_auth());
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates(text, file, "client_ca")? {
            roots.add(authority).map_err(|error| {
                wrong(
                    file,
                    "client_ca",
                    format!("holds a certificate that is no authority: {error}"),
                )
            })?;
        }
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let builder = match config.client_auth {
            ClientAuth::None => return Ok(WebPkiClientVerifier::no_client_auth()),
            ClientAuth::Optional => builder.allow_unauthenticated(),
            ClientAuth::Required => builder,
        };
        builder.build().map_err(|error| wrong(file, "client_ca", error.to_string()))
    }
}

/// When a certificate ends.
pub(super) fn end_of(certificate: &X509Certificate<'_>) -> Timestamp {
    let seconds = certificate.validity().not_after.timestamp();
    Timestamp::from_micros(seconds.saturating_mul(1_000_000))
}

fn versions(min: MinVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_1_2: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    match min {
        MinVersion::V1_2 => &FROM_1_2,
        MinVersion::V1_3 => &FROM_1_2[..1],
    }
}

fn certificates(
    text: &[u8],
    file: &Path,
    key: &str,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(wrong(file, key, "holds no PEM certificate".to_owned())),
        Err(error) => Err(wrong(file, key, format!("is not PEM ({error})"))),
    }
}

fn read(file: &Path, key: &str) -> Result<Vec<u8>, Error> {
    let bytes = std::fs::metadata(file).and_then(|about| {
        if about.len() > FILE_BYTES_MAX {
            return Err(std::io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        std::fs::read(file)
    });
    bytes.map_err(|error| wrong(file, key, format!("cannot be read: {error}")))
}

fn wrong(file: &Path, key: &str, what: String) -> Error {
    invalid(format!("[tls] {key} = \"{}\" {what}", file.display()))
}
