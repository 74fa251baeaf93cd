//! The log of loads: what the policy saw, second by second, as lines of JSON. `docs/load.md` describes the lines for other
//! tools; [`Encoder`] writes them, [`Decoder`] reads them back into what the core gave out.
//!
//! Owns the format alone: which files there are is the affair of the master's driver, what other thresholds would have done
//! that of [`crate::replay`].
//!
//! Keeps: a second that was written is read as it was, but for the policy's memory, which follows from the seconds before.

mod decode;
mod encode;
mod line;

pub use decode::{BadLine, Decoded, Decoder};
pub use encode::Encoder;
pub use line::{Begins, VERSION};
