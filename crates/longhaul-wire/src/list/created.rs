//! Which span of creation a filter leaves, so that a list reads nothing outside of it.
//!
//! A span may be wider than what matches, never narrower: every operation is still asked.

use aip_160::Comparator;
use longhaul_core::Timestamp;

use super::filter::{Field, Node, Test};
use crate::json::parse_timestamp;

/// The earliest and the latest creation that can match, both included; `None` is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Created {
    /// Nothing older matches.
    pub first: Option<Timestamp>,
    /// Nothing younger matches.
    pub last: Option<Timestamp>,
}

impl Created {
    pub(super) fn of(node: &Node) -> Self {
        match node {
            Node::All(nodes) => nodes.iter().map(Self::of).fold(Self::default(), Self::both),
            Node::Any(nodes) => nodes.iter().map(Self::of).reduce(Self::either).unwrap_or_default(),
            Node::Not(_) => Self::default(),
            Node::Test(test) => Self::of_test(test),
        }
    }

    fn of_test(test: &Test) -> Self {
        let Some((seconds, nanos)) =
            (test.field == Field::CreateTime).then(|| parse_timestamp(&test.wanted.text)).flatten()
        else {
            return Self::default();
        };
        let micros = seconds.saturating_mul(1_000_000).saturating_add(i64::from(nanos / 1_000));
        let (floor, ceiling) = (
            Timestamp::from_micros(micros),
            Timestamp::from_micros(micros.saturating_add(i64::from(nanos % 1_000 != 0))),
        );
        match test.op {
            Comparator::Equal | Comparator::Has => Self { first: Some(floor), last: Some(ceiling) },
            Comparator::GreaterThan | Comparator::GreaterThanOrEqual => {
                Self { first: Some(floor), last: None }
            }
            Comparator::LessThan | Comparator::LessThanOrEqual => {
                Self { first: None, last: Some(ceiling) }
            }
            Comparator::NotEqual => Self::default(),
        }
    }

    fn both(self, other: Self) -> Self {
        let last = match (self.last, other.last) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self { first: self.first.max(other.first), last }
    }

    fn either(self, other: Self) -> Self {
        let first = self.first.zip(other.first).map(|(one, other)| one.min(other));
        let last = self.last.zip(other.last).map(|(one, other)| one.max(other));
        Self { first, last }
    }
}
