//! Where a peer listens: `127.0.0.1:9000`, `[::1]:9000` or `unix:/run/dfs/socket`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an address of a Unix socket starts with.
const UNIX_PREFIX: &str = "unix:";

/// An address to listen at or to dial.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PeerAddr {
    /// IP address and port.
    Tcp(SocketAddr),
    /// Path of a Unix socket; empty for a peer that dialled from an unnamed one.
    Unix(PathBuf),
}

/// Text that is no [`PeerAddr`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no address: expected IP:PORT or unix:/PATH")]
pub struct BadPeerAddr(pub String);

impl FromStr for PeerAddr {
    type Err = BadPeerAddr;

    fn from_str(text: &str) -> Result<PeerAddr, BadPeerAddr> {
        let bad = || BadPeerAddr(text.to_owned());
        match text.strip_prefix(UNIX_PREFIX) {
            Some("") => Err(bad()),
            Some(path) => Ok(PeerAddr::Unix(PathBuf::from(path))),
            None => text.parse().map(PeerAddr::Tcp).map_err(|_| bad()),
        }
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAddr::Tcp(addr) => write!(f, "{addr}"),
            PeerAddr::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

impl TryFrom<String> for PeerAddr {
    type Error = BadPeerAddr;

    fn try_from(text: String) -> Result<PeerAddr, BadPeerAddr> {
        text.parse()
    }
}

impl From<PeerAddr> for String {
    fn from(addr: PeerAddr) -> String {
        addr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in ["127.0.0.1:9000", "[::1]:7", "unix:/run/dfs/cs 1"] {
            assert_eq!(text.parse::<PeerAddr>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "localhost", "127.0.0.1", ":9000", "/run/x"] {
            assert!(text.parse::<PeerAddr>().is_err(), "{text}");
        }
    }
}
