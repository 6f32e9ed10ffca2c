//! What goes to standard output: text that a pipe can take, in the form that was asked for.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::failure::{Exit, Failure};

/// In which form results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// JSON as the server sent it.
    Json,
    /// The same as YAML.
    Yaml,
    /// Names only, one a line.
    Name,
}

/// Writes to standard output.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Indented JSON with a line end.
pub fn json(value: &Value) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(unprintable)?;
    Ok(text + "\n")
}

/// YAML with a line end.
pub fn yaml(value: &Value) -> Result<String, Failure> {
    let mut text = serde_saphyr::to_string(value).map_err(unprintable)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

fn unprintable(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, format!("the answer cannot be printed: {error}"))
}

/// Columns without lines, as wide as they need to be, whatever the terminal's width: so that names
/// can be copied and columns cut.
pub fn table<R, C>(head: &[&str], rows: R) -> String
where
    R: IntoIterator<Item = C>,
    C: IntoIterator<Item = String>,
{
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.to_vec());
    for row in rows {
        table.add_row(row.into_iter().map(|cell| printable(&cell)).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// One line that no terminal obeys: control characters become spaces, nothing becomes a dash.
pub fn printable(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_lines_no_colours_and_no_trailing_space() {
        let rows = [["a/long/name".to_owned(), "x".to_owned()], ["b".to_owned(), String::new()]];
        let text = table(&["NAME", "STATE"], rows);
        assert_eq!(text, "NAME         STATE\na/long/name  x\nb            -\n");
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc"), "a [31mb c");
    }

    #[test]
    fn yaml_says_the_same_as_the_json() {
        let value = serde_json::json!({
            "name": "operations/a", "done": true, "code": 1, "text": "true", "empty": "",
            "list": [{"a": "x: y"}, []], "many": "one\ntwo\n", "nothing": {},
        });
        let text = yaml(&value).unwrap();
        let back: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(back, value, "{text}");
    }
}
