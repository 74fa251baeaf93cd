//! What is mounted: `HOST:PORT[,HOST:PORT...][:/DIR]`.

/// The masters to ask, and the directory that becomes the mount's root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Spec {
    /// As given, `HOST:PORT` each; never empty. Names are resolved later, on each attempt to connect.
    pub(crate) masters: Vec<String>,
    /// Absolute path within the file system; `/` is all of it.
    pub(crate) sub: Vec<u8>,
}

/// Why a text is no [`Spec`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("{0:?} is no master address: give HOST:PORT, as in master1:9000")]
    Address(String),
    #[error("{0:?} has no master address before the path: give HOST:PORT:/DIR")]
    NoMaster(String),
    #[error("{0:?}: the directory to mount must not contain '..'")]
    Upward(String),
}

impl Spec {
    /// Reads what a person typed.
    pub(crate) fn parse(text: &str) -> Result<Spec, SpecError> {
        let (masters, sub) = match text.find(":/") {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, "/"),
        };
        if masters.is_empty() {
            return Err(SpecError::NoMaster(text.to_owned()));
        }
        if sub.split('/').any(|name| name == "..") {
            return Err(SpecError::Upward(text.to_owned()));
        }
        let masters = masters.split(',').map(address).collect::<Result<_, _>>()?;
        Ok(Spec { masters, sub: sub.as_bytes().to_vec() })
    }

    /// The names from the root to the directory to mount.
    pub(crate) fn sub_names(&self) -> impl Iterator<Item = &[u8]> {
        self.sub.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
    }

    /// As mount tables show it: the same as in fstab, so that mount(8) finds its entry again.
    pub(crate) fn source(&self) -> String {
        let masters = self.masters.join(",");
        match self.sub_names().next() {
            Some(_) => format!("{masters}:{}", String::from_utf8_lossy(&self.sub)),
            None => masters,
        }
    }
}

fn address(text: &str) -> Result<String, SpecError> {
    let bad = || SpecError::Address(text.to_owned());
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    // A colon in the host is an IPv6 address, which needs brackets to be told from its port.
    let host_ok = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && !host.contains([':', '/', ' ']),
    };
    match port.parse::<u16>() {
        Ok(port) if port != 0 && host_ok => Ok(text.to_owned()),
        Ok(_) | Err(_) => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        let spec = Spec::parse("a:1,[::1]:2:/x//y/").unwrap();
        assert_eq!(spec.masters, ["a:1", "[::1]:2"]);
        assert_eq!(spec.sub_names().collect::<Vec<_>>(), [b"x", b"y"]);
        assert_eq!(spec.source(), "a:1,[::1]:2:/x//y/");
        assert_eq!(Spec::parse("10.0.0.1:9000").unwrap().source(), "10.0.0.1:9000");
        assert_eq!(Spec::parse("h:1:/").unwrap().source(), "h:1");
    }

    #[test]
    fn refuses() {
        for text in ["", "a", "a:", "a:0", "a:70000", ":1", "::1:9000", "a:1,", "[x]:1", "a b:1"] {
            assert!(
                matches!(Spec::parse(text), Err(SpecError::Address(_) | SpecError::NoMaster(_))),
                "{text:?}"
            );
        }
        assert!(matches!(Spec::parse(":/x"), Err(SpecError::NoMaster(_))));
        assert!(matches!(Spec::parse("a:1:/x/../y"), Err(SpecError::Upward(_))));
    }
}
