//! Who is at the other end of a connection, as far as the connection itself shows.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use longhaul_auth::token::Shown;
use longhaul_core::Timestamp;
use serde::Deserialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::files::end_of;

/// Longest name of a certificate that is taken, in bytes.
const NAME_BYTES_MAX: usize = 1_024;

/// The other end of a connection. Each request carries it among its extensions.
#[derive(Debug)]
pub struct Peer {
    /// Where it calls from.
    pub address: SocketAddr,
    /// Whether the connection is TLS.
    pub is_tls: bool,
    /// The certificate that it showed and that was found good.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The token of its last call.
    pub shown: Shown,
}

/// A client certificate whose chain and validity were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Who it speaks for, by the configured kinds of names.
    pub name: CertificateName,
    /// Its subject as text, for records.
    pub subject: String,
    /// Its end: a connection may live longer.
    pub expires_at: Timestamp,
    /// SHA-256 of its bytes, base64url without padding, as `cnf.x5t#S256` has it. Source: RFC 8705, 3.1.
    pub thumbprint: String,
}

/// One name of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateName {
    /// Where in the certificate it stands.
    pub kind: NameKind,
    /// The name.
    pub value: String,
}

/// Where in a certificate a name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameKind {
    /// A subject alternative name: an e-mail address.
    Email,
    /// A subject alternative name: a URI, such as a SPIFFE ID.
    Uri,
    /// A subject alternative name: a host name.
    Dns,
    /// The subject's common name.
    CommonName,
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Email => "email",
            Self::Uri => "uri",
            Self::Dns => "dns",
            Self::CommonName => "common_name",
        })
    }
}

impl ClientCertificate {
    /// Reads a certificate whose chain was checked. Fails when none of the `wanted` kinds of names is in
    /// it, and when it has ended: a resumed session does not check that again.
    pub(super) fn read(der: &[u8], wanted: &[NameKind], now: Timestamp) -> Result<Self, String> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| format!("the certificate: {error}"))?;
        let expires_at = end_of(&certificate);
        if expires_at <= now {
            return Err("the client's certificate has expired".to_owned());
        }
        let found = wanted.iter().find_map(|kind| {
            let value = name(&certificate, *kind)?;
            Some(CertificateName { kind: *kind, value })
        });
        let name = found.ok_or_else(|| {
            let wanted: Vec<_> = wanted.iter().map(NameKind::to_string).collect();
            format!("the client's certificate has no name of kind {}", wanted.join(", "))
        })?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        Ok(Self {
            name,
            subject: certificate.subject().to_string(),
            expires_at,
            thumbprint: URL_SAFE_NO_PAD.encode(digest),
        })
    }
}

/// The first name of a kind that is fit to be an identity: no blanks, nothing a terminal obeys.
fn name(certificate: &X509Certificate<'_>, kind: NameKind) -> Option<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let mut found = names.iter().filter_map(|name| match (kind, name) {
        (NameKind::Email, GeneralName::RFC822Name(value))
        | (NameKind::Uri, GeneralName::URI(value))
        | (NameKind::Dns, GeneralName::DNSName(value)) => Some(*value),
        _ => None,
    });
    let mut common = certificate.subject().iter_common_name();
    let value = match kind {
        NameKind::Email | NameKind::Uri | NameKind::Dns => found.next(),
        NameKind::CommonName => common.next().and_then(|name| name.as_str().ok()),
    }?;
    let is_fit = !value.is_empty()
        && value.len() <= NAME_BYTES_MAX
        && value.chars().all(|c| c.is_ascii_graphic());
    is_fit.then(|| value.to_owned())
}
