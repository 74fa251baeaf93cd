//! Names and attributes: requests become commands of the namespace, or are read from it.

use dfs_proto::meta::{self, FsStats};
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::Timespec;

use super::{Client, Then, decode};
use crate::core::Core;
use crate::core::command::Command;
use crate::core::namespace::Caller as By;
use crate::core::ops::{self, NsCommand};
use crate::core::reply::Caller;

/// Inode numbers that statfs calls free: there is no limit, and programs want a number.
const FREE_INODES: u64 = 1 << 40;

/// The command of a request that changes names or attributes; `None` for a request that changes nothing.
fn command_of(op: Op, body: &[u8], now: Timespec) -> Result<Option<NsCommand>, Status> {
    Ok(Some(match op {
        Op::Mkdir => {
            let meta::Mkdir { parent, name, mode, creds } = decode(body)?;
            NsCommand::Mkdir(ops::Mkdir { parent, name, mode, now, by: By::from(&creds) })
        }
        Op::Mknod => {
            let meta::Mknod { parent, name, kind, mode, rdev, creds } = decode(body)?;
            NsCommand::Mknod(ops::Mknod { parent, name, kind, mode, rdev, now, by: By::from(&creds) })
        }
        Op::Symlink => {
            let meta::Symlink { parent, name, target, creds } = decode(body)?;
            NsCommand::Symlink(ops::Symlink { parent, name, target, now, by: By::from(&creds) })
        }
        Op::Link => {
            let meta::Link { ino, parent, name, creds } = decode(body)?;
            NsCommand::Link(ops::Link { ino, parent, name, now, by: By::from(&creds) })
        }
        Op::Unlink => {
            let meta::Unlink { parent, name, creds } = decode(body)?;
            NsCommand::Unlink(ops::Unlink { parent, name, now, by: By::from(&creds) })
        }
        Op::Rmdir => {
            let meta::Rmdir { parent, name, creds } = decode(body)?;
            NsCommand::Rmdir(ops::Rmdir { parent, name, now, by: By::from(&creds) })
        }
        Op::Rename => {
            let meta::Rename { parent, name, new_parent, new_name, mode, creds } = decode(body)?;
            let by = By::from(&creds);
            NsCommand::Rename(ops::Rename { parent, name, new_parent, new_name, mode, now, by })
        }
        Op::Setxattr => {
            let meta::Setxattr { ino, name, value, mode, creds } = decode(body)?;
            NsCommand::Setxattr(ops::Setxattr { ino, name, value, mode, now, by: By::from(&creds) })
        }
        Op::Removexattr => {
            let meta::Removexattr { ino, name, creds } = decode(body)?;
            NsCommand::Removexattr(ops::Removexattr { ino, name, now, by: By::from(&creds) })
        }
        _ => return Ok(None),
    }))
}

impl Core {
    pub(super) fn name_request(&mut self, client: &Client, body: &[u8]) -> Result<(), Status> {
        match command_of(client.caller.op, body, self.now.wall)? {
            Some(command) => self.change(client, command),
            None => self.name_read(client, body),
        }
    }

    /// Checks a change of the namespace and proposes it.
    pub(in crate::core) fn change(&mut self, client: &Client, command: NsCommand) -> Result<(), Status> {
        self.state.ns.check(&command)?;
        self.names_come(client.caller.conn, &command);
        let caller = Caller { dirs: command.parents(), ..client.caller };
        self.propose(client.origin, Command::Ns(command), Then::Reply(caller))?;
        Ok(())
    }

    fn name_read(&mut self, client: &Client, body: &[u8]) -> Result<(), Status> {
        let (caller, ns) = (client.caller, &self.state.ns);
        match caller.op {
            Op::Lookup => {
                let meta::Lookup { parent, name, creds } = decode(body)?;
                let attr = ns.lookup(parent, &name, &By::from(&creds))?;
                self.soft.paths.learn(attr.kind, attr.ino, &name);
                self.reply(caller, &attr);
            }
            Op::Getattr => {
                let meta::Getattr { ino } = decode(body)?;
                let attr = ns.getattr(ino)?;
                self.reply(caller, &attr);
            }
            Op::Readlink => {
                let meta::Readlink { ino } = decode(body)?;
                let target = ns.readlink(ino)?;
                self.reply(caller, &target);
            }
            Op::Readdir => {
                let meta::Readdir { dir, cookie, max, plus } = decode(body)?;
                let listing = ns.readdir(dir, cookie, max.min(meta::READDIR_MAX), plus)?;
                self.reply(caller, &listing);
            }
            Op::Getxattr => {
                let meta::Getxattr { ino, name } = decode(body)?;
                let value = ns.getxattr(ino, &name)?;
                self.reply(caller, &value);
            }
            Op::Listxattr => {
                let meta::Listxattr { ino } = decode(body)?;
                let names = ns.listxattr(ino)?;
                self.reply(caller, &names);
            }
            Op::Statfs => {
                let stats = self.statfs();
                self.reply(caller, &stats);
            }
            _ => return Err(Status::UnknownOp),
        }
        Ok(())
    }

    fn statfs(&self) -> FsStats {
        let (total, free) = self.space();
        let goal = u64::try_from(self.state.goal()).unwrap_or(1).max(1);
        FsStats {
            total_bytes: total / goal,
            free_bytes: free / goal,
            inodes: self.state.ns.counts().inodes,
            free_inodes: FREE_INODES,
        }
    }

    /// Bytes of all servers that are up: all, free.
    pub(in crate::core) fn space(&self) -> (u64, u64) {
        let up =
            self.soft.servers.iter().filter(|(server, _)| self.soft.servers.is_up(*server, self.now.mono));
        up.map(|(_, live)| live.space())
            .fold((0, 0), |(total, free), space| (total + space.0, free + space.1))
    }
}
