//! Telling the listener: a panic in it must end no writer.

use std::panic::{AssertUnwindSafe, catch_unwind};

use longhaul_core::{Applied, OperationName};

use crate::{ClaimHint, Listener};

/// Tells what was committed.
pub(crate) fn tell(listener: &dyn Listener, applied: &Applied) {
    guarded(&applied.operation.name, || {
        listener.committed(applied);
        if !applied.forget
            && let Some(hint) = ClaimHint::of(&applied.operation)
        {
            listener.claimable(&hint);
        }
    });
}

/// Tells what another server did.
pub(crate) fn tell_elsewhere(listener: &dyn Listener, name: &OperationName, revision: u64) {
    guarded(name, || listener.changed_elsewhere(name, revision));
}

fn guarded(name: &OperationName, tell: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(tell)).is_err() {
        tracing::error!(operation = %name, "a listener panicked");
    }
}
