//! The decision: whether a caller has a permission on a resource, and the table of decisions made.
//!
//! A decision is remembered for the parent, so that one lookup answers for all operations below it. It
//! counts until the policies change; one that a condition could change is made anew each time.

use std::fmt;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::quality::RandomState;
use longhaul_core::Timestamp;

use super::{Binding, Policies, Policy};
use crate::Identity;
use crate::bounded::Bounded;

/// What a permission is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource<'a> {
    /// Its full name, such as `projects/p/locations/l/operations/o`.
    pub name: &'a str,
    /// The part of the name that many have in common: what decisions are remembered for.
    pub parent: &'a str,
    /// Such as `clouddeploy.googleapis.com/Operation`.
    pub kind: &'a str,
    /// The API's host.
    pub service: &'a str,
}

/// All policies, as they are now.
pub struct Decider {
    now: ArcSwap<Snapshot>,
    seed: RandomState,
    made: Bounded<Made>,
}

struct Snapshot {
    generation: u64,
    policies: Policies,
}

/// What the policies down to a parent say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Yes,
    No,
    /// Only conditions can say yes.
    Depends,
}

struct Made {
    identity: Arc<Identity>,
    permission: Arc<str>,
    parent: Arc<str>,
    generation: u64,
    said: Said,
}

impl Decider {
    /// Remembers up to `remembered_max` decisions.
    #[must_use]
    pub fn new(policies: Policies, remembered_max: usize) -> Self {
        Self {
            now: ArcSwap::from_pointee(Snapshot { generation: 0, policies }),
            seed: RandomState::default(),
            made: Bounded::new(remembered_max),
        }
    }

    /// Replaces all policies at once; nothing decided before counts any more.
    pub fn replace(&self, policies: Policies) {
        let generation = self.now.load().generation + 1;
        self.now.store(Arc::new(Snapshot { generation, policies }));
    }

    /// Goes up with every change of the policies.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.now.load().generation
    }

    /// Reads a policy for a single resource against the roles there are. Fails in words.
    pub fn read(&self, text: &super::PolicyText) -> Result<Policy, String> {
        text.compile(&self.now.load().policies.roles)
    }

    /// Whether a caller has a permission on a resource. Whether the caller's credential is still good is the
    /// server's to see. `own` is the resource's own policy, where it has one beside the file.
    #[must_use]
    pub fn allows(
        &self,
        identity: &Arc<Identity>,
        permission: &str,
        resource: &Resource<'_>,
        own: Option<&Policy>,
        now: Timestamp,
    ) -> bool {
        let snapshot = self.now.load();
        let said = self.said(&snapshot, identity, permission, resource.parent);
        if said == Said::Yes {
            return true;
        }
        let policies = &snapshot.policies;
        let ask = Asking { policies, identity, permission };
        let holds = |binding: &Binding| {
            binding.condition.as_ref().is_none_or(|condition| condition.holds(resource, now))
        };
        let inherits = said == Said::Depends && ask.chain(resource.parent).any(holds);
        let below = resource.name.get(resource.parent.len()..).unwrap_or_default();
        inherits
            || (!below.is_empty() && ask.below(resource).any(holds))
            || own.is_some_and(|own| ask.granting(own).any(holds))
    }

    fn said(
        &self,
        snapshot: &Snapshot,
        identity: &Arc<Identity>,
        permission: &str,
        parent: &str,
    ) -> Said {
        let mut hasher = self.seed.build_hasher();
        identity.fingerprint(&self.seed).hash(&mut hasher);
        (permission, parent).hash(&mut hasher);
        let hash = hasher.finish();
        let same = |made: &Made| {
            *made.permission == *permission
                && *made.parent == *parent
                && (Arc::ptr_eq(&made.identity, identity) || made.identity.is_same_member(identity))
        };
        let remembered = self.made.get(hash, same, |made| (made.generation, made.said));
        if let Some((generation, said)) = remembered
            && generation == snapshot.generation
        {
            return said;
        }
        let ask = Asking { policies: &snapshot.policies, identity, permission };
        let mut said = Said::No;
        for binding in ask.chain(parent) {
            if binding.condition.is_none() {
                said = Said::Yes;
                break;
            }
            said = Said::Depends;
        }
        let made = Made {
            identity: identity.clone(),
            permission: permission.into(),
            parent: parent.into(),
            generation: snapshot.generation,
            said,
        };
        self.made.put(hash, same, made);
        said
    }
}

impl fmt::Debug for Decider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decider").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

/// One question, apart from where.
#[derive(Clone, Copy)]
struct Asking<'a> {
    policies: &'a Policies,
    identity: &'a Identity,
    permission: &'a str,
}

impl<'a> Asking<'a> {
    /// The bindings of a policy that grant it, conditions apart.
    fn granting(self, policy: &'a Policy) -> impl Iterator<Item = &'a Binding> {
        policy.bindings.iter().filter(move |binding| {
            binding.permissions.contains(self.permission)
                && binding
                    .members
                    .iter()
                    .any(|member| member.means(self.identity, &self.policies.groups))
        })
    }

    /// The same, of everything from the whole server down to `parent`.
    fn chain(self, parent: &'a str) -> impl Iterator<Item = &'a Binding> {
        let ends = parent.match_indices('/').map(|(at, _)| at);
        let ends = ends.chain((!parent.is_empty()).then_some(parent.len()));
        let names = std::iter::once("").chain(ends.map(|end| &parent[..end]));
        names
            .filter_map(move |name| self.policies.by_resource.get(name))
            .flat_map(move |policy| self.granting(policy))
    }

    /// The same, of what lies between the parent and the resource, itself included.
    fn below(self, resource: &Resource<'a>) -> impl Iterator<Item = &'a Binding> {
        let parent = resource.parent.len();
        let (name, from) = (resource.name, if parent == 0 { 0 } else { parent + 1 });
        let rest = name.get(from..).unwrap_or_default();
        let ends = rest.match_indices('/').map(move |(at, _)| from + at);
        ends.chain([name.len()])
            .filter_map(move |end| self.policies.by_resource.get(&name[..end]))
            .flat_map(move |policy| self.granting(policy))
    }
}
