//! Listening and accepting.

use crate::conn::{Acceptor, BindError, PeerAddr};

/// A bound address.
#[derive(Debug)]
pub struct Listener {}

impl Listener {
    /// Binds. The socket file of a dead process is replaced, that of a live one is left alone.
    pub async fn bind(addr: &PeerAddr) -> Result<Listener, BindError> {
        unimplemented!()
    }

    /// Where it listens, with the port that the system chose for port 0.
    #[must_use]
    pub fn local_addr(&self) -> &PeerAddr {
        unimplemented!()
    }

    /// Accepts until dropped; each connection runs in tasks of its own and outlives the listener.
    pub async fn serve(self, acceptor: Acceptor) {
        unimplemented!()
    }
}
