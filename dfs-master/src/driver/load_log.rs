//! The files of the log of loads, on a thread of their own: `load.jsonl`, and older ones with numbers, `load.jsonl.1` the
//! newest of them.
//!
//! Keeps: whatever the disk does, the master does not wait for it. Seconds that find the queue full, or that can't be
//! written, are lost; it is said once, and the log itself says how many.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use dfs_master::core::LoadSecond;
use dfs_master::load_log::{Begins, Encoder};

/// Seconds that may wait: as long as a disk hangs that is going to be well again. A busy second is a few hundred KiB.
const QUEUE: usize = 30;
/// The space is shared by so many files, so that what goes at once is a small part.
const FILES: u64 = 8;
const NAME: &str = "load.jsonl";
/// A line that was cut by a crash is looked for in the end of a file, so far back; a longer one goes with the file.
const TAIL: u64 = 64 << 20;

/// Where the core's seconds go.
#[derive(Debug)]
pub(crate) struct LoadLog {
    queue: SyncSender<Box<LoadSecond>>,
    lost: Arc<AtomicU64>,
}

impl LoadLog {
    /// A log in `dir` of at most `bytes`.
    pub(crate) fn start(dir: &Path, bytes: u64) -> io::Result<LoadLog> {
        let (queue, seconds) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let files = Files { dir: dir.to_owned(), most: bytes / FILES, open: None };
        let writer = Writer { files, encoder: Encoder::default(), lost: Arc::clone(&lost), failing: false };
        // It ends with the queue, or with the process; every line is in the file once it is written.
        std::thread::Builder::new().name("load-log".into()).spawn(move || writer.run(&seconds))?;
        Ok(LoadLog { queue, lost })
    }

    pub(crate) fn push(&self, second: Box<LoadSecond>) {
        match self.queue.try_send(second) {
            Ok(()) => {}
            // The thread is gone only with a panic, which ends the process.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
                    log::warn!("the log of loads is behind: its disk is slow; seconds of it are lost");
                }
            }
        }
    }
}

struct Writer {
    files: Files,
    encoder: Encoder,
    lost: Arc<AtomicU64>,
    failing: bool,
}

impl Writer {
    fn run(mut self, seconds: &Receiver<Box<LoadSecond>>) {
        while let Ok(second) = seconds.recv() {
            let lost = self.lost.swap(0, Ordering::Relaxed);
            match self.write(&second, lost) {
                Ok(()) => {
                    if std::mem::take(&mut self.failing) {
                        log::info!("the log of loads goes on; {lost} seconds of it are lost");
                    }
                }
                Err(error) => {
                    self.lost.fetch_add(lost + 1, Ordering::Relaxed);
                    self.files.open = None;
                    if !std::mem::replace(&mut self.failing, true) {
                        log::warn!("the log of loads: {error}; it goes on when it can be written again");
                    }
                }
            }
        }
    }

    fn write(&mut self, second: &LoadSecond, lost: u64) -> io::Result<()> {
        let anew = if second.first {
            Some(Begins::Leader)
        } else if self.files.open.is_none() {
            Some(Begins::Gap)
        } else if self.files.is_full() {
            Some(Begins::Rotated)
        } else {
            None
        };
        let file = self.files.ready()?;
        if anew.is_some() {
            self.encoder = Encoder::default();
        }
        file.append(&self.encoder.line(second, anew, lost))
    }
}

struct Files {
    dir: PathBuf,
    /// Bytes of one.
    most: u64,
    open: Option<Open>,
}

struct Open {
    file: File,
    bytes: u64,
}

impl Files {
    fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.bytes >= self.most)
    }

    /// The file to append to.
    fn ready(&mut self) -> io::Result<&mut Open> {
        if self.is_full() {
            self.open = None;
            self.rotate()?;
        }
        if self.open.is_none() {
            let open = Open::whole_lines(&self.dir, NAME)?;
            if open.bytes >= self.most {
                drop(open);
                self.rotate()?;
            }
        }
        match &mut self.open {
            Some(open) => Ok(open),
            none => Ok(none.insert(Open::whole_lines(&self.dir, NAME)?)),
        }
    }

    /// The oldest file goes, and each of the others gets the name of the one before.
    fn rotate(&self) -> io::Result<()> {
        let older = |number: u64| self.dir.join(format!("{NAME}.{number}"));
        for number in (1..FILES - 1).rev() {
            move_if_there(&older(number), &older(number + 1))?;
        }
        move_if_there(&self.dir.join(NAME), &older(1))
    }
}

fn move_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Open {
    /// Opens the file, without what a crash or a full disk left of a last line.
    fn whole_lines(dir: &Path, name: &str) -> io::Result<Open> {
        fs::create_dir_all(dir)?;
        let at = dir.join(name);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(at)?;
        let bytes = file.metadata()?.len();
        let from = bytes.saturating_sub(TAIL);
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        let kept = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end as u64 + 1);
        let bytes = if kept == 0 { 0 } else { from + kept };
        file.set_len(bytes)?;
        file.seek(SeekFrom::Start(bytes))?;
        Ok(Open { file, bytes })
    }

    /// A part of a line that could not be written whole is dropped when the file is opened again.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dfs_master::core::Rest;
    use dfs_master::core::policy::{Limits, Pace, Thresholds};
    use dfs_master::load_log::Decoder;
    use dfs_proto::units::{Micros, Timespec};

    use super::*;

    fn second(at: u64, first: bool) -> LoadSecond {
        let thresholds = Thresholds::default();
        let limits: Limits = thresholds.limits(&[]);
        LoadSecond {
            at: Micros(at * 1_000_000),
            wall: Timespec { sec: 1_800_000_000, nsec: 0 },
            first,
            thresholds,
            limits,
            pace: Pace::default(),
            budget_bytes: 1 << 30,
            chunks: Vec::new(),
            rest: Rest::default(),
            gone: Vec::new(),
            servers: Vec::new(),
            decisions: Vec::new(),
        }
    }

    fn writer(dir: &Path, most: u64) -> Writer {
        let files = Files { dir: dir.to_owned(), most, open: None };
        Writer { files, encoder: Encoder::default(), lost: Arc::default(), failing: false }
    }

    /// Every file can be read by itself, and there are no more of them than there may be.
    #[test]
    fn files_are_bounded_and_each_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path(), 2_000);
        (1..=400).for_each(|at| writer.write(&second(at, at == 1), 0).unwrap());
        let files: Vec<PathBuf> =
            fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len() as u64, FILES);
        for file in &files {
            let bytes = fs::read(file).unwrap();
            assert!(bytes.len() < 2_600, "{}", bytes.len());
            let mut decoder = Decoder::default();
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                decoder.line(line).unwrap();
            }
        }
    }

    #[test]
    fn a_line_that_a_crash_cut_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        writer(dir.path(), 1 << 20).write(&second(1, true), 0).unwrap();
        let at = dir.path().join(NAME);
        let whole = fs::read(&at).unwrap();
        let mut file = OpenOptions::new().append(true).open(&at).unwrap();
        file.write_all(b"{\"version\":1,\"at").unwrap();
        writer(dir.path(), 1 << 20).write(&second(2, true), 3).unwrap();
        let bytes = fs::read(&at).unwrap();
        assert_eq!(bytes[..whole.len()], whole);
        let decoded = Decoder::default().line(&bytes[whole.len()..]).unwrap();
        assert_eq!((decoded.lost_seconds, decoded.begins), (3, Some(Begins::Leader)));
    }

    /// A disk that takes nothing costs the master no wait, and the log says what is missing.
    #[test]
    fn a_disk_that_takes_nothing_loses_seconds_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("load");
        File::create(&blocked).unwrap();
        let mut writer = writer(&blocked, 1 << 20);
        assert!(writer.write(&second(1, true), 0).is_err());
        fs::remove_file(&blocked).unwrap();
        writer.write(&second(2, false), 1).unwrap();
        let decoded = Decoder::default().line(&fs::read(blocked.join(NAME)).unwrap()).unwrap();
        assert_eq!((decoded.lost_seconds, decoded.begins), (1, Some(Begins::Gap)));

        let (queue, held) = sync_channel(QUEUE);
        let log = LoadLog { queue, lost: Arc::default() };
        (0..QUEUE as u64 + 5).for_each(|at| log.push(Box::new(second(at, false))));
        assert_eq!(log.lost.load(Ordering::Relaxed), 5);
        drop(held);
    }
}
