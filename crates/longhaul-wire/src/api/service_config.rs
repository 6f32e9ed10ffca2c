//! The standard service configuration, `google.api.Service` as YAML: the parts that Longhaul reads.
//!
//! Keys that are not read here are legal and ignored: the files are Google's, not ours. Source:
//! google/api/service.proto, http.proto, auth.proto, backend.proto.

use std::collections::HashMap;
use std::time::Duration;

use longhaul_core::Error;
use serde::Deserialize;

use crate::http_rule::{HttpMethod, HttpRule};
use crate::settings::{invalid, read_yaml};

/// Longest deadline that a backend rule may set, in seconds: a day.
const DEADLINE_SECONDS_MAX: f64 = 86_400.0;

/// What a service configuration says.
#[derive(Debug, Default)]
pub(crate) struct ServiceConfig {
    /// Host name of the API, such as `clouddeploy.googleapis.com`; may be empty.
    pub name: String,
    pub title: String,
    /// Full names of the services, in order; empty when the file lists none.
    pub services: Vec<String>,
    /// Rules by selector; the last one of a selector wins.
    http: HashMap<String, Vec<HttpRule>>,
    auth: Vec<(String, Vec<String>)>,
    backend: Vec<(String, Duration)>,
}

impl ServiceConfig {
    /// Reads a YAML text; an empty one gives an empty configuration. `file` names it in errors.
    pub(crate) fn parse(text: &str, file: &str) -> Result<Self, Error> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let raw: RawService = read_yaml(text, file)?;
        let kind = raw.kind.as_deref().unwrap_or("google.api.Service");
        if kind != "google.api.Service" {
            return Err(invalid(
                file,
                format!(
                    "its type is {kind:?}; a service configuration has type google.api.Service"
                ),
            ));
        }
        let mut config = Self {
            name: raw.name,
            title: raw.title,
            services: raw.apis.into_iter().map(|api| api.name).collect(),
            ..Self::default()
        };
        for rule in raw.http.rules {
            let selector = rule.selector.clone();
            if selector.is_empty() {
                return Err(invalid(file, "an HTTP rule has no selector; name its method".into()));
            }
            let rules = rule.into_rules(&selector).map_err(|error| in_file(error, file))?;
            config.http.insert(selector, rules);
        }
        for rule in raw.authentication.rules {
            let scopes = rule.oauth.unwrap_or_default().canonical_scopes;
            let scopes = scopes.split(',').map(str::trim).filter(|scope| !scope.is_empty());
            config.auth.push((rule.selector, scopes.map(Into::into).collect()));
        }
        for rule in raw.backend.rules {
            let Some(seconds) = rule.deadline else { continue };
            if !(seconds > 0.0 && seconds <= DEADLINE_SECONDS_MAX) {
                return Err(invalid(
                    file,
                    format!(
                        "the deadline of {} is {seconds}; give seconds, more than 0 and at most {DEADLINE_SECONDS_MAX}",
                        rule.selector
                    ),
                ));
            }
            config.backend.push((rule.selector, Duration::from_secs_f64(seconds)));
        }
        Ok(config)
    }

    /// The rules of a method; they take the place of its annotation.
    pub(crate) fn http_rules(&self, method: &str) -> Option<&[HttpRule]> {
        self.http.get(method).map(Vec::as_slice)
    }

    /// Every selector of an HTTP rule.
    pub(crate) fn http_selectors(&self) -> impl Iterator<Item = &str> {
        self.http.keys().map(String::as_str)
    }

    /// The scopes of which a caller of the method needs one; the last rule that selects it wins.
    pub(crate) fn scopes(&self, method: &str) -> Option<&[String]> {
        last_selected(&self.auth, method).map(Vec::as_slice)
    }

    /// The longest time that a call of the method may take; the last rule that selects it wins.
    pub(crate) fn deadline(&self, method: &str) -> Option<Duration> {
        last_selected(&self.backend, method).copied()
    }
}

fn last_selected<'a, T>(rules: &'a [(String, T)], method: &str) -> Option<&'a T> {
    rules.iter().rev().find(|(selector, _)| selects(selector, method)).map(|(_, value)| value)
}

/// A selector is a full name, `*`, or a list of prefixes and names: `a.b.*,c.d.E`.
fn selects(selector: &str, method: &str) -> bool {
    selector.split(',').map(str::trim).any(|one| match one.strip_suffix('*') {
        Some(prefix) => method.starts_with(prefix),
        None => one == method,
    })
}

/// Names the file in an error.
pub(crate) fn in_file(mut error: Error, file: &str) -> Error {
    if file.is_empty() {
        return error;
    }
    error.message = format!("{file}: {}", error.message);
    error.with("file", file)
}

#[derive(Deserialize)]
struct RawService {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    apis: Vec<RawApi>,
    #[serde(default)]
    http: RawRules<RawHttpRule>,
    #[serde(default)]
    authentication: RawRules<RawAuthRule>,
    #[serde(default)]
    backend: RawRules<RawBackendRule>,
}

#[derive(Deserialize)]
struct RawApi {
    name: String,
}

#[derive(Deserialize)]
struct RawRules<T> {
    #[serde(default = "Vec::new")]
    rules: Vec<T>,
}

impl<T> Default for RawRules<T> {
    fn default() -> Self {
        Self { rules: Vec::new() }
    }
}

#[derive(Deserialize)]
struct RawHttpRule {
    #[serde(default)]
    selector: String,
    get: Option<String>,
    put: Option<String>,
    post: Option<String>,
    delete: Option<String>,
    patch: Option<String>,
    custom: Option<RawCustom>,
    #[serde(default)]
    body: String,
    #[serde(default, alias = "responseBody")]
    response_body: String,
    #[serde(default, alias = "additionalBindings")]
    additional_bindings: Vec<RawHttpRule>,
}

#[derive(Deserialize)]
struct RawCustom {
    kind: String,
    path: String,
}

#[derive(Deserialize)]
struct RawAuthRule {
    #[serde(default)]
    selector: String,
    oauth: Option<RawOauth>,
}

#[derive(Default, Deserialize)]
struct RawOauth {
    #[serde(default, alias = "canonicalScopes")]
    canonical_scopes: String,
}

#[derive(Deserialize)]
struct RawBackendRule {
    #[serde(default)]
    selector: String,
    deadline: Option<f64>,
}

impl RawHttpRule {
    /// The rule and its bindings, in their order. A rule without a path switches the method's
    /// binding off.
    fn into_rules(self, selector: &str) -> Result<Vec<HttpRule>, Error> {
        let verbs = [
            (HttpMethod::Get, self.get),
            (HttpMethod::Put, self.put),
            (HttpMethod::Post, self.post),
            (HttpMethod::Delete, self.delete),
            (HttpMethod::Patch, self.patch),
        ];
        let mut given: Vec<_> =
            verbs.into_iter().filter_map(|(method, path)| Some((method, path?))).collect();
        given.extend(self.custom.map(|custom| (HttpMethod::parse(&custom.kind), custom.path)));
        if given.len() > 1 {
            return Err(invalid(
                selector,
                "an HTTP rule names two verbs; put the second under additional_bindings".into(),
            ));
        }
        let mut rules = Vec::new();
        for (method, path) in given {
            let rule =
                HttpRule::from_parts(selector, method, &path, &self.body, &self.response_body)?;
            rules.push(rule);
        }
        for binding in self.additional_bindings {
            if !binding.additional_bindings.is_empty() {
                return Err(invalid(
                    selector,
                    "an additional binding has bindings of its own; write them side by side".into(),
                ));
            }
            rules.extend(binding.into_rules(selector)?);
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
type: google.api.Service
name: a.example.com
documentation: {summary: ignored}
http:
  rules:
  - selector: a.B.C
    get: '/v1/{name=x/*}'
  - selector: a.B.C
    post: '/v1/{name=y/*}:c'
    body: '*'
    additional_bindings:
    - post: '/v1/{name=z/*}:c'
      body: '*'
authentication:
  rules:
  - selector: '*'
    oauth: {canonical_scopes: 'one,two'}
  - selector: a.B.C
    oauth:
      canonical_scopes: |-
        three,
        four
backend:
  rules:
  - {selector: 'a.B.*', deadline: 60.0}
  - {selector: a.B.C, deadline: 5.0}
";

    #[test]
    fn the_last_rule_of_a_selector_wins() {
        let config = ServiceConfig::parse(TEXT, "service.yaml").unwrap();
        let rules = config.http_rules("a.B.C").unwrap();
        assert_eq!(rules.len(), 2);
        assert_eq!(rules[0].template.to_string(), "/v1/{name=y/*}:c");
        assert_eq!(rules[1].template.to_string(), "/v1/{name=z/*}:c");
        assert_eq!(config.scopes("a.B.C").unwrap(), ["three", "four"]);
        assert_eq!(config.scopes("a.B.D").unwrap(), ["one", "two"]);
        assert_eq!(config.deadline("a.B.C"), Some(Duration::from_secs(5)));
        assert_eq!(config.deadline("a.B.D"), Some(Duration::from_secs(60)));
        assert_eq!(config.deadline("a.C.D"), None);
    }

    #[track_caller]
    fn refuses(text: &str, part: &str) {
        let error = ServiceConfig::parse(text, "service.yaml").unwrap_err();
        assert!(error.message.contains("service.yaml"), "{}", error.message);
        assert!(error.message.contains(part), "{} lacks {part:?}", error.message);
    }

    #[test]
    fn a_wrong_configuration_names_file_rule_and_fix() {
        refuses("type: google.api.Other", "google.api.Service");
        refuses("http: {rules: [{get: /v1/a}]}", "no selector");
        refuses("http: {rules: [{selector: a.B, get: 'v1/a'}]}", "a.B");
        refuses("http: {rules: [{selector: a.B, get: /a, post: /b}]}", "two verbs");
        refuses("backend: {rules: [{selector: a.B, deadline: -1}]}", "a.B");
        refuses("http: 3", "line 1");
    }
}
