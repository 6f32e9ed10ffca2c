//! The policy file: bindings in Google's shape, for the whole server or for single resources, with custom
//! roles and groups beside them. YAML or JSON.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::members::{Groups, Member};
use super::roles::Roles;
use super::{Binding, Policies, Policy};

/// Most bytes of the file; Google's limit is 1,500 members to a policy.
const BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    /// Bindings for everything on this server.
    bindings: Vec<BindingText>,
    /// Policies of single resources.
    policies: Vec<ResourcePolicy>,
    /// Roles of one's own.
    roles: Vec<RoleText>,
    /// Members by group.
    groups: BTreeMap<String, Vec<String>>,
    /// Taken and not looked at: what `get-iam-policy` writes has them.
    #[serde(rename = "version")]
    _version: Option<i64>,
    #[serde(rename = "etag")]
    _etag: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ResourcePolicy {
    resource: String,
    #[serde(default)]
    bindings: Vec<BindingText>,
    #[serde(default, rename = "version")]
    _version: Option<i64>,
    #[serde(default, rename = "etag")]
    _etag: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RoleText {
    name: String,
    #[serde(default, rename = "title")]
    _title: String,
    #[serde(default, rename = "description")]
    _description: String,
    included_permissions: Vec<String>,
}

/// A policy as it is written. Source: google/iam/v1/policy.proto.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyText {
    /// Its bindings.
    pub bindings: Vec<BindingText>,
}

/// A binding as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BindingText {
    /// Such as `roles/clouddeploy.operator`.
    pub role: String,
    /// Such as `user:ann@example.com`.
    pub members: Vec<String>,
    /// When it counts; always, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<ConditionText>,
}

/// A condition as it is written. Source: google/type/expr.proto.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConditionText {
    /// In the Common Expression Language.
    pub expression: String,
    /// For people.
    pub title: String,
    /// For people.
    pub description: String,
    /// For people.
    pub location: String,
}

impl PolicyText {
    /// Checks it against the roles there are. Fails in words.
    pub(crate) fn compile(&self, roles: &Roles) -> Result<Policy, String> {
        Ok(Policy {
            bindings: self.bindings.iter().map(|it| it.compile(roles)).collect::<Result<_, _>>()?,
        })
    }
}

impl BindingText {
    fn compile(&self, roles: &Roles) -> Result<Binding, String> {
        let role = &self.role;
        let of = |wrong: String| format!("binding of {role:?}: {wrong}");
        let permissions = roles.get(role).ok_or_else(|| {
            let known = roles.names().join(", ");
            of(format!("there is no such role; known are {known}"))
        })?;
        let members = self.members.iter().map(|member| Member::parse(member));
        let condition = self.condition.as_ref();
        let condition = condition.map(|condition| Condition::parse(&condition.expression));
        Ok(Binding {
            permissions: permissions.clone(),
            members: members.collect::<Result<_, _>>().map_err(of)?,
            condition: condition.transpose().map_err(of)?,
        })
    }
}

impl Policies {
    /// Nobody may do anything.
    #[must_use]
    pub fn none(roles: Roles) -> Self {
        Self { roles, ..Self::default() }
    }

    /// Reads a policy file. `roles` are the predefined ones.
    ///
    /// All or nothing: fails, in words, on anything that is not understood, be it a key, a role, a member, a
    /// condition or a resource.
    pub fn parse(text: &str, mut roles: Roles) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("it has more than {BYTES_MAX} bytes"));
        }
        let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        // As a file is while somebody writes it anew.
        if text.lines().all(blank) {
            return Err(
                "it says nothing; a policy that lets nobody in says \"bindings: []\"".into()
            );
        }
        let document: Document = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        for role in &document.roles {
            roles.add(&role.name, &role.included_permissions)?;
        }
        let mut written = HashMap::new();
        for (group, members) in &document.groups {
            let name = group.strip_prefix("group:").unwrap_or(group).to_ascii_lowercase();
            let members = members.iter().map(|member| Member::parse(member));
            let members = members.collect::<Result<Vec<_>, _>>();
            let members = members.map_err(|wrong| format!("group {group:?}: {wrong}"))?;
            if written.insert(name, members).is_some() {
                return Err(format!("group {group:?} is there twice"));
            }
        }
        let groups = Groups::new(&written)?;
        let mut by_resource: HashMap<String, Policy> = HashMap::new();
        let everything = ResourcePolicy {
            resource: String::new(),
            bindings: document.bindings,
            _version: None,
            _etag: None,
        };
        for policy in std::iter::once(everything).chain(document.policies) {
            let resource = resource_name(&policy.resource)?;
            let text = PolicyText { bindings: policy.bindings };
            let compiled = text.compile(&roles).map_err(|wrong| match resource.as_str() {
                "" => wrong,
                resource => format!("policy of {resource:?}: {wrong}"),
            })?;
            by_resource.entry(resource).or_default().bindings.extend(compiled.bindings);
        }
        Ok(Self { roles, by_resource, groups })
    }
}

/// `//host/projects/p/` and `projects/p` are the same; `*` and nothing are everything.
fn resource_name(text: &str) -> Result<String, String> {
    let name = match text.strip_prefix("//") {
        Some(rest) => rest.split_once('/').map_or("", |(_, name)| name),
        None => text,
    };
    let name = name.trim_matches('/');
    if matches!(name, "" | "*") {
        return Ok(String::new());
    }
    if name.split('/').any(|part| part.is_empty() || part.contains('*')) {
        return Err(format!(
            "policy of {text:?}: that is no resource; write one such as projects/p or projects/p/locations/l"
        ));
    }
    Ok(name.to_owned())
}
