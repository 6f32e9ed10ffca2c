//! Where an API's operations live: patterns of operation names, read from the rules of GetOperation.
//!
//! A pattern is split into a parent, a collection and an id: `projects/*/locations/*`, `operations`
//! and `*`. Names stay opaque everywhere else.

use std::sync::Arc;

use longhaul_core::Error;

use crate::http_rule::Template;
use crate::settings::invalid;

/// One shape of operation names. Cheap to clone: every start does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    text: Arc<str>,
    /// Segments of the parent; `*` stands for any one.
    parent: Arc<[String]>,
    /// Literals between parent and id, such as `["operations"]`; may be empty.
    collection: Arc<[String]>,
}

impl NamePattern {
    /// Reads a pattern such as `projects/*/locations/*/operations/*`, `operations/**` or `**`.
    ///
    /// The id is the last wildcard; a `**` after another wildcard may be empty, so the one before it
    /// is the id. Literals after the id are not supported, as no API has them. Fails with
    /// `API_INVALID`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || {
            invalid(
                "operation name pattern",
                format!("{text:?} has no id; end it with /* or /**, such as operations/*"),
            )
        };
        let mut segments: Vec<&str> = text.split('/').collect();
        let last = segments.pop().ok_or_else(wrong)?;
        if segments.iter().any(|segment| segment.is_empty() || *segment == "**") {
            return Err(wrong());
        }
        match (last, segments.last()) {
            ("**", Some(&"*")) => {
                segments.pop();
            }
            ("*" | "**", _) => {}
            _ => return Err(wrong()),
        }
        let parent_len = segments.iter().rposition(|segment| *segment == "*").map_or(0, |i| i + 1);
        let own = |part: &[&str]| part.iter().map(|&segment| segment.to_owned()).collect();
        Ok(Self {
            text: text.into(),
            parent: own(&segments[..parent_len]),
            collection: own(&segments[parent_len..]),
        })
    }

    /// The patterns of a GetOperation path: one, or none when the name is only a query parameter.
    pub(crate) fn of_template(template: &Template) -> Result<Option<Self>, Error> {
        template.variable("name").map(|variable| Self::parse(&variable.pattern())).transpose()
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The parent's pattern, such as `projects/*/locations/*`; empty for a pattern without parent.
    #[must_use]
    pub fn parent_pattern(&self) -> String {
        self.parent.join("/")
    }

    /// Number of the parent's segments.
    #[must_use]
    pub fn parent_len(&self) -> usize {
        self.parent.len()
    }

    /// The start of a resource path that can be the parent of operations, if it has this shape:
    /// `projects/p/locations/l` of `projects/p/locations/l/targets/t`.
    #[must_use]
    pub fn parent_of<'p>(&self, resource: &'p str) -> Option<&'p str> {
        if self.parent.is_empty() {
            return Some("");
        }
        let mut end = 0;
        let mut parts = Parts(Some(resource));
        for (position, wanted) in self.parent.iter().enumerate() {
            let part = parts.next().filter(|part| !part.is_empty())?;
            if wanted != "*" && wanted != part {
                return None;
            }
            end += part.len() + usize::from(position > 0);
        }
        resource.get(..end)
    }

    /// The full name of an operation below a parent.
    #[must_use]
    pub fn name(&self, parent: &str, id: &str) -> String {
        let mut name = String::with_capacity(parent.len() + id.len() + 16);
        let parts = [parent].into_iter().filter(|parent| !parent.is_empty());
        for part in parts.chain(self.collection.iter().map(String::as_str)).chain([id]) {
            if !name.is_empty() {
                name.push('/');
            }
            name.push_str(part);
        }
        name
    }

    /// The parent of the operations that a list's `name` asks for: `name` itself, or `name` without
    /// the collection where it ends in it. `None` when it fits neither.
    #[must_use]
    pub fn parent_of_list<'n>(&self, name: &'n str) -> Option<&'n str> {
        let collection = self.collection.join("/");
        let stripped = match name.strip_suffix(&collection) {
            Some("") => Some(""),
            Some(rest) if !collection.is_empty() => rest.strip_suffix('/'),
            Some(_) | None => None,
        };
        [stripped, Some(name)].into_iter().flatten().find(|parent| self.is_parent(parent))
    }

    fn is_parent(&self, text: &str) -> bool {
        self.parent_of(text).is_some_and(|parent| parent.len() == text.len())
    }

    /// The parent of an operation of this name, if the name has this shape.
    #[must_use]
    pub fn parent_of_name<'n>(&self, name: &'n str) -> Option<&'n str> {
        let parent = self.parent_of(name)?;
        let mut rest = Parts(name.get(parent.len()..));
        if !parent.is_empty() {
            rest.next();
        }
        for wanted in self.collection.iter() {
            if rest.next() != Some(wanted) {
                return None;
            }
        }
        rest.next().filter(|id| !id.is_empty())?;
        (self.text.ends_with("**") || rest.next().is_none()).then_some(parent)
    }
}

/// What stands between slashes, as `split('/')` gives it: names are short, and looking for the next slash byte
/// by byte takes less than beginning a search.
struct Parts<'p>(Option<&'p str>);

impl<'p> Iterator for Parts<'p> {
    type Item = &'p str;

    fn next(&mut self) -> Option<&'p str> {
        let rest = self.0?;
        let Some(end) = rest.bytes().position(|byte| byte == b'/') else { return self.0.take() };
        self.0 = rest.get(end + 1..);
        rest.get(..end)
    }
}

/// A resource path from an expanded HTTP path: without slash, version and verb.
///
/// `/v1/projects/p/targets/t:activate` gives `projects/p/targets/t`.
pub(crate) fn resource_path<'p>(path: &'p str, template: &Template) -> &'p str {
    let path = match template.verb() {
        Some(verb) => path.strip_suffix(verb).and_then(|p| p.strip_suffix(':')).unwrap_or(path),
        None => path,
    };
    let path = path.strip_prefix('/').unwrap_or(path);
    match path.split_once('/') {
        Some((first, rest)) if is_version(first) => rest,
        Some(_) | None => path,
    }
}

/// Whether a word is a version: `v1`, `v2beta1`, `v1p1alpha`.
pub(crate) fn is_version(word: &str) -> bool {
    let Some(rest) = word.strip_prefix('v') else { return false };
    let digits =
        |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let major = digits(rest);
    if major == 0 {
        return false;
    }
    let mut rest = &rest[major..];
    if let Some(patch) = rest.strip_prefix('p') {
        rest = &patch[digits(patch)..];
    }
    let rest = rest.strip_prefix("alpha").or_else(|| rest.strip_prefix("beta")).unwrap_or(rest);
    digits(rest) == rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn splits(text: &str, parent: &str, name: &str) {
        let pattern = NamePattern::parse(text).unwrap();
        assert_eq!(pattern.parent_pattern(), parent, "{text}");
        let example = parent.replace('*', "x");
        assert_eq!(pattern.name(&example, "ID"), name, "{text}");
        assert_eq!(pattern.parent_of_name(name), Some(example.as_str()), "{text}");
    }

    #[test]
    fn names_need_not_have_an_operations_segment() {
        splits(
            "projects/*/locations/*/operations/*",
            "projects/*/locations/*",
            "projects/x/locations/x/operations/ID",
        );
        splits("operations/**", "", "operations/ID");
        splits("**", "", "ID");
        splits("batches/*", "", "batches/ID");
        splits("transferOperations/**", "", "transferOperations/ID");
        splits("*/*/operations/*/**", "*/*", "x/x/operations/ID");
        splits(
            "networks/*/operations/reports/runs/*",
            "networks/*",
            "networks/x/operations/reports/runs/ID",
        );
        splits(
            "projects/*/locations/*/warehouseOperations/*",
            "projects/*/locations/*",
            "projects/x/locations/x/warehouseOperations/ID",
        );
        for wrong in ["", "operations", "operations/*/x", "a/**/b/*", "/operations/*"] {
            assert!(NamePattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_names_the_parent_with_or_without_the_collection() {
        let pattern = NamePattern::parse("projects/*/regions/*/operations/*").unwrap();
        assert_eq!(pattern.parent_of_list("projects/p/regions/r"), Some("projects/p/regions/r"));
        assert_eq!(
            pattern.parent_of_list("projects/p/regions/r/operations"),
            Some("projects/p/regions/r")
        );
        assert_eq!(pattern.parent_of_list("projects/p/locations/r"), None);
        assert_eq!(pattern.parent_of_list("projects/p/regions/r/jobs"), None);
        assert_eq!(pattern.parent_of_list(""), None);
        let bare = NamePattern::parse("operations/**").unwrap();
        assert_eq!(bare.parent_of_list("operations"), Some(""));
        assert_eq!(bare.parent_of_list(""), Some(""));
        assert_eq!(bare.parent_of_list("jobs"), None);
    }

    #[test]
    fn a_resource_path_has_neither_version_nor_verb() {
        for (template, path, resource) in [
            ("/v1/{name=projects/*}:stop", "/v1/projects/p:stop", "projects/p"),
            ("/v1beta1/{name=a/*}", "/v1beta1/a/b", "a/b"),
            ("/{name=a/*}", "/a/b:c", "a/b:c"),
        ] {
            let template = Template::parse(template).unwrap();
            assert_eq!(resource_path(path, &template), resource);
        }
        for (word, version) in [
            ("v1", true),
            ("v2beta1", true),
            ("v1p1alpha", true),
            ("v", false),
            ("vx", false),
            ("videos", false),
            ("v1x", false),
        ] {
            assert_eq!(is_version(word), version, "{word}");
        }
    }
}
