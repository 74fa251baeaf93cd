//! Errors for people.

use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;

/// Of a command line that is not understood.
const USAGE: u8 = 2;

/// An error with its causes on one line, each said once: many a type names its cause in its own words already.
#[must_use]
pub fn in_words(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| (*cause).source()) {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
    }
    text
}

/// A path as the master has it, from the root of the filesystem. What is no UTF-8 in it is shown as such.
#[must_use]
pub fn path_in_words(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path).trim_start_matches('/'))
}

/// Says on one line what a parser of command lines found wrong, and how a program ends then.
#[must_use]
pub fn wrong_usage(program: &str, wrong: &dyn Display) -> ExitCode {
    eprintln!("{}", usage(program, &wrong.to_string()));
    ExitCode::from(USAGE)
}

/// The first paragraph says what is wrong; the others are usage and hints, which `--help` has too.
fn usage(program: &str, said: &str) -> String {
    // Who says nothing at all gets the help.
    let Some(wrong) = said.strip_prefix("error: ") else { return said.to_owned() };
    let lines: Vec<&str> = wrong.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    format!("{program}: {}; see --help", lines.join(" "))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const ENOENT: i32 = 2;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("disk d: {source}")]
        Names { source: io::Error },
        #[error("no start")]
        Hides(#[source] io::Error),
    }

    #[test]
    fn each_cause_is_said_once() {
        let cause = || io::Error::from_raw_os_error(ENOENT);
        let words = cause().to_string();
        assert_eq!(in_words(&Outer::Names { source: cause() }), format!("disk d: {words}"));
        assert_eq!(in_words(&Outer::Hides(cause())), format!("no start: {words}"));
    }

    #[test]
    fn wrong_usage_is_one_line() {
        let said = "error: these were not provided:\n  --data <DATA>\n\nUsage: x --data <DATA>\n\nFor more, try '--help'.\n";
        assert_eq!(usage("x", said), "x: these were not provided: --data <DATA>; see --help");
        assert_eq!(usage("x", "What it is\n\nUsage: x\n"), "What it is\n\nUsage: x\n");
    }
}
