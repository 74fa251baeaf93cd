//! The core on a bench: three of them, each with a chunk store on a simulated disk, joined by a queue that a
//! test can hold back. The test plays the clients and the master.

mod bench;
mod closes;
mod learners;
mod leaves;
mod mend;
mod look;
mod read_only;
mod reads;
mod recovery;
mod scrub;
mod syncs;
mod writes;
