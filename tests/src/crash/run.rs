//! A run: work on a recorded device, then images of it, each mounted and judged.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use dfs_disk::real::RealDisk;
use dfs_disk::sim::Rng;
use tempfile::TempDir;

use super::device::{Device, Event};
use super::image::{CutAt, Maker, cuts};
use super::log::LogStep;
use super::store::StoreStep;
use super::{Step, log, store};
use crate::real::clock;
use crate::real::volume::{SharedDir, run as tool, unmount};

/// Bytes of the device: a small ext4 with its journal.
const DEVICE_BYTES: usize = 64 << 20;
/// Pieces of work on the store; the log gets more, they are quicker.
const ROUNDS: u64 = 250;
const LOG_ROUNDS: u64 = 400;

/// How long a loop device may outlive its mount.
const LOOP_GONE: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    pub images: usize,
    pub seed: u64,
    /// Where images go, one at a time.
    pub dir: PathBuf,
}

/// What was done and found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub images: usize,
    pub writes: usize,
    pub flushes: usize,
    /// Steps of the store and of the log.
    pub steps: usize,
    /// Images that the filesystem itself refused to mount: nothing can be said of them.
    pub unmountable: usize,
    pub violations: Vec<String>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "images {} of writes {} flushes {} steps {} unmountable {} violations {}",
            self.images,
            self.writes,
            self.flushes,
            self.steps,
            self.unmountable,
            self.violations.len()
        )
    }
}

/// What was recorded.
struct Recording {
    base: Vec<u8>,
    events: Vec<Event>,
    store: Vec<Step<StoreStep>>,
    log: Vec<Step<LogStep>>,
}

/// Something mounted through a loop device that goes with it.
struct Mounted {
    image: PathBuf,
    at: PathBuf,
}

impl Mounted {
    fn new(image: &Path, at: &Path) -> anyhow::Result<Mounted> {
        std::fs::create_dir_all(at)?;
        let (file, point) = (image.display().to_string(), at.display().to_string());
        tool("mount", &["-t", "ext4", "-o", "loop", &file, &point])?;
        Ok(Mounted { image: image.to_owned(), at: at.to_owned() })
    }

    fn disk(&self, name: &str) -> anyhow::Result<RealDisk> {
        let dir = self.at.join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(RealDisk::new(&dir)?)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The loop device goes a moment after the mount; until then it has the image open.
        let free = |image: &Path| {
            Ok(tool("losetup", &["-j", &image.display().to_string()])?.is_empty().then_some(()))
        };
        let gone = unmount(&self.at).and_then(|()| clock::poll(LOOP_GONE, || free(&self.image)));
        match gone {
            Ok(Some(())) => {}
            Ok(None) => eprintln!("left behind: a loop device of {}", self.image.display()),
            Err(error) => eprintln!("left behind: {error:#}"),
        }
    }
}

/// Records the work.
fn record(seed: u64, dir: &Path) -> anyhow::Result<Recording> {
    let device = Device::new(DEVICE_BYTES)?;
    let image = device.path();
    tool("mkfs.ext4", &["-q", "-E", "nodiscard", "-J", "size=4", &image.display().to_string()])?;
    let mounted = Mounted::new(&image, &dir.join("work"))?;
    let (chunks, master) = (mounted.disk("disk")?, mounted.disk("master")?);
    store::prepare(&chunks)?;
    log::prepare(&master)?;
    tool("sync", &["-f", &mounted.at.display().to_string()])?;
    let base = device.record();
    let (store, log) = std::thread::scope(|scope| {
        // Side by side, so that the journal's commits of one carry the other's names.
        let other = scope.spawn(|| log::work(&master, &device, LOG_ROUNDS, &mut Rng::new(seed ^ 1)));
        let store = store::work(&chunks, &device, ROUNDS, &mut Rng::new(seed));
        (store, other.join().map_err(|_| anyhow!("the work on the log panicked")))
    });
    let (store, log) = (store.context("work on the store")?, log?.context("work on the log")?);
    let events = device.take();
    drop((chunks, master));
    drop(mounted);
    Ok(Recording { base, events, store, log })
}

/// Records work, makes images and judges each.
///
/// # Errors
/// When the machine can't do it. What the store or the log does wrong is in the report.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let dir = TempDir::with_prefix_in("dfs-crash.", &options.dir).context("no directory for the images")?;
    let under = dir.path().join("mounts");
    // Goes before the directory, and after what is mounted in it.
    let _shared = SharedDir::new(&under)?;
    let Recording { base, events, store, log } = record(options.seed, &under)?;
    let flushes = events.iter().filter(|event| **event == Event::Flush).count();
    let mut report = Report {
        writes: events.len() - flushes,
        flushes,
        steps: store.len() + log.len(),
        ..Report::default()
    };
    let mut rng = Rng::new(options.seed ^ 0xc4a5);
    let mut maker = Maker::new(base, &events);
    let every = cuts(&events, options.images, &mut rng);
    // Fewer images than flushes: spread over all of them.
    let picked = (0..options.images).map(|at| every[at * every.len() / options.images]);
    for (number, cut) in picked.enumerate() {
        let image = maker.image(cut, &mut rng);
        match judge(&image, number, cut, &under, (&store, &log)) {
            Ok(Verdict::Holds) => {}
            Ok(Verdict::NoFilesystem(why)) => {
                eprintln!("image {number} of a cut after {} events: {why}", cut.0);
                report.unmountable += 1;
            }
            Err(error) => {
                let seed = options.seed;
                report
                    .violations
                    .push(format!("seed {seed} image {number}, cut after {} events: {error:#}", cut.0));
            }
        }
        report.images += 1;
    }
    Ok(report)
}

enum Verdict {
    Holds,
    /// The filesystem can't be mounted; what the kernel said.
    NoFilesystem(String),
}

fn judge(
    image: &[u8],
    number: usize,
    cut: CutAt,
    dir: &Path,
    (store, log): (&[Step<StoreStep>], &[Step<LogStep>]),
) -> anyhow::Result<Verdict> {
    let file = dir.join(format!("{number}.img"));
    File::create_new(&file)?.write_all(image)?;
    let mounted = match Mounted::new(&file, &dir.join("look")) {
        Ok(mounted) => mounted,
        // The image is left, for fsck.
        Err(error) => return Ok(Verdict::NoFilesystem(format!("{error:#}"))),
    };
    let judged = store::judge(&mounted.disk("disk")?, store, cut.0)
        .context("chunk store")
        .and_then(|()| log::judge(&mounted.disk("master")?, log, cut.0).context("log"));
    drop(mounted);
    std::fs::remove_file(&file)?;
    judged.map(|()| Verdict::Holds)
}
