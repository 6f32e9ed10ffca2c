//! What a list asks for: parents with wildcards, and the cursor that makes pages stable.

use std::sync::Arc;

use longhaul_core::{Operation, Timestamp};

/// One page of operations of one API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// Only of this API; pages never mix APIs.
    pub api: Arc<str>,
    /// Only under these parents.
    pub parent: ParentFilter,
    /// Begin after this place.
    pub after: Option<Cursor>,
    /// Only done ones, or only those that are not.
    pub done: Option<bool>,
    /// Most operations to return.
    pub limit: usize,
}

/// Which parents a list covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ParentFilter {
    /// Every parent.
    #[default]
    Any,
    /// This parent; a segment that is `-` stands for any one segment. Source: AIP-159.
    Matching(Arc<str>),
}

impl ParentFilter {
    /// Whether operations under `parent` are wanted.
    #[must_use]
    pub fn accepts(&self, parent: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Matching(pattern) => {
                let mut segments = parent.split('/');
                pattern.split('/').all(|want| {
                    segments.next().is_some_and(|is| want == is || (want == "-" && !is.is_empty()))
                }) && segments.next().is_none()
            }
        }
    }

    /// The text that every accepted parent begins with.
    pub(crate) fn literal_prefix(&self) -> &str {
        match self {
            Self::Any => "",
            Self::Matching(pattern) => {
                let mut end = 0;
                for segment in pattern.split_inclusive('/') {
                    if segment.trim_end_matches('/') == "-" {
                        return &pattern[..end];
                    }
                    end += segment.len();
                }
                pattern
            }
        }
    }

    /// The only parent that is wanted, when there is no wildcard.
    pub(crate) fn exact(&self) -> Option<&str> {
        match self {
            Self::Any => None,
            Self::Matching(pattern) => {
                (self.literal_prefix().len() == pattern.len()).then_some(&**pattern)
            }
        }
    }
}

/// A place in a list: of the last operation that was returned.
///
/// Ordered by age: a later cursor is of a younger operation. Stays valid when operations come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// When the operation was created.
    pub create_time: Timestamp,
    /// Its uid, which tells apart those created at the same moment.
    pub uid: u128,
}

impl Cursor {
    /// Before every operation.
    pub(crate) const FIRST: Self = Self { create_time: Timestamp::from_micros(i64::MIN), uid: 0 };

    /// The place of an operation.
    #[must_use]
    pub fn of(operation: &Operation) -> Self {
        Self { create_time: operation.create_time, uid: operation.uid }
    }

    /// 24 bytes: microseconds, then uid, each with the highest byte first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.create_time.as_micros().to_be_bytes());
        bytes[8..].copy_from_slice(&self.uid.to_be_bytes());
        bytes
    }

    /// The cursor that [`Self::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 24]) -> Self {
        let mut micros = [0; 8];
        let mut uid = [0; 16];
        micros.copy_from_slice(&bytes[..8]);
        uid.copy_from_slice(&bytes[8..]);
        Self {
            create_time: Timestamp::from_micros(i64::from_be_bytes(micros)),
            uid: u128::from_be_bytes(uid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, parent: &str, accepted: bool) {
        assert_eq!(ParentFilter::Matching(pattern.into()).accepts(parent), accepted);
    }

    #[test]
    fn a_dash_stands_for_exactly_one_segment() {
        check("projects/p/locations/l", "projects/p/locations/l", true);
        check("projects/p/locations/l", "projects/p/locations/m", false);
        check("projects/p/locations/-", "projects/p/locations/m", true);
        check("projects/-/locations/-", "projects/q/locations/m", true);
        check("projects/-/locations/-", "projects/q/regions/m", false);
        check("projects/p/locations/-", "projects/p/locations/l/x/y", false);
        check("projects/p/locations/-", "projects/p/locations", false);
        check("projects/p/locations/l-", "projects/p/locations/lm", false);
        check("", "", true);
        check("-", "", false);
        check("", "projects", false);
        assert!(ParentFilter::Any.accepts("projects/p"));
    }

    #[test]
    fn the_literal_prefix_ends_before_the_first_dash() {
        let prefix = |pattern: &str| {
            let filter = ParentFilter::Matching(pattern.into());
            (filter.literal_prefix().to_owned(), filter.exact().is_some())
        };
        assert_eq!(prefix("projects/p/locations/-"), ("projects/p/locations/".into(), false));
        assert_eq!(prefix("projects/-/locations/l"), ("projects/".into(), false));
        assert_eq!(prefix("projects/p"), ("projects/p".into(), true));
        assert_eq!(prefix("projects/p-"), ("projects/p-".into(), true));
        assert_eq!(prefix("-"), (String::new(), false));
    }

    #[test]
    fn a_cursor_survives_its_bytes() {
        let cursor = Cursor { create_time: Timestamp::from_micros(-5), uid: u128::MAX - 3 };
        assert_eq!(Cursor::from_bytes(cursor.to_bytes()), cursor);
    }
}
