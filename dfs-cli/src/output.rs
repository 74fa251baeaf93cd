//! What people see: aligned tables, sizes and ages in words, colour only on a terminal.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use dfs_proto::words::in_words;
pub(crate) use dfs_proto::words::path_in_words as from_root;

/// How a command ends: an error is said on one line, and is `failed`.
pub(crate) fn ended(result: anyhow::Result<ExitCode>, failed: ExitCode) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("dfs: {}", in_words(error.as_ref()));
        failed
    })
}

/// Asks for what is about to be changed, by its own name: a yes comes too easily.
pub(crate) fn confirm(what: &str, name: &str) -> anyhow::Result<()> {
    print!("To go on, type {what} ({name}): ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim_end_matches(['\n', '\r']) == name {
        return Ok(());
    }
    println!();
    anyhow::bail!("nothing was changed: that was not {what}");
}

/// How a cell is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tone {
    Plain,
    Good,
    Bad,
    Faint,
}

/// Says on a terminal what is waited for, until dropped.
#[derive(Debug)]
pub(crate) struct Waiting(bool);

impl Waiting {
    pub(crate) fn show(what: &str) -> Waiting {
        let shown = std::io::stderr().is_terminal();
        if shown {
            eprint!("\r\x1b[K{what} ...");
        }
        Waiting(shown)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.0 {
            eprint!("\r\x1b[K");
        }
    }
}

/// A table whose columns are as wide as they need to be.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<(String, Tone)>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(|text| ((*text).to_owned(), Tone::Faint)).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<(String, Tone)>) {
        self.rows.push(cells);
    }

    pub(crate) fn print(&self) {
        let colour = colour();
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|(text, _)| text.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (at, (text, tone)) in row.iter().enumerate() {
                line.push_str(&paint(text, *tone, colour));
                if at + 1 < row.len() {
                    let pad = widths[at] - text.chars().count() + 2;
                    line.extend(std::iter::repeat_n(' ', pad));
                }
            }
            println!("{}", line.trim_end());
        }
    }
}

/// Whether to colour: a terminal, and nobody asked not to.
pub(crate) fn colour() -> bool {
    on_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// `text` in the colour of its tone.
pub(crate) fn paint(text: &str, tone: Tone, colour: bool) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Good => 32,
        Tone::Bad => 31,
        Tone::Faint => 2,
    };
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// `label   value` lines.
pub(crate) fn pairs(lines: &[(&str, String, Tone)]) {
    let colour = colour();
    let width = lines.iter().map(|(label, ..)| label.len()).max().unwrap_or(0);
    for (label, value, tone) in lines {
        let label = paint(&format!("{label:<width$}"), Tone::Faint, colour);
        println!("{label}  {}", paint(value, *tone, colour));
    }
}

/// Whether a person reads it.
pub(crate) fn on_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Cost a second, of thousandths of a unit.
pub(crate) fn cost(milli: u64) -> String {
    match milli {
        1..10_000 => format!("{}.{}/s", milli / 1000, milli % 1000 / 100),
        _ => format!("{}/s", milli / 1000),
    }
}

/// Bytes in binary units, three digits.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    let mut whole = count;
    let mut tenths = 0;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    if unit > 0 && whole < 100 {
        format!("{whole}.{tenths} {}", UNITS[unit])
    } else {
        format!("{whole} {}", UNITS[unit])
    }
}

/// How long something took, in the unit that fits.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..100_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        100_000..10_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{} s", us / 1_000_000),
    }
}

/// A span of time in the two largest units.
pub(crate) fn span(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms} ms"),
        1..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86400, s % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_fits() {
        assert_eq!(
            [999, 1_050, 99_999, 100_000, 12_345_678].map(micros),
            ["999 us", "1.0 ms", "99.9 ms", "100 ms", "12 s"]
        );
    }

    #[test]
    fn sizes_and_spans() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(200 << 30), "200 GiB");
        assert_eq!(span(12), "12 ms");
        assert_eq!(span(61_000), "1 min 1 s");
        assert_eq!(span(90_000_000), "1 d 1 h");
    }
}
