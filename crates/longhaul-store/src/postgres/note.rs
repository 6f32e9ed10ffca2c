//! What a notification says: which server committed, and what it changed, if that is little.
//!
//! A hint like every other: whoever gets none, or one that says less, reads the table of changes.

use std::fmt::Write as _;

use longhaul_core::OperationName;

/// Longest note, in bytes; PostgreSQL takes less than 8,000.
const BYTES_MAX: usize = 7_900;

/// What became of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub name: OperationName,
    pub revision: i64,
    pub kind: i32,
    /// When it can be claimed, if it can.
    pub claimable_us: Option<i64>,
}

/// A note that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Who wrote it.
    pub server: i64,
    /// The number of the commit and all that it changed; `None` when that is to be read.
    pub commit: Option<(i64, Vec<Change>)>,
}

/// The note that only says that there is something to read.
pub(super) fn look(server: i64) -> String {
    server.to_string()
}

/// The note about a commit.
pub(super) fn write(server: i64, batch: i64, changes: &[Change]) -> String {
    let mut text = format!("{server} {batch}");
    for Change { name, revision, kind, claimable_us } in changes {
        let claimable = claimable_us.map_or_else(String::new, |from| from.to_string());
        // Writing to a text does not fail. No name has a line feed.
        let _ = write!(text, "\n{revision} {kind} {claimable} {name}");
        if text.len() > BYTES_MAX {
            return look(server);
        }
    }
    text
}

/// Reads a note; `None` when it is none of ours.
pub(super) fn read(text: &str) -> Option<Note> {
    let mut lines = text.split('\n');
    let first = lines.next()?;
    let Some((server, batch)) = first.split_once(' ') else {
        let commit = None;
        return lines.next().is_none().then_some(Note { server: first.parse().ok()?, commit });
    };
    let changes = lines.map(change).collect::<Option<Vec<_>>>()?;
    Some(Note { server: server.parse().ok()?, commit: Some((batch.parse().ok()?, changes)) })
}

fn change(line: &str) -> Option<Change> {
    let mut parts = line.splitn(4, ' ');
    let (revision, kind) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let claimable_us = match parts.next()? {
        "" => None,
        from => Some(from.parse().ok()?),
    };
    Some(Change { name: OperationName::parse(parts.next()?).ok()?, revision, kind, claimable_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(count: usize) -> Vec<Change> {
        let change = |index| Change {
            name: OperationName::parse(&format!("projects/p/operations/with space {index}"))
                .expect("a name"),
            revision: 7,
            kind: 3,
            claimable_us: (index % 2 == 0).then_some(-5),
        };
        (0..count).map(change).collect()
    }

    #[test]
    fn a_note_says_what_was_changed_as_long_as_that_is_little() {
        let few = changes(20);
        assert_eq!(read(&write(4, 9, &few)), Some(Note { server: 4, commit: Some((9, few)) }));
        assert_eq!(read(&write(4, 9, &[])), Some(Note { server: 4, commit: Some((9, vec![])) }));
        let many = write(4, 9, &changes(1_000));
        assert_eq!(read(&many), Some(Note { server: 4, commit: None }));
        assert!(write(4, 9, &changes(150)).len() < 8_000);
    }

    #[test]
    fn what_others_say_on_the_channel_is_no_note() {
        for text in ["", "hello", "1 x", "1 2\n", "1 2\n3 4", "1 2\n3 4 5 ", "1\n2", "1 2\n3 4 x o"]
        {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
