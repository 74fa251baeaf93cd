//! Mistakes that are planted on purpose, so that it can be seen that the tests find them.
//!
//! Only a build with `--cfg dfs_planted` has any of this: there the environment variable `DFS_PLANTED` names the one
//! mistake that is active, and `planted!` asks for it where a programmer could have made it.
//! Everywhere else `planted!` is the word `false`.
//!
//! `scripts/planted.sh` runs them all, and says which part of the suite finds each.

/// Whether a planted mistake is active.
#[cfg(not(dfs_planted))]
#[macro_export]
macro_rules! planted {
    ($mistake:ident) => {
        false
    };
}

/// Whether a planted mistake is active.
#[cfg(dfs_planted)]
#[macro_export]
macro_rules! planted {
    ($mistake:ident) => {
        $crate::planted::is_active($crate::planted::Mistake::$mistake)
    };
}

#[cfg(dfs_planted)]
pub use active::{Mistake, active, is_active, reached};

#[cfg(dfs_planted)]
mod active {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    macro_rules! mistakes {
        ($($(#[$what:meta])* $name:ident,)*) => {
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            pub enum Mistake {
                $($(#[$what])* $name,)*
            }

            const ALL: &[Mistake] = &[$(Mistake::$name,)*];
        };
    }

    mistakes! {
        /// A write is acknowledged with one member still missing (I4).
        AckOneShort,
        /// A server whose replica went says that there never was one, which readers take for zeros (R1).
        GoneIsEmpty,
        /// A file is cached while a write that was given up may still take effect (section 14).
        CacheUnsettled,
        /// The first sync of a chunk file leaves out its directory (F2).
        SkipDirSync,
        /// A sync says that it is done and syncs nothing (F2).
        SkipDataSync,
        /// A recovery goes on under the version that it recovers (section 4).
        SameVersion,
        /// A member is left out before it was fenced (I7).
        ExcludeUnfenced,
        /// A member leaves a chunk without a word that it serves nothing more of it (section 10).
        LeaveUnfenced,
        /// A new master takes a server that it has not heard of for one without a lease (L4).
        NewMasterDoesNotWait,
        /// The base of a recovery is chosen as if every member had rebooted (section 9).
        BaseIgnoresClass,
        /// That a recovery may have lost bytes is not remembered (F2).
        LossNotRecorded,
        /// A recovery's new config begins with an empty table of operations (I23).
        ForgetOps,
        /// A chunk server serves after its lease (I6).
        ServeWithoutLease,
        /// The lease is checked before the disk is read, and not after (R3).
        LeaseCheckedOnce,
        /// That a write began while the disk was read is not looked at (R3).
        OvertakenRead,
        /// A secondary shows what not all members have (R2).
        ShowPending,
        /// A client takes bytes that came under a lease which may have ended (R4).
        SkipReadBound,
        /// A write to a part of a block does not verify the rest of it (I13).
        MergeUnverified,
        /// A sync that failed counts as done when it is asked for again (I22).
        SyncErrorForgotten,
        /// The next process on a disk whose sync failed believes what the kernel shows of it (I22).
        SuspectForgotten,
        /// A replica begins while the file of the one before is being removed (I17).
        BegunOnTrash,
        /// A chunk of holes leaves its file beside other sessions that may repeat a write to it (I23).
        DropBesideOthers,
        /// A learner becomes a member without the bytes that were there (section 10).
        LearnerUnfilled,
        /// A replica is deleted because the master's log does not know its chunk (I17).
        DeleteFromInventory,
        /// A chunk server obeys a master of an older term (I20).
        ObeyOlderMaster,
        /// A new leader gives out ids of a range that the one before had (I1).
        ReuseIds,
        /// A size from before a truncation is taken (I21).
        OldEpochCommit,
        /// A write from before a truncation is taken (I21).
        OldEpochWrite,
        /// A truncation leaves the bytes behind it in the chunk that it cuts (section 11).
        SkipZero,
        /// An answer that rests on a record does not wait for the disk (I9).
        ReplyBeforeDurable,
        /// The log says that it is synced and syncs nothing (I25).
        LogNotSynced,
        /// A session ends at half of its lease (L7).
        SessionCutShort,
        /// A client gives a write grant back with bytes in its buffer (section 14).
        GrantBackUnflushed,
        /// Buffered bytes that could not be written are reported to nobody (I24).
        LossNotLatched,
        /// The close of one copy of a descriptor takes an error from the others (I24).
        CloseTakesError,
        /// A client writes at a place that a truncation overtook.
        PlaceFromBeforeCut,
    }

    /// # Panics
    /// When the environment names one that is not planted: a test of nothing would pass.
    static ACTIVE: LazyLock<Option<Mistake>> = LazyLock::new(|| {
        let name = std::env::var("DFS_PLANTED").ok().filter(|name| !name.is_empty())?;
        let found = ALL.iter().find(|mistake| format!("{mistake:?}") == name);
        Some(*found.unwrap_or_else(|| panic!("DFS_PLANTED={name} is none of {ALL:?}")))
    });
    static REACHED: AtomicU64 = AtomicU64::new(0);

    /// The mistake of this process.
    #[must_use]
    pub fn active() -> Option<Mistake> {
        *ACTIVE
    }

    #[must_use]
    pub fn is_active(mistake: Mistake) -> bool {
        let active = *ACTIVE == Some(mistake);
        if active {
            REACHED.fetch_add(1, Ordering::Relaxed);
        }
        active
    }

    /// How often the active mistake's place was come to: 0 says that the tests never went there.
    #[must_use]
    pub fn reached() -> u64 {
        REACHED.load(Ordering::Relaxed)
    }
}
