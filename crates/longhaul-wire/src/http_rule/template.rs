//! The path of an HTTP rule: parsed, printed, and filled with values.
//!
//! Grammar: `/` segments, each a literal, `*` (one segment), `**` (any number, only last) or a
//! variable `{field=segments}`; then, optionally, `:verb`. Variables do not nest.
//! Source: google/api/http.proto.

use std::fmt;

use longhaul_core::{Error, Reason};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Longest path of a rule, in bytes; the longest of Google's is below 300.
const TEMPLATE_BYTES_MAX: usize = 2_048;

/// What a URL may carry unescaped in a path segment, besides letters and digits.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One part of a path between slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// Exactly this text.
    Literal(Box<str>),
    /// `*`: one segment.
    One,
    /// `**`: any number of segments, none included.
    Many,
}

/// A field that takes its value from the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    field_path: String,
    pub(super) start: usize,
    pub(super) end: usize,
    segments: Vec<Segment>,
}

impl Variable {
    /// The field it sets, such as `name` or `delivery_pipeline.name`.
    #[must_use]
    pub fn field_path(&self) -> &str {
        &self.field_path
    }

    /// The shape of its values, such as `projects/*/locations/*/operations/*`.
    #[must_use]
    pub fn pattern(&self) -> String {
        print_segments(&self.segments)
    }

    /// Whether its values may span several segments: then an escaped slash in them stays escaped.
    #[must_use]
    pub fn is_multi_segment(&self) -> bool {
        self.segments.len() != 1 || self.segments[0] == Segment::Many
    }

    /// Whether it takes any number of segments.
    pub(super) fn pattern_is_open(&self) -> bool {
        self.segments.last() == Some(&Segment::Many)
    }

    /// Whether a value has the shape of [`Self::pattern`].
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        if let [Segment::One] = self.segments.as_slice() {
            return !value.is_empty();
        }
        let mut parts = value.split('/').filter(|_| !value.is_empty());
        for segment in &self.segments {
            match segment {
                Segment::Many => return parts.all(|part| !part.is_empty()),
                Segment::One => {
                    if parts.next().is_none_or(str::is_empty) {
                        return false;
                    }
                }
                Segment::Literal(literal) => {
                    if parts.next() != Some(literal) {
                        return false;
                    }
                }
            }
        }
        parts.next().is_none()
    }
}

/// A parsed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub(super) segments: Vec<Segment>,
    variables: Vec<Variable>,
    verb: Option<String>,
    text: String,
}

impl Template {
    /// Parses a path such as `/v1/{name=projects/*/locations/*/operations/*}:cancel`.
    ///
    /// Fails with `API_INVALID`; the message says where and why.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Parser { text, at: 0 }.template().map_err(|(at, why)| {
            let shown: String = text.chars().take(200).collect();
            Error::new(
                Reason::ApiInvalid,
                format!("path {shown:?} does not parse at character {at}: {why}"),
            )
            .with("path", shown)
        })
    }

    /// The fields it binds, in the order of the path.
    #[must_use]
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// The variable that sets this field.
    #[must_use]
    pub fn variable(&self, field_path: &str) -> Option<&Variable> {
        self.variables.iter().find(|variable| variable.field_path == field_path)
    }

    /// The path as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands after the last colon, such as `cancel`.
    #[must_use]
    pub fn verb(&self) -> Option<&str> {
        self.verb.as_deref()
    }

    /// The shape without names: `/v1/projects/*/operations/*:cancel`. Two rules of one verb and one
    /// shape collide.
    #[must_use]
    pub fn shape(&self) -> String {
        let verb = self.verb.as_ref().map(|verb| format!(":{verb}")).unwrap_or_default();
        format!("/{}{verb}", print_segments(&self.segments))
    }

    /// Fills in values, as they are: no escaping, verb included.
    ///
    /// `None` when `value` gives none for a variable, or one of another shape.
    #[must_use]
    pub fn expand(&self, value: impl Fn(&str) -> Option<String>) -> Option<String> {
        self.fill(value, |_, value| value.to_owned())
    }

    /// Fills in values for a URL: everything but letters, digits, `-._~` is escaped, and so are
    /// slashes inside a variable of one segment.
    ///
    /// `None` when `value` gives none for a variable, or one of another shape.
    #[must_use]
    pub fn expand_url(&self, value: impl Fn(&str) -> Option<String>) -> Option<String> {
        self.fill(value, |variable, value| {
            if !variable.is_multi_segment() {
                return utf8_percent_encode(value, SEGMENT).to_string();
            }
            let parts = value.split('/').map(|part| utf8_percent_encode(part, SEGMENT).to_string());
            parts.collect::<Vec<_>>().join("/")
        })
    }

    fn fill(
        &self,
        value: impl Fn(&str) -> Option<String>,
        escape: impl Fn(&Variable, &str) -> String,
    ) -> Option<String> {
        let mut path = String::with_capacity(self.text.len() * 2);
        let mut variables = self.variables.iter().peekable();
        let mut at = 0;
        while at < self.segments.len() {
            if let Some(variable) = variables.next_if(|variable| variable.start == at) {
                let value = value(&variable.field_path)?;
                if !variable.matches(&value) {
                    return None;
                }
                if !value.is_empty() {
                    path.push('/');
                    path.push_str(&escape(variable, &value));
                }
                at = variable.end;
            } else {
                let Segment::Literal(literal) = &self.segments[at] else { return None };
                path.push('/');
                path.push_str(literal);
                at += 1;
            }
        }
        if let Some(verb) = &self.verb {
            path.push(':');
            path.push_str(verb);
        }
        Some(path)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn print_segments(segments: &[Segment]) -> String {
    let words = segments.iter().map(|segment| match segment {
        Segment::Literal(literal) => literal,
        Segment::One => "*",
        Segment::Many => "**",
    });
    words.collect::<Vec<_>>().join("/")
}

/// Where it went wrong, as a byte offset, and why.
type Wrong = (usize, &'static str);

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn template(mut self) -> Result<Template, Wrong> {
        if self.text.len() > TEMPLATE_BYTES_MAX {
            return Err((TEMPLATE_BYTES_MAX, "it is too long"));
        }
        let mut segments = Vec::new();
        let mut variables: Vec<Variable> = Vec::new();
        self.expect('/', "a path starts with a slash")?;
        loop {
            if self.peek() == Some('{') {
                let at = self.at;
                let variable = self.variable(segments.len())?;
                if variables.iter().any(|other| other.field_path == variable.field_path) {
                    return Err((at, "this field is bound twice"));
                }
                segments.extend(variable.segments.iter().cloned());
                variables.push(variable);
            } else {
                segments.push(self.segment()?);
            }
            match self.peek() {
                Some('/') => self.at += 1,
                Some(':') | None => break,
                Some(_) => return Err((self.at, "expected a slash, a colon or the end")),
            }
        }
        if let Some(many) = segments.iter().position(|segment| *segment == Segment::Many)
            && many + 1 != segments.len()
        {
            return Err((self.at, "** may only stand last"));
        }
        let verb = self.verb()?;
        Ok(Template { segments, variables, verb, text: self.text.into() })
    }

    fn verb(&mut self) -> Result<Option<String>, Wrong> {
        if self.peek().is_none() {
            return Ok(None);
        }
        self.expect(':', "expected a colon or the end")?;
        let verb = self.word("a verb is a word without slash, colon, star or brace")?;
        if self.peek().is_some() {
            return Err((self.at, "a verb stands last"));
        }
        Ok(Some(verb.into()))
    }

    fn variable(&mut self, start: usize) -> Result<Variable, Wrong> {
        self.expect('{', "a variable starts with a brace")?;
        let field_path = self.field_path()?;
        let mut segments = Vec::new();
        if self.peek() == Some('=') {
            self.at += 1;
            loop {
                segments.push(self.segment()?);
                if self.peek() != Some('/') {
                    break;
                }
                self.at += 1;
            }
        } else {
            segments.push(Segment::One);
        }
        self.expect('}', "a variable ends with a closing brace")?;
        Ok(Variable { field_path, start, end: start + segments.len(), segments })
    }

    fn field_path(&mut self) -> Result<String, Wrong> {
        let start = self.at;
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        while self.peek().is_some_and(word) {
            self.at += 1;
        }
        let path = &self.text[start..self.at];
        if path.split('.').any(|part| part.is_empty() || part.starts_with(|c: char| c.is_numeric()))
        {
            return Err((start, "a variable names a field, such as name or target.name"));
        }
        Ok(path.into())
    }

    fn segment(&mut self) -> Result<Segment, Wrong> {
        if self.text[self.at..].starts_with("**") {
            self.at += 2;
            return Ok(Segment::Many);
        }
        if self.peek() == Some('*') {
            self.at += 1;
            return Ok(Segment::One);
        }
        if self.peek() == Some('{') {
            return Err((self.at, "variables do not nest"));
        }
        let literal = self.word("a segment is a word, *, ** or a variable, never empty")?;
        Ok(Segment::Literal(literal.into()))
    }

    fn word(&mut self, otherwise: &'static str) -> Result<&'a str, Wrong> {
        let start = self.at;
        let word = |c: char| c.is_ascii_graphic() && !"/:{}*=?#%\"\\<>".contains(c);
        while self.peek().is_some_and(word) {
            self.at += 1;
        }
        if start == self.at { Err((start, otherwise)) } else { Ok(&self.text[start..self.at]) }
    }

    fn expect(&mut self, wanted: char, otherwise: &'static str) -> Result<(), Wrong> {
        if self.peek() != Some(wanted) {
            return Err((self.at, otherwise));
        }
        self.at += wanted.len_utf8();
        Ok(())
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }
}
