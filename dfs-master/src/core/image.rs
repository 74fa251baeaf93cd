//! A frozen copy of the state, to be written as a snapshot while the core goes on.

/// The whole logged state at one index. Cheap to take: tables are shared until they are written.
#[derive(Clone, Debug)]
pub struct StateImage {}
