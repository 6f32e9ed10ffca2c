//! A database's URL, taken apart: what the driver understands, and TLS as libpq names it.

use std::sync::Arc;

use longhaul_core::Error;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::faults::wrong;

/// Where to connect, and how.
#[derive(Clone)]
pub(super) struct Address {
    pub config: tokio_postgres::Config,
    pub tls: MakeRustlsConnect,
}

/// How much of the server's certificate is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// Nothing: encrypted, but to whomever answers.
    Nothing,
    /// That an authority we trust has signed it.
    Authority,
    /// That, and that it is for this host.
    Host,
}

impl Address {
    /// Reads `postgres://user:password@host:port/database?…`, with `sslmode` and `sslrootcert` as libpq
    /// has them. Fails with `CONFIG_INVALID`; the message has no password.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        if !base.starts_with("postgres://") && !base.starts_with("postgresql://") {
            return Err(wrong("the address begins with postgres:// or postgresql://"));
        }
        let (mut mode, mut root, mut rest) = (None, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value.to_owned()),
                Some(("sslrootcert", value)) => root = Some(decoded(value)?),
                Some(_) | None => rest.push(pair),
            }
        }
        let separator = if rest.is_empty() { "" } else { "?" };
        let mut config: tokio_postgres::Config = format!("{base}{separator}{}", rest.join("&"))
            .parse()
            .map_err(|error: tokio_postgres::Error| wrong(describe(&error)))?;
        let (mode, check) = match mode.as_deref() {
            Some("disable") => (SslMode::Disable, Check::Nothing),
            None | Some("prefer") => (SslMode::Prefer, Check::Nothing),
            Some("require") if root.is_some() => (SslMode::Require, Check::Authority),
            Some("require") => (SslMode::Require, Check::Nothing),
            Some("verify-ca") => (SslMode::Require, Check::Authority),
            Some("verify-full") => (SslMode::Require, Check::Host),
            Some(other) => {
                return Err(wrong(format!(
                    "sslmode {other:?} is none of disable, prefer, require, verify-ca, verify-full"
                )));
            }
        };
        config.ssl_mode(mode);
        Ok(Self { config, tls: MakeRustlsConnect::new(client_config(check, root.as_deref())?) })
    }
}

/// The cause too: the driver's own message hides it.
fn describe(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn decoded(value: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err(wrong("sslrootcert has a % that two hexadecimal digits do not follow"));
        };
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| wrong("sslrootcert is not UTF-8"))
}

fn client_config(check: Check, root: Option<&str>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(format!("TLS cannot be set up: {error}")))?;
    let verifier: Arc<dyn ServerCertVerifier> = match check {
        Check::Nothing => Arc::new(Lenient { provider, authority: None }),
        Check::Authority | Check::Host => {
            let Some(file) = root else {
                return Err(wrong(
                    "sslmode verify-ca and verify-full need sslrootcert=FILE with the authority's certificates",
                ));
            };
            let authority =
                WebPkiServerVerifier::builder_with_provider(roots(file)?, provider.clone())
                    .build()
                    .map_err(|error| wrong(format!("{file}: {error}")))?;
            if check == Check::Host {
                authority
            } else {
                Arc::new(Lenient { provider, authority: Some(authority) })
            }
        }
    };
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn roots(file: &str) -> Result<Arc<RootCertStore>, Error> {
    let mut store = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file)
        .map_err(|error| wrong(format!("sslrootcert {file} cannot be read: {error}")))?;
    for certificate in certificates {
        let certificate =
            certificate.map_err(|error| wrong(format!("sslrootcert {file}: {error}")))?;
        store.add(certificate).map_err(|error| wrong(format!("sslrootcert {file}: {error}")))?;
    }
    if store.is_empty() {
        return Err(wrong(format!("sslrootcert {file} has no certificate")));
    }
    Ok(Arc::new(store))
}

/// Looks at less than everything, as the operator asked: never at the host's name.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    authority: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(authority) = &self.authority else { return Ok(ServerCertVerified::assertion()) };
        let verified = authority.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use longhaul_core::Reason;

    use super::*;

    #[track_caller]
    fn refused(url: &str, because: &str) {
        let error = Address::parse(url).err().expect(url);
        assert_eq!(error.reason, Reason::ConfigInvalid);
        assert!(error.message.contains(because), "{}", error.message);
        assert!(!error.message.contains("secret"), "{}", error.message);
    }

    #[test]
    fn modes_are_those_of_libpq() {
        let mode = |query: &str| {
            let address = Address::parse(&format!("postgres://u:secret@h/d{query}")).unwrap();
            address.config.get_ssl_mode()
        };
        assert_eq!(mode(""), SslMode::Prefer);
        assert_eq!(mode("?sslmode=disable&connect_timeout=3"), SslMode::Disable);
        assert_eq!(mode("?sslmode=require"), SslMode::Require);
    }

    #[test]
    fn a_wrong_address_is_refused_without_its_password() {
        refused("mysql://u:secret@h/d", "postgres://");
        refused("postgres://u:secret@h/d?sslmode=strict", "sslmode");
        refused("postgres://u:secret@h/d?sslmode=verify-full", "sslrootcert=FILE");
        refused(
            "postgres://u:secret@h/d?sslmode=verify-full&sslrootcert=/no/such%20file",
            "such file",
        );
        refused("postgres://u:secret@h/d?sslrootcert=%2", "hexadecimal");
        refused("postgres://u:secret@h:port/d", "port");
    }
}
