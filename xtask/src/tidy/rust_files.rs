//! The shape of Rust files: length, header, inherited lints.

use super::{Finding, Tree};

/// Longest file without its tests (STYLE §6).
const LINES_MAX: usize = 600;

/// Shortest opening that can say what a file owns.
const HEADER_CHARS_MIN: usize = 16;

/// No file is longer than the limit, tests aside.
pub fn sizes(tree: &Tree) -> Vec<Finding> {
    let too_long = tree.rust().filter(|(path, _)| !is_test_file(path)).filter_map(|(path, text)| {
        let lines = lines_without_tests(text);
        (lines > LINES_MAX).then(|| {
            Finding::new(path, format!("{lines} lines without tests, {LINES_MAX} at most; look for the missing type"))
        })
    });
    too_long.collect()
}

/// Every file opens with `//!` and says something.
pub fn headers(tree: &Tree) -> Vec<Finding> {
    let silent = tree.rust().filter_map(|(path, text)| {
        let opening = text.lines().find(|line| !line.starts_with("#!["))?;
        let words = opening.strip_prefix("//!").unwrap_or_default().trim();
        let silent = words.chars().count() < HEADER_CHARS_MIN;
        silent.then(|| {
            Finding::at(
                path,
                0,
                "the file must open with `//!`: what it owns, what it refuses to own",
            )
        })
    });
    let empty = tree.rust().filter(|(_, text)| text.trim().is_empty());
    silent.chain(empty.map(|(path, _)| Finding::at(path, 0, "the file is empty"))).collect()
}

/// Every crate takes the workspace's lints.
pub fn lints_are_inherited(tree: &Tree) -> Vec<Finding> {
    let manifests = tree.texts().filter(|(path, text)| {
        path.ends_with("/Cargo.toml") && text.contains("version.workspace = true")
    });
    let lax = manifests.filter(|(_, text)| !text.contains("[lints]\nworkspace = true"));
    lax.map(|(path, _)| Finding::new(path, "needs `[lints]` with `workspace = true`")).collect()
}

/// Whether the whole file is a test: in a `tests` folder, or a `tests.rs` of a module.
pub fn is_test_file(path: &str) -> bool {
    let mut parts = path.split('/').rev();
    let file = parts.next().unwrap_or_default();
    file == "tests.rs" || file.ends_with("_tests.rs") || parts.any(|folder| folder == "tests")
}

/// For each line, whether it belongs to an inline `#[cfg(test)]` item.
pub fn test_lines(text: &str) -> Vec<bool> {
    let mut inside = false;
    let mut marks = Vec::new();
    for line in text.lines() {
        inside = inside || line.starts_with("#[cfg(test)]");
        marks.push(inside);
        // rustfmt puts an item's end in the first column, or the whole item on one line.
        let ends = line.starts_with('}') || line.ends_with(';') && !line.starts_with(' ');
        inside = inside && !ends;
    }
    marks
}

fn lines_without_tests(text: &str) -> usize {
    test_lines(text).into_iter().filter(|is_test| !is_test).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_found_and_its_tests_are_not_counted() {
        let body = "fn f() {}\n".repeat(LINES_MAX);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    // x\n".repeat(500));
        assert_eq!(sizes(&Tree::of(&[("crates/a/src/a.rs", &format!("{body}{tests}"))])), []);
        let longer = format!("{tests}{body}fn g() {{}}\n");
        assert_eq!(sizes(&Tree::of(&[("crates/a/src/a.rs", &longer)])).len(), 1);
        assert_eq!(sizes(&Tree::of(&[("crates/a/tests/a.rs", &longer)])), []);
    }

    #[test]
    fn a_test_only_import_does_not_hide_the_rest() {
        let text = "#[cfg(test)]\nuse a::b;\nfn f() {}\n";
        assert_eq!(test_lines(text), [true, true, false]);
    }

    #[test]
    fn a_header_that_says_nothing_is_found() {
        for bad in ["", "fn main() {}\n", "//! todo\n", "// not a header, only a comment\n"] {
            assert_eq!(headers(&Tree::of(&[("a.rs", bad)])).len(), 1, "{bad:?}");
        }
        for good in [
            "//! Owns every page of the book.\n",
            "#![allow(x)]\n//! Owns every page of the book.\n",
        ] {
            assert_eq!(headers(&Tree::of(&[("a.rs", good)])), [], "{good:?}");
        }
    }

    #[test]
    fn a_crate_without_the_lints_is_found() {
        let manifest = "[package]\nversion.workspace = true\n";
        assert_eq!(lints_are_inherited(&Tree::of(&[("crates/a/Cargo.toml", manifest)])).len(), 1);
        let strict = format!("{manifest}\n[lints]\nworkspace = true\n");
        assert_eq!(lints_are_inherited(&Tree::of(&[("crates/a/Cargo.toml", &strict)])), []);
    }
}
