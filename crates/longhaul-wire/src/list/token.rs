//! Page tokens: where a list goes on, sealed so that nobody can read, change or move one to another
//! list. Source: AIP-158: opaque, URL-safe, bound to the request's other arguments.

use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use longhaul_core::{Error, Reason, Timestamp};

/// How long a token can be used. Source: AIP-158, "about three days".
const LIFETIME: Duration = Duration::from_secs(3 * 24 * 3600);
/// Longest token that is looked at, in characters; ours are below 200.
const TOKEN_CHARS_MAX: usize = 1024;
/// Format of what is sealed; a token of another one is refused.
const VERSION: u8 = 1;

/// The key that seals page tokens; every server of one store needs the same.
pub struct TokenKey(RandomizedNonceKey);

/// The arguments that a token is bound to; the page size may change between pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListArguments<'a> {
    /// Name of the API.
    pub api: &'a str,
    /// Parent of the operations.
    pub parent: &'a str,
    /// The filter as it came.
    pub filter: &'a str,
}

impl TokenKey {
    /// Takes 32 secret, random bytes.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(RandomizedNonceKey::new(&AES_256_GCM, secret).expect("a key of 32 bytes fits"))
    }

    /// Makes the token for the page that begins at `cursor`, whose bytes only the store reads.
    ///
    /// Fails with `INTERNAL` when the system has no randomness.
    pub fn seal(
        &self,
        cursor: &[u8],
        arguments: &ListArguments<'_>,
        now: Timestamp,
    ) -> Result<String, Error> {
        let mut sealed = Vec::with_capacity(9 + cursor.len() + NONCE_LEN + AES_256_GCM.tag_len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&now.as_micros().to_be_bytes());
        sealed.extend_from_slice(cursor);
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(arguments.bytes()), &mut sealed)
            .map_err(|cause| {
                Error::new(Reason::Internal, "the page token cannot be made").caused_by(cause)
            })?;
        sealed.extend_from_slice(nonce.as_ref());
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// The cursor in a token that this key sealed for the same arguments.
    ///
    /// Fails with `INVALID_PAGE_TOKEN` for any other token, and for one older than three days.
    pub fn open(
        &self,
        token: &str,
        arguments: &ListArguments<'_>,
        now: Timestamp,
    ) -> Result<Vec<u8>, Error> {
        let invalid = |why: &str| {
            Err(Error::new(
                Reason::InvalidPageToken,
                format!("the page token {why}; start again without it"),
            )
            .at_field("page_token", format!("{why}; start again without it")))
        };
        let other = "is not of this server, or belongs to a list with another parent or filter";
        if token.len() > TOKEN_CHARS_MAX {
            return invalid(other);
        }
        let Ok(mut sealed) = URL_SAFE_NO_PAD.decode(token) else { return invalid(other) };
        let Some(split) = sealed.len().checked_sub(NONCE_LEN) else { return invalid(other) };
        let nonce = sealed.split_off(split);
        let Ok(nonce) = Nonce::try_assume_unique_for_key(&nonce) else { return invalid(other) };
        let opened = self.0.open_in_place(nonce, Aad::from(arguments.bytes()), &mut sealed);
        let Ok(&mut [version, ref rest @ ..]) = opened else { return invalid(other) };
        let Some((issued, cursor)) = rest.split_first_chunk::<8>() else { return invalid(other) };
        if version != VERSION {
            return invalid("was made by another version of the server");
        }
        if now.since(Timestamp::from_micros(i64::from_be_bytes(*issued))) > LIFETIME {
            return invalid("is older than three days");
        }
        Ok(cursor.to_vec())
    }
}

impl ListArguments<'_> {
    /// Each argument with its length before it, so that no two sets look alike.
    fn bytes(&self) -> Vec<u8> {
        let parts = [self.api, self.parent, self.filter];
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
    const LIST: ListArguments<'_> = ListArguments { api: "a", parent: "p/b", filter: "done=true" };

    #[track_caller]
    fn refused(key: &TokenKey, token: &str, arguments: &ListArguments<'_>, now: Timestamp) {
        let error = key.open(token, arguments, now).unwrap_err();
        assert_eq!(error.reason, Reason::InvalidPageToken);
        assert!(!error.message.contains(token) || token.is_empty());
    }

    #[test]
    fn a_page_token_opens_only_for_the_list_it_was_made_for() {
        let key = TokenKey::new(&[7; 32]);
        let token = key.seal(b"cursor", &LIST, NOW).unwrap();
        assert!(token.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'));
        assert_eq!(key.open(&token, &LIST, NOW).unwrap(), b"cursor");
        assert_ne!(key.seal(b"cursor", &LIST, NOW).unwrap(), token, "tokens are not guessable");
        refused(&key, &token, &ListArguments { filter: "", ..LIST }, NOW);
        refused(&key, &token, &ListArguments { parent: "p/c", ..LIST }, NOW);
        refused(&key, &token, &ListArguments { api: "ap", parent: "/b", ..LIST }, NOW);
        refused(&TokenKey::new(&[8; 32]), &token, &LIST, NOW);
        refused(&key, &token, &LIST, NOW + LIFETIME + Duration::from_secs(1));
        assert!(key.open(&token, &LIST, NOW + LIFETIME).is_ok());
        assert!(key.open(&token, &LIST, NOW - LIFETIME).is_ok(), "a clock may go back");
    }

    #[test]
    fn hostile_page_tokens_are_refused() {
        let key = TokenKey::new(&[7; 32]);
        let token = key.seal(b"", &LIST, NOW).unwrap();
        for position in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last character carries unused bits; the decoder refuses those by itself.
            refused(&key, &changed, &LIST, NOW);
        }
        for wrong in ["", "x", "%%", "é", &"A".repeat(12), &"A".repeat(5000), &token[1..]] {
            refused(&key, wrong, &LIST, NOW);
        }
    }
}
