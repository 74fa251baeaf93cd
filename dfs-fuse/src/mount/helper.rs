//! fusermount3, the setuid program through which ordinary users mount and unmount.

use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::{Manner, MountError, MountPoint};
use crate::config::{Atime, Options};

const PROGRAM: &str = "fusermount3";
/// Tells fusermount3 which inherited socket to send the opened device through.
const SOCKET_VARIABLE: &str = "_FUSE_COMMFD";

/// Has fusermount3 mount, and takes the opened device from it.
pub(crate) fn mount(point: &MountPoint, options: &Options, allow_other: bool) -> Result<OwnedFd, MountError> {
    let failed = |error: io::Error| MountError::Helper(error.to_string());
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    // The program inherits this socket alone; nothing else is started meanwhile that could inherit it too.
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).map_err(|error| failed(error.into()))?;
    let child = Command::new(PROGRAM)
        .arg("-o")
        .arg(option_list(options, allow_other))
        .arg("--")
        .arg(point.path())
        .env(SOCKET_VARIABLE, theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    drop(theirs);
    let received = receive(&ours);
    let output = child.wait_with_output().map_err(failed)?;
    match received {
        Some(device) if output.status.success() => Ok(device),
        Some(_) | None => Err(MountError::Helper(complaint(&output))),
    }
}

/// Has fusermount3 unmount.
pub(crate) fn unmount(path: &Path, manner: Manner) -> io::Result<()> {
    let flags = match manner {
        Manner::Gentle => "-u",
        Manner::Lazy => "-uz",
    };
    let output = Command::new(PROGRAM).arg(flags).arg("--").arg(path).stdin(Stdio::null()).output()?;
    if output.status.success() { Ok(()) } else { Err(io::Error::other(complaint(&output))) }
}

fn missing(error: io::Error) -> MountError {
    if error.kind() == io::ErrorKind::NotFound {
        MountError::NoHelper
    } else {
        MountError::Helper(error.to_string())
    }
}

/// What the program said, as one line without its own name.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let line = line.strip_prefix("fusermount3: ").unwrap_or(&line);
    if line.is_empty() { format!("ended with {}", output.status) } else { line.to_owned() }
}

fn option_list(options: &Options, allow_other: bool) -> OsString {
    let mut list = vec![
        if options.read_only { "ro" } else { "rw" }.to_owned(),
        "default_permissions".to_owned(),
        format!("subtype={}", options.subtype),
        // fusermount3 takes an escaped comma as part of the name.
        format!("fsname={}", options.fs_name.replace('\\', "\\\\").replace(',', "\\,")),
    ];
    // nosuid and nodev are fusermount3's own default, and it refuses their opposites.
    for (wanted, word) in [
        (allow_other, "allow_other"),
        (options.suid, "suid"),
        (options.dev, "dev"),
        (!options.exec, "noexec"),
        (options.atime == Atime::Never, "noatime"),
    ] {
        if wanted {
            list.push(word.to_owned());
        }
    }
    list.join(",").into()
}

/// The device, if the program sends one before it closes its end.
fn receive(socket: &UnixStream) -> Option<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [io::IoSliceMut::new(&mut byte)];
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket.as_fd(), &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    });
    if received.is_err() {
        return None;
    }
    ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::config::Spec;

    #[test]
    fn a_comma_in_the_source_cannot_become_an_option() {
        let spec = Spec::parse("a:1,b:2").unwrap();
        let options = Options::parse(&["noatime".into()], &spec, crate::config::Unknown::Refuse).unwrap();
        assert_eq!(
            option_list(&options, true),
            OsStr::new("rw,default_permissions,subtype=dfs,fsname=a:1\\,b:2,allow_other,noatime")
        );
    }
}
