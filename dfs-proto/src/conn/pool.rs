//! One live connection per address.

use std::sync::Arc;
use std::time::Duration;

use crate::conn::{Conn, ConnError, Handler, Hello, PeerAddr};

/// Dials on demand and keeps what lives.
#[derive(Debug)]
pub struct Pool {}

impl Pool {
    /// A pool whose connections introduce themselves with `hello` and serve with `handler`; each dial may
    /// take `limit`.
    #[must_use]
    pub fn new(hello: Hello, handler: Arc<dyn Handler>, limit: Duration) -> Pool {
        unimplemented!()
    }

    /// Says something else from the next dial on.
    pub fn set_hello(&self, hello: Hello) {
        unimplemented!()
    }

    /// The live connection to `addr`, or a new one. Those who ask at the same time share one dial.
    pub async fn get(&self, addr: &PeerAddr) -> Result<Conn, ConnError> {
        unimplemented!()
    }

    /// The live connection to `addr`, without dialling.
    #[must_use]
    pub fn live(&self, addr: &PeerAddr) -> Option<Conn> {
        unimplemented!()
    }

    /// Closes and forgets the connection to `addr`, and its failures.
    pub fn forget(&self, addr: &PeerAddr) {
        unimplemented!()
    }

    /// Closes all connections.
    pub fn close_all(&self) {
        unimplemented!()
    }
}
