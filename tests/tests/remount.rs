//! kill -9 of a mount's daemon under programs: what they see, and that the mount is back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a file of a test need not survive")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc::channel;
use std::time::Duration;

use dfs_tests::cluster::{Cluster, SecondMount, binaries, refusal};
use dfs_tests::real::clock;

/// What is promised.
const BACK_WITHIN: Duration = Duration::from_secs(2);
/// For what has no promise, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The master's address, and a mount made as mount(8) makes it.
fn mounted(cluster: &Cluster, options: &str) -> (String, SecondMount) {
    let helper = cluster.local("mount.dfs");
    symlink(binaries().join("dfs-fuse"), &helper).unwrap();
    let at = cluster.local("supervised");
    fs::create_dir(&at).unwrap();
    let master = cluster.dev("addr", &[]).trim().to_owned();
    let mut run = Command::new(&helper);
    run.arg(&master).arg(&at).args(["-o", options]);
    assert!(run.status().unwrap().success());
    (master, SecondMount(at))
}

/// Processes that were started with `at` as an argument, and their parents.
fn processes(at: &Path) -> Vec<(u32, u32)> {
    let named = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|arg| arg == at.as_os_str().as_encoded_bytes())
    };
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid| named(*pid)).filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

/// The daemon is the child of the other one.
fn daemon(at: &Path) -> Option<u32> {
    let all = processes(at);
    let child = all.iter().find(|(_, parent)| all.iter().any(|(pid, _)| pid == parent))?;
    Some(child.0)
}

fn kill_9(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Until it holds; how long that took.
fn until(what: &str, within: Duration, holds: impl Fn() -> bool) -> Duration {
    let began = clock::now();
    let seen = clock::poll(within, || Ok(holds().then_some(())));
    assert!(seen.unwrap().is_some(), "no {what} within {within:?}");
    clock::now() - began
}

fn is_back(at: &Path) -> bool {
    fs::read_dir(at)
        .is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(|e| e.file_name() == "kept")))
}

#[test]
fn a_killed_daemon_has_a_successor_within_2_s() {
    let cluster = Cluster::up(&[]);
    let (_, mount) = mounted(&cluster, "_netdev,nofail");
    let at = mount.0.clone();
    fs::write(at.join("kept"), b"before").unwrap();
    // Three times: the successor has one, too.
    for round in 0..3 {
        let dies = daemon(&at).unwrap();
        let (began, writes) = channel();
        let path = at.join(format!("written-{round}"));
        let writer = std::thread::spawn(move || {
            let mut file = File::create(path).unwrap();
            let block = vec![7; 1 << 20];
            loop {
                if let Err(error) = file.write_all(&block) {
                    return error;
                }
                // Nobody listens after the first.
                let _ = began.send(());
            }
        });
        writes.recv_timeout(PATIENCE).unwrap();
        kill_9(dies);
        let took = until("mount", BACK_WITHIN, || is_back(&at));
        println!("back after {took:?}");
        let code = writer.join().unwrap().raw_os_error();
        // EIO: bytes that the kernel had taken already, and could not hand over any more.
        assert!(matches!(code, Some(libc::ENOTCONN | libc::ECONNABORTED | libc::EIO)), "{code:?}");
        assert_eq!(fs::read(at.join("kept")).unwrap(), b"before");
        fs::write(at.join(format!("after-{round}")), b"after").unwrap();
        assert_eq!(fs::read(at.join(format!("after-{round}"))).unwrap(), b"after");
    }
}

#[test]
fn while_the_cluster_is_away_nothing_is_written_underneath() {
    let cluster = Cluster::up(&[]);
    let (_, mount) = mounted(&cluster, "soft,timeo=50");
    let at = mount.0.clone();
    fs::write(at.join("kept"), b"before").unwrap();
    cluster.dev("pause", &["master"]);
    let dies = daemon(&at).unwrap();
    kill_9(dies);
    until("other daemon", PATIENCE, || daemon(&at).is_some_and(|pid| pid != dies));
    let code = File::create(at.join("stray")).unwrap_err().raw_os_error();
    assert!(matches!(code, Some(libc::ENOTCONN | libc::ECONNABORTED)), "{code:?}");
    cluster.dev("resume", &["master"]);
    until("mount", PATIENCE, || is_back(&at));
    drop(mount);
    until("end of its processes", PATIENCE, || processes(&at).is_empty());
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0, "something was written into the directory underneath");
}

#[test]
fn who_unmounts_a_dead_mount_ends_its_supervisor() {
    let cluster = Cluster::up(&[]);
    let (_, mount) = mounted(&cluster, "ro");
    let at = mount.0.clone();
    cluster.dev("pause", &["master"]);
    kill_9(daemon(&at).unwrap());
    until("dead mount", PATIENCE, || fs::read_dir(&at).is_err());
    assert!(Command::new("umount").arg("-l").arg(&at).status().unwrap().success());
    cluster.dev("resume", &["master"]);
    until("end of its processes", PATIENCE, || processes(&at).is_empty());
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    // Nothing is there to unmount any more; before, a mount that should not be there is in the way of the clean-up.
    std::mem::forget(mount);
}

#[test]
fn a_dead_mount_is_replaced_only_when_asked() {
    let cluster = Cluster::up(&[]);
    let (master, mount) = mounted(&cluster, "nosupervise");
    let at = mount.0.clone();
    let [(pid, _)] = processes(&at)[..] else { panic!("{:?}", processes(&at)) };
    fs::write(at.join("kept"), b"before").unwrap();
    kill_9(pid);
    until("dead mount", PATIENCE, || fs::read_dir(&at).is_err());
    let again = |more: &[&str]| -> Output {
        Command::new(binaries().join("dfs-fuse"))
            .args(["--master", &master])
            .args(more)
            .arg(&at)
            .output()
            .unwrap()
    };
    let said = refusal(&again(&[]));
    assert!(said.contains(&at.display().to_string()), "{said}");
    let replaced = again(&["--replace-dead"]);
    assert!(replaced.status.success(), "{replaced:?}");
    assert!(is_back(&at));
    // A mount that works is not replaced.
    assert!(refusal(&again(&["--replace-dead"])).contains("mounted"), "refused");
}
