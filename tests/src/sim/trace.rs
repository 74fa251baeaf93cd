//! What happened, for people and for comparing runs: a hash over every event, and the last of them as text
//! when a run is repeated to explain it.

use std::collections::VecDeque;

/// Lines kept: enough to see what led to a violation.
const LINES_MAX: usize = 20_000;

/// The trace of one run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: Option<VecDeque<(u64, String)>>,
    /// Print each line at once as well.
    echo: bool,
}

impl Trace {
    /// A trace that keeps text only if asked to: it costs more than the simulation.
    #[must_use]
    pub fn new(text: bool, echo: bool) -> Trace {
        Trace { hash: 0x6a09_e667_f3bc_c908, events: 0, lines: text.then(VecDeque::new), echo }
    }

    /// Notes an event: numbers that tell it from others, and its text.
    pub fn event(&mut self, now_us: u64, numbers: [u64; 3], text: impl FnOnce() -> String) {
        self.events += 1;
        for number in [now_us, numbers[0], numbers[1], numbers[2]] {
            self.hash = (self.hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        if let Some(lines) = &mut self.lines {
            let text = text();
            if self.echo {
                println!("{:>10.3} ms  {text}", micros_as_ms(now_us));
            }
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back((now_us, text));
        }
    }

    /// Whether text is kept.
    #[must_use]
    pub fn has_text(&self) -> bool {
        self.lines.is_some()
    }

    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash ^ self.events
    }

    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The last lines, as text.
    #[must_use]
    pub fn tail(&self, most: usize) -> Vec<String> {
        let Some(lines) = &self.lines else { return Vec::new() };
        let from = lines.len().saturating_sub(most);
        lines.range(from..).map(|(at, text)| format!("{:>10.3} ms  {text}", micros_as_ms(*at))).collect()
    }
}

fn micros_as_ms(us: u64) -> f64 {
    // For people: a run is far shorter than what an f64 counts exactly.
    std::time::Duration::from_micros(us).as_secs_f64() * 1000.0
}
