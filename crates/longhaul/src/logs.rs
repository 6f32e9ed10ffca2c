//! Log lines, to standard error: for people on a terminal, else JSON as Cloud Logging reads it.
//!
//! Standard output belongs to results.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How to log.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// Form of the log lines on standard error
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "LONGHAUL_LOG_FORMAT",
        help_heading = "Logs"
    )]
    log_format: LogFormat,
    /// What to log, such as "info" or "warn,longhaul_server=debug" [default: info for serve, else warn]
    #[arg(long, global = true, value_name = "FILTER", env = "LONGHAUL_LOG", help_heading = "Logs")]
    log: Option<String>,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One JSON object a line: severity, time, message and fields.
    Json,
    /// For people.
    Pretty,
}

/// Starts logging. Keeps quiet about a second start, which only tests make.
pub fn start(args: &LogArgs, server: bool) {
    let default = if server { "info" } else { "warn" };
    let filter = args.log.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new(default));
    let terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let json = match args.log_format {
        LogFormat::Auto => !terminal,
        LogFormat::Json => true,
        LogFormat::Pretty => false,
    };
    let started = if json {
        builder.event_format(CloudLogging).try_init()
    } else {
        let plain =
            !terminal || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        builder.with_ansi(!plain).with_target(false).try_init()
    };
    // Only a second start fails, and then the first goes on.
    let _ = started;
}

/// One JSON object a line. Source: Cloud Logging's structured logging, severity and time.
struct CloudLogging;

impl<S, N> FormatEvent<S, N> for CloudLogging
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let metadata = event.metadata();
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Line(Map::new());
        line.0.insert("severity".into(), severity(*metadata.level()).into());
        line.0.insert("time".into(), time.into());
        line.0.insert("message".into(), "".into());
        line.0.insert("target".into(), metadata.target().into());
        event.record(&mut line);
        writeln!(writer, "{}", Value::Object(line.0))
    }
}

fn severity(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

/// The fields of one line.
struct Line(Map<String, Value>);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(text, "{value:?}");
        self.0.insert(field.name().to_owned(), text.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}
