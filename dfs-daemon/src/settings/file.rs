//! What a TOML file says, as arguments.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

use super::{key_of, known};

/// Why a file is of no use. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{}: {source}: give a file that this user can read with --config", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}: not TOML: {wrong}", path.display())]
    Syntax { path: PathBuf, wrong: String },
    #[error("{}: unknown key {key:?}; known are: {known}", path.display())]
    Unknown { path: PathBuf, key: String, known: String },
    #[error("{}: {key}: {found} where {wanted} belongs", path.display())]
    Kind { path: PathBuf, key: String, found: &'static str, wanted: &'static str },
}

/// One key of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Of clap's argument.
    pub(super) id: String,
    /// As clap names it in its errors.
    pub(super) shown: String,
    /// As typed options, or as what is typed without a name.
    pub(super) options: Vec<String>,
    pub(super) operands: Vec<String>,
}

pub(super) fn read(path: &Path, command: &Command) -> Result<Vec<Entry>, FileError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| FileError::Unreadable { path: path.to_owned(), source })?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| FileError::Syntax {
        path: path.to_owned(),
        wrong: format!("{}{}", place(&text, error.span()), error.message()),
    })?;
    table.iter().map(|(key, value)| entry(path, command, key, value)).collect()
}

fn place(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let before = span.and_then(|span| text.get(..span.start));
    before.map_or_else(String::new, |before| format!("line {}: ", before.matches('\n').count() + 1))
}

fn entry(path: &Path, command: &Command, key: &str, value: &Value) -> Result<Entry, FileError> {
    let arg = known(command).find(|arg| key_of(arg) == key).ok_or_else(|| FileError::Unknown {
        path: path.to_owned(),
        key: key.to_owned(),
        known: known(command).map(key_of).collect::<Vec<_>>().join(", "),
    })?;
    let kind = |wanted| FileError::Kind {
        path: path.to_owned(),
        key: key.to_owned(),
        found: name_of(value),
        wanted,
    };
    let shown = match arg.get_long() {
        Some(long) => format!("--{long}"),
        None => {
            format!("<{}>", arg.get_value_names().and_then(<[_]>::first).map_or("", |name| name.as_str()))
        }
    };
    let (mut options, mut operands) = (Vec::new(), Vec::new());
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        match value {
            Value::Boolean(true) => options.push(shown.clone()),
            Value::Boolean(false) => {}
            _ => return Err(kind("true or false")),
        }
    } else {
        let values = texts(arg, value).map_err(kind)?;
        match arg.get_long() {
            Some(long) => options.extend(values.iter().map(|value| format!("--{long}={value}"))),
            None => operands = values,
        }
    }
    Ok(Entry { key: key.to_owned(), id: arg.get_id().as_str().to_owned(), shown, options, operands })
}

/// A scalar, or an array of them where an option may be given several times.
fn texts(arg: &Arg, value: &Value) -> Result<Vec<String>, &'static str> {
    let several = matches!(arg.get_action(), ArgAction::Append);
    let wanted = if several { "a string, a number, or an array of them" } else { "a string or a number" };
    match value {
        Value::Array(values) if several => values.iter().map(|value| text(value).ok_or(wanted)).collect(),
        value => Ok(vec![text(value).ok_or(wanted)?]),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a number",
        Value::Float(_) => "a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array",
        Value::Table(_) => "a section",
    }
}
