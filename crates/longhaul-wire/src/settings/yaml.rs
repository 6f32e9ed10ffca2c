//! Reading YAML that people wrote: bounded, and with errors that say where and what would be right.

use longhaul_core::{Error, Reason};
use serde::de::DeserializeOwned;

/// Largest YAML file that is read, in bytes. Google's largest service configuration is below 200 KiB.
const YAML_BYTES_MAX: usize = 4 << 20;

/// Reads one bounded YAML document; anchors, depth and events are bounded by the reader.
pub(crate) fn read_yaml<T: DeserializeOwned>(text: &str, file: &str) -> Result<T, Error> {
    if text.len() > YAML_BYTES_MAX {
        return Err(invalid(file, format!("it is larger than {YAML_BYTES_MAX} bytes; shorten it")));
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let place = error
            .location()
            .map_or_else(String::new, |at| format!("line {}, column {}: ", at.line(), at.column()));
        let what = explain(error.without_snippet());
        invalid(file, format!("{place}{what}"))
    })
}

/// What is wrong with a YAML text, with the words that would be right.
fn explain(error: &serde_saphyr::Error) -> String {
    if let serde_saphyr::Error::SerdeUnknownField { field, expected, .. } = error {
        return match nearest(field, expected) {
            Some(known) => format!("unknown key {field:?}; did you mean {known:?}?"),
            None => format!("unknown key {field:?}; known here are {}", expected.join(", ")),
        };
    }
    if let serde_saphyr::Error::SerdeUnknownVariant { variant, expected, .. } = error {
        return format!("unknown value {variant:?}; known here are {}", expected.join(", "));
    }
    error.render()
}

/// An `API_INVALID` that names the file.
pub(crate) fn invalid(file: &str, what: String) -> Error {
    Error::new(Reason::ApiInvalid, format!("{file}: {what}")).with("file", file).with("cause", what)
}

/// The candidate that a mistyped word most likely meant: at most a third of it differs.
pub(crate) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .iter()
        .map(|candidate| (edits(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements between two words, each cut at 64 characters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
