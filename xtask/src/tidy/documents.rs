//! Documents kept true: the errors page, the changelog, the list of decisions.

use std::collections::HashMap;

use super::{Finding, Tree};
use crate::errors_page;

const DECISIONS: &str = "docs/decisions/";

/// `docs/errors.md` is what `cargo xtask errors` writes.
pub fn errors_page(tree: &Tree) -> Vec<Finding> {
    if tree.text(errors_page::PAGE) == Some(errors_page::render().as_str()) {
        return Vec::new();
    }
    vec![Finding::new(errors_page::PAGE, "is out of date; run `cargo xtask errors`")]
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
    fn a_stale_or_missing_errors_page_is_found() {
        assert_eq!(errors_page(&Tree::of(&[])).len(), 1);
        assert_eq!(errors_page(&Tree::of(&[(errors_page::PAGE, "# Errors\n")])).len(), 1);
        assert_eq!(errors_page(&Tree::of(&[(errors_page::PAGE, &errors_page::render())])), []);
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
