//! syslog(3), for processes that have no standard error.

use std::ffi::{CStr, CString};
use std::io::{self, Write};

use libc::c_int;

/// Each write is one record with a level in front: env_logger hands over whole ones.
#[derive(Debug)]
pub(super) struct Syslog;

impl Syslog {
    pub(super) fn open(name: &'static CStr) -> Syslog {
        open(name);
        Syslog
    }
}

fn open(name: &'static CStr) {
    // SAFETY: the identity is a static string, which syslog keeps a pointer to.
    unsafe { libc::openlog(name.as_ptr(), libc::LOG_PID, libc::LOG_DAEMON) };
}

/// One line from a process that has no logger.
pub fn say(name: &'static CStr, level: log::Level, text: &str) {
    open(name);
    send(c_int::from(super::severity(level)), text.as_bytes());
}

fn send(severity: c_int, text: &[u8]) {
    let text: Vec<u8> = text.iter().copied().filter(|byte| *byte != 0).collect();
    if let Ok(text) = CString::new(text.trim_ascii_end()) {
        // SAFETY: the format takes one string, which is NUL-terminated and outlives the call.
        unsafe { libc::syslog(severity, c"%s".as_ptr(), text.as_ptr()) };
    }
}

impl Write for Syslog {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        for line in record.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match line {
                [b'<', level @ b'0'..=b'7', b'>', text @ ..] => send(c_int::from(level - b'0'), text),
                text => send(libc::LOG_NOTICE, text),
            }
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
