//! A daemon's admin port, as tests ask it: a GET by hand, and figures read strictly.

mod exposition;
mod keys;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub use exposition::{Family, Sample, parse};
pub use keys::{documented, keys_of};

/// An answer that takes longer hangs: the port itself gives up on its daemon after 2 s.
const LIMIT: Duration = Duration::from_secs(10);

/// What a GET came to.
#[derive(Clone, Debug)]
pub struct Got {
    pub status: u16,
    /// As they came, with their names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Got {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(is, _)| is == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// GET from the port at `addr`.
///
/// # Errors
/// When there is no answer of HTTP.
pub fn get(addr: &str, path: &str) -> anyhow::Result<Got> {
    ask(addr, "GET", path, addr)
}

/// A request with the method and the host that it names.
///
/// # Errors
/// When there is no answer of HTTP.
pub fn ask(addr: &str, method: &str, path: &str, host: &str) -> anyhow::Result<Got> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let text = String::from_utf8(all)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| anyhow::anyhow!("no answer: {text:?}"))?;
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    Ok(Got {
        status: status.ok_or_else(|| anyhow::anyhow!("no status: {first}"))?,
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        body: body.to_owned(),
    })
}
