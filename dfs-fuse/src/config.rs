//! From the command line to a validated [`Config`]: as `dfs-fuse --master HOST:PORT MNT`, or as the helper
//! that mount(8) runs, `mount.dfs SPEC MNT -o OPTIONS`.
//!
//! Everything a person can get wrong on the command line is refused here, before anything is done; what
//! only the system can tell (is the mount point free, does the master answer) is not known here.

mod options;
mod spec;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use dfs_admin::AdminArgs;
use dfs_daemon::settings::{FileArgs, Read, Settings, SettingsError};

use crate::mount::Device;

pub(crate) use options::{Atime, Options, OptionsError, Patience, Unknown};
pub(crate) use spec::{Spec, SpecError};

/// The name under which mount(8) runs us for `mount -t dfs`.
const HELPER_NAME: &str = "mount.dfs";

/// What to mount, where and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Config {
    pub(crate) spec: Spec,
    pub(crate) mount_point: PathBuf,
    pub(crate) options: Options,
    pub(crate) foreground: bool,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) admin: AdminArgs,
    /// What is logged.
    pub(crate) log_level: String,
    /// A mount whose daemon is gone is replaced, not refused.
    pub(crate) replace_dead: bool,
    /// The one that is replaced, if that is known.
    pub(crate) dead_device: Option<Device>,
    /// Of a daemon that is known to have ended without closing it.
    pub(crate) dead_session: Option<u64>,
}

/// Where the options came from, to read them again.
pub(crate) type Origin = Settings<DaemonArgs>;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Wish {
    /// Without an origin where there is no file to read again.
    Mount(Box<Config>, Option<Origin>),
    /// Print this, and end.
    Print(String),
    /// mount(8) `-f`: everything but the mount itself.
    Nothing,
}

/// Why the command line cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error(
        "-o supervise is for a daemon in the background: leave out --foreground, and restart that from outside"
    )]
    SuperviseForeground,
}

/// Mount a dfs file system.
///
/// Returns once the file system can be used and goes on as a daemon. Unmount with `umount MNT`, or with
/// `fusermount3 -u MNT` if an ordinary user mounted it.
#[derive(Debug, Parser)]
#[command(name = "dfs-fuse", version, max_term_width = 100)]
pub(crate) struct DaemonArgs {
    /// The master's address; several are separated by commas. `:/DIR` after it mounts that directory only
    #[arg(long, value_name = "HOST:PORT", env = "DFS_MASTER")]
    master: String,
    /// An empty directory
    #[arg(value_name = "MNT")]
    mount_point: PathBuf,
    /// Comma-separated mount options; an unknown one is refused with the list of all
    #[arg(short = 'o', long = "options", value_name = "OPTIONS")]
    options: Vec<OsString>,
    /// Stay in the foreground and log to standard error
    #[arg(long, short = 'f')]
    foreground: bool,
    /// Write the daemon's process id here once the mount is live
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Log here; without it the daemon logs to syslog
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArgs,
    /// Replace a mount at MNT whose daemon is gone; without it, such a mount is an error
    #[arg(long)]
    replace_dead: bool,
    #[command(flatten)]
    file: FileArgs,
}

/// Mount a dfs file system from /etc/fstab or `mount -t dfs`.
#[derive(Debug, Parser)]
#[command(name = HELPER_NAME, version, max_term_width = 100)]
struct HelperArgs {
    /// `HOST:PORT[,HOST:PORT...][:/DIR]`
    spec: String,
    /// An empty directory
    #[arg(value_name = "MNT")]
    mount_point: PathBuf,
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<OsString>,
    /// Do everything but mount
    #[arg(short = 'f')]
    fake: bool,
    /// Ignore unknown options
    #[arg(short = 's')]
    sloppy: bool,
    /// Accepted: nothing is written to /etc/mtab
    #[arg(short = 'n')]
    no_mtab: bool,
    /// Accepted: errors are always one full line
    #[arg(short = 'v')]
    verbose: bool,
    /// Accepted: mount(8) gives the type that it looked us up by
    #[arg(short = 't', value_name = "TYPE")]
    fs_type: Option<String>,
}

/// What the process was started for. Relative paths are taken from the current directory here, since a
/// daemon leaves it.
pub(crate) fn from_command_line(args: impl IntoIterator<Item = OsString>) -> Result<Wish, ConfigError> {
    let args: Vec<OsString> = args.into_iter().collect();
    let name = args.first().map(Path::new).and_then(Path::file_name);
    if name == Some(OsStr::new(HELPER_NAME)) { helper(args) } else { daemon(args) }
}

/// What is to be had on a command line, for manual pages and completions.
pub(crate) fn commands() -> Vec<clap::Command> {
    vec![DaemonArgs::command(), HelperArgs::command()]
}

fn daemon(args: Vec<OsString>) -> Result<Wish, ConfigError> {
    let Read { args, settings, printed } = Settings::<DaemonArgs>::read(args, None)?;
    if let Some(text) = printed {
        return Ok(Wish::Print(text));
    }
    let spec = Spec::parse(&args.master)?;
    let options = Options::parse(&args.options, &spec, Unknown::Refuse)?;
    if options.supervise && args.foreground {
        return Err(ConfigError::SuperviseForeground);
    }
    let origin = settings.path().is_some().then_some(settings);
    let config = Box::new(Config {
        spec,
        mount_point: args.mount_point,
        options,
        foreground: args.foreground,
        pid_file: args.pid_file.map(absolute),
        log_file: args.log_file.map(absolute),
        admin: AdminArgs {
            admin: args.admin.admin,
            admin_port_file: args.admin.admin_port_file.map(absolute),
        },
        log_level: args.file.log_level,
        replace_dead: args.replace_dead,
        dead_device: None,
        dead_session: None,
    });
    Ok(Wish::Mount(config, origin))
}

fn helper(args: Vec<OsString>) -> Result<Wish, ConfigError> {
    let args = HelperArgs::try_parse_from(args).map_err(SettingsError::from)?;
    let spec = Spec::parse(&args.spec)?;
    let unknown = if args.sloppy { Unknown::Ignore } else { Unknown::Refuse };
    // Nobody else would restart it: systemd does not know the daemon of a mount unit.
    let supervised = std::iter::once(OsString::from("supervise")).chain(args.options).collect::<Vec<_>>();
    let options = Options::parse(&supervised, &spec, unknown)?;
    if args.fake {
        return Ok(Wish::Nothing);
    }
    let config = Box::new(Config {
        spec,
        mount_point: args.mount_point,
        options,
        foreground: false,
        pid_file: None,
        log_file: None,
        admin: AdminArgs::default(),
        log_level: "info".to_owned(),
        replace_dead: false,
        dead_device: None,
        dead_session: None,
    });
    Ok(Wish::Mount(config, None))
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Wish, ConfigError> {
        from_command_line(line.split(' ').map(OsString::from))
    }

    fn config(line: &str) -> Config {
        match parse(line).unwrap() {
            Wish::Mount(config, _) => *config,
            Wish::Print(_) | Wish::Nothing => panic!("nothing to mount"),
        }
    }

    #[test]
    fn as_a_daemon() {
        let config = config("/usr/bin/dfs-fuse --master m1:9000 /mnt/a -o ro,soft -o timeo=20 --foreground");
        assert_eq!(config.spec.masters, ["m1:9000"]);
        assert_eq!(config.mount_point, Path::new("/mnt/a"));
        assert!(config.options.read_only && config.foreground && !config.options.supervise);
        assert_eq!(config.options.patience, Patience::Soft { timeo: std::time::Duration::from_secs(2) });
    }

    #[test]
    fn as_the_helper_of_mount() {
        let config =
            config("/sbin/mount.dfs m1:9000,m2:9000:/home /mnt/a -n -v -o rw,_netdev,x-systemd.automount");
        assert_eq!(config.spec.masters, ["m1:9000", "m2:9000"]);
        assert_eq!(config.spec.sub, b"/home");
        assert!(!config.options.read_only && !config.foreground && config.options.supervise);
        assert!(matches!(parse("mount.dfs m1:9000 /mnt/a -f"), Ok(Wish::Nothing)));
        let Ok(Wish::Mount(config, _)) = parse("mount.dfs m1:9000 /mnt/a -o nosupervise") else { panic!() };
        assert!(!config.options.supervise);
    }

    #[test]
    fn unknown_options_are_named_with_the_known_ones() {
        let text = parse("dfs-fuse --master m1:9000 /mnt/a -o ro,bogus=1").unwrap_err().to_string();
        assert!(text.contains("bogus") && text.contains("allow_other") && text.contains("timeo="), "{text}");
        assert!(!text.contains('\n'), "{text}");
        assert!(parse("mount.dfs m1:9000 /mnt/a -s -o bogus").is_ok());
    }

    #[test]
    fn a_master_is_needed() {
        assert!(matches!(parse("dfs-fuse --master m1 /mnt/a"), Err(ConfigError::Spec(_))));
        assert!(matches!(parse("mount.dfs m1:9000"), Err(ConfigError::Settings(SettingsError::Usage(_)))));
    }

    #[test]
    fn a_supervised_daemon_is_in_the_background() {
        let wrong = parse("dfs-fuse --master m1:9000 /mnt/a -o supervise -f");
        assert!(matches!(wrong, Err(ConfigError::SuperviseForeground)));
    }
}
