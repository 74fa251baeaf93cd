//! Clean close: first the bytes are made durable, then a header that says so with the table's digest. A header that
//! says "closed" is believed after a power cut, so it must never be on the disk before what it speaks of.

use dfs_disk::Disk;
use dfs_proto::checksum::{Digest, digest_of};
use dfs_proto::ids::{ChunkId, OpenNum, Seq};
use dfs_proto::note::FileNote;

use super::Store;
use super::error::StoreError;

/// One chunk of [`Store::close_many`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToClose {
    pub chunk: ChunkId,
    pub open_num: OpenNum,
    /// The last write that is in it.
    pub seq: Seq,
    /// What its header says of the file from now on; `None` leaves what it says.
    pub note: Option<FileNote>,
}

impl<D: Disk> Store<D> {
    /// Closes chunks, each under the opening given and with the last write in it; many at the price of two syncs of
    /// the disk. None for a chunk that was written again, or opened anew, meanwhile.
    pub fn close_many(&self, chunks: &[ToClose]) -> Vec<Result<Option<Digest>, StoreError>> {
        let named: Vec<(ChunkId, Seq)> = chunks.iter().map(|close| (close.chunk, close.seq)).collect();
        let synced = self.sync_many(&named);
        let mut results: Vec<Result<Option<Digest>, StoreError>> = Vec::with_capacity(chunks.len());
        let mut headed = Vec::new();
        for (at, (close, synced)) in chunks.iter().zip(synced).enumerate() {
            let result = synced.and_then(|()| self.close_header(close));
            if let Ok(Some(_)) = result {
                headed.push((at, (close.chunk, close.seq)));
            }
            results.push(result);
        }
        let named: Vec<(ChunkId, Seq)> = headed.iter().map(|(_, named)| *named).collect();
        for ((at, (id, _)), synced) in headed.into_iter().zip(self.sync_many(&named)) {
            let still = synced.and_then(|()| self.is_closed(id, chunks[at].open_num));
            match still {
                Ok(true) => {}
                Ok(false) => results[at] = Ok(None),
                Err(error) => results[at] = Err(error),
            }
        }
        self.limit_open_files();
        results
    }

    /// Writes the header of a chunk all of whose bytes are on the disk.
    fn close_header(&self, close: &ToClose) -> Result<Option<Digest>, StoreError> {
        let (id, open_num) = (close.chunk, close.open_num);
        if let Err(error) = self.trim(id) {
            log::debug!("chunk {id}: what was allocated ahead stays: {error}");
        }
        let chunk = self.find(id)?;
        let mut state = chunk.write();
        state.usable()?;
        self.open_body(&chunk, &mut state)?;
        if state.dirty() || state.header.open_num > open_num {
            return Ok(None);
        }
        // One that only zeros were ever written to has no file; it is what a hole is.
        let digest = state.body.as_ref().map_or_else(|| digest_of(&[]), |body| body.table.digest());
        let header = &mut state.header;
        (header.open_num, header.open, header.digest) = (open_num, false, digest);
        header.seq_synced = close.seq;
        if let Some(note) = &close.note {
            let old = header.note.replace(note.clone());
            // A file that lost its name keeps the last one, for whoever rescues it.
            if let (true, Some(new), Some(old)) = (note.path.is_empty(), &mut header.note, old) {
                new.path = old.path;
            }
        }
        self.header_to_file(&mut state)?;
        Ok(Some(digest))
    }

    fn is_closed(&self, id: ChunkId, open_num: OpenNum) -> Result<bool, StoreError> {
        let header = self.header(id)?;
        Ok(!header.open && header.open_num == open_num)
    }
}
