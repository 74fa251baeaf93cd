//! Clusters of real processes whose parts can be broken as the fault model says: daemons that are killed,
//! paused and placed in hosts of their own, filesystems whose power is cut.
//!
//! What a test found wrong is an error value, not a panic: a runner of hundreds of faults says which one it was,
//! and takes everything down again.
//!
//! Reading order: [`clock`], [`threads`] and [`held`] (who opens files on a mount), [`daemon`] (one process),
//! [`volume`] (a filesystem in a file), [`net`] (a network of hosts), [`faulty`] (a directory that fails), [`nodes`]
//! (a cluster of daemons), [`work`] (programs on its mounts), [`look`] (what they left), [`power`] (the cuts),
//! [`matrix`] (everything else that breaks).

pub mod clock;
pub mod threads;
pub mod held;
pub mod daemon;
pub mod volume;
pub mod net;
pub mod faulty;
pub mod nodes;
pub mod work;
pub mod look;
pub mod power;
pub mod matrix;
