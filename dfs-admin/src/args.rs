//! Where the admin port is: `--admin` and `--admin-port-file`, the same for each daemon.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::serve::Bound;

/// No port at all.
const OFF: &str = "off";

/// For the command line of a daemon, to be flattened into it.
#[derive(Args, Clone, PartialEq, Eq, Debug, Default)]
pub struct AdminArgs {
    /// IP:PORT of the admin port: /healthz, /readyz, /metrics. Who reaches it sees names of files and servers, so it is
    /// for this machine or for a network that you trust; port 0 takes a free one, `off` opens none. A master that is
    /// told nothing tries 127.0.0.1:9401, a chunk server 127.0.0.1:9721; a mount has none
    #[arg(long, value_name = "IP:PORT")]
    pub admin: Option<String>,
    /// File that gets the admin port's address
    #[arg(long, value_name = "PATH")]
    pub admin_port_file: Option<PathBuf>,
}

/// Why there is no admin port.
#[derive(Debug, thiserror::Error)]
pub enum BadAdmin {
    #[error("--admin {0}: expected IP:PORT, such as 127.0.0.1:9401, or {OFF}")]
    Address(String),
    #[error("--admin {0}: {1}: choose another address, or --admin {OFF}")]
    Bind(SocketAddr, std::io::Error),
}

impl AdminArgs {
    /// Opens the port. Where nobody chose one, `default` is tried; if another process has that, the daemon goes on
    /// without, and its log says so: what it serves matters more.
    ///
    /// # Errors
    /// When what was asked for can't be had.
    pub fn bind(&self, default: Option<SocketAddr>) -> Result<Option<Bound>, BadAdmin> {
        let Some(text) = self.admin.as_deref() else {
            let Some(addr) = default else { return Ok(None) };
            return match Bound::new(addr, self.admin_port_file.clone()) {
                Ok(bound) => Ok(Some(bound)),
                Err(error) => {
                    log::warn!("no admin port: {}", BadAdmin::Bind(addr, error));
                    Ok(None)
                }
            };
        };
        if text == OFF {
            return Ok(None);
        }
        let addr: SocketAddr = text.parse().map_err(|_no_address| BadAdmin::Address(text.to_owned()))?;
        let bound = Bound::new(addr, self.admin_port_file.clone());
        bound.map(Some).map_err(|error| BadAdmin::Bind(addr, error))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn args(admin: Option<&str>) -> AdminArgs {
        AdminArgs { admin: admin.map(str::to_owned), admin_port_file: None }
    }

    #[test]
    fn what_is_asked_for_is_had_or_refused() {
        assert!(args(Some("off")).bind(None).unwrap().is_none());
        assert!(args(None).bind(None).unwrap().is_none());
        assert!(args(Some("127.0.0.1:0")).bind(None).unwrap().is_some());
        for wrong in ["", "9401", "localhost", "here:1"] {
            let said = args(Some(wrong)).bind(None).unwrap_err().to_string();
            assert!(said.contains("expected IP:PORT"), "{said}");
        }
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap();
        let said = args(Some(&taken.to_string())).bind(None).unwrap_err().to_string();
        assert!(said.contains("choose another"), "{said}");
        assert!(args(None).bind(Some(taken)).unwrap().is_none(), "the usual port is not worth a failure");
    }
}
