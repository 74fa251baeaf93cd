//! `dfs support-bundle`: what somebody who is to help needs to see, in one file. It changes nothing, waits for nothing without a
//! bound, and what can't be had is named instead.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use dfs_proto::meta::{ChunkChanges, ClusterStatus, Heat, Policy, ScrubStatus, ServerList, SessionList};
use dfs_proto::request::Request;
use serde::{Deserialize, Serialize};

use crate::clock::Deadline;
use crate::connect::{Line, Target};
use crate::dev::print_config;
use crate::doctor;
use crate::output::{Waiting, bytes};

/// A program or a port that is well takes a fraction of it; one that looks at a mount whose cluster is away would wait on.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of an answer on an admin port.
const ANSWER_MAX: u64 = 16 << 20;
const CHUNKS: u32 = 100;
const CHANGES: u32 = 1_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file to make, which is not there yet; dfs-support-HOST.tar.gz if not given
    #[arg(value_name = "FILE")]
    to: Option<PathBuf>,
    /// Where the machine's configuration is
    #[arg(long, value_name = "DIR", default_value = "/etc")]
    etc: PathBuf,
    /// From when on the journal is read, as journalctl takes it
    #[arg(long, value_name = "TIME", default_value = "-2d")]
    since: String,
}

/// What a daemon's options say of its admin port.
#[derive(Deserialize)]
struct Options {
    admin: Option<String>,
}

/// The directory that becomes the file.
struct Bundle {
    dir: PathBuf,
    files: u64,
    /// What could not be had, and why.
    missing: Vec<String>,
}

pub(crate) fn run(target: &Target, args: &Args) -> anyhow::Result<()> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = format!("dfs-support-{host}");
    let to = args.to.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    // Names of files and machines are not for everybody.
    let out = File::options().write(true).create_new(true).mode(0o600).open(&to);
    let out = out.with_context(|| format!("{}", to.display()))?;
    let made = gather(target, args, &name, out);
    if made.is_err() {
        // Of no use to anybody, and the next try is to find the name free.
        let _ = fs::remove_file(&to);
    }
    let bundle = made?;
    let size = fs::metadata(&to)?.len();
    println!("{}: {} files, {}", to.display(), bundle.files, bytes(size));
    println!(
        "In it are names of machines, mounts and busy files, options and logs; nothing that files hold. Look through it before \
         you give it away."
    );
    bundle.missing.iter().for_each(|what| println!("not in it: {what}"));
    Ok(())
}

fn gather(target: &Target, args: &Args, name: &str, out: File) -> anyhow::Result<Bundle> {
    let temp = tempfile::tempdir().context("no directory to gather in")?;
    let dir = temp.path().join(name);
    fs::create_dir(&dir)?;
    let mut bundle = Bundle { dir, files: 0, missing: Vec::new() };
    {
        let _waiting = Waiting::show("gathering");
        cluster(target, &mut bundle);
        bundle.json("doctor.json", Ok(doctor::findings(target, &args.etc)));
        daemons(&args.etc, &mut bundle);
        machine(&args.since, &mut bundle);
        let missing = bundle.missing.join("\n");
        bundle.keep("not-in-it.txt", missing.as_bytes());
    }
    let tar =
        Command::new("tar").args(["-cz", "-f", "-", "-C"]).arg(temp.path()).arg(name).stdout(out).status();
    match tar {
        Ok(ended) if ended.success() => Ok(bundle),
        Ok(ended) => bail!("tar: {ended}"),
        Err(error) => bail!("tar: {error}"),
    }
}

/// What the master says.
fn cluster(target: &Target, bundle: &mut Bundle) {
    let line = match target.line(None) {
        Ok(line) => line,
        Err(error) => return bundle.missing.push(format!("what the master says: {error:#}")),
    };
    bundle.ask(&line, "status", &ClusterStatus {});
    bundle.ask(&line, "servers", &ServerList {});
    bundle.ask(&line, "sessions", &SessionList {});
    bundle.ask(&line, "policy", &Policy::default());
    bundle.ask(&line, "scrub", &ScrubStatus {});
    let heat = line.ask(&Heat { ino: None, most: CHUNKS });
    bundle.json("cluster/heat.json", heat.map(|report| report.shown()));
    bundle.ask(&line, "changes", &ChunkChanges { most: CHANGES });
}

/// The options of this machine's daemons as they hold, and what their admin ports say.
fn daemons(etc: &Path, bundle: &mut Bundle) {
    let entries = fs::read_dir(etc.join("dfs")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_owned()))
        .collect();
    names.sort();
    if names.is_empty() {
        bundle.missing.push(format!("options of daemons: there are none in {}", etc.join("dfs").display()));
    }
    for name in names {
        let (binary, usual) = match name.split('-').next() {
            Some("master") => ("dfs-master", Some("127.0.0.1:9401")),
            Some("chunkserver") => ("dfs-chunkserver", Some("127.0.0.1:9721")),
            Some("fuse") => ("dfs-fuse", None),
            _ => continue,
        };
        let file = etc.join("dfs").join(format!("{name}.toml"));
        let said = print_config(binary, &file)
            .and_then(|command| bundle.output(&format!("daemons/{name}/options.toml"), command));
        let options = said.and_then(|text| Ok(toml::from_str::<Options>(&String::from_utf8_lossy(&text))?));
        match options {
            Ok(Options { admin }) => {
                let Some(admin) = admin.as_deref().or(usual) else { continue };
                for page in ["metrics", "healthz", "readyz"] {
                    let got = http_get(admin, page);
                    bundle.bytes(
                        &format!("daemons/{name}/{page}.txt"),
                        got.with_context(|| format!("{name} at {admin}")),
                    );
                }
            }
            Err(error) => bundle.missing.push(format!("options of {name}: {error:#}")),
        }
    }
}

/// The machine, its units and their logs.
fn machine(since: &str, bundle: &mut Bundle) {
    for file in [
        "/etc/os-release",
        "/proc/mounts",
        "/proc/meminfo",
        "/proc/loadavg",
        "/proc/cpuinfo",
        "/proc/diskstats",
    ] {
        let read = fs::read(file).map_err(anyhow::Error::from);
        bundle.bytes(&format!("machine/{}", file.trim_start_matches('/').replace('/', "-")), read);
    }
    let of_dfs = ["--all", "--no-pager", "dfs-*"];
    let programs: [(&str, &str, &[&str]); 10] = [
        ("uname.txt", "uname", &["-a"]),
        // Without mounts of dfs: one whose cluster is away would keep it waiting.
        ("df.txt", "df", &["-lT", "-x", "fuse.dfs"]),
        ("df-inodes.txt", "df", &["-li", "-x", "fuse.dfs"]),
        ("lsblk.txt", "lsblk", &["-o", "NAME,SIZE,TYPE,FSTYPE,MOUNTPOINT,MODEL,ROTA,RO"]),
        ("links.txt", "ip", &["-s", "addr"]),
        ("sockets.txt", "ss", &["-tinp"]),
        ("kernel.txt", "dmesg", &["--ctime", "--level", "err,warn"]),
        ("units.txt", "systemctl", &[&["status", "--lines=0"], &of_dfs[..]].concat()),
        (
            "unit-files.txt",
            "systemctl",
            &["cat", "--no-pager", "dfs-master", "dfs-chunkserver@", "dfs-fuse@"],
        ),
        (
            "journal.txt",
            "journalctl",
            &["--no-pager", "-o", "short-iso-precise", "-u", "dfs-*", "--since", since],
        ),
    ];
    for (file, program, args) in programs {
        let mut command = Command::new(program);
        command.args(args);
        let file = format!("machine/{file}");
        if let Err(error) = bundle.output(&file, command) {
            bundle.missing.push(format!("{file}: {program}: {error:#}"));
        }
    }
}

impl Bundle {
    fn ask<R: Request>(&mut self, line: &Line, name: &str, request: &R)
    where
        R::Reply: Serialize,
    {
        let said = line.ask(request);
        self.json(&format!("cluster/{name}.json"), said);
    }

    fn json<T: Serialize>(&mut self, file: &str, said: anyhow::Result<T>) {
        self.bytes(file, said.and_then(|said| Ok(serde_json::to_vec_pretty(&said)?)));
    }

    fn bytes(&mut self, file: &str, got: anyhow::Result<Vec<u8>>) {
        match got {
            Ok(bytes) => self.keep(file, &bytes),
            Err(error) => self.missing.push(format!("{file}: {error:#}")),
        }
    }

    fn keep(&mut self, file: &str, bytes: &[u8]) {
        match self.create(file).and_then(|mut to| Ok(to.write_all(bytes)?)) {
            Ok(()) => self.files += 1,
            Err(error) => self.missing.push(format!("{file}: {error:#}")),
        }
    }

    fn create(&self, file: &str) -> anyhow::Result<File> {
        let path = self.dir.join(file);
        fs::create_dir_all(path.parent().unwrap_or(&self.dir))?;
        Ok(File::create_new(path)?)
    }

    /// What a program prints, which is kept also where it fails.
    fn output(&mut self, file: &str, mut command: Command) -> anyhow::Result<Vec<u8>> {
        let to = self.create(file)?;
        let errors = to.try_clone()?;
        let mut child = command.stdin(Stdio::null()).stdout(to).stderr(errors).spawn()?;
        let ended = Deadline::after(PATIENCE).poll(|| Ok(child.try_wait()?))?;
        self.files += 1;
        let said = fs::read(self.dir.join(file))?;
        match ended {
            Some(status) if status.success() => Ok(said),
            Some(status) => Err(anyhow!("{status}, see there")),
            None => {
                child.kill()?;
                Err(anyhow!("not done in {} s", PATIENCE.as_secs()))
            }
        }
    }
}

/// What an admin port of this machine answers.
fn http_get(addr: &str, page: &str) -> anyhow::Result<Vec<u8>> {
    let addr: SocketAddr = addr.parse().with_context(|| format!("{addr:?}"))?;
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET /{page} HTTP/1.0\r\nHost: {addr}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}
