//! What `/proc` knows about a caller that FUSE does not say: supplementary groups, and whether the caller
//! was killed while it waits for us.

/// The supplementary groups of a thread; `None` when it is gone or not visible from here.
pub(crate) fn groups(pid: u32) -> Option<Vec<u32>> {
    parse_groups(&status(pid)?)
}

/// Whether the thread has been killed and only waits for our answer to die. One that is on its way out, and
/// closes its files, has no signal pending any more.
///
/// `stat` waits for a lock that an exec holds while it closes files, thus while it waits for our answer to that; an exec still
/// has its table of files, and `status` waits for nobody.
pub(crate) fn killed(pid: u32) -> bool {
    let exiting = || stat(pid).is_some_and(|text| parse_exiting(&text));
    status(pid).is_some_and(|text| parse_killed(&text) || parse_gives_up_files(&text) && exiting())
}

fn stat(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()
}

/// The kernel takes the table of files from a thread that ends before it closes what is in it.
fn parse_gives_up_files(text: &str) -> bool {
    field(text, "FDSize:").is_some_and(|size| size.trim() == "0")
}

/// The kernel's flags of the thread are the ninth field, the status that it ends with the last one, whose low
/// bits name a signal. One that ends by itself waits until its bytes are written. Names, in the second
/// field, can hold blanks and brackets.
fn parse_exiting(text: &str) -> bool {
    const PF_EXITING: u64 = 0x4;
    const SIGNAL: u64 = 0x7f;
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let number = |nth| fields.split_whitespace().nth(nth).and_then(|field| field.parse::<u64>().ok());
    let (flags, code) = (number(6).unwrap_or(0), number(49).unwrap_or(0));
    flags & PF_EXITING != 0 && code & SIGNAL != 0
}

fn status(pid: u32) -> Option<String> {
    // The kernel gives 0 for a request of its own, and for a caller in a pid namespace that cannot be named.
    if pid == 0 {
        return None;
    }
    std::fs::read_to_string(format!("/proc/{pid}/status")).ok()
}

fn parse_groups(text: &str) -> Option<Vec<u32>> {
    field(text, "Groups:")?.split_whitespace().map(|group| group.parse().ok()).collect()
}

/// Any signal that ends a process makes the kernel queue a SIGKILL to each of its threads.
fn parse_killed(text: &str) -> bool {
    const SIGKILL_BIT: u64 = 1 << (libc::SIGKILL - 1);
    ["SigPnd:", "ShdPnd:"].iter().any(|name| {
        let pending = field(text, name).and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        pending.is_some_and(|pending| pending & SIGKILL_BIT != 0)
    })
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tcat\nFDSize:\t64\nGroups:\t4 24 1000 \nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n";

    #[test]
    fn reads_a_status() {
        assert_eq!(parse_groups(STATUS), Some(vec![4, 24, 1000]));
        assert!(parse_killed(STATUS));
        assert!(!parse_killed(&STATUS.replace("0100", "4000")));
        assert!(!parse_gives_up_files(STATUS));
        assert!(parse_gives_up_files(&STATUS.replace("64", "0")));
        assert_eq!(parse_groups("Groups:\t \n"), Some(vec![]));
        assert_eq!(parse_groups("Name:\tcat\n"), None);
    }

    #[test]
    fn reads_a_stat() {
        let stat = |flags, code| format!("7 (a (b) c) D 1 7 7 0 -1 {flags} {}{code}", "5 ".repeat(42));
        assert!(parse_exiting(&stat(4_194_316, 9)));
        assert!(!parse_exiting(&stat(4_194_316, 256)), "by itself, with 1");
        assert!(!parse_exiting(&stat(4_194_304, 9)));
        assert!(!parse_exiting(""));
    }

    #[test]
    fn this_process_is_alive() {
        assert!(groups(std::process::id()).is_some());
        assert!(!killed(std::process::id()));
        assert_eq!(groups(0), None);
    }
}
