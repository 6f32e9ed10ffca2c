//! Finds the rule that a request's verb and path mean.
//!
//! One tree of segments; a literal beats `*`, which beats `**`. Works on the raw path: a verb is
//! split off at the last colon before anything is decoded, and only if some rule has that verb.
//! A segment is never empty, so a doubled or trailing slash matches nothing.
//! Source: google/api/http.proto, and the paths that official clients send.

use std::collections::{BTreeSet, HashMap};

use longhaul_core::{Error, Reason};

use super::template::{Segment, Variable};
use super::{HttpMethod, HttpRule};

/// Rules by path and verb, each with a value.
#[derive(Debug)]
pub struct Router<T> {
    root: Node<T>,
    verbs: BTreeSet<String>,
}

#[derive(Debug)]
struct Node<T> {
    literals: HashMap<Box<str>, Node<T>>,
    one: Option<Box<Node<T>>>,
    /// Rules whose path ends here.
    here: Vec<Leaf<T>>,
    /// Rules whose path goes on with `**`.
    many: Vec<Leaf<T>>,
}

#[derive(Debug)]
struct Leaf<T> {
    method: HttpMethod,
    verb: Option<String>,
    variables: Vec<Variable>,
    rule: String,
    value: T,
}

/// A rule that was found, and the path's pieces.
#[derive(Debug)]
pub struct Found<'r, 'p, T> {
    /// What was inserted with the rule.
    pub value: &'r T,
    variables: &'r [Variable],
    segments: Vec<&'p str>,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self { root: Node::default(), verbs: BTreeSet::new() }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { literals: HashMap::new(), one: None, here: Vec::new(), many: Vec::new() }
    }
}

impl<T> Router<T> {
    /// A router without rules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule.
    ///
    /// Fails with `API_INVALID` when another rule has the same verb and shape; the message names
    /// both.
    pub fn insert(&mut self, rule: &HttpRule, value: T) -> Result<(), Error> {
        let mut node = &mut self.root;
        let mut many = false;
        for segment in &rule.template.segments {
            match segment {
                Segment::Literal(literal) => {
                    node = node.literals.entry(literal.clone()).or_default();
                }
                Segment::One => node = node.one.get_or_insert_default(),
                Segment::Many => many = true,
            }
        }
        let leaves = if many { &mut node.many } else { &mut node.here };
        let verb = rule.template.verb().map(str::to_owned);
        if let Some(other) =
            leaves.iter().find(|leaf| leaf.method == rule.method && leaf.verb == verb)
        {
            return Err(Error::new(
                Reason::ApiInvalid,
                format!("HTTP rule {rule} has the same verb and path as {}; drop one", other.rule),
            )
            .with("rule", rule.to_string())
            .with("other_rule", other.rule.clone()));
        }
        self.verbs.extend(verb.clone());
        leaves.push(Leaf {
            method: rule.method.clone(),
            verb,
            variables: rule.template.variables().to_vec(),
            rule: rule.to_string(),
            value,
        });
        Ok(())
    }

    /// The most specific rule for a verb and a raw path (percent-encoded, without query).
    #[must_use]
    pub fn find<'r, 'p>(
        &'r self,
        method: &HttpMethod,
        raw_path: &'p str,
    ) -> Option<Found<'r, 'p, T>> {
        let (segments, verb) = self.split(raw_path)?;
        let fits = |leaf: &Leaf<T>| leaf.verb.as_deref() == verb && leaf.serves(method);
        let leaf = self.root.find(&segments, &fits)?;
        Some(Found { value: &leaf.value, variables: &leaf.variables, segments })
    }

    /// The HTTP verbs under which a raw path is served, sorted; empty when it is not.
    #[must_use]
    pub fn methods_at(&self, raw_path: &str) -> Vec<HttpMethod> {
        let Some((segments, verb)) = self.split(raw_path) else { return Vec::new() };
        let methods = std::cell::RefCell::new(BTreeSet::new());
        let note = |leaf: &Leaf<T>| {
            if leaf.verb.as_deref() == verb {
                methods.borrow_mut().insert(leaf.method.clone());
            }
            false
        };
        let _ = self.root.find(&segments, &note);
        methods.into_inner().into_iter().collect()
    }

    /// Splits a raw path into segments and, if some rule has it, the verb.
    fn split<'p>(&self, raw_path: &'p str) -> Option<(Vec<&'p str>, Option<&'p str>)> {
        let mut segments: Vec<&str> = raw_path.strip_prefix('/')?.split('/').collect();
        let last = segments.pop()?;
        let verb = match last.rsplit_once(':') {
            Some((stem, verb)) if self.verbs.contains(verb) => {
                segments.push(stem);
                Some(verb)
            }
            Some(_) | None => {
                segments.push(last);
                None
            }
        };
        Some((segments, verb))
    }
}

impl<T> Node<T> {
    /// The first leaf that fits, most specific first. Every node of the tree is visited at most
    /// once, so a path cannot make this slow.
    fn find(&self, rest: &[&str], fits: &impl Fn(&Leaf<T>) -> bool) -> Option<&Leaf<T>> {
        if let Some((segment, rest)) = rest.split_first() {
            if segment.is_empty() {
                return None;
            }
            let literal = self.literals.get(*segment).and_then(|node| node.find(rest, fits));
            if literal.is_some() {
                return literal;
            }
            let one = self.one.as_ref().and_then(|node| node.find(rest, fits));
            if one.is_some() {
                return one;
            }
            if rest.iter().any(|segment| segment.is_empty()) {
                return None;
            }
        } else if let Some(leaf) = best(&self.here, fits) {
            return Some(leaf);
        }
        best(&self.many, fits)
    }
}

/// The first leaf that fits; one that serves every verb only when no other does.
fn best<'a, T>(leaves: &'a [Leaf<T>], fits: &impl Fn(&Leaf<T>) -> bool) -> Option<&'a Leaf<T>> {
    let named = leaves.iter().find(|leaf| !leaf.serves_all() && fits(leaf));
    named.or_else(|| leaves.iter().find(|leaf| leaf.serves_all() && fits(leaf)))
}

impl<T> Leaf<T> {
    fn serves_all(&self) -> bool {
        matches!(&self.method, HttpMethod::Custom(verb) if verb == "*")
    }

    fn serves(&self, method: &HttpMethod) -> bool {
        self.method == *method || self.serves_all()
    }
}

impl<T> Found<'_, '_, T> {
    /// The fields that the path sets, with their values decoded.
    ///
    /// A variable of one segment is decoded fully; in one of several, `%2F` stays as it is. A plus
    /// is a plus. Fails with `INVALID_NAME` when an escape is malformed or does not give UTF-8.
    pub fn variables(&self) -> Result<Vec<(String, String)>, Error> {
        let mut values = Vec::with_capacity(self.variables.len());
        for variable in self.variables {
            let multi = variable.is_multi_segment();
            // Only `**`, which stands last, takes more or fewer segments than it has.
            let end = if variable.pattern_is_open() { self.segments.len() } else { variable.end };
            let raw = self.segments.get(variable.start..end).unwrap_or_default().join("/");
            let value = decode(&raw, multi).ok_or_else(|| {
                let shown: String = raw.chars().take(200).collect();
                let why = format!("path segment {shown:?} is not valid percent-encoded UTF-8");
                Error::new(Reason::InvalidName, why.clone())
                    .with("segment", shown)
                    .at_field(variable.field_path(), why)
            })?;
            values.push((variable.field_path().to_owned(), value));
        }
        Ok(values)
    }
}

/// Decodes percent escapes, all of them or all but slashes; `None` when malformed.
fn decode(raw: &str, keep_slashes: bool) -> Option<String> {
    if !raw.contains('%') {
        return Some(raw.to_owned());
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = tail;
            continue;
        }
        let [high, low, ..] = *tail else { return None };
        let value = (hex(high)? << 4) | hex(low)?;
        if value == b'/' && keep_slashes {
            bytes.extend_from_slice(&rest[..3]);
        } else {
            bytes.push(value);
        }
        rest = &rest[3..];
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
