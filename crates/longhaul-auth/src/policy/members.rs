//! Whom a binding means, and who belongs to which group.

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::{Identity, Principal};

/// How deep groups may lie in one another.
const DEPTH_MAX: usize = 8;

/// Whom a binding means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Member {
    /// One caller.
    Principal(Principal),
    /// A group of the file, or one that the caller's credential names; by address.
    Group(String),
    /// Everybody with an address of this domain.
    Domain(String),
    /// Everybody of a set of another identity system, by its whole name: `principalSet://…`.
    Set(String),
    /// Everybody who showed a credential.
    AllAuthenticated,
}

impl Member {
    /// Reads a member as policies write it. Fails, in words, on any other and on `allUsers`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(principal) = Principal::from_member(text) {
            return Ok(Self::Principal(principal));
        }
        let rest = |prefix: &str| text.strip_prefix(prefix).filter(|rest| !rest.is_empty());
        if let Some(group) = rest("group:") {
            return Ok(Self::Group(group.to_ascii_lowercase()));
        }
        if let Some(domain) = rest("domain:").filter(|domain| !domain.contains('@')) {
            return Ok(Self::Domain(domain.to_ascii_lowercase()));
        }
        if rest("principalSet://").is_some() {
            return Ok(Self::Set(text.to_owned()));
        }
        match text {
            "allAuthenticatedUsers" => Ok(Self::AllAuthenticated),
            "allUsers" => Err(
                "allUsers would mean callers who show no credential, and this server answers none of those; \
                 use allAuthenticatedUsers"
                    .into(),
            ),
            _ => Err(format!(
                "{text:?} is no member; write user:ADDRESS, serviceAccount:ADDRESS, group:ADDRESS, domain:NAME, \
                 principal://…, principalSet://… or allAuthenticatedUsers"
            )),
        }
    }

    pub(crate) fn means(&self, identity: &Identity, groups: &Groups) -> bool {
        match self {
            Self::Principal(principal) => *principal == identity.principal,
            Self::Group(group) => {
                identity.groups.iter().any(|own| own.eq_ignore_ascii_case(group))
                    || groups.has(group, identity)
            }
            Self::Domain(domain) => identity.domain() == Some(domain.as_str()),
            Self::Set(set) => identity.sets.iter().any(|own| **own == **set),
            Self::AllAuthenticated => !identity.is_anonymous(),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Principal(principal) => principal.fmt(f),
            Self::Group(group) => write!(f, "group:{group}"),
            Self::Domain(domain) => write!(f, "domain:{domain}"),
            Self::Set(set) => f.write_str(set),
            Self::AllAuthenticated => f.write_str("allAuthenticatedUsers"),
        }
    }
}

/// The groups of the file, with those within them taken apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    by_name: HashMap<String, HashSet<Member>>,
}

impl Groups {
    /// Takes groups apart. Fails, in words, when they lie in one another in a circle or too deep.
    pub(crate) fn new(written: &HashMap<String, Vec<Member>>) -> Result<Self, String> {
        let mut by_name = HashMap::new();
        for name in written.keys() {
            let mut all = HashSet::new();
            gather(written, name, 0, &mut all)?;
            by_name.insert(name.clone(), all);
        }
        Ok(Self { by_name })
    }

    fn has(&self, group: &str, identity: &Identity) -> bool {
        let Some(members) = self.by_name.get(group) else { return false };
        let own = Member::Principal(identity.principal.clone());
        members.contains(&own)
            || members.iter().any(|member| match member {
                Member::Principal(_) => false,
                // Groups of the file were taken apart; those left are named by credentials.
                Member::Group(group) => {
                    identity.groups.iter().any(|own| own.eq_ignore_ascii_case(group))
                }
                Member::Domain(_) | Member::Set(_) | Member::AllAuthenticated => {
                    member.means(identity, &Self::default())
                }
            })
    }
}

fn gather(
    written: &HashMap<String, Vec<Member>>,
    name: &str,
    depth: usize,
    all: &mut HashSet<Member>,
) -> Result<(), String> {
    if depth == DEPTH_MAX {
        return Err(format!("group {name:?} lies more than {DEPTH_MAX} groups deep, or in itself"));
    }
    for member in written.get(name).into_iter().flatten() {
        match member {
            Member::Group(inner) if written.contains_key(inner) => {
                gather(written, inner, depth + 1, all)?;
            }
            Member::Principal(_)
            | Member::Group(_)
            | Member::Domain(_)
            | Member::Set(_)
            | Member::AllAuthenticated => {
                all.insert(member.clone());
            }
        }
    }
    Ok(())
}
