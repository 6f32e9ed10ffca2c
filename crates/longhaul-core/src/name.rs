//! Operation names: full, opaque resource names such as `projects/p/locations/l/operations/o`.
//!
//! The collection need not be called `operations` and the parent may have any number of
//! segments, so nothing here looks for a pattern; patterns belong to an API's HTTP rules.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Reason};

/// Longest operation name, in bytes. Google's resource names stay well below; a longer one is a mistake
/// or an attack, and names are kept in memory.
pub const NAME_BYTES_MAX: usize = 1024;

/// The full resource name of one operation. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationName(Arc<str>);

impl OperationName {
    /// Accepts a name of 1 to [`NAME_BYTES_MAX`] bytes whose `/`-separated segments are all non-empty
    /// and free of control characters. Fails with `INVALID_NAME`.
    /// Source: google/longrunning/operations.proto, `Operation.name`; AIP-122.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |what: String| {
            Err(Error::new(Reason::InvalidName, what)
                .with("name", text.chars().take(256).collect::<String>()))
        };
        if text.is_empty() {
            return wrong("the operation name is empty; give its full name, such as \"projects/p/locations/l/operations/o\"".into());
        }
        if text.len() > NAME_BYTES_MAX {
            return wrong(format!(
                "the operation name has {} bytes; at most {NAME_BYTES_MAX} are allowed",
                text.len()
            ));
        }
        if text.split('/').any(str::is_empty) {
            return wrong(format!(
                "operation name {text:?} has an empty segment; write segments separated by single slashes"
            ));
        }
        if text.chars().any(char::is_control) {
            return wrong(format!("operation name {text:?} has a control character; remove it"));
        }
        Ok(Self(text.into()))
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for OperationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for OperationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, id: Option<&str>) {
        match (OperationName::parse(text), id) {
            (Ok(name), Some(id)) => {
                assert_eq!(name.as_str(), text);
                assert_eq!(name.id(), id);
            }
            (Err(error), None) => assert_eq!(error.reason, Reason::InvalidName),
            (got, want) => panic!("{text:?}: got {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn a_name_is_opaque_but_well_formed() {
        check("projects/p/locations/l/operations/o", Some("o"));
        check("operations/a", Some("a"));
        check("batches/a:b", Some("a:b"));
        check("", None);
        check("/operations/a", None);
        check("operations//a", None);
        check("operations/a/", None);
        check("operations/a\n", None);
        check(&"x".repeat(NAME_BYTES_MAX), Some(&"x".repeat(NAME_BYTES_MAX)));
        check(&"x".repeat(NAME_BYTES_MAX + 1), None);
    }
}
