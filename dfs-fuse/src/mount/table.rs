//! What is mounted where, from `/proc/self/mountinfo`. Reading it touches no file system, so it is safe for
//! the process that serves one.

use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The device number of a mounted file system, unique among all that are mounted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Device {
    major: u32,
    minor: u32,
}

impl Device {
    /// What is seen at exactly `path`, if anything is mounted there.
    pub(crate) fn at(path: &Path) -> Option<Device> {
        top_at(path).ok().flatten()
    }

    /// The kernel's name for the FUSE connection of this device, under `/sys/fs/fuse/connections`: the
    /// number as the kernel keeps it, 12 bits of major above 20 of minor.
    pub(crate) fn connection(self) -> u32 {
        (self.major << 20) | self.minor
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// What is mounted at exactly `path`; of several on top of each other, the one that is seen.
pub(crate) fn top_at(path: &Path) -> io::Result<Option<Device>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(find(&table, path))
}

/// Its type, as a line has it. A blank in a path would be escaped.
const AUTOMOUNT: &[u8] = b" - autofs ";

fn find(table: &[u8], path: &Path) -> Option<Device> {
    table.split(|byte| *byte == b'\n').rev().find_map(|line| {
        let (device, at) = parse(line)?;
        (at == path.as_os_str().as_bytes()).then_some(device)
    })
}

/// `ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS... - TYPE SOURCE ...`. Nothing for an automount, which is there to be
/// mounted over.
fn parse(line: &[u8]) -> Option<(Device, Vec<u8>)> {
    if line.windows(AUTOMOUNT.len()).any(|part| part == AUTOMOUNT) {
        return None;
    }
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let device = Device { major: major.parse().ok()?, minor: minor.parse().ok()? };
    Some((device, unescape(fields.nth(1)?)))
}

/// The kernel writes blanks, newlines and backslashes as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] if byte == b'\\' => {
                out.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = tail;
            }
            _ => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 0:20 / / rw - ext4 /dev/vda rw\n\
        40 22 0:51 / /mnt/a rw,nosuid shared:1 - fuse.dfs m:1 rw\n\
        41 40 0:52 / /mnt/a rw - tmpfs none rw\n\
        43 22 0:54 / /mnt/auto rw - autofs systemd-1 rw,fd=49\n\
        44 43 0:55 / /mnt/auto rw - fuse.dfs m:1 rw\n\
        45 22 0:56 / /mnt/bare rw - autofs systemd-1 rw,fd=50\n\
        42 22 0:53 / /mnt/with\\040blank\\134 rw - fuse.dfs m:1 rw\n";

    #[test]
    fn finds_the_topmost() {
        assert_eq!(find(TABLE, Path::new("/mnt/a")), Some(Device { major: 0, minor: 52 }));
        assert_eq!(find(TABLE, Path::new("/mnt")), None);
        assert_eq!(find(TABLE, Path::new("/mnt/with blank\\")), Some(Device { major: 0, minor: 53 }));
        assert_eq!(find(TABLE, Path::new("/mnt/auto")), Some(Device { major: 0, minor: 55 }));
        assert_eq!(find(TABLE, Path::new("/mnt/bare")), None);
        assert_eq!(find(b"garbage\n\n1 2 x:y / /mnt/a\n", Path::new("/mnt/a")), None);
    }

    #[test]
    fn the_live_table_has_a_root() {
        assert!(top_at(Path::new("/")).unwrap().is_some());
        assert_eq!(Device { major: 0, minor: 52 }.to_string(), "0:52");
        assert_eq!(Device { major: 0, minor: 52 }.connection(), 52);
    }
}
