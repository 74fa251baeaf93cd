//! The kernel, its clock, and the mounts of this machine.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::Findings;
use crate::connect::mount_points;

/// A mount that is well answers in a fraction of it.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn look(etc: &Path, findings: &mut Findings) {
    fuse(etc, findings);
    clock(findings);
    mounts(findings);
}

fn fuse(etc: &Path, findings: &mut Findings) {
    match std::fs::File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => findings.good("/dev/fuse", "can be opened"),
        Err(error) => findings.wrong(
            "/dev/fuse",
            error.to_string(),
            "to mount here: `modprobe fuse`, and in a container let it have the device",
        ),
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join("fusermount3").is_file()) {
        findings.good("fusermount3", "is there");
    } else {
        findings.advice("fusermount3", "not in PATH", "to mount as another user than root: install fuse3");
    }
    let conf = std::fs::read_to_string(etc.join("fuse.conf")).unwrap_or_default();
    if conf.lines().any(|line| line.trim() == "user_allow_other") {
        findings.good("fuse.conf", "has user_allow_other");
    } else {
        let todo = "for mounts that are not root's and that others use (allow_other): add that line";
        findings.advice("fuse.conf", "has no user_allow_other", todo);
    }
}

fn clock(findings: &mut Findings) {
    // SAFETY: all zeros is a request to read, and the kernel writes into what is ours.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    if state < 0 || timex.status & libc::STA_UNSYNC != 0 {
        findings.advice(
            "clock",
            "the kernel says that nothing keeps it right",
            "times of files come from it, safety does not: run chrony or systemd-timesyncd",
        );
    } else {
        findings.good("clock", "is kept right");
    }
}

fn mounts(findings: &mut Findings) {
    for at in mount_points().unwrap_or_default() {
        let what = format!("mount {at}");
        match answers(PathBuf::from(&at)) {
            Some(Ok(())) => findings.good(&what, "answers"),
            Some(Err(error)) => findings.wrong(
                &what,
                error.to_string(),
                "its dfs-fuse is gone: `umount -l` it and mount it again; its log says why",
            ),
            None => findings.wrong(
                &what,
                format!("no answer within {} s", PATIENCE.as_secs()),
                "it waits for its cluster: `dfs --master ... status` says what of that is away",
            ),
        }
    }
}

/// A mount whose cluster is away answers when it is back, and its caller waits as long.
fn answers(at: PathBuf) -> Option<std::io::Result<()>> {
    let (answer, answered) = channel();
    thread::spawn(move || answer.send(std::fs::read_dir(at).map(drop)));
    answered.recv_timeout(PATIENCE).ok()
}
