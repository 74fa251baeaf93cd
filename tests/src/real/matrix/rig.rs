//! The cluster of a row: hosts on a network, programs on its mounts, and hands to break it with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use dfs_disk::sim::Rng;
use rustix::process::Signal;
use tempfile::TempDir;

use super::{Bounds, Needs, Options, Report};
use crate::model::{Actor, FileNum};
use crate::real::clock;
use crate::real::daemon::Host;
use crate::real::faulty::{Fault, Faulty};
use crate::real::held::Held;
use crate::real::look::{Look, look};
use crate::real::net::{Network, Port};
use crate::real::nodes::{Nodes, Place, Shape, Who};
use crate::real::volume::{FsKind, SharedDir, Volume};
use crate::real::work::{Kind, Running, Shared, WorkFile, path_of, prepare, write_still};

pub(super) const SERVERS: u16 = 4;
/// Mounts with programs; one more looks at the end.
const MOUNTS: u16 = 2;
const LOOKER: Who = Who::Mount(MOUNTS);
pub(super) const CHUNK: u32 = 65536;
/// Files that only one mount uses, files that all use, and files that are only read.
const PRIVATE: u32 = 2;
const SHARED: u32 = 3;
const STILL: std::ops::Range<u32> = 100..104;
/// Programs on files, on each mount; one more works on names, and one reads.
const STREAMS: u8 = 2;
/// Programs end, and everything is read, within this, or something hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Sparse.
const STATE_BYTES: u64 = 4 << 30;

/// A row's cluster. Processes go first, then what they stand on.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) nodes: Nodes,
    /// What keeps shared files shared.
    held: Option<Held>,
    pub(super) faulty: Vec<Faulty>,
    pub(super) network: Network,
    pub(super) shared: Arc<Shared>,
    pub(super) report: Report,
    options: Options,
    needs: Needs,
    rng: Rng,
    /// All state is on it: how full the machine's disk is must not matter.
    _volume: Volume,
    _under: SharedDir,
    dir: TempDir,
}

/// A process's place on the network.
pub(super) fn port(who: Who) -> Port {
    let number = match who {
        Who::Master => 0,
        Who::Server(n) => 1 + n,
        Who::Mount(n) => 1 + SERVERS + n,
    };
    Port(u8::try_from(number).unwrap_or(u8::MAX))
}

fn shape() -> Shape {
    Shape {
        servers: SERVERS,
        replicas: 3,
        mounts: MOUNTS + 1,
        chunk_size: CHUNK,
        unix: false,
        // Seconds instead of a minute until a server that stays away is replaced.
        master_options: vec!["--repair-delay".into(), "5".into()],
        server_options: Vec::new(),
    }
}

impl Rig {
    pub(super) fn new(options: &Options, needs: Needs) -> anyhow::Result<Rig> {
        let dir =
            TempDir::with_prefix_in("dfs-matrix.", &options.dir).context("no directory for the state")?;
        let network = Network::new(u8::try_from(1 + SERVERS + MOUNTS + 1)?)?;
        let under = SharedDir::new(&dir.path().join("vol"))?;
        let root = dir.path().join("vol/state");
        let volume = Volume::create(FsKind::Ext4, &dir.path().join("state.img"), STATE_BYTES, &root)?;
        let place = |who| Place {
            host: Host { netns: Some(network.namespace(port(who))), boot_id: None },
            listen: format!("{}:9700", network.address(port(who))),
            at: root.join(who.to_string()),
        };
        let nodes = Nodes::new(&root, &options.bin, shape(), place)?;
        let mut rig = Rig {
            nodes,
            held: None,
            faulty: Vec::new(),
            network,
            shared: Arc::default(),
            report: Report::default(),
            options: options.clone(),
            needs,
            rng: Rng::new(options.seed),
            _volume: volume,
            _under: under,
            dir,
        };
        rig.make_faulty()?;
        rig.start_all()?;
        let mount = rig.nodes.at(Who::Mount(0));
        let names: Vec<Actor> = (0..MOUNTS).map(|client| Actor { client, stream: STREAMS }).collect();
        prepare(&mount, &rig.all_files(), &names)?;
        STILL.map(FileNum).try_for_each(|file| write_still(&mount, file))?;
        Ok(rig)
    }

    /// Where a server's disk really is.
    pub(super) fn disk_under(&self, server: u16) -> PathBuf {
        let at = self.nodes.at(Who::Server(server)).join("disk");
        if usize::from(server) < self.faulty.len() { at.with_file_name("under") } else { at }
    }

    fn make_faulty(&mut self) -> anyhow::Result<()> {
        let count = match self.needs {
            Needs::Nothing | Needs::Mounts => 0,
            Needs::FaultyDisk => 1,
            Needs::FaultyDisks => SERVERS,
        };
        for server in 0..count {
            let at = self.nodes.at(Who::Server(server));
            let (under, disk) = (at.join("under"), at.join("disk"));
            std::fs::create_dir_all(&under)?;
            std::fs::create_dir_all(&disk)?;
            self.faulty.push(Faulty::new(&under, &disk)?);
        }
        Ok(())
    }

    fn all_files(&self) -> Vec<WorkFile> {
        let count = u32::from(MOUNTS) * PRIVATE + SHARED;
        (0..count).map(|num| WorkFile { num: FileNum(num), through: false }).collect()
    }

    fn through(&self) -> bool {
        self.needs != Needs::Mounts
    }

    fn shared_files(&self) -> impl Iterator<Item = WorkFile> + use<> {
        let (first, through) = (u32::from(MOUNTS) * PRIVATE, self.through());
        (first..first + SHARED).map(move |num| WorkFile { num: FileNum(num), through })
    }

    /// Starts the programs.
    pub(super) fn begin(&mut self) -> anyhow::Result<Running> {
        let mut running = Running::none(&self.shared);
        if self.through() {
            let mounts = (0..MOUNTS).map(|client| self.nodes.at(Who::Mount(client)));
            let paths =
                mounts.flat_map(|mount| self.shared_files().map(move |file| path_of(&mount, file.num)));
            self.held = Some(Held::open(paths.collect())?);
        }
        for client in 0..MOUNTS {
            let mount = self.nodes.at(Who::Mount(client));
            let own = u32::from(client) * PRIVATE..u32::from(client + 1) * PRIVATE;
            let own = own.map(|num| WorkFile { num: FileNum(num), through: false });
            let files: Vec<WorkFile> = own.chain(self.shared_files()).collect();
            for stream in 0..STREAMS {
                running.on_files(&mount, Actor { client, stream }, &files, self.rng.bits())?;
            }
            running.on_names(&mount, Actor { client, stream: STREAMS }, self.rng.bits())?;
            let still: Vec<FileNum> = STILL.map(FileNum).collect();
            running.on_still(&mount, Actor { client, stream: STREAMS + 1 }, &still, self.rng.bits())?;
        }
        Ok(running)
    }

    pub(super) fn finish(&mut self, running: Running) -> anyhow::Result<()> {
        running.end(LIMIT)?;
        self.held.take().map_or(Ok(()), Held::close)
    }

    /// Holds every call since the strike against the bounds. A mount that was struck itself does not count.
    pub(super) fn measure(&mut self, struck: Duration, bounds: Bounds) {
        let spared = match self.needs {
            Needs::Mounts => Some(0),
            Needs::Nothing | Needs::FaultyDisk | Needs::FaultyDisks => None,
        };
        let slow = std::mem::take(&mut self.shared.record().slow);
        let mut longest: BTreeMap<Kind, Duration> = BTreeMap::new();
        for call in slow.iter().filter(|call| call.began + call.took > struck) {
            if spared == Some(call.actor.client) {
                continue;
            }
            let most = longest.entry(call.kind).or_default();
            *most = call.took.max(*most);
            let bound = if call.kind == Kind::Still { bounds.still } else { bounds.others };
            if call.took > bound + self.options.slack {
                let (actor, took, after) = (call.actor, call.took, call.began.saturating_sub(struck));
                let what = &call.what;
                let text = format!(
                    "alive: {actor:?} {what}, {after:?} after the strike: took {took:?}, bound {bound:?}"
                );
                self.report.violations.push(text);
            }
        }
        self.report.longest = longest;
        self.report.bounds = Some(bounds);
    }

    /// Reads everything through a new mount, and judges.
    pub(super) fn look(&mut self) -> anyhow::Result<()> {
        self.nodes.start(LOOKER)?;
        let files = self.all_files().iter().map(|file| file.num).collect();
        let mount = self.nodes.at(LOOKER);
        let seen = look(&self.shared, &mount, &Look { files, min_write: 2, limit: LIMIT })?;
        seen.leave_story(self.dir.path())?;
        self.report.violations.extend(seen.violations);
        self.report.operations += seen.operations;
        self.report.synced += seen.synced;
        Ok(())
    }

    /// `dfs --json ARGS`, asked from where a mount is that nobody breaks.
    pub(super) fn tool(&self, args: &[&str]) -> anyhow::Result<serde_json::Value> {
        self.nodes.tool(LOOKER, args)
    }

    /// The paths of all files, as the mount that looks has them.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let mount = self.nodes.at(LOOKER);
        let still = STILL.map(FileNum);
        self.all_files().iter().map(|file| file.num).chain(still).map(|file| path_of(&mount, file)).collect()
    }

    /// The servers that hold the first chunk of a file that all mounts write, the primary first.
    pub(super) fn holders(&self) -> anyhow::Result<Vec<Who>> {
        let mount = self.nodes.at(Who::Mount(1));
        let paths: Vec<String> =
            self.shared_files().map(|file| path_of(&mount, file.num).display().to_string()).collect();
        // A program may just have cut one to nothing.
        let found = clock::poll(LIMIT, || {
            for path in &paths {
                let info = self.nodes.tool(Who::Mount(1), &["file", "info", path])?;
                if let Some(members) = info["chunks"][0]["members"].as_array() {
                    return Ok(Some(members.clone()));
                }
            }
            Ok(None)
        })?;
        let members = found.context("no shared file has a chunk")?;
        let who = |name: &str| (0..SERVERS).map(Who::Server).find(|who| who.to_string() == name);
        let all =
            members.iter().map(|m| m["name"].as_str().and_then(who).ok_or_else(|| anyhow!("{m}: who?")));
        all.collect()
    }

    /// Starts whatever does not run; how long that took.
    pub(super) fn start_all(&mut self) -> anyhow::Result<Duration> {
        let began = clock::now();
        for who in self.nodes.all().into_iter().filter(|who| *who != LOOKER) {
            if !self.nodes.is_running(who) {
                self.nodes.start(who)?;
            }
        }
        Ok(clock::now().saturating_sub(began))
    }

    /// Stands still for so long.
    pub(super) fn pause(&mut self, who: Who, how_long: Duration) -> anyhow::Result<()> {
        self.nodes.signal(who, Signal::STOP)?;
        std::thread::sleep(how_long);
        self.nodes.signal(who, Signal::CONT)
    }

    /// Breaks every faulty disk, or makes it whole.
    pub(super) fn set_fault(&self, fault: Fault) {
        self.faulty.iter().for_each(|disk| disk.set(fault));
    }

    pub(super) fn logs(&self) -> String {
        self.nodes.logs(15)
    }

    /// Takes everything down; what was violated leaves its state.
    pub(super) fn end(mut self) -> Report {
        if !self.report.violations.is_empty() {
            self.dir.disable_cleanup(true);
            eprintln!("state and logs are left in {}", self.dir.path().display());
        }
        std::mem::take(&mut self.report)
    }
}
