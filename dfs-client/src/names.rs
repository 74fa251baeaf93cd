//! Operations on names. Each is one request; what they change of cached attributes is forgotten.

use dfs_proto::ids::{Ino, LogIndex};
use dfs_proto::meta::{
    Attr, Creds, FileKind, FsStats, Link, Lookup, Mkdir, Mknod, Name, Readlink, Removed, Rename, RenameMode,
    Renamed, Rmdir, Statfs, Symlink, Unlink,
};
use dfs_proto::request::Request;

use crate::call::{Answer, Scope};
use crate::client::Client;
use crate::config::Caller;
use crate::error::{Error, Result};
use crate::net::Net;
use crate::shared::{Shared, lock};

impl<N: Net> Shared<N> {
    /// Asks for a change of names. The answer tells what became of the directories, or nothing is believed of
    /// them any more.
    async fn change_names<R: Request>(
        &self,
        caller: Caller,
        dirs: &[Ino],
        make: impl Fn(Creds) -> R + Send,
    ) -> Result<Answer<R::Reply>> {
        let answer = self.ask_as(caller, Scope::Any, self.patience(), make).await;
        if let Ok(answer) = &answer {
            dirs.iter().for_each(|dir| self.dir_was_changed(*dir, answer.index));
        }
        if !answer.as_ref().is_ok_and(|answer| answer.dirs_told) {
            dirs.iter().for_each(|dir| self.changed_attrs(*dir));
        }
        answer
    }

    /// The directory was changed by the record at this index.
    pub(crate) fn dir_was_changed(&self, dir: Ino, index: LogIndex) {
        let durable = self.session.log_seen().1;
        if index > durable {
            lock(&self.dir_changes).note(dir, index, durable);
        }
    }
}

impl<N: Net> Client<N> {
    pub async fn lookup(&self, parent: Ino, name: &[u8], caller: Caller) -> Result<Attr> {
        let shared = &self.shared;
        if self.is_absent(parent, name) {
            return Err(Error::NotFound);
        }
        let sent = shared.now();
        let attr = shared.ask_for(caller, |creds| Lookup { parent, name: Name::from(name), creds }).await?;
        let Some(inode) = shared.inode(attr.ino) else {
            lock(&shared.attrs).note(&attr, sent);
            return Ok(attr);
        };
        let waits = inode.lock().attrs_wait();
        if waits {
            return self.getattr(attr.ino).await;
        }
        lock(&shared.attrs).note(&attr, sent);
        let shown = inode.lock().show(attr);
        Ok(shown)
    }

    pub async fn mkdir(&self, parent: Ino, name: &[u8], mode: u16, caller: Caller) -> Result<Attr> {
        let shared = &self.shared;
        shared.may_come(parent, name);
        let name = Name::from(name);
        let make = |creds| Mkdir { parent, name: name.clone(), mode, creds };
        let _making = shared.make_dir();
        let made = shared.change_names(caller, &[parent], make).await?;
        if made.body.watched {
            shared.made_dir(made.body.attr.ino, made.link);
        }
        Ok(made.body.attr)
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
        shared.may_come(parent, name);
        let name = Name::from(name);
        shared
            .change_names(caller, &[parent], |creds| Mknod {
                parent,
                name: name.clone(),
                kind,
                mode,
                rdev,
                creds,
            })
            .await
            .map(|answer| answer.body)
    }

    pub async fn symlink(&self, parent: Ino, name: &[u8], target: &[u8], caller: Caller) -> Result<Attr> {
        let shared = &self.shared;
        shared.may_come(parent, name);
        let (name, target) = (Name::from(name), Name::from(target));
        shared
            .change_names(caller, &[parent], |creds| Symlink {
                parent,
                name: name.clone(),
                target: target.clone(),
                creds,
            })
            .await
            .map(|answer| answer.body)
    }

    pub async fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        Ok(self.shared.ask(&Readlink { ino }).await?.target.into_vec())
    }

    pub async fn link(&self, ino: Ino, parent: Ino, name: &[u8], caller: Caller) -> Result<Attr> {
        let shared = &self.shared;
        shared.may_come(parent, name);
        let name = Name::from(name);
        let attr = shared
            .change_names(caller, &[parent], |creds| Link { ino, parent, name: name.clone(), creds })
            .await?
            .body;
        shared.changed_attrs(ino);
        let shown = shared.inode(ino).map(|inode| inode.lock().show(attr));
        Ok(shown.unwrap_or(attr))
    }

    pub async fn unlink(&self, parent: Ino, name: &[u8], caller: Caller) -> Result<Removed> {
        let shared = &self.shared;
        let name = Name::from(name);
        let removed = shared
            .change_names(caller, &[parent], |creds| Unlink { parent, name: name.clone(), creds })
            .await?
            .body;
        shared.changed_attrs(removed.ino);
        if removed.nlink == 0 {
            lock(&shared.owed).forget(removed.ino);
        }
        Ok(removed)
    }

    pub async fn rmdir(&self, parent: Ino, name: &[u8], caller: Caller) -> Result<Removed> {
        let shared = &self.shared;
        let name = Name::from(name);
        let removed = shared
            .change_names(caller, &[parent], |creds| Rmdir { parent, name: name.clone(), creds })
            .await?
            .body;
        shared.dir_gone(removed.ino);
        Ok(removed)
    }

    pub async fn rename(
        &self,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        mode: RenameMode,
        caller: Caller,
    ) -> Result<Renamed> {
        let shared = &self.shared;
        shared.may_come(to.0, to.1);
        let (parent, name) = (from.0, Name::from(from.1));
        let (new_parent, new_name) = (to.0, Name::from(to.1));
        let make = |creds| {
            let (name, new_name) = (name.clone(), new_name.clone());
            Rename { parent, name, new_parent, new_name, mode, creds }
        };
        let renamed = shared.change_names(caller, &[parent, new_parent], make).await?.body;
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
