//! How tests behave: none ignored, none waiting by the clock, each named by what it claims.

use super::rust_files::{is_test_file, test_lines};
use super::{Finding, Tree};

/// What a sleep in a test must carry, on its line or the one above: `// tidy: sleep: REASON`.
const SLEEP_MARK: &str = "// tidy: sleep: ";

/// No test is switched off.
pub fn nothing_ignored(tree: &Tree) -> Vec<Finding> {
    // Spelled in two halves so that this file does not find itself.
    let attribute = concat!("#[", "ignore");
    let mut findings = Vec::new();
    for (path, text) in tree.rust() {
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with(attribute) {
                findings.push(Finding::at(
                    path,
                    number,
                    "no test is ignored: assert today's wrong answer and say so",
                ));
            }
        }
    }
    findings
}

/// No test waits by the clock unless it says why; on simulated time a sleep costs nothing.
pub fn no_sleeps(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust().filter(|(_, text)| !is_on_simulated_time(text)) {
        let marks = test_lines(text);
        let mut above = "";
        for (number, line) in text.lines().enumerate() {
            let in_test = is_test_file(path) || marks.get(number).copied().unwrap_or(false);
            let excused = [above, line].iter().any(|one| excuse(one));
            if in_test && sleeps(line) && !excused {
                findings.push(Finding::at(path, number, format!("a sleep in a test: wait for the thing itself, or say why with `{SLEEP_MARK}REASON`")));
            }
            above = line;
        }
    }
    findings
}

fn is_on_simulated_time(text: &str) -> bool {
    let mut tests =
        text.lines().filter(|line| line.trim_start().starts_with("#[tokio::test")).peekable();
    tests.peek().is_some() && tests.all(|line| line.contains("start_paused = true"))
}

fn sleeps(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    [concat!("thread::", "sleep("), concat!("time::", "sleep("), concat!("sleep", "_until(")]
        .iter()
        .any(|call| code.contains(call))
        || code.trim_start().starts_with(concat!("sleep", "("))
}

fn excuse(line: &str) -> bool {
    line.split_once(SLEEP_MARK).is_some_and(|(_, reason)| reason.trim().len() > 10)
}

/// A test's name is a claim: at least two words, and not "test" something.
pub fn names_are_claims(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust() {
        let mut is_test = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            is_test = is_test || line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            let Some(name) = function_name(line).filter(|_| is_test) else { continue };
            is_test = false;
            if name.starts_with('$') {
                continue; // a name that a macro takes from elsewhere
            }
            if !name.contains('_') || name.starts_with("test") {
                findings.push(Finding::at(
                    path,
                    number,
                    format!("`{name}` is no claim: name the test by what it holds true"),
                ));
            }
        }
    }
    findings
}

fn function_name(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    rest.split(['(', '<']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(body: &str) -> Tree {
        Tree::of(&[("crates/a/tests/a.rs", body)])
    }

    #[test]
    fn an_ignored_test_is_found() {
        let attribute = concat!("#[", "ignore]");
        assert_eq!(
            nothing_ignored(&tree(&format!("#[test]\n{attribute}\nfn a_b() {{}}\n"))).len(),
            1
        );
        assert_eq!(nothing_ignored(&tree("// ignore this\n")), []);
    }

    #[test]
    fn a_sleep_without_a_reason_is_found() {
        let sleep = concat!("    tokio::time::", "sleep(wait).await;\n");
        assert_eq!(no_sleeps(&tree(sleep)).len(), 1);
        assert_eq!(no_sleeps(&tree(&format!("{SLEEP_MARK}soon\n{sleep}"))).len(), 1);
        let excused =
            format!("{SLEEP_MARK}pause between two polls, bounded by a deadline\n{sleep}");
        assert_eq!(no_sleeps(&tree(&excused)), []);
    }

    #[test]
    fn a_sleep_outside_tests_is_not_our_business() {
        let text = concat!("fn f() {\n    std::thread::", "sleep(x);\n}\n");
        assert_eq!(no_sleeps(&Tree::of(&[("crates/a/src/a.rs", text)])), []);
        let inside = format!("#[cfg(test)]\nmod tests {{\n{text}}}\n");
        assert_eq!(no_sleeps(&Tree::of(&[("crates/a/src/a.rs", &inside)])).len(), 1);
    }

    #[test]
    fn simulated_time_may_be_slept_through_if_every_test_has_it() {
        let sleep = concat!("    tokio::time::", "sleep(wait).await;\n");
        let paused = format!("#[tokio::test(start_paused = true)]\nasync fn a_b() {{\n{sleep}}}\n");
        assert_eq!(no_sleeps(&tree(&paused)), []);
        let mixed = format!("{paused}#[tokio::test]\nasync fn c_d() {{\n{sleep}}}\n");
        assert_eq!(no_sleeps(&tree(&mixed)).len(), 2);
    }

    #[test]
    fn a_name_that_claims_nothing_is_found() {
        for bad in ["works", "test_cancel", "testing_it"] {
            let found = names_are_claims(&tree(&format!("#[test]\nfn {bad}() {{}}\n")));
            assert_eq!(found.len(), 1, "{bad}");
        }
        let good = "#[tokio::test]\nasync fn cancel_wins() {}\nfn helper() {}\n";
        assert_eq!(names_are_claims(&tree(good)), []);
    }
}
