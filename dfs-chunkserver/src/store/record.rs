//! The small files of a disk: the label, the counters that must survive, the marker of a clean end. Each
//! is replaced whole through [`dfs_disk::replace_file`] and verified whole when read.

use dfs_disk::{Disk, Open, read_file, replace_file};
use dfs_proto::checksum::crc32c;
use dfs_proto::ids::{ClusterId, DiskId, Generation, LogIndex, OsBootId, ServerId, Term};
use serde::{Deserialize, Serialize};

use super::error::OpenError;
use super::layout::{BOOT, CLEAN, LABEL, MHWM, SUSPECT};

/// The label's format: raised when a build lays a disk out in a way that an older one would misread.
pub(super) const FORMAT: u32 = 1;
/// A label is under 300 bytes; a longer file is not one.
const LABEL_MAX: usize = 4096;
/// Bytes of a record: 8 of magic, three words, 4 of checksum.
const RECORD: usize = 36;

/// What a disk is and whose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label {
    pub cluster: ClusterId,
    pub generation: Generation,
    pub disk: DiskId,
    pub server: ServerId,
}

/// Highest term, and highest log index declared durable, that any leader of the newest generation told this
/// disk's server. A leader with less is refused (I20).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mhwm {
    pub generation: Generation,
    pub max_term: Term,
    pub max_meta_index: LogIndex,
}

impl Mhwm {
    /// The higher marks. A newer generation's count from where it began, whatever was seen before.
    #[must_use]
    pub fn raised_to(self, to: Mhwm) -> Mhwm {
        match self.generation.cmp(&to.generation) {
            std::cmp::Ordering::Less => to,
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Equal => Mhwm {
                generation: self.generation,
                max_term: self.max_term.max(to.max_term),
                max_meta_index: self.max_meta_index.max(to.max_meta_index),
            },
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelFile {
    format: u32,
    cluster: String,
    generation: u16,
    disk: String,
    server: String,
    /// Over the four ids and the format, little-endian, in the order above.
    crc: String,
}

fn render(label: &Label, format: u32) -> Vec<u8> {
    let mut sum = format.to_le_bytes().to_vec();
    sum.extend_from_slice(&label.cluster.0.to_le_bytes());
    sum.extend_from_slice(&label.generation.0.to_le_bytes());
    sum.extend_from_slice(&label.disk.0.to_le_bytes());
    sum.extend_from_slice(&label.server.0.to_le_bytes());
    let file = LabelFile {
        format,
        cluster: label.cluster.to_string(),
        generation: label.generation.0,
        disk: label.disk.to_string(),
        server: label.server.to_string(),
        crc: crc32c(&sum).to_string(),
    };
    let mut text = serde_json::to_vec_pretty(&file).expect("strings and numbers always render");
    text.push(b'\n');
    text
}

pub(super) fn write_label<D: Disk>(disk: &D, label: &Label) -> Result<(), OpenError> {
    replace_file(disk, LABEL, &render(label, FORMAT)).map_err(OpenError::io("write disk.json"))
}

pub(super) fn read_label<D: Disk>(disk: &D) -> Result<Label, OpenError> {
    let damaged = || OpenError::Damaged { file: LABEL };
    if !disk.exists(LABEL).map_err(OpenError::io("look for disk.json"))? {
        return Err(OpenError::NoLabel);
    }
    let bytes = read_file(disk, LABEL, LABEL_MAX).map_err(OpenError::io("read disk.json"))?;
    let file: LabelFile = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
    let id = |text: &str| u128::from_str_radix(text, 16).map_err(|_| damaged());
    let label = Label {
        cluster: ClusterId(id(&file.cluster)?),
        generation: Generation(file.generation),
        disk: DiskId(id(&file.disk)?),
        server: ServerId(id(&file.server)?),
    };
    // Byte for byte what we would write: a flipped bit anywhere shows, in the words as in the spaces.
    if render(&label, file.format) != bytes {
        return Err(damaged());
    }
    if file.format != FORMAT {
        return Err(OpenError::Format { found: file.format, known: FORMAT });
    }
    Ok(label)
}

fn encode(magic: [u8; 8], words: [u64; 3]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    for word in words {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&crc32c(&bytes).0.to_le_bytes());
    bytes
}

fn decode(magic: [u8; 8], bytes: &[u8]) -> Option<[u64; 3]> {
    let words = bytes.get(8..32)?.as_chunks::<8>().0;
    let words = [0, 1, 2].map(|at: usize| u64::from_le_bytes(words[at]));
    (encode(magic, words) == bytes).then_some(words)
}

fn read<D: Disk>(disk: &D, file: &'static str, magic: [u8; 8]) -> Result<[u64; 3], OpenError> {
    let bytes = match read_file(disk, file, RECORD) {
        Ok(bytes) => bytes,
        Err(err) if matches!(err.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidData) => {
            return Err(OpenError::Damaged { file });
        }
        Err(source) => return Err(OpenError::Io { what: file, source }),
    };
    decode(magic, &bytes).ok_or(OpenError::Damaged { file })
}

const MHWM_MAGIC: [u8; 8] = *b"DFSMHWM1";
const BOOT_MAGIC: [u8; 8] = *b"DFSBOOT1";
const CLEAN_MAGIC: [u8; 8] = *b"DFSCLEAN";

pub(super) fn read_mhwm<D: Disk>(disk: &D) -> Result<Mhwm, OpenError> {
    let [generation, term, index] = read(disk, MHWM, MHWM_MAGIC)?;
    let generation = u16::try_from(generation).map_err(|_| OpenError::Damaged { file: MHWM })?;
    Ok(Mhwm { generation: Generation(generation), max_term: Term(term), max_meta_index: LogIndex(index) })
}

pub(super) fn write_mhwm<D: Disk>(disk: &D, mhwm: Mhwm) -> std::io::Result<()> {
    let words = [u64::from(mhwm.generation.0), mhwm.max_term.0, mhwm.max_meta_index.0];
    replace_file(disk, MHWM, &encode(MHWM_MAGIC, words))
}

pub(super) fn read_hb_ctr<D: Disk>(disk: &D) -> Result<u64, OpenError> {
    Ok(read(disk, BOOT, BOOT_MAGIC)?[0])
}

pub(super) fn write_hb_ctr<D: Disk>(disk: &D, hb_ctr: u64) -> std::io::Result<()> {
    replace_file(disk, BOOT, &encode(BOOT_MAGIC, [hb_ctr, 0, 0]))
}

/// Whether the server that last used the disk, under `hb_ctr`, ended with everything synced. The marker
/// names the counter, so raising the counter voids it without another write. A damaged one is none.
pub(super) fn was_clean<D: Disk>(disk: &D, hb_ctr: u64) -> bool {
    read(disk, CLEAN, CLEAN_MAGIC).is_ok_and(|[marked, ..]| marked == hb_ctr)
}

pub(super) fn mark_clean<D: Disk>(disk: &D, hb_ctr: u64) -> std::io::Result<()> {
    replace_file(disk, CLEAN, &encode(CLEAN_MAGIC, [hb_ctr, 0, 0]))
}

/// Leaves a note that a sync failed: a name, which no lost page can take along. Not synced, for it need not outlive the
/// kernel: the cache that must not be believed holds it too.
pub(super) fn mark_suspect<D: Disk>(disk: &D, os_boot: OsBootId) -> std::io::Result<()> {
    disk.open(&suspect_name(os_boot), Open::OrNew).map(drop)
}

/// Whether there is such a note of this kernel. Another one has read the disk itself: older notes go.
pub(super) fn is_suspect<D: Disk>(disk: &D, os_boot: OsBootId) -> std::io::Result<bool> {
    let mut found = false;
    for entry in disk.list("")? {
        if entry.name == suspect_name(os_boot) {
            found = true;
        } else if entry.name.starts_with(SUSPECT) {
            disk.remove(&entry.name)?;
        }
    }
    Ok(found)
}

fn suspect_name(os_boot: OsBootId) -> String {
    format!("{SUSPECT}{:032x}", os_boot.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_disk::sim::SimDisk;

    fn disk() -> SimDisk {
        let disk = SimDisk::new(1, 1 << 20);
        let label = Label {
            cluster: ClusterId(0xabc),
            generation: Generation(3),
            disk: DiskId(u128::MAX),
            server: ServerId(7),
        };
        write_label(&disk, &label).unwrap();
        write_mhwm(&disk, Mhwm { generation: Generation(3), max_term: Term(4), max_meta_index: LogIndex(5) })
            .unwrap();
        write_hb_ctr(&disk, 9).unwrap();
        mark_clean(&disk, 9).unwrap();
        disk
    }

    #[test]
    fn every_flipped_bit_of_every_small_file_is_noticed() {
        let disk = disk();
        assert_eq!(read_label(&disk).unwrap().generation, Generation(3));
        assert_eq!(read_mhwm(&disk).unwrap().max_meta_index, LogIndex(5));
        assert_eq!(read_hb_ctr(&disk).unwrap(), 9);
        assert!(was_clean(&disk, 9) && !was_clean(&disk, 10));
        for file in [LABEL, MHWM, BOOT, CLEAN] {
            let len = read_file(&disk, file, 4096).unwrap().len() as u64;
            for at in 0..len {
                for bit in 0..8 {
                    assert!(disk.flip_bit(file, at, bit));
                    let noticed = match file {
                        LABEL => read_label(&disk).is_err(),
                        MHWM => read_mhwm(&disk).is_err(),
                        BOOT => read_hb_ctr(&disk).is_err(),
                        _ => !was_clean(&disk, 9),
                    };
                    assert!(noticed, "{file} byte {at} bit {bit}");
                    disk.flip_bit(file, at, bit);
                }
            }
        }
    }

    #[test]
    fn golden_label_and_record() {
        let disk = disk();
        let label = read_file(&disk, LABEL, 4096).unwrap();
        assert_eq!(String::from_utf8(label).unwrap(), include_str!("../../tests/fixtures/disk-v1.json"));
        let mhwm: String = read_file(&disk, MHWM, 64).unwrap().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(mhwm, include_str!("../../tests/fixtures/mhwm-v1.hex").trim());
    }
}
