//! Who calls, and what they may do: identities, tokens, key sets, policies, decisions.
//!
//! Owns the words and the rules of access. Refuses the sockets of the edges and protobuf: a server hands in
//! text, bytes and the time, and gets an [`Identity`], a yes or a no.

mod bounded;
pub mod identity;
pub mod local;
pub mod mode;
pub mod policy;
pub mod refusal;
pub mod secret;
pub mod token;

pub use identity::{Identity, Principal, Scopes};
pub use mode::Mode;
pub use secret::Secret;
