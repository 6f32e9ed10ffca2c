//! Words that must not be in the repository: build machines' paths, registries' hosts, bare notes.

use super::{Finding, Tree};

/// In two halves each, so that this file does not find itself.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("/wo", "rk/", "an absolute path of one machine"),
    ("/tmp/", "plan", "an absolute path of one machine"),
    ("/root/", ".", "an absolute path of one machine"),
    ("pypi", ".org", "a registry's host; say the package's name"),
    ("pythonhosted", ".org", "a registry's host; say the package's name"),
    ("registry.npmjs", ".org", "a registry's host; say the package's name"),
    ("static.crates", ".io", "a registry's host; say the package's name"),
    ("index.crates", ".io", "a registry's host; say the package's name"),
    ("https://crates", ".io", "a registry's host; say the package's name"),
    ("deb.debian", ".org", "a registry's host; say the package's name"),
];

/// No file names a build machine's folder or a registry's host.
pub fn forbidden(tree: &Tree) -> Vec<Finding> {
    let words: Vec<(String, &str)> =
        FORBIDDEN.iter().map(|(head, tail, why)| (format!("{head}{tail}"), *why)).collect();
    let mut findings = Vec::new();
    for (path, text) in tree.texts() {
        for (number, line) in text.lines().enumerate() {
            let hit = words.iter().find(|(word, _)| contains_word(line, word));
            if let Some((word, why)) = hit {
                findings.push(Finding::at(path, number, format!("`{word}`: {why}")));
            }
        }
    }
    findings
}

/// Whether `line` holds `word`, not as the tail of a longer word.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '}')
    })
}

/// A note of something to do names a decision or an issue: the word, then a number in parentheses.
pub fn bare_todos(tree: &Tree) -> Vec<Finding> {
    let note = concat!("TO", "DO");
    let mut findings = Vec::new();
    for (path, text) in tree.rust() {
        for (number, line) in text.lines().enumerate() {
            let Some((_, rest)) = line.split_once(note) else { continue };
            if !rest.starts_with("(0") {
                findings.push(Finding::at(
                    path,
                    number,
                    format!("a bare {note}: name a decision or an issue, `{note}(0012)`"),
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Tree {
        Tree::of(&[("a.rs", text)])
    }

    #[test]
    fn a_machine_s_path_is_found() {
        let path = concat!("/wo", "rk/main");
        assert_eq!(forbidden(&tree(&format!("see {path}"))).len(), 1);
        assert_eq!(forbidden(&tree(&format!("see `{path}`"))).len(), 1);
        assert_eq!(forbidden(&tree(concat!("a path of ours: net/wo", "rk"))), []);
    }

    #[test]
    fn a_registry_s_host_is_found_but_not_cargo_s_own_source_line() {
        assert_eq!(forbidden(&tree(concat!("https://pypi", ".org/x"))).len(), 1);
        let lock = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
        assert_eq!(forbidden(&tree(lock)), []);
    }

    #[test]
    fn a_bare_note_is_found() {
        assert_eq!(bare_todos(&tree(concat!("// TO", "DO: later"))).len(), 1);
        assert_eq!(bare_todos(&tree(concat!("// TO", "DO(0012): later"))), []);
    }
}
