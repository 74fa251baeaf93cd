//! A look at a disk that no server uses, or at this process's own: whose it is, and what the header of each replica says.
//! It writes nothing, reads no data, and of the tables only those whose header a crash left behind.

use dfs_disk::read_only::ReadOnly;
use dfs_disk::{Disk, Open};

use dfs_proto::ids::ChunkId;

use super::Store;
use super::chunk::{Place, State, extent_of, read_table};
use super::error::OpenError;
use super::fence::Fences;
use super::header::Header;
use super::layout::{BLOCK, chunk_path};
use super::record::{self, Label, Mhwm};
use super::recover::{Scan, Unfit, take_lock};
use super::table::Table;

/// Whose a disk is, and what its server was told.
#[derive(Clone, Copy, Debug)]
pub struct Whose {
    pub label: Label,
    pub mhwm: Mhwm,
    /// The boot counter.
    pub starts: u64,
}

/// What a disk holds.
#[derive(Clone, Debug)]
pub struct Survey {
    pub whose: Whose,
    /// Every replica's header, in the order of their ids, with the version that the fence log has for it.
    pub replicas: Vec<Header>,
    /// Files among the chunks that are no replicas, with why.
    pub unfit: Vec<(String, Unfit)>,
    /// Header slots found damaged; the chunk's other slot served.
    pub damaged_slots: u32,
}

/// Looks at a disk.
///
/// # Errors
/// As [`super::Store::open`]: what a server would not start with is not guessed around here either.
pub fn survey<D: Disk>(disk: D) -> Result<Survey, OpenError> {
    let disk = ReadOnly(disk);
    let whose = survey_label(&disk)?;
    let Whose { label, starts, .. } = whose;
    let fences = Fences::read(&disk)?;
    let mut scan = Scan::new(&disk, label.cluster, starts, None);
    scan.run()?;
    let Scan { shards, quarantined: unfit, damaged_slots, .. } = scan;
    let mut replicas = Vec::new();
    for (id, chunk) in shards
        .into_iter()
        .flat_map(|shard| shard.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    {
        let state = chunk.read();
        let mut header = state.header.clone();
        header.version = fences.get(&id).copied().unwrap_or_default().max(header.version);
        header.extent = extent_on(&disk, &state)?;
        replicas.push(header);
    }
    replicas.sort_unstable_by_key(|header| header.chunk);
    Ok(Survey { whose, replicas, unfit, damaged_slots })
}

/// Looks whose a disk is, and keeps its server from it while the disk's last clone is there.
///
/// # Errors
/// As [`survey`].
pub fn survey_label<D: Disk>(disk: &D) -> Result<Whose, OpenError> {
    let label = record::read_label(disk)?;
    take_lock(disk)?;
    let mhwm = Mhwm { generation: label.generation, ..Mhwm::default() }.raised_to(record::read_mhwm(disk)?);
    Ok(Whose { label, mhwm, starts: record::read_hb_ctr(disk)? })
}

impl<D: Disk> Store<D> {
    /// Whose the disk is, as [`survey_label`] of a stopped server's.
    #[must_use]
    pub fn whose(&self) -> Whose {
        let label = *self.label();
        let mhwm = Mhwm { generation: label.generation, ..Mhwm::default() }.raised_to(self.mhwm());
        Whose { label, mhwm, starts: self.hb_ctr() }
    }

    /// The headers of up to `most` replicas with files, in the order of their ids, and where the next ones begin.
    ///
    /// # Errors
    /// When a file can't be opened.
    pub fn headers_from(
        &self,
        from: ChunkId,
        most: usize,
    ) -> Result<(Vec<Header>, Option<ChunkId>), OpenError> {
        let mut ids: Vec<ChunkId> = Vec::new();
        for shard in &self.chunks {
            let shard = shard.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            ids.extend(shard.range(from..).map(|(id, _)| *id).take(most + 1));
        }
        ids.sort_unstable();
        let next = ids.get(most).copied();
        let mut headers = Vec::new();
        for id in ids.into_iter().take(most) {
            // One that went meanwhile is none.
            let Ok(chunk) = self.find(id) else { continue };
            let state = chunk.read();
            if matches!(state.place, Place::Unborn | Place::Gone) {
                continue;
            }
            let mut header = state.header.clone();
            if state.body.is_none() {
                header.extent = extent_on(&self.disk, &state)?;
            }
            headers.push(header);
        }
        Ok((headers, next))
    }
}

/// How far the replica's bytes reach.
fn extent_on<D: Disk>(disk: &D, state: &State<D::File>) -> Result<u32, OpenError> {
    let header = &state.header;
    let said = header.extent.div_ceil(super::layout::small(BLOCK));
    if !header.open || state.blocks <= said {
        return Ok(header.extent);
    }
    let file = disk.open(&chunk_path(header.chunk), Open::Existing).map_err(OpenError::io("open a chunk"))?;
    // Damaged sectors count as written: rather too many zeros at a file's end than too few bytes.
    let Ok(bytes) = read_table(&file, state.blocks) else { return Ok(header.extent) };
    let (table, _) = Table::load(&bytes, header.chunk, state.blocks);
    Ok(extent_of(header, &table))
}
