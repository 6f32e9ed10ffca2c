//! An API as data: a descriptor set, a service configuration and a few settings of ours, and
//! everything that follows from them.
//!
//! Owns what an API's methods are, under which paths they are called and how its operations are
//! named. How it is put together and checked is `api/load.rs`; which of several APIs a call means is
//! `apis.rs`.

mod load;
mod method;
mod pattern;
mod service_config;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use longhaul_core::Error;

pub use load::ApiSource;
pub use method::{Method, MethodKind, StartMethod};
pub use pattern::NamePattern;
pub(crate) use pattern::resource_path;

use crate::convert::ServerFields;
use crate::http_rule::{HttpMethod, HttpRule, Router};
use crate::message::{Descriptors, MessageType, TypeResolver};
use crate::settings::{OperationsVerb, Settings};

/// One API, checked and ready to be served.
pub struct Api {
    name: Arc<str>,
    title: String,
    version: String,
    prefix: String,
    descriptors: Descriptors,
    settings: Settings,
    methods: Vec<Arc<Method>>,
    by_grpc_path: HashMap<String, Arc<Method>>,
    by_full_name: HashMap<Arc<str>, Arc<Method>>,
    router: Router<(Arc<Method>, usize)>,
    patterns: Vec<NamePattern>,
    server_fields: HashMap<String, ServerFields>,
    native: bool,
}

/// A method that an HTTP request means, and what its path says.
#[derive(Debug)]
pub struct HttpCall {
    /// The method.
    pub method: Arc<Method>,
    rule: usize,
    /// Fields set by the path, decoded; an error when an escape in the path is malformed.
    pub variables: Result<Vec<(String, String)>, Error>,
}

impl HttpCall {
    /// The rule that matched.
    #[must_use]
    pub fn rule(&self) -> &HttpRule {
        &self.method.rules[self.rule]
    }

    /// The resource that the path names, such as an operation or the parent of a start; `None` when the
    /// path alone does not say it.
    #[must_use]
    pub fn resource(&self) -> Option<String> {
        let variables = self.variables.as_ref().ok()?;
        let value = |wanted: &str| {
            let found = variables.iter().find(|(field, _)| field == wanted);
            found.map(|(_, value)| value.clone())
        };
        match self.method.kind {
            MethodKind::Operations(_) | MethodKind::Native => value("name"),
            MethodKind::Policy(_) => value("resource"),
            MethodKind::Start(_) | MethodKind::Other => {
                let template = &self.rule().template;
                if template.variables().is_empty() {
                    return None;
                }
                Some(resource_path(&template.expand(value)?, template).to_owned())
            }
        }
    }
}

impl Api {
    /// Reads and checks an API.
    ///
    /// Fails with `API_INVALID` when the parts do not fit together: a type that does not resolve, a
    /// rule that does not parse or collides with another, a setting for a method that does not exist.
    /// The message names the file, the rule or method, and the fix. Never panics on any input.
    pub fn load(source: &ApiSource<'_>) -> Result<Arc<Self>, Error> {
        load::load(source).map(Arc::new)
    }

    /// Its name, such as `clouddeploy.googleapis.com`.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its name for people, such as `Cloud Deploy API`.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// `api_version` of its metadata, such as `v1`; may be empty.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The first path segment that means this API, such as `clouddeploy`; empty when it has none.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether it is Longhaul's own API.
    #[must_use]
    pub fn is_native(&self) -> bool {
        self.native
    }

    /// Its types and services, as they were loaded.
    #[must_use]
    pub fn descriptors(&self) -> &Descriptors {
        &self.descriptors
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Every method, in the order of the services; `google.longrunning.Operations` last.
    #[must_use]
    pub fn methods(&self) -> &[Arc<Method>] {
        &self.methods
    }

    /// The methods that start an operation.
    pub fn start_methods(&self) -> impl Iterator<Item = &Arc<Method>> {
        self.methods.iter().filter(|method| method.start().is_some())
    }

    /// The method of this full name.
    #[must_use]
    pub fn method(&self, full_name: &str) -> Option<&Arc<Method>> {
        self.by_full_name.get(full_name)
    }

    /// The method that a gRPC path such as `/pkg.Service/Method` means.
    #[must_use]
    pub fn find_grpc(&self, path: &str) -> Option<&Arc<Method>> {
        self.by_grpc_path.get(path)
    }

    /// The method that an HTTP verb and raw path mean: percent-encoded, without query or prefix.
    #[must_use]
    pub fn find_http(&self, method: &HttpMethod, raw_path: &str) -> Option<HttpCall> {
        let found = self.router.find(method, raw_path)?;
        let (method, rule) = found.value;
        Some(HttpCall { method: method.clone(), rule: *rule, variables: found.variables() })
    }

    /// The HTTP verbs under which a raw path is served; empty when it is not.
    #[must_use]
    pub fn http_methods_at(&self, raw_path: &str) -> Vec<HttpMethod> {
        self.router.methods_at(raw_path)
    }

    /// The shapes of its operations' names, in the order of the rules.
    #[must_use]
    pub fn name_patterns(&self) -> &[NamePattern] {
        &self.patterns
    }

    /// The parent that a list's `name` asks for, with or without the collection at its end; `None`
    /// when no pattern of this API fits.
    #[must_use]
    pub fn parent_of_list<'n>(&self, name: &'n str) -> Option<&'n str> {
        self.patterns.iter().find_map(|pattern| pattern.parent_of_list(name))
    }

    /// The parent of the operation of this name; `None` when no pattern of this API fits.
    #[must_use]
    pub fn parent_of_name<'n>(&self, name: &'n str) -> Option<&'n str> {
        self.patterns.iter().find_map(|pattern| pattern.parent_of_name(name))
    }

    /// Whether this API has the method of `google.longrunning.Operations` at all.
    #[must_use]
    pub fn supports(&self, verb: OperationsVerb) -> bool {
        self.settings.operations.methods.contains(&verb)
    }

    /// The permissions, all of them, that a caller needs for a verb on an operation started by
    /// `method` (a full name; `None` for a list, or when the operation is not there).
    #[must_use]
    pub fn permissions(&self, verb: OperationsVerb, method: Option<&str>) -> Vec<String> {
        let own = method
            .and_then(|method| self.by_full_name.get(method)?.start()?.permissions.get(&verb));
        match own.or_else(|| self.settings.operations.permissions.get(&verb)) {
            Some(permissions) => permissions.clone(),
            // Waiting is reading, and Google's APIs have no permission of its own for it.
            None if verb == OperationsVerb::Wait => self.permissions(OperationsVerb::Get, method),
            None => vec![format!("{}.operations.{}", self.service_label(), verb.name())],
        }
    }

    /// The permissions that some method's operations need for a verb beside those that all need.
    #[must_use]
    pub fn further_permissions(&self, verb: OperationsVerb) -> Vec<String> {
        let all = self.permissions(verb, None);
        let mut further = Vec::new();
        for method in self.start_methods() {
            for permission in self.permissions(verb, Some(&method.full_name)) {
                if !all.contains(&permission) && !further.contains(&permission) {
                    further.push(permission);
                }
            }
        }
        further
    }

    /// The part of a resource's path that operations lie under, such as `projects/p/locations/l`; the whole
    /// path when no pattern of this API fits.
    #[must_use]
    pub fn parent_of_resource<'r>(&self, resource: &'r str) -> &'r str {
        let parents = self.patterns.iter().filter_map(|pattern| pattern.parent_of(resource));
        parents.max_by_key(|parent| parent.len()).unwrap_or(resource)
    }

    /// The first label of its name, such as `clouddeploy`.
    #[must_use]
    pub fn service_label(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// The fields of a metadata type that the server keeps true by itself.
    pub(crate) fn server_fields(&self, metadata_type: &str) -> Option<&ServerFields> {
        self.server_fields.get(metadata_type)
    }
}

impl TypeResolver for Api {
    fn message(&self, full_name: &str) -> Option<MessageType> {
        let own = self.descriptors.message(full_name);
        own.or_else(|| crate::bundled::well_known(full_name))
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("name", &self.name)
            .field("methods", &self.methods.len())
            .finish_non_exhaustive()
    }
}
