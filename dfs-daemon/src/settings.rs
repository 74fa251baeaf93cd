//! A program's options, from its command line and from a TOML file.
//!
//! The keys of the file are the long names of clap's options, taken from the program's own definition of its command
//! line, so that the two cannot differ. What a file says becomes arguments in front of those that were typed, and
//! clap checks both alike. The command line wins, then an environment variable, then the file.

mod file;
mod print;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Parser};
use dfs_proto::words::wrong_usage;

pub use file::FileError;

use file::Entry;

/// To be flattened into the arguments of a program that can take its options from a file.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct FileArgs {
    /// Take options from this TOML file too, under their long names; the command line wins. SIGHUP reads it again
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the options that hold, as such a file, and end
    #[arg(long)]
    pub print_config: bool,
    /// error, warn, info, debug or trace, also for a part alone: info,dfs_client=debug. RUST_LOG overrides
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = crate::logging::check)]
    pub log_level: String,
}

/// The options about options: a file has none of them.
const ABOUT_OPTIONS: [&str; 4] = ["config", "print_config", "help", "version"];

/// Why there are no options to run with.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Clap's own message, help and version included.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: {key}: {wrong}", path.display())]
    Value { path: PathBuf, key: String, wrong: String },
}

/// Of a command line or a file that is not understood.
const USAGE: u8 = 2;

impl SettingsError {
    /// Says what is wrong, or what was asked for, and how the program ends then.
    #[must_use]
    pub fn tell(&self, program: &str) -> ExitCode {
        match self {
            SettingsError::Usage(wrong) if wrong.use_stderr() => wrong_usage(program, wrong),
            // Help and version.
            SettingsError::Usage(help) => help.exit(),
            SettingsError::File(_) | SettingsError::Value { .. } => {
                eprintln!("{program}: {self}");
                ExitCode::from(USAGE)
            }
        }
    }
}

/// Where a program's options came from, to read them again.
#[derive(Debug)]
pub struct Settings<T> {
    argv: Vec<OsString>,
    sub: Option<&'static str>,
    path: Option<PathBuf>,
    in_effect: BTreeMap<String, String>,
    of: PhantomData<fn() -> T>,
}

/// Options, and where they came from.
#[derive(Debug)]
pub struct Read<T> {
    pub args: T,
    pub settings: Settings<T>,
    /// Of the options that hold, as TOML; for who asked to have it printed.
    pub printed: Option<String>,
}

/// An option that a file now sets otherwise than the process runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    pub key: String,
    pub from: String,
    pub to: String,
}

impl<T: Parser> Settings<T> {
    /// Reads a command line and the file that it names. `sub` is the subcommand that takes a file, if it is not the
    /// program itself.
    ///
    /// # Errors
    /// What is wrong with either, in the words of one line; help and version are clap's.
    pub fn read(argv: Vec<OsString>, sub: Option<&'static str>) -> Result<Read<T>, SettingsError> {
        let typed = relaxed(&T::command()).try_get_matches_from(&argv);
        let path = typed.as_ref().ok().and_then(|typed| chosen(typed, sub)).and_then(config_path);
        let Some(path) = path else { return take(argv.clone(), argv, sub, None) };
        let entries = file::read(&path, &target(&T::command(), sub))?;
        // The typed ones parsed, else there would be no path.
        let typed = typed?;
        let missing = |entry: &Entry| !chosen(&typed, sub).is_some_and(|typed| is_given(typed, &entry.id));
        let entries: Vec<Entry> = entries.into_iter().filter(missing).collect();
        let full = with_entries(&argv, sub, &entries);
        take(argv, full, sub, Some((path, entries)))
    }

    /// The file that was read.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Reads the file again: the options as they would be now, and how they differ from those that are in effect.
    ///
    /// # Errors
    /// As [`Settings::read`]; what was in effect stays so.
    pub fn read_again(&self) -> Result<(T, Vec<Change>), SettingsError> {
        let again = Settings::<T>::read(self.argv.clone(), self.sub)?;
        let none = String::from("nothing");
        let keys = self.in_effect.keys().chain(again.settings.in_effect.keys());
        let mut changes: Vec<Change> = keys
            .map(|key| Change {
                key: key.clone(),
                from: self.in_effect.get(key).unwrap_or(&none).clone(),
                to: again.settings.in_effect.get(key).unwrap_or(&none).clone(),
            })
            .filter(|change| change.from != change.to)
            .collect();
        changes.dedup();
        Ok((again.args, changes))
    }

    /// The process now runs with this change.
    pub fn took(&mut self, change: &Change) {
        self.in_effect.insert(change.key.clone(), change.to.clone());
    }
}

fn take<T: Parser>(
    argv: Vec<OsString>,
    full: Vec<OsString>,
    sub: Option<&'static str>,
    from: Option<(PathBuf, Vec<Entry>)>,
) -> Result<Read<T>, SettingsError> {
    let command = T::command();
    let matches =
        command.clone().try_get_matches_from(full).map_err(|wrong| attribute(wrong, from.as_ref()))?;
    let args = T::from_arg_matches(&matches).map_err(|wrong| attribute(wrong, from.as_ref()))?;
    let path = from.as_ref().map(|(path, _)| path.clone());
    let (mut in_effect, mut printed) = (BTreeMap::new(), None);
    if let Some(chosen) = chosen(&matches, sub) {
        let target = target(&command, sub);
        in_effect = print::in_effect(&target, chosen);
        if chosen.try_get_one::<bool>("print_config").ok().flatten() == Some(&true) {
            printed = Some(print::toml(&target, chosen, from.as_ref().map(|(_, entries)| &entries[..])));
        }
    }
    Ok(Read { args, settings: Settings { argv, sub, path, in_effect, of: PhantomData }, printed })
}

/// The matches of the subcommand, if it is the one that was typed.
fn chosen<'a>(matches: &'a ArgMatches, sub: Option<&str>) -> Option<&'a ArgMatches> {
    match (sub, matches.subcommand()) {
        (None, _) => Some(matches),
        (Some(sub), Some((name, matches))) if name == sub => Some(matches),
        (Some(_), _) => None,
    }
}

/// The command whose options a file has.
fn target(command: &Command, sub: Option<&str>) -> Command {
    sub.and_then(|sub| command.find_subcommand(sub)).unwrap_or(command).clone()
}

fn config_path(matches: &ArgMatches) -> Option<PathBuf> {
    matches.try_get_one::<PathBuf>("config").ok().flatten().cloned()
}

/// The same command line with nothing required: the file may have it.
fn relaxed(command: &Command) -> Command {
    let relaxed = command.clone().mut_args(|arg| arg.required(false));
    relaxed.mut_subcommands(|sub| sub.mut_args(|arg| arg.required(false)))
}

fn is_given(matches: &ArgMatches, id: &str) -> bool {
    match matches.value_source(id) {
        Some(ValueSource::CommandLine | ValueSource::EnvVariable) => true,
        Some(_) | None => false,
    }
}

/// Options go where the command's own begin, so that what follows them is still what it was.
fn with_entries(argv: &[OsString], sub: Option<&str>, entries: &[Entry]) -> Vec<OsString> {
    let named = sub.and_then(|sub| argv.iter().position(|arg| arg == sub)).unwrap_or(0);
    let (before, after) = argv.split_at((named + 1).min(argv.len()));
    let mut full = before.to_vec();
    full.extend(entries.iter().flat_map(|entry| entry.options.iter().map(OsString::from)));
    full.extend_from_slice(after);
    full.extend(entries.iter().flat_map(|entry| entry.operands.iter().map(OsString::from)));
    full
}

/// Says that a value that clap refused is the file's, if it is.
fn attribute(wrong: clap::Error, from: Option<&(PathBuf, Vec<Entry>)>) -> SettingsError {
    let Some(ContextValue::String(named)) = wrong.get(ContextKind::InvalidArg) else { return wrong.into() };
    // As `--lease-ms <LEASE_MS>`, or `<MNT>`.
    let name = named.split_whitespace().next().unwrap_or_default();
    let Some((path, entries)) = from else { return wrong.into() };
    let Some(entry) = entries.iter().find(|entry| entry.shown == name) else { return wrong.into() };
    let said = wrong.to_string();
    let said = said.lines().next().unwrap_or_default();
    let said = said.strip_prefix("error: ").unwrap_or(said);
    SettingsError::Value { path: path.clone(), key: entry.key.clone(), wrong: said.to_owned() }
}

/// The name of an option in a file.
fn key_of(arg: &clap::Arg) -> String {
    arg.get_long().map_or_else(|| arg.get_id().as_str().replace('_', "-"), str::to_owned)
}

/// The options that a file can have.
fn known(command: &Command) -> impl Iterator<Item = &clap::Arg> {
    command.get_arguments().filter(|arg| !ABOUT_OPTIONS.contains(&arg.get_id().as_str()))
}

#[cfg(test)]
mod tests;
