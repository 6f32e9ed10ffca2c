//! Which tokens are good, whose they are, and for how long that is remembered.
//!
//! Owns the rules and the table of verified tokens. A token stays in the table until it ends or any key
//! goes, and is kept there by its digest alone. Beside it a connection knows the token that it showed last.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use longhaul_core::Timestamp;

use super::claims::{Claims, Parts, parse};
use super::{Accounts, KeySet, Shown};
use crate::bounded::Bounded;
use crate::identity::CLOUD_PLATFORM;
use crate::{Identity, Principal, Scopes};

/// Longest life of a token that an account signs for itself. Source: Google's limit of one hour.
const SELF_SIGNED_LIFE_MAX: Duration = Duration::from_secs(3600);
/// The audience of Google's Python clients over REST, once they have asked for an operation to wait or cancel:
/// of all their later tokens, those for starts among them, and for every API. Source: google-api-core,
/// `operations_v1`.
const OPERATIONS_AUDIENCE: &str = "https://longrunning.googleapis.com/";

/// Why a token is not taken. The words are for our own log; none quotes the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It proves nothing.
    Invalid(&'static str),
    /// It was good and is over.
    Expired,
    /// The issuer of this place in [`Rules::issuers`] has no such key, as far as is known here: a newer key set
    /// may have it.
    UnknownKey(usize),
}

/// Somebody whose tokens are taken.
#[derive(Clone, Debug, Default)]
pub struct Issuer {
    /// `iss` of its tokens.
    pub name: String,
    /// `aud` must have one of these.
    pub audiences: Vec<String>,
    /// The claim that lists groups; empty for none.
    pub groups_claim: String,
    /// What a token without `scope` and `scp` is good for: for issuers that know no scopes.
    pub scopes_default: Vec<String>,
}

/// The canonical host of an API for a host that means it; `None` when none does.
pub type HostOf = Arc<dyn Fn(&str) -> Option<Arc<str>> + Send + Sync>;

/// What decides which tokens are good.
#[derive(Clone)]
pub struct Rules {
    /// Whose tokens are taken.
    pub issuers: Vec<Issuer>,
    /// Which hosts a self-signed token may be for.
    pub host_of: HostOf,
    /// How far the clocks of issuers may be off.
    pub leeway: Duration,
    /// Bytes of a token.
    pub token_bytes_max: usize,
    /// Verified tokens that are remembered.
    pub remembered_max: usize,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("issuers", &self.issuers).finish_non_exhaustive()
    }
}

/// Checks tokens.
pub struct Verifier {
    rules: Rules,
    /// One for each issuer, in their order.
    keys: Vec<ArcSwap<KeySet>>,
    accounts: ArcSwap<Accounts>,
    /// Goes up whenever a key may have gone; what was remembered before no longer counts.
    generation: AtomicU64,
    remembered: Bounded<Remembered>,
}

/// What is known of a token that was good once.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    digest: [u8; 32],
    identity: Arc<Identity>,
    generation: u64,
    not_before: Option<Timestamp>,
}

impl Verifier {
    /// No issuer has keys yet, and no account is registered.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            keys: rules.issuers.iter().map(|_| ArcSwap::default()).collect(),
            accounts: ArcSwap::default(),
            generation: AtomicU64::new(0),
            remembered: Bounded::new(rules.remembered_max),
            rules,
        }
    }

    /// The rules it was made with.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Replaces the keys of the issuer at `place`. What was verified with a key that goes is verified anew.
    pub fn set_keys(&self, place: usize, keys: KeySet) {
        let Some(slot) = self.keys.get(place) else { return };
        let gone = !slot.load().all_in(&keys);
        slot.store(Arc::new(keys));
        if gone {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether the issuer at `place` has any key.
    #[must_use]
    pub fn has_keys(&self, place: usize) -> bool {
        self.keys.get(place).is_some_and(|keys| !keys.load().is_empty())
    }

    /// Replaces the accounts that may sign for themselves.
    pub fn set_accounts(&self, accounts: Accounts) {
        self.accounts.store(Arc::new(accounts));
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Whose token this is.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Identity>, Fault> {
        self.remembered(token, now).map(|known| known.identity)
    }

    /// The same for a call of a connection that has `shown` something before: the token of its last call is
    /// known without its digest.
    pub fn verify_shown(
        &self,
        token: &str,
        shown: &Shown,
        now: Timestamp,
    ) -> Result<Arc<Identity>, Fault> {
        if let Some(known) = shown.again(token)
            && known.generation == self.generation.load(Ordering::Acquire)
        {
            return self.in_time(known, now).map(|known| known.identity);
        }
        let known = self.remembered(token, now)?;
        shown.keep(token, known.clone());
        Ok(known.identity)
    }

    /// What is known of a token, from the table or by checking it. It is good at this moment.
    fn remembered(&self, token: &str, now: Timestamp) -> Result<Remembered, Fault> {
        if token.len() > self.rules.token_bytes_max {
            return Err(Fault::Invalid("the token is longer than auth.token_bytes_max"));
        }
        let generation = self.generation.load(Ordering::Acquire);
        let digest = digest_of(token);
        let hash = u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"));
        let same = |kept: &Remembered| kept.digest == digest;
        if let Some(known) = self.remembered.get(hash, same, Remembered::clone)
            && known.generation == generation
        {
            return self.in_time(known, now);
        }
        let (identity, not_before) = self.check(token, now)?;
        let known = Remembered { digest, identity: Arc::new(identity), generation, not_before };
        // The last moment counts, too: a token that is over is not worth a place.
        let known = self.in_time(known, now)?;
        self.remembered.put(hash, same, known.clone());
        Ok(known)
    }

    fn in_time(&self, known: Remembered, now: Timestamp) -> Result<Remembered, Fault> {
        if known.identity.expired(now) {
            return Err(Fault::Expired);
        }
        if known.not_before.is_some_and(|begin| now + self.rules.leeway < begin) {
            return Err(Fault::Invalid("the token is not valid yet"));
        }
        Ok(known)
    }

    fn check(&self, token: &str, now: Timestamp) -> Result<(Identity, Option<Timestamp>), Fault> {
        // An account's own tokens name it as the issuer, so the claim's name is the issuer's at most.
        let first = parse(token, self.rules.token_bytes_max, "").map_err(Fault::Invalid)?;
        let place =
            self.rules.issuers.iter().position(|issuer| *issuer.name == *first.claims.issuer);
        match place {
            Some(place) => self.issued(token, place),
            None => self.self_signed(&first, now),
        }
    }

    /// A token of a configured issuer.
    fn issued(&self, token: &str, place: usize) -> Result<(Identity, Option<Timestamp>), Fault> {
        let issuer = &self.rules.issuers[place];
        let parts = parse(token, self.rules.token_bytes_max, &issuer.groups_claim)
            .map_err(Fault::Invalid)?;
        let keys = self.keys[place].load();
        let key =
            keys.find(parts.kid.as_deref(), parts.algorithm).ok_or(Fault::UnknownKey(place))?;
        signed(&parts, key)?;
        let claims = &parts.claims;
        if !claims.audiences.iter().any(|is| issuer.audiences.iter().any(|want| **want == **is)) {
            return Err(Fault::Invalid("the token is for another audience"));
        }
        let scopes = match &claims.scopes {
            Some(scopes) => scopes.iter().cloned().collect(),
            None => issuer.scopes_default.iter().map(|scope| scope.as_str().into()).collect(),
        };
        let mut identity = self.identity(claims, Scopes::Listed(scopes))?;
        let (principal, sets) = principal(claims, &issuer.name)?;
        identity.principal = principal;
        identity.sets = sets;
        identity.groups = claims.groups.iter().cloned().collect();
        Ok((identity, claims.not_before))
    }

    /// A token that a registered account signed for itself: with an API as its audience, or with scopes.
    fn self_signed(
        &self,
        parts: &Parts<'_>,
        now: Timestamp,
    ) -> Result<(Identity, Option<Timestamp>), Fault> {
        let claims = &parts.claims;
        let accounts = self.accounts.load();
        let email = claims.issuer.to_ascii_lowercase();
        let keys = accounts.keys(&email).ok_or(Fault::Invalid(
            "the token's issuer is neither configured nor a registered account",
        ))?;
        let key = keys
            .find(parts.kid.as_deref(), parts.algorithm)
            .ok_or(Fault::Invalid("the account has no such key registered"))?;
        signed(parts, key)?;
        if claims.subject != claims.issuer {
            return Err(Fault::Invalid("an account can sign for itself alone: sub is not iss"));
        }
        let by_audience = match claims.audiences.as_slice() {
            [] => None,
            [audience] if **audience == *OPERATIONS_AUDIENCE => {
                Some(Scopes::Listed([Arc::from(CLOUD_PLATFORM)].into()))
            }
            [audience] => {
                let host = audience.strip_prefix("https://").unwrap_or_default();
                let host = (self.rules.host_of)(host.strip_suffix('/').unwrap_or(host));
                let host =
                    host.ok_or(Fault::Invalid("the token's audience is no API of this server"))?;
                Some(Scopes::Host(host))
            }
            [_, _, ..] => return Err(Fault::Invalid("a self-signed token has one audience")),
        };
        let listed =
            claims.scopes.as_ref().map(|all| Scopes::Listed(all.iter().cloned().collect()));
        let scopes = listed
            .or(by_audience)
            .ok_or(Fault::Invalid("the token has neither audience nor scope"))?;
        let mut identity = self.identity(claims, scopes)?;
        let latest = now + SELF_SIGNED_LIFE_MAX + self.rules.leeway + self.rules.leeway;
        if identity.expires_at.is_some_and(|end| end > latest) {
            return Err(Fault::Invalid("a self-signed token may be good for an hour at most"));
        }
        identity.principal = Principal::ServiceAccount(email.into());
        Ok((identity, claims.not_before))
    }

    /// What both kinds have in common. The caller says who it is.
    fn identity(&self, claims: &Claims, scopes: Scopes) -> Result<Identity, Fault> {
        let end = claims.expires_at.ok_or(Fault::Invalid("the token has no end"))?;
        let mut identity = Identity::of(Principal::Anonymous);
        identity.subject = claims.subject.clone();
        identity.scopes = scopes;
        identity.expires_at = Some(end + self.rules.leeway);
        Ok(identity)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("rules", &self.rules).finish_non_exhaustive()
    }
}

fn signed(parts: &Parts<'_>, key: &jsonwebtoken::DecodingKey) -> Result<(), Fault> {
    let message = parts.signed.as_bytes();
    match jsonwebtoken::crypto::verify(parts.signature, message, key, parts.algorithm) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(Fault::Invalid("the token's signature is wrong")),
    }
}

/// The sets that somebody is in.
type Sets = Arc<[Arc<str>]>;

/// Whom an issuer's token means: an address where it has a good one, or a name within the issuer.
fn principal(claims: &Claims, issuer: &str) -> Result<(Principal, Sets), Fault> {
    let place = issuer.trim_start_matches("https://").trim_end_matches('/');
    let mut sets = vec![Arc::from(format!("principalSet://{place}/*"))];
    let groups = claims.groups.iter();
    sets.extend(groups.map(|group| Arc::from(format!("principalSet://{place}/group/{group}"))));
    let email = claims.email.as_ref().filter(|_| claims.email_verified != Some(false));
    if let Some(email) = email {
        let member = match email.to_ascii_lowercase().ends_with(".gserviceaccount.com") {
            true => format!("serviceAccount:{email}"),
            false => format!("user:{email}"),
        };
        let principal = Principal::from_member(&member);
        let principal = principal.ok_or(Fault::Invalid("the token's email is no address"))?;
        return Ok((principal, sets.into()));
    }
    if claims.subject.is_empty() {
        return Err(Fault::Invalid("the token has neither a verified email nor a subject"));
    }
    let name = format!("principal://{place}/subject/{}", claims.subject);
    Ok((Principal::Federated(name.into()), sets.into()))
}

fn digest_of(token: &str) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
