//! What a service manager hears of the daemons, and options from files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a file of a test need not survive")]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dfs_tests::cluster::{binaries, refusal};
use dfs_tests::real::clock;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
/// Of the watchdog: long enough that a busy machine keeps it, short enough to see its silence.
const WATCHDOG: Duration = Duration::from_secs(6);

/// A daemon that believes that a service manager started it.
struct Service {
    child: Child,
    manager: UnixDatagram,
    log: std::path::PathBuf,
}

impl Service {
    fn start(dir: &Path, name: &str, args: &[&str]) -> Service {
        let at = dir.join(format!("{name}.notify"));
        let manager = UnixDatagram::bind(&at).unwrap();
        let log = dir.join(format!("{name}.log"));
        let child = Command::new(binaries().join(name))
            .args(args)
            .env("NOTIFY_SOCKET", &at)
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .env_remove("RUST_LOG")
            .stderr(fs::File::create(&log).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Service { child, manager, log }
    }

    /// Listens until a message has a line that begins so; that line.
    fn hears(&self, wanted: &str) -> String {
        let end = clock::now() + PATIENCE;
        while let Some(left) = end.checked_sub(clock::now()).filter(|left| !left.is_zero()) {
            let Some(message) = self.message(left) else { break };
            if let Some(line) = message.lines().find(|line| line.starts_with(wanted)) {
                return line.to_owned();
            }
        }
        panic!("no {wanted} within {PATIENCE:?}; it logged\n{}", self.logged());
    }

    fn message(&self, within: Duration) -> Option<String> {
        let mut text = [0; 4096];
        self.manager.set_read_timeout(Some(within)).unwrap();
        let len = self.manager.recv(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text[..len]).into_owned())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn logs(&self, what: &str) {
        let seen = clock::poll(PATIENCE, || Ok(self.logged().contains(what).then_some(())));
        assert!(seen.unwrap().is_some(), "{what:?} is not in\n{}", self.logged());
    }

    /// Silent while it is stopped, and no longer.
    fn is_watched(&self) {
        self.hears("WATCHDOG=1");
        self.signal(Signal::STOP);
        while self.message(Duration::from_millis(100)).is_some() {}
        assert_eq!(self.message(WATCHDOG), None, "a process that does not run has pinged");
        self.signal(Signal::CONT);
        self.hears("WATCHDOG=1");
    }

    fn ends_cleanly(mut self) {
        self.signal(Signal::TERM);
        self.hears("STOPPING=1");
        assert!(self.child.wait().unwrap().success(), "{}", self.logged());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn directory() -> TempDir {
    let base = std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into());
    TempDir::with_prefix_in("dfs-test.", base).unwrap()
}

/// A master with its options in a file, and where it serves.
fn master(dir: &Path) -> (Service, String) {
    let data = dir.join("master");
    let mut init = Command::new(binaries().join("dfs-master"));
    init.args(["init", "--replicas", "1", "--data"]).arg(&data);
    assert!(init.output().unwrap().status.success());
    let file = dir.join("master.toml");
    let port = dir.join("port");
    let text = format!("data = {data:?}\nlisten = '127.0.0.1:0'\nport-file = {port:?}\n");
    fs::write(&file, text).unwrap();
    let master = Service::start(dir, "dfs-master", &["run", "--config", &file.display().to_string()]);
    master.hears("READY=1");
    let at = fs::read_to_string(port).unwrap().trim().to_owned();
    (master, at)
}

#[test]
fn the_manager_hears_of_all_three_daemons() {
    let dir = directory();
    let dir = dir.path();
    let (master, at) = master(dir);
    master.is_watched();

    let disk = dir.join("disk");
    fs::create_dir(&disk).unwrap();
    let file = dir.join("chunkserver.toml");
    fs::write(&file, format!("master = {at:?}\nlisten = '127.0.0.1:0'\ndisk = [{disk:?}]\n")).unwrap();
    let server = Service::start(dir, "dfs-chunkserver", &["--config", &file.display().to_string()]);
    server.hears("READY=1");
    server.is_watched();

    let point = dir.join("mnt");
    fs::create_dir(&point).unwrap();
    let file = dir.join("fuse.toml");
    fs::write(&file, format!("master = {at:?}\nmount-point = {point:?}\nforeground = true\n")).unwrap();
    let mount = Service::start(dir, "dfs-fuse", &["--config", &file.display().to_string()]);
    mount.hears("READY=1");
    fs::write(point.join("file"), b"bytes").unwrap();
    mount.is_watched();
    // A master that is away does not make a mount that waits for it look dead.
    master.signal(Signal::STOP);
    for _ in 0..3 {
        mount.hears("WATCHDOG=1");
    }
    master.signal(Signal::CONT);
    assert_eq!(fs::read(point.join("file")).unwrap(), b"bytes");
    mount.ends_cleanly();
    server.ends_cleanly();
    master.ends_cleanly();
}

#[test]
fn a_server_that_waits_for_its_master_is_given_time() {
    let dir = directory();
    let dir = dir.path();
    let disk = dir.join("disk");
    fs::create_dir(&disk).unwrap();
    let disk = disk.display().to_string();
    // Port 1 is nobody's.
    let args = ["--master", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--disk", &disk];
    let server = Service::start(dir, "dfs-chunkserver", &args);
    assert!(server.hears("STATUS=waiting for the master").contains("127.0.0.1:1"));
    server.hears("EXTEND_TIMEOUT_USEC=");
    server.hears("EXTEND_TIMEOUT_USEC=");
}

#[test]
fn a_hangup_takes_what_can_change_and_names_what_cannot() {
    let dir = directory();
    let (master, _) = master(dir.path());
    let file = dir.path().join("master.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}log-level = 'debug'\ngc-delay = 7\n")).unwrap();
    master.signal(Signal::HUP);
    master.logs("log-level = \"debug\" holds now; it was \"info\"");
    master.logs("gc-delay = 7 needs a restart; until then it is 3600");
    fs::write(&file, format!("{text}gc_delay = 7\n")).unwrap();
    master.signal(Signal::HUP);
    master.logs("unknown key \"gc_delay\"");
    master.hears("RELOADING=1");
    master.hears("READY=1");
    master.ends_cleanly();
}

#[test]
fn wrong_options_end_it_with_code_2() {
    let dir = directory();
    let file = dir.path().join("x.toml");
    for (program, before) in [("dfs-master", Some("run")), ("dfs-chunkserver", None), ("dfs-fuse", None)] {
        for (text, word) in
            [("daat = 1\n", "known are"), ("log-level = 'loud'\n", "log-level"), ("x\n", "TOML")]
        {
            fs::write(&file, text).unwrap();
            let mut run = Command::new(binaries().join(program));
            let output = run.args(before).arg("--config").arg(&file).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{program}: {output:?}");
            let said = refusal(&output);
            assert!(said.contains(word) && said.contains("x.toml"), "{said}");
        }
    }
}
