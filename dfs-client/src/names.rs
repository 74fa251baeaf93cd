//! Operations on names. Each is one request; what they change of cached attributes is forgotten.

use dfs_proto::ids::Ino;
use dfs_proto::meta::{
    Attr, FileKind, FsStats, Link, Lookup, Mkdir, Mknod, Name, Readlink, Removed, Rename, RenameMode,
    Renamed, Rmdir, Statfs, Symlink, Unlink,
};

use crate::client::Client;
use crate::config::Caller;
use crate::error::Result;
use crate::net::Net;
use crate::shared::lock;

impl<N: Net> Client<N> {
    pub async fn lookup(&self, parent: Ino, name: &[u8], caller: Caller) -> Result<Attr> {
        let shared = &self.shared;
        let sent = shared.now();
        let attr = shared.ask_for(caller, |creds| Lookup { parent, name: Name::from(name), creds }).await?;
        let Some(inode) = shared.inode(attr.ino) else {
            lock(&shared.attrs).note(&attr, sent);
            return Ok(attr);
        };
        let touched = inode.lock().touched;
        if touched {
            return self.getattr(attr.ino).await;
        }
        lock(&shared.attrs).note(&attr, sent);
        let shown = inode.lock().show(attr);
        Ok(shown)
    }

    pub async fn mkdir(&self, parent: Ino, name: &[u8], mode: u16, caller: Caller) -> Result<Attr> {
        let shared = &self.shared;
        let name = Name::from(name);
        shared.ask_for(caller, |creds| Mkdir { parent, name: name.clone(), mode, creds }).await
    }

    /// Makes a node of any kind but directory and symlink.
    pub async fn mknod(
        &self,
        parent: Ino,
        name: &[u8],
        kind: FileKind,
        mode: u16,
        rdev: u32,
        caller: Caller,
    ) -> Result<Attr> {
        let shared = &self.shared;
        let name = Name::from(name);
        shared.ask_for(caller, |creds| Mknod { parent, name: name.clone(), kind, mode, rdev, creds }).await
    }

    pub async fn symlink(&self, parent: Ino, name: &[u8], target: &[u8], caller: Caller) -> Result<Attr> {
        let shared = &self.shared;
        let (name, target) = (Name::from(name), Name::from(target));
        shared
            .ask_for(caller, |creds| Symlink { parent, name: name.clone(), target: target.clone(), creds })
            .await
    }

    pub async fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        Ok(self.shared.ask(&Readlink { ino }).await?.target.into_vec())
    }

    pub async fn link(&self, ino: Ino, parent: Ino, name: &[u8], caller: Caller) -> Result<Attr> {
        let shared = &self.shared;
        let name = Name::from(name);
        let attr = shared.ask_for(caller, |creds| Link { ino, parent, name: name.clone(), creds }).await?;
        shared.changed_attrs(ino);
        let shown = shared.inode(ino).map(|inode| inode.lock().show(attr));
        Ok(shown.unwrap_or(attr))
    }

    pub async fn unlink(&self, parent: Ino, name: &[u8], caller: Caller) -> Result<Removed> {
        let shared = &self.shared;
        let name = Name::from(name);
        let removed = shared.ask_for(caller, |creds| Unlink { parent, name: name.clone(), creds }).await?;
        shared.changed_attrs(removed.ino);
        if removed.nlink == 0 {
            lock(&shared.owed).forget(removed.ino);
        }
        Ok(removed)
    }

    pub async fn rmdir(&self, parent: Ino, name: &[u8], caller: Caller) -> Result<Removed> {
        let shared = &self.shared;
        let name = Name::from(name);
        shared.ask_for(caller, |creds| Rmdir { parent, name: name.clone(), creds }).await
    }

    pub async fn rename(
        &self,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        mode: RenameMode,
        caller: Caller,
    ) -> Result<Renamed> {
        let shared = &self.shared;
        let (parent, name) = (from.0, Name::from(from.1));
        let (new_parent, new_name) = (to.0, Name::from(to.1));
        let make = |creds| {
            let (name, new_name) = (name.clone(), new_name.clone());
            Rename { parent, name, new_parent, new_name, mode, creds }
        };
        let renamed = shared.ask_for(caller, make).await?;
        shared.changed_attrs(renamed.ino);
        if let Some(replaced) = renamed.replaced {
            shared.changed_attrs(replaced.ino);
        }
        Ok(renamed)
    }

    pub async fn statfs(&self) -> Result<FsStats> {
        Ok(self.shared.ask(&Statfs {}).await?)
    }
}
