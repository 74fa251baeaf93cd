//! Turns random commands into ones that mostly hit: numbers become inodes that are there, of the kind that
//! the command wants, and names ones that their directory has.

use dfs_master::core::ops::NsCommand;
use dfs_proto::ids::{Ino, SizeEpoch};
use dfs_proto::meta::{FileKind, Name};

use crate::model::Model;

/// What a command wants an inode to be.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    Dir,
    File,
    Any,
}

/// One number in 16 stays what it is, mostly no inode; one in 4 becomes any inode that is there.
fn aim_ino(model: &Model, ino: &mut Ino, wanted: Wanted) {
    let pick = ino.0;
    if pick % 16 == 15 {
        return;
    }
    let fits = |kind: FileKind| match wanted {
        Wanted::Dir => kind == FileKind::Dir,
        Wanted::File => kind == FileKind::File,
        Wanted::Any => true,
    };
    let loose = pick % 4 == 3;
    let there: Vec<u64> =
        model.nodes.iter().filter(|(_, node)| loose || fits(node.kind)).map(|(ino, _)| *ino).collect();
    if !there.is_empty() {
        let at = usize::try_from(pick / 4).unwrap() % there.len();
        ino.0 = there[at];
    }
}

/// Two of the five plain names become names that the directory has.
fn aim_name(model: &Model, dir: Ino, name: &mut Name) {
    if !matches!(name.as_slice(), b"a" | b"b") {
        return;
    }
    let names: Vec<Vec<u8>> = model.children(dir.0).into_keys().collect();
    if !names.is_empty() {
        let at = usize::from(name[0]) % names.len();
        *name = names[at].clone().into();
    }
}

/// 0 to 3 become the inode's epoch, 4 one before, 5 one after.
fn aim_epoch(model: &Model, ino: Ino, epoch: &mut SizeEpoch) {
    let now = model.nodes.get(&ino.0).map_or(0, |node| node.epoch);
    epoch.0 = match epoch.0 {
        4 => now.saturating_sub(1),
        5 => now + 1,
        _ => now,
    };
}

pub(crate) fn aim(model: &Model, mut command: NsCommand) -> NsCommand {
    let dir = |ino: &mut Ino| aim_ino(model, ino, Wanted::Dir);
    let file = |ino: &mut Ino| aim_ino(model, ino, Wanted::File);
    let any = |ino: &mut Ino| aim_ino(model, ino, Wanted::Any);
    match &mut command {
        NsCommand::Create(op) => dir(&mut op.parent),
        NsCommand::Mkdir(op) => dir(&mut op.parent),
        NsCommand::Mknod(op) => dir(&mut op.parent),
        NsCommand::Symlink(op) => dir(&mut op.parent),
        NsCommand::Link(op) => {
            dir(&mut op.parent);
            file(&mut op.ino);
        }
        NsCommand::Unlink(op) => {
            dir(&mut op.parent);
            aim_name(model, op.parent, &mut op.name);
        }
        NsCommand::Rmdir(op) => {
            dir(&mut op.parent);
            aim_name(model, op.parent, &mut op.name);
        }
        NsCommand::Rename(op) => {
            dir(&mut op.parent);
            dir(&mut op.new_parent);
            aim_name(model, op.parent, &mut op.name);
            aim_name(model, op.new_parent, &mut op.new_name);
        }
        NsCommand::Setattr(op) => any(&mut op.ino),
        NsCommand::Truncate(op) => file(&mut op.ino),
        NsCommand::TruncateIntent(op) => file(&mut op.ino),
        NsCommand::TruncateFinal(op) => {
            file(&mut op.ino);
            let waiting = model.nodes.iter().find(|(_, node)| node.intent.is_some());
            if let Some((ino, _)) = waiting.filter(|_| op.size_epoch.0 > 0) {
                op.ino = Ino(*ino);
            }
            aim_epoch(model, op.ino, &mut op.size_epoch);
        }
        NsCommand::Commit(op) => {
            file(&mut op.ino);
            aim_epoch(model, op.ino, &mut op.size_epoch);
        }
        NsCommand::SetChunk(op) => file(&mut op.ino),
        NsCommand::ClearChunk(op) => {
            file(&mut op.ino);
            let chunks = model.nodes.get(&op.ino.0).map(|node| &node.chunks);
            let first = chunks.and_then(|chunks| chunks.first_key_value());
            if let Some((index, chunk)) = first.filter(|_| op.chunk.0 > 1) {
                (op.index.0, op.chunk) = (*index, *chunk);
            }
        }
        NsCommand::Setxattr(op) => any(&mut op.ino),
        NsCommand::Removexattr(op) => {
            any(&mut op.ino);
            let having = model.nodes.iter().find(|(_, node)| !node.xattrs.is_empty());
            if let Some((ino, node)) = having.filter(|_| op.name.ends_with(b".a")) {
                op.ino = Ino(*ino);
                op.name = node.xattrs.keys().next().unwrap().clone().into();
            }
        }
        NsCommand::FreeInodes(op) => op.inos.iter_mut().for_each(any),
    }
    command
}
