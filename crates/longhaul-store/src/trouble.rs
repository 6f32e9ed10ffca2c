//! What every back end says when it cannot do what it should.

use longhaul_core::{Error, Reason};

/// What a caller hears when the store cannot be read or written just now.
pub(crate) fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(
        Reason::StoreUnavailable,
        "the store cannot be used at the moment; nothing was acknowledged, repeat the call",
    )
    .caused_by(source)
}

/// The same error once more, for another caller of the same batch; the source stays with the first.
pub(crate) fn again(error: &Error) -> Error {
    let mut copy = Error::new(error.reason, error.message.clone());
    copy.metadata = error.metadata.clone();
    copy.retry_after = error.retry_after;
    copy
}
