//! `cargo xtask tidy`: what no compiler checks, one function for each rule.
//!
//! Owns the running order and the report. Each rule lives in a module below and is a pure function
//! from the files (or from cargo's metadata) to findings, with tests that show it can fail.

mod architecture;
mod arrows;
mod documents;
mod rust_files;
mod test_manners;
mod words;

use std::error::Error;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::MetadataCommand;

/// One broken rule, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// A path from the root, with `:line` where there is one; or a crate.
    place: String,
    /// What is wrong and what to do.
    problem: String,
}

impl Finding {
    fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }

    /// `line` counts from 0.
    fn at(file: &str, line: usize, problem: impl Into<String>) -> Self {
        Self::new(format!("{file}:{}", line + 1), problem)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

/// Every file that git tracks, or would track if asked.
#[derive(Debug, Default)]
pub struct Tree {
    /// Paths from the root, with `/`; the text, or nothing for a binary file. Sorted by path.
    files: Vec<(String, Option<String>)>,
}

impl Tree {
    fn load(root: &Path) -> Result<Self, Box<dyn Error>> {
        let listed = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
            .current_dir(root)
            .output()?;
        if !listed.status.success() {
            return Err(String::from_utf8_lossy(&listed.stderr).into_owned().into());
        }
        let mut files = Vec::new();
        for path in String::from_utf8(listed.stdout)?.split_terminator('\0') {
            // A file that was deleted but not yet committed is still listed.
            let Ok(bytes) = std::fs::read(root.join(path)) else { continue };
            files.push((path.to_owned(), String::from_utf8(bytes).ok()));
        }
        files.sort();
        files.dedup();
        Ok(Self { files })
    }

    #[cfg(test)]
    fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).into(), Some((*text).into())));
        Self { files: files.collect() }
    }

    /// Path and text of every text file.
    fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|(path, text)| Some((path.as_str(), text.as_deref()?)))
    }

    /// Path and text of every Rust file.
    fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| path.ends_with(".rs"))
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.texts().find(|(found, _)| *found == path).map(|(_, text)| text)
    }

    /// Whether there is a file of this path, or a folder that holds one.
    fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let folder = format!("{path}/");
        self.files.iter().any(|(found, _)| found == path || found.starts_with(&folder))
    }
}

/// Runs every check, prints every finding, and fails if there is one.
pub fn run() -> Result<(), Box<dyn Error>> {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let tree = Tree::load(&root)?;
    let metadata =
        MetadataCommand::new().manifest_path(root.join("Cargo.toml")).no_deps().exec()?;

    let mut findings = Vec::new();
    findings.extend(arrows::check(&arrows::crates_of(&metadata)));
    for check in CHECKS {
        findings.extend(check(&tree));
    }
    findings.sort();

    let mut out = std::io::stdout().lock();
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    match findings.len() {
        0 => Ok(writeln!(out, "tidy: {} files, nothing to say", tree.files.len())?),
        count => Err(format!("tidy: {count} found").into()),
    }
}

const CHECKS: &[fn(&Tree) -> Vec<Finding>] = &[
    rust_files::sizes,
    rust_files::headers,
    rust_files::lints_are_inherited,
    test_manners::nothing_ignored,
    test_manners::no_sleeps,
    test_manners::names_are_claims,
    words::forbidden,
    words::bare_todos,
    architecture::names_exist,
    documents::links,
    documents::errors_page,
    documents::configuration,
    documents::changelog,
    documents::decisions,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_knows_files_and_folders() {
        let tree = Tree::of(&[("docs/decisions/0001-house.md", "")]);
        for present in ["docs", "docs/", "docs/decisions", "docs/decisions/0001-house.md"] {
            assert!(tree.has(present), "{present}");
        }
        for absent in ["doc", "docs/decisions/0001", "decisions"] {
            assert!(!tree.has(absent), "{absent}");
        }
    }

    #[test]
    fn a_finding_prints_like_a_compiler_s() {
        assert_eq!(Finding::at("a.rs", 0, "bad").to_string(), "a.rs:1: bad");
    }
}
