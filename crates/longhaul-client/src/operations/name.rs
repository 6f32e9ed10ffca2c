//! Names into paths: which names can be asked for, and how they are escaped.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Error;

/// All but the unreserved characters of RFC 3986: a colon too, since it starts a verb.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The name as a path without a leading slash. Refuses what could reach another path.
pub(super) fn to_path(name: &str, what: &str) -> Result<String, Error> {
    let wrong = |why: &str| {
        Err(Error::InvalidArgument(format!(
            "{what} {name:?} {why}; give the full name, such as \"projects/p/locations/l/operations/o\""
        )))
    };
    if name.is_empty() {
        return wrong("is empty");
    }
    let mut path = String::with_capacity(name.len() + 8);
    for segment in name.split('/') {
        match segment {
            "" => return wrong("has an empty segment"),
            "." | ".." => return wrong("has a relative segment"),
            _ if segment.chars().any(char::is_control) => return wrong("has a control character"),
            _ => {}
        }
        if !path.is_empty() {
            path.push('/');
        }
        path.extend(utf8_percent_encode(segment, SEGMENT));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, path: Option<&str>) {
        assert_eq!(to_path(name, "name").ok().as_deref(), path, "{name:?}");
    }

    #[test]
    fn every_reserved_character_is_escaped_and_no_other_path_is_reached() {
        check(
            "projects/p/locations/l/operations/o-1",
            Some("projects/p/locations/l/operations/o-1"),
        );
        check(
            "projects/p q/operations/a+b%2Fc=é",
            Some("projects/p%20q/operations/a%2Bb%252Fc%3D%C3%A9"),
        );
        check("projects/example.com:p/operations/a", Some("projects/example.com%3Ap/operations/a"));
        check("operations/a:cancel", Some("operations/a%3Acancel"));
        check("operations/a?x=1#y", Some("operations/a%3Fx%3D1%23y"));
        check("projects/-/operations", Some("projects/-/operations"));
        check("", None);
        check("/operations/a", None);
        check("operations/a/", None);
        check("operations/../a", None);
        check("./operations/a", None);
        check("operations/a\nb", None);
    }
}
