//! The options that hold, as a TOML file that would give them.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::fmt::Write;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::Value;

use super::file::Entry;
use super::{key_of, known};

/// Each option that has a value, with that value.
pub(super) fn in_effect(command: &Command, matches: &ArgMatches) -> BTreeMap<String, String> {
    let shown = known(command).filter_map(|arg| Some((key_of(arg), value(arg, matches)?.to_string())));
    shown.collect()
}

/// All options, each with what it is for and where its value came from. Those without a value are comments.
pub(super) fn toml(command: &Command, matches: &ArgMatches, from_file: Option<&[Entry]>) -> String {
    let mut out = String::new();
    for arg in known(command) {
        let key = key_of(arg);
        if let Some(help) = arg.get_help() {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# {}", help.to_string().replace('\n', "\n# "));
        }
        let in_file = from_file.is_some_and(|entries| entries.iter().any(|entry| entry.key == key));
        let origin = match matches.value_source(arg.get_id().as_str()) {
            _ if in_file => "the file",
            Some(ValueSource::CommandLine) => "the command line",
            Some(ValueSource::EnvVariable) => "the environment",
            Some(_) | None => "default",
        };
        let _ = match value(arg, matches) {
            Some(value) => writeln!(out, "{key} = {value} # {origin}\n"),
            None => writeln!(out, "# {key} is not set\n"),
        };
    }
    out
}

fn value(arg: &Arg, matches: &ArgMatches) -> Option<Value> {
    let id = arg.get_id().as_str();
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return matches.try_get_one::<bool>(id).ok().flatten().map(|set| Value::Boolean(*set));
    }
    let raw: Vec<String> =
        matches.try_get_raw(id).ok().flatten()?.map(|raw| raw.to_string_lossy().into_owned()).collect();
    let mut values = raw.into_iter().map(|text| match text.parse() {
        Ok(number) if is_number(arg) => Value::Integer(number),
        Ok(_) | Err(_) => Value::String(text),
    });
    if matches!(arg.get_action(), ArgAction::Append) {
        Some(Value::Array(values.collect()))
    } else {
        values.next_back()
    }
}

fn is_number(arg: &Arg) -> bool {
    let numbers = [
        TypeId::of::<u8>(),
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
    ];
    numbers.iter().any(|number| arg.get_value_parser().type_id() == *number)
}
