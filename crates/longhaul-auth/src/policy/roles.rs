//! Roles: named sets of permissions. The predefined ones follow from what each API declares.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Lets a worker take operations; asked for each method and queue.
pub const CLAIM: &str = "longhaul.workers.claim";
/// Where only owners may cancel: lets its holder cancel what others started.
pub const CANCEL_ANY: &str = "longhaul.operations.cancelAny";

/// What Longhaul's own operations, such as bulk cancels, ask for.
const OWN_READ: [&str; 2] = ["longhaul.operations.get", "longhaul.operations.list"];
const OWN_CANCEL: &str = "longhaul.operations.cancel";

/// A set of permissions.
pub(crate) type Permissions = BTreeSet<Arc<str>>;

/// The permissions that one API declares.
#[derive(Clone, Debug, Default)]
pub struct ApiFacts {
    /// The first label of its host, such as `clouddeploy`.
    pub label: String,
    /// For looking: get and list.
    pub read: Vec<String>,
    /// For starting and cancelling.
    pub operate: Vec<String>,
    /// For deleting and for policies.
    pub administer: Vec<String>,
}

/// Every role that a binding may name.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    by_name: HashMap<String, Arc<Permissions>>,
}

impl Roles {
    /// The predefined roles: for each API `roles/LABEL.viewer`, `.operator` and `.admin`; over all of them
    /// `roles/viewer`, `roles/editor` and `roles/owner`; for workers `roles/longhaul.worker`.
    #[must_use]
    pub fn predefined(apis: &[ApiFacts]) -> Self {
        let shared = |texts: &[String]| texts.iter().map(|text| Arc::from(text.as_str())).collect();
        let (mut viewer, mut editor, mut owner): (Permissions, Permissions, Permissions) =
            Default::default();
        viewer.extend(OWN_READ.map(Arc::from));
        editor.insert(OWN_CANCEL.into());
        owner.extend([CLAIM, CANCEL_ANY].map(Arc::from));
        let mut by_name = HashMap::new();
        for api in apis {
            let read: Permissions = shared(&api.read);
            let operate: Permissions = &read | &shared(&api.operate);
            let mut administer: Permissions = &operate | &shared(&api.administer);
            administer.insert(CANCEL_ANY.into());
            viewer.extend(read.iter().cloned());
            editor.extend(operate.iter().cloned());
            owner.extend(administer.iter().cloned());
            for (level, set) in [("viewer", read), ("operator", operate), ("admin", administer)] {
                by_name.insert(format!("roles/{}.{level}", api.label), Arc::new(set));
            }
        }
        editor.extend(viewer.iter().cloned());
        owner.extend(editor.iter().cloned());
        for (name, set) in [("viewer", viewer), ("editor", editor), ("owner", owner)] {
            by_name.insert(format!("roles/{name}"), Arc::new(set));
        }
        let worker = [Arc::from(CLAIM)].into_iter().collect();
        by_name.insert("roles/longhaul.worker".into(), Arc::new(worker));
        Self { by_name }
    }

    /// Adds a role of one's own. Fails, in words, when the name is taken or has the wrong form, or a
    /// permission has.
    pub(crate) fn add(&mut self, name: &str, permissions: &[String]) -> Result<(), String> {
        if !name.contains("roles/") {
            return Err(format!(
                "role {name:?} must be called roles/NAME or projects/PROJECT/roles/NAME"
            ));
        }
        if let Some(wrong) = permissions.iter().find(|permission| !is_permission(permission)) {
            return Err(format!(
                "role {name:?}: {wrong:?} is no permission; write one such as clouddeploy.operations.cancel"
            ));
        }
        let set = permissions.iter().map(|permission| Arc::from(permission.as_str())).collect();
        match self.by_name.insert(name.to_owned(), Arc::new(set)) {
            None => Ok(()),
            Some(_) => Err(format!("role {name:?} is there twice, or is a predefined one")),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Permissions>> {
        self.by_name.get(name)
    }

    /// Every role's name, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.by_name.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

/// Three or more words with dots between them.
fn is_permission(text: &str) -> bool {
    let words: Vec<&str> = text.split('.').collect();
    let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric());
    (3..=4).contains(&words.len()) && words.iter().all(is_word)
}
