//! Documents kept true: links, the errors page, the configuration's keys, the changelog, the decisions.

use std::collections::HashMap;

use super::{Finding, Tree};
use crate::errors_page;

const CONFIGURATION: [&str; 5] = [
    "crates/longhaul-server/src/config.rs",
    "crates/longhaul-server/src/audit/config.rs",
    "crates/longhaul-server/src/shares/config.rs",
    "crates/longhaul-server/src/store.rs",
    "crates/longhaul-server/src/tls.rs",
];
const CONFIGURATION_PAGE: &str = "docs/configuration.md";
/// Keys that hold other keys; they are headings of the page.
const SECTIONS: &[&str] =
    &["store", "postgres", "limits", "tls", "auth", "shares", "audit", "workers"];
const DECISIONS: &str = "docs/decisions/";

/// Every link from one document to a file leads somewhere.
pub fn links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts().filter(|(path, _)| path.ends_with(".md")) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in text.lines().enumerate() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let file = target.split('#').next().unwrap_or_default();
                if !file.is_empty() && !file.contains("://") && !tree.has(&resolve(folder, file)) {
                    findings.push(Finding::at(path, number, format!("`{target}` leads nowhere")));
                }
            }
        }
    }
    findings
}

/// A path relative to a folder, from the root.
fn resolve(folder: &str, file: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in file.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// `docs/errors.md` is what `cargo xtask errors` writes.
pub fn errors_page(tree: &Tree) -> Vec<Finding> {
    if tree.text(errors_page::PAGE) == Some(errors_page::render().as_str()) {
        return Vec::new();
    }
    vec![Finding::new(errors_page::PAGE, "is out of date; run `cargo xtask errors`")]
}

/// `docs/configuration.md` has a row for every key that the configuration takes.
pub fn configuration(tree: &Tree) -> Vec<Finding> {
    let page = tree.text(CONFIGURATION_PAGE).unwrap_or_default();
    let sources = CONFIGURATION.iter().filter_map(|file| tree.text(file));
    let missing = sources.flat_map(keys_of).filter(|key| !page.contains(&format!("\n| `{key}` |")));
    missing.map(|key| Finding::new(CONFIGURATION_PAGE, format!("has no row for `{key}`"))).collect()
}

/// The public fields of the configuration, as a file spells them.
fn keys_of(source: &str) -> Vec<&str> {
    let mut renamed = None;
    let mut keys = Vec::new();
    for line in source.lines().map(str::trim) {
        if let Some((_, rest)) = line.split_once("rename = \"") {
            renamed = rest.split('"').next();
        } else if let Some(field) = line.strip_prefix("pub ").and_then(|rest| rest.split_once(": "))
        {
            keys.push(renamed.take().unwrap_or(field.0));
        }
    }
    // What has a blank in it is a function's head.
    keys.retain(|key| !SECTIONS.contains(key) && !key.contains(' '));
    keys
}

/// The changelog has a place for what comes next.
pub fn changelog(tree: &Tree) -> Vec<Finding> {
    let page = "CHANGELOG.md";
    let has =
        tree.text(page).is_some_and(|text| text.lines().any(|line| line == "## [Unreleased]"));
    if has { Vec::new() } else { vec![Finding::new(page, "needs a section `## [Unreleased]`")] }
}

/// Decision pages are numbered once each, and the index names them all.
pub fn decisions(tree: &Tree) -> Vec<Finding> {
    let index = tree.text(&format!("{DECISIONS}README.md")).unwrap_or_default();
    let mut findings = Vec::new();
    let mut numbers: HashMap<&str, &str> = HashMap::new();
    for (path, _) in tree.texts() {
        let Some(page) = path.strip_prefix(DECISIONS).filter(|page| *page != "README.md") else {
            continue;
        };
        let number = page.split('-').next().unwrap_or_default();
        if number.len() != 4 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            findings
                .push(Finding::new(path, "a decision page is named `0001-what-was-decided.md`"));
        } else if let Some(other) = numbers.insert(number, page) {
            findings.push(Finding::new(path, format!("has the number of {other}")));
        }
        if !index.contains(&format!("]({page})")) {
            findings.push(Finding::new(path, format!("{DECISIONS}README.md does not name it")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let good = "[a](b.md) [up](../README.md#top) [web](https://example.com) [here](#x)";
        let tree = Tree::of(&[("docs/a.md", good), ("docs/b.md", ""), ("README.md", "")]);
        assert_eq!(links(&tree), []);
        let tree = Tree::of(&[("docs/a.md", "see [b](b.md) and [c](../c/d.md)")]);
        assert_eq!(links(&tree).len(), 2);
    }

    #[test]
    fn a_stale_or_missing_errors_page_is_found() {
        assert_eq!(errors_page(&Tree::of(&[])).len(), 1);
        assert_eq!(errors_page(&Tree::of(&[(errors_page::PAGE, "# Errors\n")])).len(), 1);
        assert_eq!(errors_page(&Tree::of(&[(errors_page::PAGE, &errors_page::render())])), []);
    }

    #[test]
    fn a_key_without_a_row_is_found() {
        let source = "pub struct Config {\n    #[serde(rename = \"api\")]\n    pub apis: Vec<Api>,\n    pub lease: Duration,\n}\n\
                      impl Config {\n    pub fn parse(text: &str) -> Self {}\n}\n";
        assert_eq!(keys_of(source), ["api", "lease"]);
        let page = "\n| `api` | x |\n| `leases` | y |\n";
        let tree = Tree::of(&[(CONFIGURATION[0], source), (CONFIGURATION_PAGE, page)]);
        assert_eq!(configuration(&tree).len(), 1);
    }

    #[test]
    fn a_changelog_without_a_next_section_is_found() {
        assert_eq!(changelog(&Tree::of(&[("CHANGELOG.md", "## 0.1.0\n")])).len(), 1);
        assert_eq!(changelog(&Tree::of(&[("CHANGELOG.md", "## [Unreleased]\n")])), []);
    }

    #[test]
    fn decisions_are_numbered_once_and_listed() {
        let index = ("docs/decisions/README.md", "[a](0001-a.md) [b](0001-b.md)");
        let first = ("docs/decisions/0001-a.md", "");
        assert_eq!(decisions(&Tree::of(&[index, first])), []);
        assert_eq!(
            decisions(&Tree::of(&[index, first, ("docs/decisions/0001-b.md", "")])).len(),
            1
        );
        assert_eq!(decisions(&Tree::of(&[index, ("docs/decisions/0002-c.md", "")])).len(), 1);
        assert_eq!(decisions(&Tree::of(&[index, ("docs/decisions/house.md", "")])).len(), 2);
    }
}
