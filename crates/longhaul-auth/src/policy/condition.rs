//! Conditions of bindings, in the Common Expression Language.
//!
//! Owns what an expression may ask about: `request.time`, and `resource.name`, `.type` and `.service`.
//! One that fails or is no truth value does not hold.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use cel::objects::{Key, Map, Value};
use cel::{Context, Env, Program};
use longhaul_core::Timestamp;

use super::Resource;

/// Longest expression, in bytes.
const BYTES_MAX: usize = 2_048;
/// Most openings, negations and choices of an expression: what could nest.
const NESTING_MAX: usize = 64;

/// An expression that is ready to be asked.
#[derive(Clone)]
pub struct Condition {
    program: Arc<Program>,
    text: Arc<str>,
}

impl Condition {
    /// Reads an expression. Fails, in words, when it is too long, does not parse, or asks about something that
    /// is not known here.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("a condition has more than {BYTES_MAX} bytes"));
        }
        let nesting = text.bytes().filter(|byte| b"([{!-?".contains(byte)).count();
        if nesting > NESTING_MAX {
            return Err(format!(
                "a condition has more than {NESTING_MAX} parentheses and negations"
            ));
        }
        // The parser is not ours; whatever it does with a text, this server goes on.
        let compiled = catch_unwind(AssertUnwindSafe(|| Program::compile(text)));
        let program = match compiled {
            Ok(Ok(program)) => program,
            Ok(Err(error)) => return Err(format!("condition {text:?} does not parse: {error}")),
            Err(_) => return Err(format!("condition {text:?} cannot be parsed")),
        };
        for variable in program.references().variables() {
            if !matches!(variable, "request" | "resource") {
                return Err(format!(
                    "condition {text:?} asks about {variable:?}; known are request.time, resource.name, \
                     resource.type and resource.service"
                ));
            }
        }
        Ok(Self { program: Arc::new(program), text: text.into() })
    }

    /// Whether it holds for a resource at a moment.
    pub(crate) fn holds(&self, resource: &Resource<'_>, now: Timestamp) -> bool {
        let asked = catch_unwind(AssertUnwindSafe(|| {
            let mut context = Context::with_env(env().clone());
            let text = |text: &str| Value::String(Arc::new(text.to_owned()));
            context.add_variable_from_value(
                "resource",
                object([
                    ("name", text(resource.name)),
                    ("type", text(resource.kind)),
                    ("service", text(resource.service)),
                ]),
            );
            let time = moment(now).ok_or(())?;
            context.add_variable_from_value("request", object([("time", time)]));
            self.program.execute(&context).map_err(|_| ())
        }));
        matches!(asked, Ok(Ok(Value::Bool(true))))
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition({:?})", self.text)
    }
}

fn env() -> &'static Arc<Env> {
    static ENV: OnceLock<Arc<Env>> = OnceLock::new();
    ENV.get_or_init(|| Arc::new(Env::stdlib()))
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let members = members.into_iter().map(|(name, value)| (Key::from(name), value));
    Value::Map(Map { map: Arc::new(members.collect()) })
}

/// A moment as the language has it, made by the language itself.
fn moment(now: Timestamp) -> Option<Value> {
    static PROGRAM: OnceLock<Option<Program>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| Program::compile("timestamp(text)").ok()).as_ref()?;
    let mut context = Context::with_env(env().clone());
    context.add_variable_from_value("text", Value::String(Arc::new(rfc_3339(now))));
    program.execute(&context).ok()
}

/// Such as `2026-11-22T03:00:00.000001Z`. Source: Howard Hinnant, "chrono-compatible low-level date
/// algorithms", civil_from_days.
fn rfc_3339(moment: Timestamp) -> String {
    let seconds = moment.seconds();
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let micros = moment.nanos() / 1_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_795_316_400_000_001);

    #[track_caller]
    fn check(text: &str, want: bool) {
        let resource = Resource {
            name: "projects/p/locations/l/operations/a",
            parent: "projects/p/locations/l",
            kind: "clouddeploy.googleapis.com/Operation",
            service: "clouddeploy.googleapis.com",
        };
        assert_eq!(Condition::parse(text).unwrap().holds(&resource, NOW), want, "{text}");
    }

    #[test]
    fn conditions_ask_about_time_and_resource() {
        check("true", true);
        check("resource.name.startsWith('projects/p/')", true);
        check(
            "resource.name.endsWith('/b') || resource.service == 'clouddeploy.googleapis.com'",
            true,
        );
        check("resource.type == 'clouddeploy.googleapis.com/Operation'", true);
        check("resource.name.matches('^projects/[a-f]/')", false);
        check("request.time < timestamp('2026-11-23T00:00:00Z')", true);
        check("request.time > timestamp('2026-11-23T00:00:00Z')", false);
        check("request.time.getFullYear() == 2026", true);
    }

    #[test]
    fn a_condition_that_fails_or_is_no_truth_does_not_hold() {
        check("resource.nothing == 'x'", false);
        check("1 / 0 == 1", false);
        check("'yes'", false);
        check("request.time == 'today'", false);
    }

    #[test]
    fn what_cannot_be_asked_is_refused_when_it_is_read() {
        for wrong in ["", "resource.name ==", "true)", "user.name == 'a'", "secret"] {
            assert!(Condition::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Condition::parse(&"!".repeat(1_000)).is_err());
        assert!(Condition::parse(&format!("'{}' == ''", "a".repeat(3_000))).is_err());
    }

    #[test]
    fn moments_are_written_as_the_calendar_has_them() {
        assert_eq!(rfc_3339(Timestamp::from_micros(0)), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc_3339(Timestamp::from_micros(-1)), "1969-12-31T23:59:59.999999Z");
        let leap = Timestamp::from_micros(1_709_164_800_000_000);
        assert_eq!(rfc_3339(leap), "2024-02-29T00:00:00.000000Z");
        assert_eq!(rfc_3339(Timestamp::MAX), "9999-12-31T23:59:59.999999Z");
        assert_eq!(rfc_3339(Timestamp::MIN), "0001-01-01T00:00:00.000000Z");
    }
}
