//! Which room may look into which, and which libraries a room must never see.
//!
//! The table is STYLE §2's; a new arrow needs a decision page, then a line here.

use cargo_metadata::{DependencyKind, Metadata};

use super::Finding;

/// What one crate of the workspace may depend on.
struct Room {
    name: &'static str,
    /// Other rooms it may use outside its tests.
    may_use: &'static [&'static str],
    /// Libraries that would break the sentence for which the room exists; a prefix ends with `*`.
    never: &'static [&'static str],
}

const ROOMS: &[Room] = &[
    // The rules: std only.
    Room { name: "longhaul-core", may_use: &[], never: &["*"] },
    // Words on the line: nothing stored, nothing listening.
    Room {
        name: "longhaul-wire",
        may_use: &["longhaul-core"],
        never: &["rusqlite", "tokio-postgres", "hyper", "hyper-util", "reqwest"],
    },
    // Where values are kept: no protobuf, no network protocol.
    Room {
        name: "longhaul-store",
        may_use: &["longhaul-core"],
        never: &["prost*", "protox", "tonic*", "buffa*", "hyper", "hyper-util", "http"],
    },
    // Who calls and what they may do: no edge, no protobuf, nothing stored.
    Room {
        name: "longhaul-auth",
        may_use: &["longhaul-core"],
        never: &[
            "prost*",
            "protox",
            "tonic*",
            "buffa*",
            "hyper",
            "hyper-util",
            "rusqlite",
            "tokio-postgres",
        ],
    },
    // What callers import: no database. The rules are there for the harness that tests handlers.
    Room {
        name: "longhaul-client",
        may_use: &["longhaul-core", "longhaul-wire"],
        never: &["rusqlite", "tokio-postgres"],
    },
    // Where rooms meet.
    Room {
        name: "longhaul-server",
        may_use: &["longhaul-core", "longhaul-auth", "longhaul-wire", "longhaul-store"],
        never: &[],
    },
    // Flags, and the practice worker, which is a client and builds typed responses.
    Room {
        name: "longhaul",
        may_use: &["longhaul-server", "longhaul-client", "longhaul-auth", "longhaul-wire"],
        never: &["rusqlite", "tokio-postgres"],
    },
    // Automation may look anywhere; nobody looks into it.
    Room {
        name: "xtask",
        may_use: &[
            "longhaul-core",
            "longhaul-auth",
            "longhaul-wire",
            "longhaul-store",
            "longhaul-client",
            "longhaul-server",
        ],
        never: &[],
    },
];

/// One crate of the workspace and what it depends on outside its tests.
#[derive(Debug)]
pub struct Crate {
    name: String,
    uses: Vec<String>,
}

/// The workspace's crates; development dependencies are left out.
pub fn crates_of(metadata: &Metadata) -> Vec<Crate> {
    let packages = metadata.workspace_packages();
    let uses = |package: &cargo_metadata::Package| {
        let shipped =
            package.dependencies.iter().filter(|one| one.kind != DependencyKind::Development);
        shipped.map(|one| one.name.clone()).collect()
    };
    packages.iter().map(|one| Crate { name: one.name.to_string(), uses: uses(one) }).collect()
}

/// Every dependency is an arrow of the table or a library that the room may see.
pub fn check(crates: &[Crate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for one in crates {
        let Some(room) = ROOMS.iter().find(|room| room.name == one.name) else {
            findings.push(Finding::new(&one.name, "is no room of STYLE §2; a new crate needs a sentence there, a decision page and a line in the table of arrows"));
            continue;
        };
        for used in &one.uses {
            if let Some(problem) = problem(room, used) {
                findings.push(Finding::new(&one.name, problem));
            }
        }
    }
    findings
}

fn problem(room: &Room, used: &str) -> Option<String> {
    let is_room = ROOMS.iter().any(|other| other.name == used);
    if is_room {
        let allowed = room.may_use.contains(&used);
        return (!allowed)
            .then(|| format!("must not depend on {used}: STYLE §2 has no such arrow"));
    }
    let banned = room.never.iter().any(|never| match never.strip_suffix('*') {
        Some(prefix) => used.starts_with(prefix),
        None => *never == used,
    });
    banned.then(|| format!("must not depend on {used}: the room exists so that it cannot"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn count(name: &str, uses: &[&str]) -> usize {
        let uses = uses.iter().map(|used| (*used).into()).collect();
        check(&[Crate { name: name.into(), uses }]).len()
    }

    #[test]
    fn arrows_of_the_table_pass() {
        assert_eq!(count("longhaul-server", &["longhaul-core", "longhaul-store", "tokio"]), 0);
        assert_eq!(count("longhaul", &["longhaul-client", "longhaul-wire", "clap"]), 0);
    }

    #[test]
    fn store_and_wire_never_meet() {
        assert_eq!(count("longhaul-store", &["longhaul-wire"]), 1);
        assert_eq!(count("longhaul-wire", &["longhaul-store"]), 1);
    }

    #[test]
    fn core_has_no_dependency_at_all() {
        assert_eq!(count("longhaul-core", &["uuid"]), 1);
    }

    #[test]
    fn a_library_that_breaks_the_room_is_found() {
        assert_eq!(count("longhaul-store", &["prost-types", "rusqlite"]), 1);
        assert_eq!(count("longhaul-client", &["rusqlite"]), 1);
    }

    #[test]
    fn nobody_looks_into_xtask_and_no_crate_is_unknown() {
        assert_eq!(count("longhaul", &["xtask"]), 1);
        assert_eq!(count("longhaul-util", &[]), 1);
    }
}
