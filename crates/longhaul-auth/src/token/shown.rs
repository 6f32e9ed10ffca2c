//! What a connection has shown last: most show one token with every call.
//!
//! Owns the comparison alone. A token that is the same is only spared its digest; whether it still counts is
//! asked each time, as of those in the table.

use std::hint::black_box;

use parking_lot::Mutex;

use super::verify::Remembered;
use crate::Secret;

/// Longest token that is kept: beyond that its digest is cheap beside the rest of the call, and a connection
/// should hold little.
const BYTES_MAX: usize = 4 << 10;

/// The token that the last call of a connection came with, kept as it came while the connection lasts.
#[derive(Debug, Default)]
pub struct Shown(Mutex<Option<(Secret, Remembered)>>);

impl Shown {
    /// What is remembered of the token, if it is the one shown last.
    pub(super) fn again(&self, token: &str) -> Option<Remembered> {
        let last = self.0.lock();
        let (shown, remembered) = last.as_ref()?;
        is_same(shown.expose(), token).then(|| remembered.clone())
    }

    /// Keeps it in the place of the last.
    pub(super) fn keep(&self, token: &str, remembered: Remembered) {
        if token.len() <= BYTES_MAX {
            *self.0.lock() = Some((Secret::new(token), remembered));
        }
    }
}

/// Whether two tokens are the same, in a time that depends on their length alone: behind a proxy callers may
/// share a connection, and none should learn by trying how another's token begins.
fn is_same(one: &str, other: &str) -> bool {
    let bytes = one.bytes().zip(other.bytes());
    one.len() == other.len() && black_box(bytes.fold(0, |all, (a, b)| all | (a ^ b))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_the_same_only_when_every_byte_is() {
        let token = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl";
        assert!(is_same(token, token));
        assert!(is_same("", ""));
        assert!(!is_same(token, &token[1..]));
        for at in 0..token.len() {
            let mut other = token.to_owned();
            other.replace_range(at..=at, "!");
            assert!(!is_same(token, &other), "{at}");
        }
    }
}
