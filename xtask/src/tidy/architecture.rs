//! ARCHITECTURE.md and docs/promises.md name only what exists: every back-ticked path, type, function and
//! test.

use std::collections::HashSet;

use super::{Finding, Tree};

const PAGES: [&str; 2] = ["ARCHITECTURE.md", "docs/promises.md"];

/// Every name in back ticks is a path of the tree, or a word of its code.
pub fn names_exist(tree: &Tree) -> Vec<Finding> {
    let known = words_of_code(tree);
    PAGES.into_iter().flat_map(|page| unknown_names(page, tree, &known)).collect()
}

fn unknown_names(page: &str, tree: &Tree, known: &HashSet<&str>) -> Vec<Finding> {
    let Some(text) = tree.text(page) else {
        return vec![Finding::new(page, "is missing")];
    };
    names(text)
        .into_iter()
        .filter(|(_, name)| !exists(name, tree, known))
        .map(|(number, name)| Finding::at(page, number, format!("`{name}` does not exist")))
        .collect()
}

/// The back-ticked names with their lines; fenced blocks and phrases are left out.
fn names(page: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut names = Vec::new();
    for (number, line) in page.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let spans = line.split('`').skip(1).step_by(2);
            names.extend(spans.filter(|span| is_name(span)).map(|span| (number, span)));
        }
    }
    names
}

/// A command line, an HTTP path, a flag or a value is a phrase, not a name of ours.
fn is_name(span: &str) -> bool {
    let first = span.chars().next().unwrap_or(' ');
    (first.is_alphabetic() || first == '.') && !span.contains([' ', '{', '=', '*'])
}

fn exists(name: &str, tree: &Tree, known: &HashSet<&str>) -> bool {
    if name.contains('/') || is_file_name(name) {
        return is_path(name, tree);
    }
    let bare = name.trim_end_matches("()").trim_start_matches('.');
    bare.split(|c: char| !is_word(c))
        .filter(|part| !part.is_empty())
        .all(|part| known.contains(part))
}

fn is_file_name(name: &str) -> bool {
    [".rs", ".md", ".toml", ".proto", ".yaml", ".txt", ".binpb"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// From the root, or with a room's short name in front: `server/http.rs`.
fn is_path(name: &str, tree: &Tree) -> bool {
    let in_room = name.split_once('/').is_some_and(|(room, rest)| {
        tree.has(&format!("crates/longhaul-{room}/src/{rest}"))
            || tree.has(&format!("crates/longhaul-{room}/{rest}"))
    });
    let alone =
        !name.contains('/') && tree.texts().any(|(path, _)| path.rsplit('/').next() == Some(name));
    tree.has(name) || in_room || alone
}

/// Every word of the code, comments aside: sources, protos, manifests, settings.
fn words_of_code(tree: &Tree) -> HashSet<&str> {
    let mut words = HashSet::new();
    for (path, text) in tree.texts() {
        if ![".rs", ".py", ".proto", ".toml", ".yaml"].iter().any(|end| path.ends_with(end)) {
            continue;
        }
        for line in text.lines() {
            let code = line.split("//").next().unwrap_or_default();
            words.extend(code.split(|c: char| !is_word(c)));
        }
    }
    words
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(page: &str, expected: &[&str]) {
        let tree = Tree::of(&[
            (PAGES[0], page),
            (PAGES[1], ""),
            (
                "crates/longhaul-server/src/http.rs",
                "//! Edge\npub fn serve_http(x: Call) {}\n// ghost\n",
            ),
            (
                "crates/longhaul-core/src/apply.rs",
                "pub enum State { Done }\nfn done_is_final() {}\n",
            ),
        ]);
        let found = names_exist(&tree);
        let names: Vec<_> =
            found.iter().filter_map(|finding| finding.problem.split('`').nth(1)).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn names_that_exist_pass() {
        check(
            "`server/http.rs` calls `serve_http`, `State::Done`, `done_is_final()`, `apply.rs`",
            &[],
        );
        check("`crates/longhaul-core` and `crates/longhaul-core/src/apply.rs`", &[]);
    }

    #[test]
    fn names_that_do_not_exist_are_found() {
        check(
            "`server/https.rs`, `State::Gone` and `ghost`",
            &["server/https.rs", "State::Gone", "ghost"],
        );
        check("`nowhere.rs`", &["nowhere.rs"]);
    }

    #[test]
    fn phrases_and_fences_are_not_names() {
        check("`POST /v1/a:cancel` `--port` `{}` `/livez`\n```\n`nothing`\n```\n", &[]);
    }

    #[test]
    fn a_missing_page_is_found() {
        assert_eq!(names_exist(&Tree::of(&[])).len(), PAGES.len());
    }
}
