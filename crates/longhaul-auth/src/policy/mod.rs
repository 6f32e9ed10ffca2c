//! Policies: which members have which roles where, as Google's IAM says it.
//!
//! Owns their file, the predefined roles, conditions and the decision. A policy on a resource holds for
//! everything below it; what grants nothing denies.

mod condition;
mod decide;
mod file;
mod members;
mod roles;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

pub use condition::Condition;
pub use decide::{Decider, Resource};
pub use file::{BindingText, ConditionText, PolicyText};
pub use members::Member;
pub use roles::{ApiFacts, CANCEL_ANY, CLAIM, Roles};

/// Some members' role, perhaps under a condition.
#[derive(Clone, Debug)]
pub struct Binding {
    pub(crate) permissions: Arc<roles::Permissions>,
    pub(crate) members: Vec<Member>,
    pub(crate) condition: Option<Condition>,
}

/// The policy of one resource.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub(crate) bindings: Vec<Binding>,
}

/// All policies of a server, read from one file.
#[derive(Default)]
pub struct Policies {
    pub(crate) roles: Roles,
    /// By resource, such as `projects/p`; the empty name is everything.
    pub(crate) by_resource: HashMap<String, Policy>,
    pub(crate) groups: members::Groups,
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policies")
            .field("resources", &self.by_resource.len())
            .finish_non_exhaustive()
    }
}
