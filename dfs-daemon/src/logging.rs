//! Where log lines go, in which form, and which of them: the journal with its levels, where standard error leads there;
//! plain standard error with a time; a file; syslog. What is logged can be changed while the process runs.
//! `RUST_LOG` overrides what is asked for here, always.

mod syslog;

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{OnceLock, PoisonError, RwLock};

use env_filter::Filter;
use env_logger::fmt::Formatter;
use env_logger::{Builder, Logger, TimestampPrecision};
use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};

pub use syslog::say as to_syslog;

/// Overrides all filters.
const VARIABLE: &str = "RUST_LOG";

/// Set by systemd to `DEVICE:INODE` of the stream that leads to the journal.
const JOURNAL: &str = "JOURNAL_STREAM";

/// Where lines go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// Standard error, with the journal's levels if it leads there.
    Stderr,
    File(PathBuf),
    /// For a process whose standard error leads nowhere; on systemd machines that is the journal, too. The name is
    /// the program's.
    Syslog(&'static std::ffi::CStr),
}

/// Why nothing is logged.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("{0}")]
    Filter(String),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("logging was started twice")]
    Twice,
}

static LOGGER: OnceLock<Switchable> = OnceLock::new();

/// A logger whose filter can be replaced.
struct Switchable {
    /// Formats and writes; lets everything through.
    inner: Logger,
    filter: RwLock<Filter>,
    /// What `RUST_LOG` said when the process began.
    fixed: Option<String>,
}

impl Log for Switchable {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.read().unwrap_or_else(PoisonError::into_inner).enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.filter.read().unwrap_or_else(PoisonError::into_inner).matches(record) {
            self.inner.log(record);
        }
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

/// Starts logging what `filter` says: a level, or several of `module=level`, separated by commas.
///
/// # Errors
/// When the filter is none, the file cannot be opened, or logging was started before.
pub fn start(target: &Target, filter: &str) -> Result<(), LoggingError> {
    let fixed = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let filter = parse(fixed.as_deref().unwrap_or(filter)).map_err(LoggingError::Filter)?;
    let level = filter.filter();
    let switchable = Switchable { inner: inner(target)?, filter: RwLock::new(filter), fixed };
    if LOGGER.set(switchable).is_err() {
        return Err(LoggingError::Twice);
    }
    let logger = LOGGER.get().ok_or(LoggingError::Twice)?;
    log::set_logger(logger).map_err(|_| LoggingError::Twice)?;
    log::set_max_level(level);
    Ok(())
}

/// From now on logs what `filter` says. Whether it does: `RUST_LOG` overrides.
///
/// # Errors
/// When the filter is none; what was logged before still is.
pub fn change(filter: &str) -> Result<bool, LoggingError> {
    let filter = parse(filter).map_err(LoggingError::Filter)?;
    let Some(logger) = LOGGER.get().filter(|logger| logger.fixed.is_none()) else { return Ok(false) };
    log::set_max_level(filter.filter());
    *logger.filter.write().unwrap_or_else(PoisonError::into_inner) = filter;
    Ok(true)
}

/// For a parser of command lines: the same text, if it is a filter.
pub(crate) fn check(text: &str) -> Result<String, String> {
    parse(text).map(|_| text.to_owned())
}

fn parse(text: &str) -> Result<Filter, String> {
    let said = |wrong: &dyn Display| {
        format!("{text:?} is no filter of log lines ({wrong}); give a level, as in info")
    };
    // The parser takes a lone word that is no level for the name of a module.
    let lone = text.split([',', '/']).map(str::trim).find(|word| {
        !word.is_empty() && !word.contains(['=', ':', '_']) && word.parse::<LevelFilter>().is_err()
    });
    if let Some(word) = lone {
        return Err(said(&format!("{word} is no level")));
    }
    let mut builder = env_filter::Builder::new();
    builder.try_parse(text).map_err(|wrong| said(&wrong))?;
    Ok(builder.build())
}

fn inner(target: &Target) -> Result<Logger, LoggingError> {
    let mut builder = Builder::new();
    builder.filter_level(LevelFilter::Trace);
    match target {
        Target::Stderr if leads_to_journal() => {
            builder.format(with_level);
        }
        Target::Stderr => {
            builder.format_timestamp(Some(TimestampPrecision::Millis));
        }
        Target::File(path) => {
            let file = File::options().create(true).append(true).open(path);
            let file = file.map_err(|source| LoggingError::File { path: path.clone(), source })?;
            builder.format_timestamp(Some(TimestampPrecision::Millis));
            builder.target(env_logger::Target::Pipe(Box::new(file)));
        }
        Target::Syslog(name) => {
            builder.format(with_level);
            builder.target(env_logger::Target::Pipe(Box::new(syslog::Syslog::open(name))));
        }
    }
    Ok(builder.build())
}

/// Standard error may have been led elsewhere since the manager set the variable.
fn leads_to_journal() -> bool {
    let Ok(stat) = rustix::fs::fstat(io::stderr().as_fd()) else { return false };
    std::env::var(JOURNAL).is_ok_and(|stream| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// syslog(3)'s number of a level.
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// `<LEVEL>target: text key=value`: as the journal and [`syslog`] take it. Each line of a text has the level.
fn with_level(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let level = severity(record.level());
    let text = record.args().to_string().replace('\n', &format!("\n<{level}>"));
    write!(out, "<{level}>{}: {text}", record.target())?;
    record.key_values().visit(&mut Fields(out)).map_err(io::Error::other)?;
    writeln!(out)
}

struct Fields<'a>(&'a mut Formatter);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        write!(self.0, " {key}={value}")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for good in ["info", "WARN", "off", "info,fuser=error", "dfs_client::core=trace,info"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["loud", "info,x=loud", "informative"] {
            let said = parse(bad).map(|_| ()).unwrap_err();
            assert!(said.contains(bad) && said.contains("level"), "{said}");
        }
    }
}
