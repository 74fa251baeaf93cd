//! Setuid and setgid bits, which a file loses when somebody writes to it who may not give them, and capabilities, which
//! it loses whoever writes.
//!
//! The kernel leaves it to us (HANDLE_KILLPRIV_V2) and says with each write whether its program may keep them. With
//! truncations and opens it says so, too, but fuser does not pass that on: there the master judges, which takes
//! user 0 for one who may keep them, and with a change of owner all lose them.

use dfs_client::{CAPABILITY, Caller, Error, FileHandle as OpenFile, SetAttrs};
use dfs_proto::ids::Ino;
use dfs_proto::meta::Attr;

use super::Shared;
use crate::procfs;

const SETUID: u16 = 0o4000;
const SETGID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o010;

impl Shared {
    /// [`Client::setattr`](dfs_client::Client::setattr), and what the kernel asks for in a writer's name.
    ///
    /// A kernel that does not leave them to us takes the bits from a file before a write or a truncation by
    /// somebody else than its owner, by a change of its mode in the writer's name. Nothing marks such a request, but
    /// the kernel lets nobody else than the owner ask for a mode: what the cluster refuses to the writer
    /// and only clears those bits is the kernel's own, and done with root's rights.
    pub(super) async fn set_or_drop_privileges(
        &self,
        ino: Ino,
        file: Option<&OpenFile>,
        set: SetAttrs,
        caller: Caller,
    ) -> Result<Attr, Error> {
        let refused = match self.client.setattr(ino, file, set, caller).await {
            Err(Error::NotPermitted) => Error::NotPermitted,
            other => return other,
        };
        let Some(mode) = set.mode else { return Err(refused) };
        let now = self.client.getattr(ino).await?;
        if !only_drops_privileges(now.mode, mode) {
            return Err(refused);
        }
        let rest = SetAttrs { mode: None, ..set };
        if rest != SetAttrs::default() {
            self.client.setattr(ino, file, rest, caller).await?;
        }
        self.set_mode(ino, mode).await
    }

    /// The kernel leaves it to us to take these bits before a write, and says so with each write of a program that may
    /// not keep them. Like the kernel itself on a local filesystem, this goes by the bits that were told last.
    pub(super) async fn drop_privileges(&self, ino: Ino, caller: Caller) -> Result<(), Error> {
        let attr = self.client.getattr(ino).await?;
        let belongs = || {
            caller.gid == attr.gid
                || procfs::groups(caller.pid).is_some_and(|groups| groups.contains(&attr.gid))
        };
        let kept = without_privileges(attr.mode, belongs);
        if kept != attr.mode {
            self.inodes.attributes(&self.set_mode(ino, kept).await?);
            // The kernel has not asked, and would show the old bits.
            self.notify.attributes(ino).await;
        }
        Ok(())
    }

    /// The kernel remembers that a file had no capability until it hears of the file's attributes again, which it need
    /// not ask for as long as it only writes.
    pub(super) async fn drop_capability(&self, ino: Ino) -> Result<(), Error> {
        let dropped = match self.client.getxattr(ino, CAPABILITY).await {
            Ok(_) => self.client.removexattr(ino, CAPABILITY, Caller::default()).await,
            Err(error) => Err(error),
        };
        // Two writes at once both take it.
        if dropped == Err(Error::NoData) { Ok(()) } else { dropped }
    }

    async fn set_mode(&self, ino: Ino, mode: u16) -> Result<Attr, Error> {
        let set = SetAttrs { mode: Some(mode), ..SetAttrs::default() };
        self.client.setattr(ino, None, set, Caller::default()).await
    }
}

/// Whether a file of mode `from` becomes one of mode `to` by losing setuid, setgid or both.
fn only_drops_privileges(from: u16, to: u16) -> bool {
    from & !(SETUID | SETGID) == to & !(SETUID | SETGID) && to & !from == 0
}

/// Whether a write may take bits from a file of this mode.
pub(super) fn has_privileges(mode: u16) -> bool {
    mode & (SETUID | SETGID) != 0
}

/// `belongs`: whether the writer is in the file's group, which may keep a setgid bit that runs nothing.
fn without_privileges(mode: u16, belongs: impl FnOnce() -> bool) -> u16 {
    let runs = mode & GROUP_EXECUTE != 0;
    let setgid = if mode & SETGID != 0 && (runs || !belongs()) { SETGID } else { 0 };
    mode & !(SETUID | setgid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_loss_of_privileges_is_the_kernels_own() {
        assert!(only_drops_privileges(0o4755, 0o755));
        assert!(only_drops_privileges(0o6755, 0o2755));
        assert!(only_drops_privileges(0o755, 0o755));
        assert!(!only_drops_privileges(0o755, 0o4755));
        assert!(!only_drops_privileges(0o4755, 0o4777));
        assert!(!only_drops_privileges(0o4755, 0o700));
        assert!(!only_drops_privileges(0o1755, 0o755));
    }

    #[test]
    fn what_a_write_takes() {
        assert_eq!(without_privileges(0o6755, || true), 0o755);
        assert_eq!(without_privileges(0o2745, || true), 0o2745);
        assert_eq!(without_privileges(0o2745, || false), 0o745);
        assert_eq!(without_privileges(0o1777, || false), 0o1777);
        assert!(!has_privileges(0o1777));
    }
}
