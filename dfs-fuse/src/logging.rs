//! Where log lines go: standard error in the foreground, a file if one was named, else syslog, which on
//! systemd machines is the journal. `RUST_LOG` chooses what is logged.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use env_logger::{Builder, Env, Target};

/// fuser warns about every kind of request that it refuses in our place; it is meant to.
const DEFAULT_FILTER: &str = "info,fuser=error";

/// Starts logging. `foreground` without a file logs to standard error.
pub(crate) fn start(file: Option<&Path>, foreground: bool) -> io::Result<()> {
    let mut builder = Builder::from_env(Env::default().default_filter_or(DEFAULT_FILTER));
    match file {
        Some(path) => {
            let file = File::options().create(true).append(true).open(path)?;
            builder.target(Target::Pipe(Box::new(file)));
        }
        None if foreground => {}
        None => {
            // Syslog stamps lines itself.
            builder.format_timestamp(None).target(Target::Pipe(Box::new(Syslog::open())));
        }
    }
    builder.init();
    // A daemon's standard error leads nowhere.
    std::panic::set_hook(Box::new(|info| log::error!("{info}")));
    Ok(())
}

/// Each write is one line: env_logger hands over whole records.
#[derive(Debug)]
struct Syslog;

impl Syslog {
    fn open() -> Syslog {
        // SAFETY: the identity is a static string, which syslog keeps a pointer to.
        unsafe { libc::openlog(c"dfs-fuse".as_ptr(), libc::LOG_PID, libc::LOG_DAEMON) };
        Syslog
    }
}

impl Write for Syslog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text: Vec<u8> = line.iter().copied().filter(|byte| *byte != 0).collect();
        if let Ok(text) = CString::new(text.trim_ascii_end()) {
            // SAFETY: the format takes one string, which is NUL-terminated and outlives the call.
            unsafe { libc::syslog(libc::LOG_NOTICE, c"%s".as_ptr(), text.as_ptr()) };
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
