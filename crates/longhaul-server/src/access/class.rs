//! What kind of call a method is, for whoever records and counts calls.

use longhaul_wire::api::{Method, MethodKind};
use longhaul_wire::settings::{OperationsVerb, PolicyVerb};

/// What kind of call a method is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Asks something to stop.
    Cancel,
    /// Changes something else.
    Change,
    /// Reads, at once.
    Read,
    /// Reads, and may be held open for long.
    Wait,
    /// Reads, as a stream.
    Watch,
    /// A worker's side.
    Work,
}

impl Class {
    /// What a method is.
    #[must_use]
    pub fn of(method: &Method) -> Self {
        match &method.kind {
            MethodKind::Operations(OperationsVerb::Cancel) => Self::Cancel,
            MethodKind::Operations(OperationsVerb::Delete) | MethodKind::Start(_) => Self::Change,
            MethodKind::Operations(OperationsVerb::Get | OperationsVerb::List) => Self::Read,
            MethodKind::Operations(OperationsVerb::Wait) => Self::Wait,
            MethodKind::Native => Self::of_native(&method.full_name),
            MethodKind::Policy(PolicyVerb::Set) => Self::Change,
            MethodKind::Policy(PolicyVerb::Get | PolicyVerb::Test) => Self::Read,
            MethodKind::Other => Self::Read,
        }
    }

    fn of_native(full_name: &str) -> Self {
        match full_name.strip_prefix("longhaul.v1.Operators.") {
            Some("Cancel" | "CancelByRequestId" | "BulkCancel") => Self::Cancel,
            Some("Detach") => Self::Change,
            Some("Watch") => Self::Watch,
            Some(_) => Self::Read,
            None => Self::Work,
        }
    }

    /// Whether it changes something because somebody asked: what is recorded before it is done.
    #[must_use]
    pub const fn changes(self) -> bool {
        matches!(self, Self::Cancel | Self::Change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_our_own_api_has_its_kind() {
        let native = longhaul_wire::bundled::native().unwrap();
        let mut seen = Vec::new();
        for service in native.descriptors().services() {
            for name in [
                "Describe",
                "Cancel",
                "CancelByRequestId",
                "Explain",
                "BulkCancel",
                "Detach",
                "Watch",
                "Claim",
                "Report",
                "Session",
            ] {
                let full = format!("{}.{name}", service.full_name());
                if let Some(method) = native.method(&full) {
                    seen.push((name, Class::of(method)));
                }
            }
        }
        seen.sort_by_key(|(name, _)| *name);
        let want = [
            ("BulkCancel", Class::Cancel),
            ("Cancel", Class::Cancel),
            ("CancelByRequestId", Class::Cancel),
            ("Claim", Class::Work),
            ("Describe", Class::Read),
            ("Detach", Class::Change),
            ("Explain", Class::Read),
            ("Report", Class::Work),
            ("Session", Class::Work),
            ("Watch", Class::Watch),
        ];
        assert_eq!(seen, want);
    }
}
