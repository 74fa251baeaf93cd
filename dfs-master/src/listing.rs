//! The listings that `dfs-chunkserver headers` prints of disks, one disk's behind the other, as they come in.

use std::io::BufRead;

use anyhow::{Context, bail};
use dfs_proto::listing::{Line, ListedDisk};

/// What is taken of one disk's listing.
pub(crate) trait OfDisk {
    fn begin(disk: ListedDisk) -> Self;

    /// Takes a line between the disk's own and that of the next, its end included. Whether it belongs there.
    fn take(&mut self, line: Line) -> bool;
}

/// Reads listings to the line that says how many there are.
pub(crate) fn read<T: OfDisk>(from: impl BufRead) -> anyhow::Result<Vec<T>> {
    let mut disks = Vec::new();
    let mut open: Option<T> = None;
    let mut done = false;
    for (at, line) in from.lines().enumerate() {
        let line = serde_json::from_str::<Line>(&line.context("the listing")?)
            .with_context(|| format!("line {} of the listing", at + 1))?;
        let ends = matches!(line, Line::End { .. });
        let in_its_place = match (line, &mut open) {
            (Line::Disk(disk), None) if !done => {
                open = Some(T::begin(disk));
                true
            }
            (Line::Done { disks: count }, None) if count == disks.len() as u64 => {
                done = true;
                true
            }
            (line, Some(disk)) => disk.take(line),
            (_, None) => false,
        };
        if !in_its_place {
            bail!("line {} of the listing is out of its place", at + 1);
        }
        if ends {
            disks.extend(open.take());
        }
    }
    if !done {
        bail!("the listing of the disks ends early");
    }
    Ok(disks)
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::restore::Copies;

    const DISK: &str = r#"{"disk":{"path":"/d","cluster":"01","server":"02","disk":"03","generation":1,"max_term":1,"max_index":5,"starts":2}}"#;
    const COPY: &str = r#"{"copy":{"path":"/d/master-copy/a","cluster":"01","generation":1,"facts":{"made_in":1,"chunk_size":65536,"goal":2,"created":7},"serial":3,"began":4,"whole":true,"written":9}}"#;
    const END: &str = r#"{"end":{"replicas":0,"damaged_slots":0}}"#;

    #[test]
    fn a_listing_that_was_cut_short_is_none() {
        let whole = format!("{DISK}\n{COPY}\n{COPY}\n{END}\n{{\"done\":{{\"disks\":1}}}}\n");
        let read_back = read::<Copies>(whole.as_bytes()).unwrap();
        assert_eq!((read_back.len(), read_back[0].1.len()), (1, 2));
        assert_eq!(read_back[0].1[0].about.serial, 3);
        for bad in [
            String::new(),
            DISK.to_owned(),
            whole.replace("s\":1", "s\":2"),
            format!("{DISK}\n{COPY}\n{END}"),
            format!("{COPY}\n{END}"),
            format!("{DISK}\n{DISK}"),
        ] {
            assert!(read::<Copies>(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
