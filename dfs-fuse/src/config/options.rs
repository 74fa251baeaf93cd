//! The `-o` list. Known options are a table; an unknown one is refused with the whole list, since a
//! misspelt `ro` that mounts writable is worse than no mount.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::Spec;

/// How long a call may wait for a cluster that does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    /// For ever; a killed program is let go.
    Hard,
    /// Then the call fails with ETIMEDOUT, or EIO for bytes that were buffered.
    Soft { timeo: Duration },
}

/// Whether reading moves a file's access time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Atime {
    /// When it is not after the modification time, or a day old: Linux's default.
    Relative,
    Never,
}

/// The mount options, validated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    pub(crate) read_only: bool,
    /// Read on hold, too.
    pub(crate) recover: bool,
    pub(crate) atime: Atime,
    /// `None`: when root mounts.
    pub(crate) allow_other: Option<bool>,
    pub(crate) patience: Patience,
    /// `timeo` was given to a mount that is not `soft`: it says nothing there, unlike with NFS.
    pub(crate) timeo_in_vain: bool,
    /// Bytes that the client may buffer and cache; `None` leaves it to the client.
    pub(crate) cache_bytes: Option<u64>,
    pub(crate) max_background: u16,
    /// Never use a chunk server's Unix socket, even on this machine.
    pub(crate) tcp_only: bool,
    /// Mount over a directory that has entries.
    pub(crate) non_empty: bool,
    /// Mount again when the daemon crashed.
    pub(crate) supervise: bool,
    pub(crate) suid: bool,
    pub(crate) dev: bool,
    pub(crate) exec: bool,
    pub(crate) fs_name: String,
    pub(crate) subtype: String,
}

/// What to do with an option that is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unknown {
    Refuse,
    /// mount(8) `-s`.
    Ignore,
}

/// Why a list of options cannot be served.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum OptionsError {
    #[error("unknown option {0:?}; known are: {known}", known = known())]
    Unknown(String),
    #[error("option {name}: {value:?} is not {wanted}")]
    Value { name: &'static str, value: String, wanted: &'static str },
    #[error("option {0} takes no value")]
    NoValue(String),
    #[error("recover is to look at what may be old: mount with -o ro,recover")]
    RecoverWrites,
    #[error("options must be text")]
    NotText,
}

/// Requests that the kernel may hold in the background (read-ahead, mostly). Others found a streaming
/// reader half as fast again at 64 as at fuser's 16, and nothing beyond.
const MAX_BACKGROUND: u16 = 64;

/// What NFS users know as the default of a soft mount over TCP: 60 s.
const TIMEO_DECISECONDS: u64 = 600;

/// On hold nothing comes back by itself.
const RECOVER_DECISECONDS: u64 = 100;

/// Below this a streaming writer could not keep even one request of 1 MiB in flight per replica and one
/// being filled.
const CACHE_MIN: u64 = 8 << 20;

/// Known options, for people.
const KNOWN: &[&str] = &[
    "ro",
    "rw",
    "recover",
    "relatime",
    "noatime",
    "allow_other",
    "default_permissions",
    "hard",
    "soft",
    "timeo=DECISECONDS",
    "cache=BYTES[k|m|g]",
    "max_background=N",
    "tcp",
    "nonempty",
    "supervise",
    "nosupervise",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "fsname=NAME",
    "subtype=NAME",
];

/// Accepted without effect: they speak to mount(8), systemd or fstab's readers, or say what is so anyway.
const WITHOUT_EFFECT: &[&str] = &[
    "_netdev",
    "nofail",
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "async",
    "diratime",
    "nodiratime",
    "default_permissions",
    "comment",
];

fn known() -> String {
    format!("{}; without effect: {}, x-*", KNOWN.join(", "), WITHOUT_EFFECT.join(", "))
}

impl Options {
    /// Reads any number of `-o` arguments; the last word wins.
    pub(crate) fn parse(lists: &[OsString], spec: &Spec, unknown: Unknown) -> Result<Options, OptionsError> {
        let mut options = Options::defaults(spec);
        let mut timeo = None;
        let mut soft = None;
        for list in lists {
            let list = std::str::from_utf8(list.as_bytes()).map_err(|_| OptionsError::NotText)?;
            for item in split(list) {
                let (name, value) = match item.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (item.as_str(), None),
                };
                match (name, value) {
                    ("soft", None) => soft = Some(true),
                    ("hard", None) => soft = Some(false),
                    ("timeo", Some(value)) => timeo = Some(deciseconds(value)?),
                    (name, None) => options.flag(name, unknown)?,
                    (name, Some(value)) => options.setting(name, value, unknown)?,
                }
            }
        }
        if options.recover && !options.read_only {
            return Err(OptionsError::RecoverWrites);
        }
        // Servers that know more than the master are not served, so what only they have is waited for in vain.
        let soft = soft.unwrap_or(options.recover);
        options.timeo_in_vain = timeo.is_some() && !soft;
        let usual = if options.recover { RECOVER_DECISECONDS } else { TIMEO_DECISECONDS };
        let timeo = timeo.unwrap_or(Duration::from_millis(usual * 100));
        options.patience = if soft { Patience::Soft { timeo } } else { Patience::Hard };
        Ok(options)
    }

    fn defaults(spec: &Spec) -> Options {
        Options {
            read_only: false,
            recover: false,
            atime: Atime::Relative,
            allow_other: None,
            patience: Patience::Hard,
            timeo_in_vain: false,
            cache_bytes: None,
            max_background: MAX_BACKGROUND,
            tcp_only: false,
            non_empty: false,
            supervise: false,
            // As every FUSE mount: whoever runs the cluster does not own this machine.
            suid: false,
            dev: false,
            exec: true,
            fs_name: spec.source(),
            subtype: "dfs".to_owned(),
        }
    }

    fn flag(&mut self, name: &str, unknown: Unknown) -> Result<(), OptionsError> {
        match name {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "recover" => self.recover = true,
            "noatime" => self.atime = Atime::Never,
            "relatime" => self.atime = Atime::Relative,
            "allow_other" => self.allow_other = Some(true),
            "tcp" => self.tcp_only = true,
            "nonempty" => self.non_empty = true,
            "supervise" => self.supervise = true,
            "nosupervise" => self.supervise = false,
            "suid" => self.suid = true,
            "nosuid" => self.suid = false,
            "dev" => self.dev = true,
            "nodev" => self.dev = false,
            "exec" => self.exec = true,
            "noexec" => self.exec = false,
            name if without_effect(name) => {}
            name => refuse(name, unknown)?,
        }
        Ok(())
    }

    fn setting(&mut self, name: &str, value: &str, unknown: Unknown) -> Result<(), OptionsError> {
        match name {
            "cache" => self.cache_bytes = Some(bytes(value)?),
            "max_background" => self.max_background = background(value)?,
            "fsname" => self.fs_name = plain("fsname", value)?,
            "subtype" => self.subtype = plain("subtype", value)?,
            name if without_effect(name) => {}
            name if KNOWN.contains(&name) => return Err(OptionsError::NoValue(name.to_owned())),
            name => refuse(name, unknown)?,
        }
        Ok(())
    }
}

fn without_effect(name: &str) -> bool {
    WITHOUT_EFFECT.contains(&name) || name.starts_with("x-") || name.starts_with("X-")
}

fn refuse(name: &str, unknown: Unknown) -> Result<(), OptionsError> {
    match unknown {
        Unknown::Ignore => Ok(()),
        Unknown::Refuse => Err(OptionsError::Unknown(name.to_owned())),
    }
}

/// Splits at commas; a backslash takes the next character as it is.
fn split(list: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut chars = list.chars();
    while let Some(char) = chars.next() {
        match (char, items.last_mut()) {
            (',', _) => items.push(String::new()),
            ('\\', Some(item)) => item.extend(chars.next()),
            (char, Some(item)) => item.push(char),
            (_, None) => {}
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

fn deciseconds(value: &str) -> Result<Duration, OptionsError> {
    // A day is longer than anyone waits and keeps every sum of deadlines far from overflow.
    const DAY: u64 = 24 * 60 * 60 * 10;
    match value.parse::<u64>() {
        Ok(tenths @ 1..=DAY) => Ok(Duration::from_millis(tenths * 100)),
        Ok(_) | Err(_) => Err(OptionsError::Value {
            name: "timeo",
            value: value.to_owned(),
            wanted: "a number of tenths of a second from 1 to 864000",
        }),
    }
}

fn background(value: &str) -> Result<u16, OptionsError> {
    match value.parse::<u16>() {
        Ok(0) | Err(_) => Err(OptionsError::Value {
            name: "max_background",
            value: value.to_owned(),
            wanted: "a number from 1 to 65535",
        }),
        Ok(number) => Ok(number),
    }
}

fn bytes(value: &str) -> Result<u64, OptionsError> {
    let (digits, shift) = match value.char_indices().last() {
        Some((at, 'k' | 'K')) => (&value[..at], 10),
        Some((at, 'm' | 'M')) => (&value[..at], 20),
        Some((at, 'g' | 'G')) => (&value[..at], 30),
        Some(_) | None => (value, 0),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    number.filter(|bytes| *bytes >= CACHE_MIN).ok_or_else(|| OptionsError::Value {
        name: "cache",
        value: value.to_owned(),
        wanted: "a number of bytes of at least 8m",
    })
}

/// A name for mount tables: a comma would be read as another option by fusermount3, and white space or a
/// backslash comes out of /proc/mounts as an escape that scripts stumble over.
fn plain(name: &'static str, value: &str) -> Result<String, OptionsError> {
    let bad = |char: char| char.is_control() || char.is_whitespace() || char == ',' || char == '\\';
    if value.is_empty() || value.contains(bad) {
        return Err(OptionsError::Value {
            name,
            value: value.to_owned(),
            wanted: "a name without commas, backslashes and white space",
        });
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<Options, OptionsError> {
        let spec = Spec::parse("m:1").unwrap();
        Options::parse(&[OsString::from(list)], &spec, Unknown::Refuse)
    }

    #[test]
    fn defaults() {
        let options = parse("").unwrap();
        assert_eq!(options.patience, Patience::Hard);
        assert_eq!(options.atime, Atime::Relative);
        assert_eq!((options.allow_other, options.max_background), (None, 64));
        assert_eq!((options.fs_name.as_str(), options.subtype.as_str()), ("m:1", "dfs"));
        assert!(!options.suid && !options.dev && options.exec && !options.non_empty && !options.tcp_only);
    }

    #[test]
    fn the_last_word_wins() {
        assert!(!parse("ro,rw").unwrap().read_only);
        assert_eq!(parse("soft,timeo=5,hard").unwrap().patience, Patience::Hard);
        let soft = Patience::Soft { timeo: Duration::from_millis(500) };
        assert_eq!(parse("timeo=5,soft").unwrap().patience, soft);
        let in_vain = |list| parse(list).unwrap().timeo_in_vain;
        assert_eq!(["timeo=5", "timeo=5,soft", "hard"].map(in_vain), [true, false, false]);
    }

    #[test]
    fn recover_reads_and_does_not_wait_for_ever() {
        assert_eq!(parse("recover"), Err(OptionsError::RecoverWrites));
        assert_eq!(parse("ro,recover,rw"), Err(OptionsError::RecoverWrites));
        let options = parse("ro,recover").unwrap();
        let timeo = Duration::from_secs(10);
        assert_eq!((options.recover, options.patience), (true, Patience::Soft { timeo }));
        assert_eq!(parse("hard,ro,recover").unwrap().patience, Patience::Hard);
    }

    #[test]
    fn sizes() {
        assert_eq!(parse("cache=64m").unwrap().cache_bytes, Some(64 << 20));
        assert_eq!(parse("cache=1G").unwrap().cache_bytes, Some(1 << 30));
        assert_eq!(parse("cache=8388608").unwrap().cache_bytes, Some(8 << 20));
        for bad in ["cache=", "cache=m", "cache=-1", "cache=1m", "cache=99999999999999g", "cache=1\u{20ac}"] {
            assert!(matches!(parse(bad), Err(OptionsError::Value { .. })), "{bad}");
        }
    }

    #[test]
    fn refuses() {
        for bad in
            ["timeo=0", "timeo=x", "max_background=0", "max_background=70000", "fsname=a\\,ro", "subtype="]
        {
            assert!(matches!(parse(bad), Err(OptionsError::Value { .. })), "{bad}");
        }
        assert_eq!(parse("ro=1"), Err(OptionsError::NoValue("ro".into())));
        assert_eq!(parse("sync"), Err(OptionsError::Unknown("sync".into())));
        assert_eq!(parse("timeo"), Err(OptionsError::Unknown("timeo".into())));
    }

    #[test]
    fn accepts_what_mount_and_fstab_add() {
        parse("defaults,_netdev,nofail,x-systemd.requires=network.target,rw,dev,suid,comment=a b,,user")
            .unwrap();
    }

    #[test]
    fn an_escaped_comma_does_not_split() {
        assert_eq!(split("a\\,b,c"), ["a,b", "c"]);
    }
}
