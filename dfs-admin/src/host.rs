//! Who may ask a port that only this machine reaches: not a page of the web whose name was made to lead here, in the
//! browser of somebody on this machine. Such a request names that page's host.

use std::net::IpAddr;

/// Whether a request that names `host` is meant for a port of the loopback interface.
pub(crate) fn is_of_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for host in ["localhost", "LOCALHOST:9401", "127.0.0.1", "127.0.0.1:9401", "[::1]:9401", "[::1]"] {
            assert!(is_of_this_machine(host), "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:9401", "localhost.evil.example", "10.0.0.1:9401", "[::2]"]
        {
            assert!(!is_of_this_machine(host), "{host}");
        }
    }
}
