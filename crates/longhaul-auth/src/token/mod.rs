//! Tokens: signed statements of an issuer about who calls.
//!
//! Owns what counts as a good one. Getting keys from elsewhere is the server's; it hands in their text.

mod accounts;
mod claims;
mod keys;
mod shown;
mod verify;

pub use accounts::Accounts;
pub use keys::KeySet;
pub use shown::Shown;
pub use verify::{Fault, HostOf, Issuer, Rules, Verifier};
