//! Certificates for a PostgreSQL of one's own: an authority, what it has signed for the loopback address, and
//! an authority that has signed nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Writes `ca.pem`, `other-ca.pem`, `server.pem` and `server.key` into a folder; the key only for whom the
/// server runs as, `other` where that is not who runs this.
pub(super) fn write(folder: &Path, other: Option<(u32, u32)>) -> Result<(), Error> {
    let authority = authority("database")?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "database");
    params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?;
    for (name, pem) in [
        ("ca.pem", authority.pem()),
        ("other-ca.pem", self::authority("database")?.pem()),
        ("server.pem", certificate.pem()),
        ("server.key", key.serialize_pem()),
    ] {
        std::fs::write(folder.join(name), pem)?;
    }
    // PostgreSQL takes no key that others can read.
    let key = folder.join("server.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))?;
    if let Some((uid, gid)) = other {
        chown(&key, Some(uid), Some(gid))?;
    }
    Ok(())
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>, Error> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}
