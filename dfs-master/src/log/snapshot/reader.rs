//! Reading a snapshot: every block verified before it is handed out, in order and complete.

use std::io;

use bytes::Bytes;
use dfs_disk::{Disk, DiskFile, Open};
use dfs_proto::ids::{ClusterId, LogIndex};

use super::format::{self, BadHeader, FOOTER_LEN, HEAD_LEN, Head, PREFIX_LEN, Totals};
use super::{SnapshotError, SnapshotMeta};

/// A verified block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    pub section: u16,
    pub bytes: Bytes,
}

/// A snapshot being read.
#[derive(Debug)]
pub struct SnapshotReader<D: Disk> {
    path: String,
    file: D::File,
    len: u64,
    at: u64,
    seed: u32,
    meta: SnapshotMeta,
    totals: Totals,
    ended: bool,
}

impl<D: Disk> SnapshotReader<D> {
    pub(super) fn open(
        disk: &D,
        cluster: ClusterId,
        path: String,
        named: Option<LogIndex>,
    ) -> Result<SnapshotReader<D>, SnapshotError> {
        let io = |source| SnapshotError::Io { path: path.clone(), source };
        let damaged = |what| SnapshotError::Damaged { path: path.clone(), offset: 0, what };
        let file = disk.open(&path, Open::Existing).map_err(io)?;
        let len = file.len().map_err(io)?;
        let mut header = vec![0; PREFIX_LEN];
        if file.read_at(&mut header, 0).map_err(io)? < PREFIX_LEN {
            return Err(damaged("it ends within its header"));
        }
        let body = format::body_len(&header).ok_or_else(|| damaged("its header"))?;
        header.resize(PREFIX_LEN + body, 0);
        if file.read_at(&mut header, 0).map_err(io)? < header.len() {
            return Err(damaged("it ends within its header"));
        }
        let (meta, seed) = format::decode_header(&header, cluster).map_err(|bad| match bad {
            BadHeader::Damaged => damaged("its header"),
            BadHeader::Foreign(found) => SnapshotError::Foreign { path: path.clone(), found, ours: cluster },
            BadHeader::Newer(format) => SnapshotError::Newer { path: path.clone(), format },
        })?;
        if named.is_some_and(|index| index != meta.id.index) {
            return Err(damaged("it is of another index than its name says"));
        }
        let at = header.len() as u64;
        Ok(SnapshotReader { path, file, len, at, seed, meta, totals: Totals::default(), ended: false })
    }

    /// What the snapshot is of.
    #[must_use]
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// The next block; `None` behind the last, once the footer has confirmed that it was the last.
    ///
    /// # Errors
    /// `Damaged` with the offset; what was read before is then of no use.
    pub fn next_block(&mut self) -> Result<Option<Block>, SnapshotError> {
        if self.ended {
            return Ok(None);
        }
        let (head, payload) = self.read_part(self.at)?;
        if head.number != self.totals.blocks {
            return Err(self.damaged(self.at, "a block is missing or repeated"));
        }
        let after = self.at + (HEAD_LEN + head.len) as u64;
        if head.footer {
            if payload != self.totals.encode()[..] || after != self.len {
                return Err(self.damaged(self.at, "its footer does not fit its blocks"));
            }
            self.ended = true;
            return Ok(None);
        }
        if !self.meta.sections.iter().any(|section| section.id == head.section) {
            return Err(self.damaged(self.at, "a block of an undeclared section"));
        }
        self.totals.add(head.len, head.crc);
        self.at = after;
        Ok(Some(Block { section: head.section, bytes: payload }))
    }

    /// Is there a footer where the file ends?
    pub(super) fn check_footer(&self) -> Result<(), SnapshotError> {
        let from = self.len.saturating_sub((HEAD_LEN + FOOTER_LEN) as u64);
        let (head, _) = self.read_part(from.max(self.at))?;
        if head.footer { Ok(()) } else { Err(self.damaged(from, "it does not end with a footer")) }
    }

    fn read_part(&self, at: u64) -> Result<(Head, Bytes), SnapshotError> {
        let io = |source: io::Error| SnapshotError::Io { path: self.path.clone(), source };
        let mut bytes = [0; HEAD_LEN];
        if self.file.read_at(&mut bytes, at).map_err(io)? < HEAD_LEN {
            return Err(self.damaged(at, "it ends before its footer"));
        }
        let head = Head::decode(&bytes).ok_or_else(|| self.damaged(at, "a block's head"))?;
        let mut payload = vec![0; head.len];
        if self.file.read_at(&mut payload, at + HEAD_LEN as u64).map_err(io)? < head.len {
            return Err(self.damaged(at, "it ends within a block"));
        }
        if !head.covers(self.seed, &bytes, &payload) {
            return Err(self.damaged(at, "a block's checksum does not match"));
        }
        Ok((head, Bytes::from(payload)))
    }

    fn damaged(&self, offset: u64, what: &'static str) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.clone(), offset, what }
    }
}
