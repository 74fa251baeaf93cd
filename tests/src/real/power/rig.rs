//! The cluster under the cuts: its hosts, its filesystems, and one round of work, cut and recovery.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use dfs_disk::sim::Rng;
use rustix::process::Signal;
use tempfile::TempDir;

use super::{Options, Report, Spread, USABLE_LIMIT};
use crate::model::stamp::Stamp;
use crate::model::{Actor, FileNum, Tick};
use crate::real::clock;
use crate::real::daemon::Host;
use crate::real::held::Held;
use crate::real::nodes::{Nodes, Place, Shape, Who};
use crate::real::volume::{SharedDir, Volume};
use crate::real::work::{Running, Shared, WorkFile, path_of, prepare};

/// Mounts with programs; one more looks after a cut.
const MOUNTS: u16 = 2;
pub(super) const LOOKER: Who = Who::Mount(MOUNTS);
/// Files that only one mount uses, and files that all use.
const PRIVATE: u32 = 3;
const SHARED: u32 = 3;
/// Programs on files, on each mount; one more works on names.
const STREAMS: u8 = 2;
/// One in so many cuts of everything takes the mounts too; their sessions keep others waiting for a lease.
const MOUNTS_TOO: u64 = 8;
/// A log segment of 64 MiB, the next one and a snapshot need three times as much; sparse.
const IMAGE_BYTES: u64 = 2 << 30;

/// So long a kernel believes a name that a mount told it (a second), and what a busy machine adds.
const BELIEF: Duration = Duration::from_millis(1500);

/// Programs finish what they are at within a lease of a dead session and the bound of a recovery.
const END_LIMIT: Duration = Duration::from_secs(100);

/// A cluster, its filesystems and what is known of it. The processes go first.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) nodes: Nodes,
    /// By host.
    volumes: BTreeMap<String, Volume>,
    /// Where they are mounted.
    _under: SharedDir,
    pub(super) shared: Arc<Shared>,
    pub(super) options: Options,
    pub(super) report: Report,
    pub(super) rng: Rng,
    /// Files written once and never again.
    pub(super) archive: Vec<(FileNum, Stamp)>,
    dir: TempDir,
}

fn host_of(spread: Spread, who: Who) -> String {
    match spread {
        Spread::One => "host".to_owned(),
        Spread::Each => who.to_string(),
    }
}

fn shape_of(spread: Spread) -> Shape {
    let (servers, replicas) = match spread {
        Spread::One => (3, 2),
        Spread::Each => (4, 3),
    };
    Shape {
        servers,
        replicas,
        mounts: MOUNTS + 1,
        chunk_size: 65536,
        unix: spread == Spread::One,
        master_options: Vec::new(),
        server_options: Vec::new(),
    }
}

impl Rig {
    pub(super) fn new(options: &Options) -> anyhow::Result<Rig> {
        let dir = TempDir::with_prefix_in("dfs-cut.", &options.dir).context("no directory for the images")?;
        let (spread, root) = (options.spread, dir.path().to_owned());
        let shape = shape_of(spread);
        std::fs::create_dir(root.join("boot"))?;
        let under = SharedDir::new(&root.join("vol"))?;
        let place = |who| {
            let host = host_of(spread, who);
            let (boot_id, at) = match who {
                // Mounts are on hosts that keep their power.
                Who::Mount(_) => (None, root.join(who.to_string())),
                Who::Master | Who::Server(_) => {
                    (Some(root.join("boot").join(&host)), root.join("vol").join(&host).join(who.to_string()))
                }
            };
            Place { host: Host { netns: None, boot_id }, listen: "127.0.0.1:0".to_owned(), at }
        };
        let nodes = Nodes::new(&root, &options.bin, shape, place)?;
        let mut rig = Rig {
            nodes,
            volumes: BTreeMap::new(),
            _under: under,
            shared: Arc::default(),
            options: options.clone(),
            report: Report::default(),
            rng: Rng::new(options.seed),
            archive: Vec::new(),
            dir,
        };
        rig.make_volumes(&root)?;
        for who in rig.nodes.all().into_iter().filter(|who| *who != LOOKER) {
            rig.nodes.start(who)?;
        }
        let mount = rig.nodes.at(Who::Mount(0));
        prepare(&mount, &rig.all_files(), &name_actors())?;
        Ok(rig)
    }

    fn make_volumes(&mut self, root: &Path) -> anyhow::Result<()> {
        for who in self.powered() {
            let host = host_of(self.options.spread, who);
            if !self.volumes.contains_key(&host) {
                let (image, at) = (root.join(format!("{host}.img")), root.join("vol").join(&host));
                let volume = Volume::create(self.options.fs, &image, IMAGE_BYTES, &at)?;
                self.volumes.insert(host.clone(), volume);
                self.reboot(&host)?;
            }
            std::fs::create_dir_all(self.nodes.at(who))?;
        }
        Ok(())
    }

    /// The processes whose power can be cut.
    fn powered(&self) -> Vec<Who> {
        self.nodes.all().into_iter().filter(|who| !matches!(who, Who::Mount(_))).collect()
    }

    /// A host gets the boot id of a new kernel.
    fn reboot(&mut self, host: &str) -> anyhow::Result<()> {
        let (a, b) = (self.rng.bits(), self.rng.bits());
        let id = format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}\n",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xffff,
            b >> 48,
            b & 0xffff_ffff_ffff
        );
        File::create(self.dir.path().join("boot").join(host))?.write_all(id.as_bytes())?;
        Ok(())
    }

    /// All files, of all mounts and shared.
    pub(super) fn all_files(&self) -> Vec<WorkFile> {
        let count = u32::from(MOUNTS) * PRIVATE + SHARED;
        (0..count).map(|num| WorkFile { num: FileNum(num), through: false }).collect()
    }

    /// The files that programs of a mount use. Those that all use are `through` while every mount has them open.
    fn files_of(&self, mount: u16, through: bool) -> Vec<WorkFile> {
        let own = u32::from(mount) * PRIVATE..u32::from(mount + 1) * PRIVATE;
        let own = own.map(|num| WorkFile { num: FileNum(num), through: false });
        let first = u32::from(MOUNTS) * PRIVATE;
        let shared = (first..first + SHARED).map(|num| WorkFile { num: FileNum(num), through });
        own.chain(shared).collect()
    }

    fn programs(&mut self, through: bool) -> anyhow::Result<Running> {
        let mut running = Running::none(&self.shared);
        for client in 0..MOUNTS {
            let mount = self.nodes.at(Who::Mount(client));
            let files = self.files_of(client, through);
            for stream in 0..STREAMS {
                running.on_files(&mount, Actor { client, stream }, &files, self.rng.bits())?;
            }
            running.on_names(&mount, Actor { client, stream: STREAMS }, self.rng.bits())?;
        }
        Ok(running)
    }

    /// Opens what all mounts use on every one of them.
    fn hold(&self) -> anyhow::Result<Held> {
        let mut paths = Vec::new();
        for client in 0..MOUNTS {
            let mount = self.nodes.at(Who::Mount(client));
            let shared = self.files_of(client, true).into_iter().filter(|file| file.through);
            paths.extend(shared.map(|file| path_of(&mount, file.num)));
        }
        Held::open(paths)
    }

    /// Work, a cut or two in it, work again, and a look at everything.
    pub(super) fn round(&mut self) -> anyhow::Result<()> {
        let hosts: Vec<String> = self.volumes.keys().cloned().collect();
        let all = self.options.spread == Spread::One || self.rng.below(3) == 0;
        let one = usize::try_from(self.rng.below(hosts.len() as u64)).unwrap_or(0);
        let cut = if all { hosts.clone() } else { vec![hosts[one].clone()] };
        let mounts_too = all && self.rng.below(MOUNTS_TOO) == 0;
        let held = if mounts_too { None } else { Some(self.hold()?) };
        let running = self.programs(!mounts_too)?;
        self.pause(300, 2500);
        if mounts_too {
            self.report.with_mounts += 1;
            (0..MOUNTS).try_for_each(|client| self.nodes.kill(Who::Mount(client)))?;
        }
        self.cut(&cut)?;
        let mut began = self.start_all()?;
        while self.report.cuts < self.options.cuts && self.rng.below(4) == 0 {
            self.pause(0, 1500);
            self.report.again += 1;
            self.cut(&cut)?;
            began = self.start_all()?;
        }
        let usable = self.probe(began)?;
        self.report.usable_max = self.report.usable_max.max(usable);
        self.pause(200, 800);
        running.end(END_LIMIT)?;
        held.map_or(Ok(()), Held::close)?;
        let readable = self.look()?;
        self.report.readable_max = self.report.readable_max.max(readable);
        if self.options.verbose {
            let what = if all { "all".to_owned() } else { cut.join(" ") };
            let (usable, readable) = (usable.as_secs_f64(), readable.as_secs_f64());
            println!("cut {}: {what}, usable {usable:.1} s, read {readable:.1} s", self.report.cuts);
        }
        if usable > USABLE_LIMIT || readable > USABLE_LIMIT {
            bail!("not within {USABLE_LIMIT:?}: usable after {usable:?}, all read in {readable:?}");
        }
        Ok(())
    }

    fn pause(&mut self, least_ms: u64, most_ms: u64) {
        std::thread::sleep(Duration::from_millis(least_ms + self.rng.below(most_ms - least_ms)));
    }

    /// Cuts the power of hosts, and mounts their filesystems again.
    fn cut(&mut self, hosts: &[String]) -> anyhow::Result<()> {
        self.report.cuts += 1;
        self.report.of_all += u64::from(hosts.len() == self.volumes.len());
        let spread = self.options.spread;
        let dying: Vec<Who> =
            self.powered().into_iter().filter(|who| hosts.contains(&host_of(spread, *who))).collect();
        // Either everything stands still in one instant, or the disk goes first and the processes see it.
        let frozen = self.rng.coin();
        if frozen {
            dying.iter().try_for_each(|who| self.nodes.signal(*who, Signal::STOP))?;
        }
        self.shared.record().dying = true;
        for host in hosts {
            self.volume(host)?.cut()?;
        }
        if !frozen {
            self.pause(0, 40);
        }
        dying.iter().try_for_each(|who| self.nodes.kill(*who))?;
        self.note_loss(&dying);
        for host in hosts {
            self.volume(host)?.unmount()?;
            self.reboot(host)?;
            self.volume(host)?.mount()?;
        }
        Ok(())
    }

    fn volume(&mut self, host: &str) -> anyhow::Result<&mut Volume> {
        self.volumes.get_mut(host).with_context(|| format!("no host {host}"))
    }

    /// Tells the models what may be lost: of servers all that was not synced, of the master too.
    fn note_loss(&self, dying: &[Who]) {
        let mut record = self.shared.record();
        record.dying = false;
        for who in dying {
            match who {
                Who::Server(n) => {
                    record.history.server_ended(*n);
                    record.history.server_lost_power(*n);
                }
                Who::Master => {
                    record.believed_until = clock::now() + BELIEF;
                    record.history.tail_lost(Tick(0));
                    record.directories.values_mut().for_each(|directory| directory.tail_lost(Tick(0)));
                }
                Who::Mount(_) => {}
            }
        }
    }

    /// Starts whatever does not run; when that began.
    fn start_all(&mut self) -> anyhow::Result<Duration> {
        let began = clock::now();
        for who in self.nodes.all().into_iter().filter(|who| *who != LOOKER) {
            if !self.nodes.is_running(who) {
                self.nodes.start(who).with_context(|| format!("{who} does not come back"))?;
            }
        }
        Ok(began)
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub(super) fn logs(&self) -> String {
        self.nodes.logs(30)
    }

    /// Takes everything down; what was violated leaves its images.
    pub(super) fn end(mut self) -> Report {
        if !self.report.violations.is_empty() {
            self.dir.disable_cleanup(true);
            eprintln!("images and logs are left in {}", self.dir().display());
        }
        std::mem::take(&mut self.report)
    }
}

/// The programs that work on names.
fn name_actors() -> Vec<Actor> {
    (0..MOUNTS).map(|client| Actor { client, stream: STREAMS }).collect()
}
