//! Cuts JSON text into tokens, one at a time, without building a tree.
//!
//! Strict: RFC 8259 and nothing more. Depth is bounded, so neither parsing nor skipping can
//! exhaust the stack. Knows nothing of protobuf.

use std::borrow::Cow;

use longhaul_core::{Error, Reason};

use super::DEPTH_READ_MAX;

/// What a value begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Object,
    List,
    String,
    Number,
    True,
    False,
    Null,
}

/// A place in a JSON text.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// Fails with `INVALID_JSON` when the bytes are not UTF-8.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { text, at: 0, depth: 0 }),
            Err(cause) => Err(invalid(&format!(
                "The payload is not UTF-8 from byte {} on.",
                cause.valid_up_to()
            ))),
        }
    }

    /// How many bytes have been read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The text between an earlier position and this one.
    pub(super) fn since(&self, position: usize) -> &'a str {
        self.text.get(position..self.at).unwrap_or_default().trim()
    }

    /// What comes next, without taking it.
    pub(super) fn peek(&mut self) -> Result<Start, Error> {
        self.blanks();
        match self.byte() {
            Some(b'{') => Ok(Start::Object),
            Some(b'[') => Ok(Start::List),
            Some(b'"') => Ok(Start::String),
            Some(b'-' | b'0'..=b'9') => Ok(Start::Number),
            Some(b't') => Ok(Start::True),
            Some(b'f') => Ok(Start::False),
            Some(b'n') => Ok(Start::Null),
            Some(_) | None => Err(self.unexpected("a value")),
        }
    }

    /// Takes the opening bracket of an object or a list that [`Self::peek`] saw.
    pub(super) fn open(&mut self) -> Result<(), Error> {
        if self.depth >= DEPTH_READ_MAX {
            let why = format!("Nested deeper than {DEPTH_READ_MAX} levels");
            return Err(self.invalid_here(&why));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// The next key of the object, its colon taken; `None` at the end, its bracket taken.
    pub(super) fn key(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, Error> {
        if !self.goes_on(first, b'}')? {
            return Ok(None);
        }
        if self.byte() != Some(b'"') {
            return Err(self.unexpected("a name in double quotes"));
        }
        let key = self.string()?;
        self.blanks();
        if self.byte() != Some(b':') {
            return Err(self.unexpected("a colon"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Whether the list has another item; at the end its bracket is taken.
    pub(super) fn item(&mut self, first: bool) -> Result<bool, Error> {
        self.goes_on(first, b']')
    }

    fn goes_on(&mut self, first: bool, end: u8) -> Result<bool, Error> {
        self.blanks();
        if self.byte() == Some(end) {
            self.at += 1;
            self.depth -= 1;
            return Ok(false);
        }
        if !first {
            if self.byte() != Some(b',') {
                let wanted = if end == b'}' { "a comma or }" } else { "a comma or ]" };
                return Err(self.unexpected(wanted));
            }
            self.at += 1;
            self.blanks();
        }
        Ok(true)
    }

    /// Takes `true`, `false` or `null`.
    pub(super) fn word(&mut self, word: &str) -> Result<(), Error> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.unexpected("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Takes a number, as it is written.
    pub(super) fn number(&mut self) -> Result<&'a str, Error> {
        let start = self.at;
        self.take(b"-");
        let leading_zero = self.byte() == Some(b'0');
        let whole = self.figures();
        if whole == 0 || (leading_zero && whole > 1) {
            return Err(self.unexpected("a number"));
        }
        if self.take(b".") && self.figures() == 0 {
            return Err(self.unexpected("a digit"));
        }
        if self.take(b"eE") {
            self.take(b"+-");
            if self.figures() == 0 {
                return Err(self.unexpected("a digit"));
            }
        }
        Ok(&self.text[start..self.at])
    }

    /// Takes a string and resolves its escapes.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        self.at += 1;
        let start = self.at;
        let plain = self.plain();
        if self.byte() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(&self.text[start..start + plain]));
        }
        let mut owned = String::from(&self.text[start..self.at]);
        loop {
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(owned));
                }
                Some(b'\\') => owned.push(self.escape()?),
                Some(_) => return Err(self.invalid_here("A control character in a string")),
                None => return Err(self.unexpected("a closing quote")),
            }
            let start = self.at;
            self.plain();
            owned.push_str(&self.text[start..self.at]);
        }
    }

    /// Takes what follows in a string up to a quote, an escape, a control character or the end.
    fn plain(&mut self) -> usize {
        let rest = &self.text.as_bytes()[self.at..];
        let special = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
        let length = rest.iter().position(special).unwrap_or(rest.len());
        self.at += length;
        length
    }

    fn escape(&mut self) -> Result<char, Error> {
        self.at += 1;
        let escaped = match self.byte() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            Some(_) | None => return Err(self.invalid_here("An invalid escape in a string")),
        };
        self.at += 1;
        Ok(escaped)
    }

    /// `\uXXXX`, or two of them that make one character.
    fn unicode_escape(&mut self) -> Result<char, Error> {
        let high = self.code_unit()?;
        if !(0xD800..0xE000).contains(&high) {
            return char::from_u32(high).ok_or_else(|| self.lone_surrogate());
        }
        if high >= 0xDC00 || !self.text[self.at..].starts_with("\\u") {
            return Err(self.lone_surrogate());
        }
        self.at += 1;
        let low = self.code_unit()?;
        if !(0xDC00..0xE000).contains(&low) {
            return Err(self.lone_surrogate());
        }
        let combined = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
        char::from_u32(combined).ok_or_else(|| self.lone_surrogate())
    }

    /// Takes `uXXXX`.
    fn code_unit(&mut self) -> Result<u32, Error> {
        let digits = self.text.as_bytes().get(self.at + 1..self.at + 5).unwrap_or_default();
        let value = digits
            .iter()
            .try_fold(0_u32, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?));
        match value {
            Some(value) if digits.len() == 4 => {
                self.at += 5;
                Ok(value)
            }
            Some(_) | None => Err(self.invalid_here("An invalid escape in a string")),
        }
    }

    fn lone_surrogate(&self) -> Error {
        self.invalid_here("Half of a surrogate pair in a string")
    }

    /// Takes a whole value, whatever it is, and forgets it.
    pub(super) fn skip(&mut self) -> Result<(), Error> {
        match self.peek()? {
            Start::Object => {
                self.open()?;
                let mut first = true;
                while self.key(first)?.is_some() {
                    first = false;
                    self.skip()?;
                }
            }
            Start::List => {
                self.open()?;
                let mut first = true;
                while self.item(first)? {
                    first = false;
                    self.skip()?;
                }
            }
            Start::String => {
                self.string()?;
            }
            Start::Number => {
                self.number()?;
            }
            Start::True => self.word("true")?,
            Start::False => self.word("false")?,
            Start::Null => self.word("null")?,
        }
        Ok(())
    }

    /// Checks that nothing but blanks follows.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        self.blanks();
        if self.byte().is_some() { Err(self.unexpected("the end")) } else { Ok(()) }
    }

    fn blanks(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn figures(&mut self) -> usize {
        let start = self.at;
        while matches!(self.byte(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn take(&mut self, any_of: &[u8]) -> bool {
        let taken = self.byte().is_some_and(|byte| any_of.contains(&byte));
        self.at += usize::from(taken);
        taken
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn unexpected(&self, wanted: &str) -> Error {
        let what =
            if self.byte().is_some() { "Unexpected token" } else { "Unexpected end of string" };
        self.invalid_here(&format!("{what}, expected {wanted}"))
    }

    /// An error at this place, counted in lines and characters from 1.
    pub(super) fn invalid_here(&self, why: &str) -> Error {
        let before: Cow<'_, str> = String::from_utf8_lossy(&self.text.as_bytes()[..self.at]);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        invalid(&format!("{why} at line {line}, column {column}."))
            .with("line", line.to_string())
            .with("column", column.to_string())
    }
}

fn invalid(why: &str) -> Error {
    let message = format!("Invalid JSON payload received. {why}");
    Error::new(Reason::InvalidJson, message.clone()).at_field("", message)
}
