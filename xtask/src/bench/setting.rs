//! How a measured server is set up beyond its defaults, and what its clients must show.

use std::fmt;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderValue;
use serde_json::json;

use super::{Error, Result};

/// How a server is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// Nobody is asked, nothing is recorded.
    Plain,
    /// As plain, but each call shows a token, as official clients do whether or not anybody asks: reading its
    /// header is the protocol's cost.
    Shown,
    /// Each call shows a token, and a policy says what it may.
    Signed,
    /// Changes are recorded; synced once a second.
    Audited,
    /// Changes are recorded and synced before they are made.
    AuditedAndSynced,
}

/// A server about to be started.
pub(super) struct Prepared {
    /// More of its configuration.
    pub configuration: String,
    /// What its clients show with each call.
    pub authorization: Option<HeaderValue>,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => Ok(()),
            Self::Shown | Self::Signed | Self::Audited | Self::AuditedAndSynced => {
                write!(f, ", {}", self.label())
            }
        }
    }
}

const OFF: &str = "[auth]\nmode = \"off\"\n";

impl Setting {
    /// What access control is compared over.
    pub const ACCESS: [Self; 3] = [Self::Plain, Self::Shown, Self::Signed];
    /// What the audit log is compared over.
    pub const AUDIT: [Self; 3] = [Self::Plain, Self::Audited, Self::AuditedAndSynced];

    /// Its name, also of a folder.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Shown => "off, token sent",
            Self::Signed => "jwt",
            Self::Audited => "audited",
            Self::AuditedAndSynced => "audited and synced",
        }
    }

    /// The settings that its processor time is divided by, and what to call each: for `Signed` first the one
    /// whose clients send the same.
    pub const fn beside(self) -> &'static [(Self, &'static str)] {
        match self {
            Self::Plain => &[],
            Self::Shown | Self::Audited | Self::AuditedAndSynced => &[(Self::Plain, "without")],
            Self::Signed => {
                &[(Self::Shown, "off, same token sent"), (Self::Plain, "off, no token sent")]
            }
        }
    }

    /// Writes what the server needs into `folder`.
    pub fn prepare(self, folder: &Path) -> Result<Prepared> {
        let log = folder.join("audit.jsonl").display().to_string();
        let audit =
            |sync: &str| format!("{OFF}[audit]\ndestination = \"file:{log}\"\nsync = \"{sync}\"\n");
        Ok(match self {
            Self::Plain => Prepared { configuration: OFF.to_owned(), authorization: None },
            Self::Shown => Prepared { configuration: OFF.to_owned(), ..signed(folder)? },
            Self::Signed => signed(folder)?,
            Self::Audited => Prepared { configuration: audit("interval"), authorization: None },
            Self::AuditedAndSynced => {
                Prepared { configuration: audit("always"), authorization: None }
            }
        })
    }
}

const ISSUER: &str = "https://issuer.bench.example";
const AUDIENCE: &str = "https://longhaul.bench.example";
const CALLER: &str = "bench@example.com";
/// Longer than any run.
const TOKEN_SECONDS: u64 = 24 * 3600;
/// Callers are counted, as they are by default, but never refused.
const SHARES: &str = "[shares]\nper_principal = { calls_per_second = 1000000, cancels_per_second = 1000000, held_max = 1000000 }\n";

/// Key set, policy and token of one caller who may do everything.
fn signed(folder: &Path) -> Result<Prepared> {
    let random = SystemRandom::new();
    let key = Ed25519KeyPair::generate_pkcs8(&random).map_err(|_| "no key can be made")?;
    let key = Ed25519KeyPair::from_pkcs8(key.as_ref())
        .map_err(|error| Error::from(format!("the key just made is none: {error}")))?;
    let [keys, policy] = ["keys.json", "policy.yaml"].map(|name| folder.join(name));
    let public = BASE64_URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
    let set = json!({ "keys": [
        { "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "bench", "x": public },
    ]});
    std::fs::write(&keys, set.to_string())?;
    let bindings = json!({ "bindings": [
        { "role": "roles/owner", "members": [format!("user:{CALLER}")] },
    ]});
    std::fs::write(&policy, bindings.to_string())?;
    let now = std::fs::metadata(&policy)?.modified()?.duration_since(std::time::UNIX_EPOCH)?;
    let claims = json!({
        "iss": ISSUER,
        "sub": "bench",
        "aud": AUDIENCE,
        "email": CALLER,
        "email_verified": true,
        "iat": now.as_secs(),
        "exp": now.as_secs() + TOKEN_SECONDS,
        "scope": "https://www.googleapis.com/auth/cloud-platform",
    });
    let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": "bench" });
    let [header, claims] =
        [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    let signature = key.sign(format!("{header}.{claims}").as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref());
    let configuration = format!(
        "[auth]\nmode = \"jwt\"\npolicy = {:?}\n\n[[auth.issuer]]\nname = \"{ISSUER}\"\naudiences = [\"{AUDIENCE}\"]\njwks_file = {:?}\n\n{SHARES}",
        policy.display().to_string(),
        keys.display().to_string(),
    );
    let token = format!("Bearer {header}.{claims}.{signature}");
    Ok(Prepared { configuration, authorization: Some(token.parse()?) })
}
