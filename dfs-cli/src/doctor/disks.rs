//! What the files of chunk servers under systemd name: that the server takes the file, and that its unit may use the disks.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dfs_proto::ids::ClusterId;
use serde::Deserialize;

use super::Findings;
use crate::dev::print_config;

/// Where the unit may write without being told.
const USUAL: &str = "/srv/dfs";
const UNIT: &str = "dfs-chunkserver@";
const USER: &str = "dfs-chunkserver";

/// File systems that lack what the chunk store asks for, by their magic numbers.
const UNFIT: [(u64, &str); 4] =
    [(0x0102_1994, "tmpfs"), (0x794c_7630, "overlayfs"), (0x6969, "NFS"), (0x6573_5546, "FUSE")];

/// What is looked at of the options that hold.
#[derive(Deserialize)]
struct Options {
    #[serde(default)]
    disk: Vec<PathBuf>,
}

/// Of a disk's label.
#[derive(Deserialize)]
struct Label {
    cluster: ClusterId,
}

pub(super) fn look(etc: &Path, cluster: Option<ClusterId>, findings: &mut Findings) {
    let user = user(etc);
    for (name, file) in files(&etc.join("dfs")) {
        let what = file.display().to_string();
        let disks = match options(&file) {
            Ok(options) => options.disk,
            Err(error) => {
                findings.wrong(&what, error.to_string(), "mend the file: the server does not start with it");
                continue;
            }
        };
        findings.good(&what, format!("is understood, {} disks", disks.len()));
        let writable = writable(etc, &name);
        for disk in disks {
            of_disk(&name, &disk, user, &writable, cluster, findings);
        }
    }
}

/// The files of instances, by their names.
fn files(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| {
            let file = entry.file_name();
            let name = file.to_str()?.strip_prefix("chunkserver-")?.strip_suffix(".toml")?.to_owned();
            Some((name, entry.path()))
        })
        .collect();
    files.sort();
    files
}

/// As the server itself reads them.
fn options(file: &Path) -> anyhow::Result<Options> {
    let said = print_config("dfs-chunkserver", file)?.output()?;
    if !said.status.success() {
        let why = String::from_utf8_lossy(&said.stderr);
        anyhow::bail!("{}", why.trim_start_matches("dfs-chunkserver: ").trim());
    }
    Ok(toml::from_str(std::str::from_utf8(&said.stdout)?)?)
}

fn of_disk(
    name: &str,
    disk: &Path,
    user: Option<u32>,
    writable: &[PathBuf],
    cluster: Option<ClusterId>,
    findings: &mut Findings,
) {
    let what = format!("disk {}", disk.display());
    let meta = match std::fs::metadata(disk) {
        Ok(meta) => meta,
        Err(error) => {
            return findings.wrong(&what, error.to_string(), "mount it there, or take it out of the file");
        }
    };
    if let Some(fs) = unfit(disk) {
        return findings.wrong(&what, format!("is on {fs}"), "give the server an ext4 or XFS file system");
    }
    if !writable.iter().any(|dir| disk.starts_with(dir)) {
        let todo = format!("`systemctl edit {UNIT}{name}`: [Service] ReadWritePaths={}", disk.display());
        return findings.wrong(&what, "its unit must not write there", &todo);
    }
    if let Some(user) = user.filter(|user| *user != meta.uid()) {
        let todo = format!("once it is mounted: chown {USER}: {}", disk.display());
        return findings.wrong(&what, format!("belongs to user {}, not {user}", meta.uid()), &todo);
    }
    match (label(disk), cluster) {
        (Some(label), Some(cluster)) if label.cluster != cluster => {
            let found = format!("is of cluster {}, and the master of {cluster}", label.cluster);
            return findings.wrong(&what, found, "name its own master in the file, or give an empty disk");
        }
        (Some(_) | None, _) => {}
    }
    let above = disk.parent().and_then(|dir| std::fs::metadata(dir).ok());
    if above.is_some_and(|above| above.dev() == meta.dev()) {
        let todo = "mount a disk there: on the system's own one, whatever fills that fills it too";
        return findings.advice(&what, "is no mount of its own", todo);
    }
    findings.good(&what, "can be used");
}

fn unfit(disk: &Path) -> Option<&'static str> {
    let kind = u64::try_from(rustix::fs::statfs(disk).ok()?.f_type).ok()?;
    UNFIT.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name)
}

fn label(disk: &Path) -> Option<Label> {
    serde_json::from_slice(&std::fs::read(disk.join("disk.json")).ok()?).ok()
}

/// Directories that the instance's unit may write to, with its drop-ins.
fn writable(etc: &Path, name: &str) -> Vec<PathBuf> {
    let mut dirs = vec![PathBuf::from(USUAL)];
    for unit in [format!("{UNIT}{name}.service.d"), format!("{UNIT}.service.d")] {
        let drop_ins =
            std::fs::read_dir(etc.join("systemd/system").join(unit)).into_iter().flatten().flatten();
        for file in
            drop_ins.map(|entry| entry.path()).filter(|path| path.extension() == Some(OsStr::new("conf")))
        {
            dirs.extend(paths(&std::fs::read_to_string(file).unwrap_or_default()));
        }
    }
    dirs
}

fn paths(unit: &str) -> Vec<PathBuf> {
    let values = unit.lines().filter_map(|line| line.trim().strip_prefix("ReadWritePaths="));
    values.flat_map(str::split_whitespace).map(|path| path.trim_start_matches(['-', '+']).into()).collect()
}

fn user(etc: &Path) -> Option<u32> {
    let passwd = std::fs::read_to_string(etc.join("passwd")).ok()?;
    let line = passwd.lines().find(|line| line.split(':').next() == Some(USER))?;
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_say_where_a_unit_may_write() {
        let unit = "[Service]\nReadWritePaths=-/data/a +/data/b\n  ReadWritePaths=/c\n#ReadWritePaths=/d\n";
        assert_eq!(paths(unit), ["/data/a", "/data/b", "/c"].map(PathBuf::from));
    }
}
