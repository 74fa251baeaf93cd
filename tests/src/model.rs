//! Reference models: what a program may see of files and names, whatever happens to the cluster.
//!
//! The models know nothing of chunks, replicas or messages. They are told what programs asked and were
//! answered, in one total order of [`Tick`]s, and which losses the fault model allows. They judge at the
//! end, because some outcomes are only known later: a buffered write counts once a flush succeeded.
//!
//! Reading order: [`stamp`] (what is written), [`history`] (what is recorded), [`register`] (what a read
//! may return), [`size`] (where a file may end), [`names`] (what a directory may hold).

pub mod stamp;
pub mod history;
pub mod register;
pub mod names;
pub mod size;

/// A point in the total order of everything recorded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Tick(pub u64);

/// Who asks, one operation after the other: a program that has each file open once at most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Actor {
    /// The mount that it uses; what one mount buffers, only its own programs see.
    pub client: u16,
    pub stream: u8,
}

/// A file of the model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct FileNum(pub u32);

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which oracle found it: `linear`, `durable`, `equal`, `whole`, `alive`, `names`, `panic`.
    pub oracle: &'static str,
    pub what: String,
    /// When, if it has a moment.
    pub at: Option<Tick>,
}

impl Violation {
    #[must_use]
    pub fn new(oracle: &'static str, at: Option<Tick>, what: String) -> Violation {
        Violation { oracle, what, at }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.oracle, self.what)
    }
}
