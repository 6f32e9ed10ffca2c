//! Ends the process at a chosen commit, as `kill -9` would: for tests of what a crash leaves behind.
//!
//! `LONGHAUL_FAILPOINT=commit:3:before` ends it when the third commit since the start is about to be
//! made, `commit:3:after` once it has been made and nobody was told. Only in builds with debug
//! assertions; in all others there is nothing here to read, to count or to reach.

/// Where the process ends.
#[cfg(debug_assertions)]
pub(super) struct Failpoint {
    at: Option<(u64, Side)>,
    commits: u64,
}

#[cfg(debug_assertions)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

#[cfg(debug_assertions)]
impl Failpoint {
    /// What the environment asks for.
    pub fn of_environment() -> Self {
        let asked = std::env::var("LONGHAUL_FAILPOINT").ok();
        let at = asked.as_deref().and_then(parse);
        if let (Some(asked), None) = (&asked, at) {
            tracing::error!(%asked, "LONGHAUL_FAILPOINT is not commit:NUMBER:before or commit:NUMBER:after");
        }
        Self { at, commits: 0 }
    }

    /// A commit is about to be made.
    pub fn before(&mut self) {
        self.commits += 1;
        self.reach(Side::Before);
    }

    /// It has been made, and nobody was told.
    pub fn after(&self) {
        self.reach(Side::After);
    }

    fn reach(&self, side: Side) {
        if self.at == Some((self.commits, side)) {
            tracing::error!(commit = self.commits, ?side, "the failpoint ends this process");
            std::process::abort();
        }
    }
}

#[cfg(debug_assertions)]
fn parse(asked: &str) -> Option<(u64, Side)> {
    let (number, side) = asked.strip_prefix("commit:")?.split_once(':')?;
    let side = match side {
        "before" => Side::Before,
        "after" => Side::After,
        _ => return None,
    };
    Some((number.parse().ok()?, side))
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(super) struct Failpoint;

#[cfg(not(debug_assertions))]
#[allow(clippy::unused_self, clippy::needless_pass_by_ref_mut, reason = "as in the other build")]
impl Failpoint {
    pub const fn of_environment() -> Self {
        Self
    }

    pub const fn before(&mut self) {}

    pub const fn after(&self) {}
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_names_a_commit_and_a_side() {
        assert_eq!(parse("commit:1:before"), Some((1, Side::Before)));
        assert_eq!(parse("commit:12:after"), Some((12, Side::After)));
        for wrong in ["", "commit", "commit:1", "commit:x:after", "commit:1:during", "sync:1:after"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
