//! One authority and what it signs: the certificates that clients of every language accept.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use longhaul_server::clock::{Clock as _, SystemClock};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::failure::{Exit, Failure};
use crate::files;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long the authority is believed.
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3650);
/// How long a certificate is good: some clients refuse longer ones. Source: Apple, HT210176.
const LIFE: Duration = DAY.saturating_mul(820);
/// Certificates begin so long ago, for clocks that are behind.
const BEGUN: Duration = DAY;

/// A certificate and its key, PEM.
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

/// An authority.
pub struct Authority {
    cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, with a key of its own.
    pub fn new() -> Result<Self, Failure> {
        let mut params = params(AUTHORITY_LIFE);
        params.distinguished_name.push(DnType::CommonName, "Longhaul local authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(unmade)?;
        let cert = params.self_signed(&key).map_err(unmade)?.pem();
        Ok(Self { cert, issuer: Issuer::new(params, key) })
    }

    /// One that was made before.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, Failure> {
        let text = files::read(cert)?;
        let wrong = |what: &Path| {
            let shown = what.display().to_string();
            move |error: rcgen::Error| Failure::usage(format!("{shown} cannot be used: {error}"))
        };
        let pair = KeyPair::from_pem(&files::read(key)?).map_err(wrong(key))?;
        let issuer = Issuer::from_ca_cert_pem(&text, pair).map_err(wrong(cert))?;
        Ok(Self { cert: text, issuer })
    }

    /// Its certificate, PEM.
    pub fn cert(&self) -> String {
        self.cert.clone()
    }

    /// Its key, PEM.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for a server at these names and addresses.
    pub fn server(&self, hosts: &[&str]) -> Result<Pair, Failure> {
        let mut params = params(LIFE);
        params.distinguished_name.push(DnType::CommonName, "Longhaul server");
        for host in hosts {
            let name = match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(ascii(host)?),
            };
            if !params.subject_alt_names.contains(&name) {
                params.subject_alt_names.push(name);
            }
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// A certificate for a client: its name stands where names of its kind belong.
    pub fn client(&self, name: &str) -> Result<Pair, Failure> {
        let mut params = params(LIFE);
        params.distinguished_name.push(DnType::CommonName, name);
        if name.contains("://") {
            params.subject_alt_names.push(SanType::URI(ascii(name)?));
        } else if name.contains('@') {
            params.subject_alt_names.push(SanType::Rfc822Name(ascii(name)?));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Pair, Failure> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Python from 3.13 on demands it.
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(unmade)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(unmade)?;
        Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
    }
}

fn params(life: Duration) -> CertificateParams {
    let since_epoch = SystemClock::new().now().as_micros();
    let since_epoch = Duration::from_micros(u64::try_from(since_epoch).unwrap_or(0));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = epoch + since_epoch.saturating_sub(BEGUN);
    params.not_after = epoch + since_epoch + life;
    params
}

fn ascii<T: for<'a> TryFrom<&'a str>>(name: &str) -> Result<T, Failure> {
    let wrong = || {
        Failure::usage(format!(
            "{name:?} cannot stand in a certificate; write it in ASCII without blanks"
        ))
    };
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_graphic()) {
        return Err(wrong());
    }
    T::try_from(name).map_err(|_| wrong())
}

fn unmade(error: rcgen::Error) -> Failure {
    Failure::new(Exit::Failed, format!("the certificate cannot be made: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_certificate_can_carry_are_refused() {
        let authority = Authority::new().unwrap();
        for wrong in ["", "a b", "büro", "a\n"] {
            assert_eq!(authority.server(&[wrong]).err().unwrap().exit, Exit::Usage, "{wrong:?}");
        }
        assert!(authority.client("spiffe://example/x").is_ok());
        assert!(authority.client("ann@example.com").is_ok());
        assert!(authority.client("Ann Example").is_ok());
        assert!(authority.client("ä@b").is_err());
    }
}
