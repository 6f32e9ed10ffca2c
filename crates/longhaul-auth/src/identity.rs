//! One caller, as far as a server knows: who it is, what its credential is good for, and until when.

use std::fmt;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::Arc;

use longhaul_core::Timestamp;

/// Who a caller is. Source: the members of IAM policies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody was asked; only where access control is off.
    Anonymous,
    /// A person, by e-mail address in lower case.
    User(Arc<str>),
    /// A program, by e-mail address in lower case.
    ServiceAccount(Arc<str>),
    /// Somebody of another identity system, by the whole name: `principal://…`. Certificates that are
    /// mapped to no address are of this kind.
    Federated(Arc<str>),
}

impl Principal {
    /// The name for people and records: an address, or `principal://…`; empty for anonymous.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        match self {
            Self::Anonymous => "".into(),
            Self::User(name) | Self::ServiceAccount(name) | Self::Federated(name) => name.clone(),
        }
    }

    /// Reads what policies call a single member: `user:a@b`, `serviceAccount:a@b` or `principal://…`.
    #[must_use]
    pub fn from_member(text: &str) -> Option<Self> {
        let address = |text: &str| {
            let fits =
                text.len() <= 320 && text.split('@').filter(|part| !part.is_empty()).count() == 2;
            fits.then(|| Arc::from(text.to_ascii_lowercase()))
        };
        if let Some(email) = text.strip_prefix("user:") {
            return Some(Self::User(address(email)?));
        }
        if let Some(email) = text.strip_prefix("serviceAccount:") {
            return Some(Self::ServiceAccount(address(email)?));
        }
        let rest = text.strip_prefix("principal://")?;
        (!rest.is_empty()).then(|| Self::Federated(text.into()))
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::User(email) => write!(f, "user:{email}"),
            Self::ServiceAccount(email) => write!(f, "serviceAccount:{email}"),
            Self::Federated(name) => f.write_str(name),
        }
    }
}

/// Which methods a credential is good for, whatever its holder may do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scopes {
    /// All: scopes are a matter of tokens, and none was asked for.
    All,
    /// Those of a token.
    Listed(Arc<[Arc<str>]>),
    /// As `cloud-platform`, for one API's host alone: what a self-signed token with that API as its
    /// audience is worth.
    Host(Arc<str>),
}

impl Scopes {
    /// Whether one of `wanted` is there. `host` is the API's. A method that names no scope takes any.
    #[must_use]
    pub fn allow(&self, wanted: &[String], host: &str) -> bool {
        match self {
            Self::All => true,
            Self::Listed(scopes) => {
                wanted.is_empty()
                    || wanted.iter().any(|want| scopes.iter().any(|scope| **scope == **want))
            }
            Self::Host(only) => {
                &**only == host
                    && (wanted.is_empty() || wanted.iter().any(|want| want == CLOUD_PLATFORM))
            }
        }
    }
}

/// The scope that all APIs of Google Cloud take.
pub const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

/// One caller, proven.
///
/// Made by whoever checked a credential; shared by all calls that come with the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub principal: Principal,
    /// The name within the issuer: `sub` of a token, the subject of a certificate; may be empty.
    pub subject: Arc<str>,
    /// Addresses of groups it belongs to by its credential; those of the policy file come on top.
    pub groups: Arc<[Arc<str>]>,
    /// Further names by which policies may mean it: `principalSet://…`.
    pub sets: Arc<[Arc<str>]>,
    /// What the credential is good for.
    pub scopes: Scopes,
    /// When the credential ends; a decision made with it never lasts longer.
    pub expires_at: Option<Timestamp>,
}

impl Identity {
    /// Nobody in particular: what every caller is where access control is off.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::of(Principal::Anonymous)
    }

    /// This principal, with every scope and without end.
    #[must_use]
    pub fn of(principal: Principal) -> Self {
        Self {
            principal,
            subject: "".into(),
            groups: Arc::default(),
            sets: Arc::default(),
            scopes: Scopes::All,
            expires_at: None,
        }
    }

    /// What operations, leases and records keep of it: [`Principal::name`].
    #[must_use]
    pub fn actor(&self) -> Arc<str> {
        self.principal.name()
    }

    /// Whether nobody was asked.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.principal == Principal::Anonymous
    }

    /// The part after the `@` of its address; `None` without one.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        match &self.principal {
            Principal::User(email) | Principal::ServiceAccount(email) => {
                email.rsplit_once('@').map(|(_, domain)| domain)
            }
            Principal::Anonymous | Principal::Federated(_) => None,
        }
    }

    /// Whether the credential is over.
    #[must_use]
    pub fn expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// Whether policies cannot tell the two apart.
    #[must_use]
    pub fn is_same_member(&self, other: &Self) -> bool {
        self.principal == other.principal && self.groups == other.groups && self.sets == other.sets
    }

    /// A number for everything that decisions depend on but scopes and time. Equal for equal callers within
    /// one process; means nothing outside.
    #[must_use]
    pub fn fingerprint(&self, seed: &foldhash::quality::RandomState) -> u64 {
        let mut hasher = seed.build_hasher();
        self.principal.hash(&mut hasher);
        self.groups.hash(&mut hasher);
        self.sets.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_and_printed_alike() {
        for text in [
            "user:ann@example.com",
            "serviceAccount:ci@p.iam.gserviceaccount.com",
            "principal://x/subject/y",
        ] {
            assert_eq!(Principal::from_member(text).unwrap().to_string(), text);
        }
        let upper = Principal::from_member("user:Ann@Example.com").unwrap();
        assert_eq!(upper, Principal::User("ann@example.com".into()));
        for wrong in [
            "",
            "ann@example.com",
            "user:",
            "user:@b",
            "user:a@",
            "user:a@b@c",
            "principal://",
            "allUsers",
        ] {
            assert_eq!(Principal::from_member(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_scope_for_one_host_is_good_there_alone() {
        let own = |scope: &str| vec![format!("https://www.googleapis.com/auth/{scope}")];
        let host = Scopes::Host("a.googleapis.com".into());
        assert!(host.allow(&own("cloud-platform"), "a.googleapis.com"));
        assert!(!host.allow(&own("cloud-platform"), "b.googleapis.com"));
        let read = Scopes::Listed([Arc::from(own("dataproc.read-only").remove(0))].into());
        assert!(read.allow(&own("dataproc.read-only"), "any"));
        assert!(!read.allow(&own("cloud-platform"), "any"));
        assert!(read.allow(&[], "any"));
        assert!(!Scopes::Listed(Arc::default()).allow(&own("cloud-platform"), "any"));
    }

    #[test]
    fn an_identity_knows_its_domain_and_its_end() {
        let mut ann = Identity::of(Principal::User("ann@example.com".into()));
        assert_eq!(ann.domain(), Some("example.com"));
        assert!(!ann.expired(Timestamp::MAX));
        ann.expires_at = Some(Timestamp::from_micros(5));
        assert!(ann.expired(Timestamp::from_micros(5)));
        assert!(!ann.expired(Timestamp::from_micros(4)));
        assert_eq!(&*Identity::anonymous().actor(), "");
    }
}
