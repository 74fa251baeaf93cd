//! SIGHUP: options are read again from their file. What can change in a running process does, and the log says what
//! needs a restart.

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::settings::{Change, Settings};
use crate::{logging, notify};

/// The option that changes at once.
const LOG_LEVEL: &str = "log-level";

/// Waits for SIGHUP, for as long as the process lives. Without a file there is nothing to read again, and the signal
/// is only said to have come.
pub async fn on_hangup<T: Parser + Send>(mut settings: Settings<T>, level: impl Fn(&str) -> String) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => return log::error!("SIGHUP cannot be caught: {error}"),
    };
    while hangup.recv().await.is_some() {
        notify::reloading();
        reload(&mut settings, &level);
        notify::reloaded();
    }
}

fn reload<T: Parser>(settings: &mut Settings<T>, level: impl Fn(&str) -> String) {
    let Some(path) = settings.path().map(|path| path.display().to_string()) else {
        return log::info!("SIGHUP: there is no file of options to read again (--config)");
    };
    let changes = match settings.read_again() {
        Ok((_, changes)) => changes,
        Err(wrong) => return log::error!("SIGHUP: {wrong}; nothing is changed"),
    };
    if changes.is_empty() {
        log::info!("SIGHUP: {path} says what holds already");
    }
    for change in changes {
        take(settings, &change, &path, &level);
    }
}

fn take<T: Parser>(settings: &mut Settings<T>, change: &Change, path: &str, level: impl Fn(&str) -> String) {
    let Change { key, from, to } = change;
    if key != LOG_LEVEL {
        return log::warn!("SIGHUP: {path}: {key} = {to} needs a restart; until then it is {from}");
    }
    match logging::change(&level(to.trim_matches('"'))) {
        Ok(true) => {
            settings.took(change);
            log::info!("SIGHUP: {path}: {key} = {to} holds now; it was {from}");
        }
        Ok(false) => log::warn!("SIGHUP: {path}: {key} = {to} is overridden by RUST_LOG"),
        Err(wrong) => log::error!("SIGHUP: {path}: {wrong}"),
    }
}
