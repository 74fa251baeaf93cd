//! What a caller can choose about a run. All else is the seed's.

/// The options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Strike with faults at all.
    pub faults: bool,
    /// Keep the events as text.
    pub text: bool,
    /// Print them at once.
    pub echo: bool,
    /// Simulated milliseconds of chaos; `None` leaves it to the seed.
    pub chaos_ms: Option<u64>,
}

impl Default for Options {
    fn default() -> Options {
        Options { faults: true, text: false, echo: false, chaos_ms: None }
    }
}
