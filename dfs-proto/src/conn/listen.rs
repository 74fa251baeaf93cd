//! Listening and accepting.
//!
//! A Unix socket's file outlives its process. Whoever listens holds a lock on a file beside it, `NAME.lock`,
//! so that of two processes that start at once only one removes a dead one's file and takes its place.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::conn::{Acceptor, BindError, Conn, PeerAddr, Stream};

/// Handshakes at once: more strangers than that wait in the system's queue.
const HANDSHAKES: usize = 1024;
/// Pause after a failed accept, which mostly means that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    addr: PeerAddr,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket, removed when its listener ends.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Held as long as the socket is ours.
    _lock: File,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::debug!("{}: {error}", self.path.display());
        }
    }
}

impl Listener {
    /// Binds. The socket file of a dead process is replaced, that of a live one is left alone.
    pub async fn bind(addr: &PeerAddr) -> Result<Listener, BindError> {
        match addr {
            PeerAddr::Tcp(ip) => {
                let socket = TcpListener::bind(ip).await.map_err(|error| bind_error(addr, error))?;
                let bound = socket.local_addr().map_err(|error| bind_error(addr, error))?;
                Ok(Listener { socket: Socket::Tcp(socket), addr: PeerAddr::Tcp(bound) })
            }
            PeerAddr::Unix(path) => {
                let lock = lock_beside(path).map_err(|error| bind_error(addr, error))?;
                remove_dead(addr, path)?;
                let socket = UnixListener::bind(path).map_err(|error| bind_error(addr, error))?;
                let file = SocketFile { path: path.clone(), _lock: lock };
                Ok(Listener { socket: Socket::Unix(socket, file), addr: addr.clone() })
            }
        }
    }

    /// Where it listens, with the port that the system chose for port 0.
    #[must_use]
    pub fn local_addr(&self) -> &PeerAddr {
        &self.addr
    }

    /// Accepts until dropped. Each connection runs in tasks of its own and outlives the listener.
    pub async fn serve(self, acceptor: Acceptor) {
        let acceptor = Arc::new(acceptor);
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
            let stream = match self.accept().await {
                Ok(stream) => stream,
                // The peer gave up while it stood in the queue.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    log::warn!("accept at {}: {error}", self.addr);
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let acceptor = Arc::clone(&acceptor);
            tokio::spawn(async move {
                if let Err(error) = Conn::accept(stream, &acceptor).await {
                    log::info!("{error}");
                }
                drop(permit);
            });
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(socket) => Ok(Stream::Tcp(socket.accept().await?.0)),
            Socket::Unix(socket, _file) => Ok(Stream::Unix(socket.accept().await?.0)),
        }
    }
}

fn bind_error(addr: &PeerAddr, source: io::Error) -> BindError {
    if matches!(source.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::WouldBlock) {
        BindError::InUse(addr.clone())
    } else {
        BindError::Io { addr: addr.clone(), source }
    }
}

/// Fails with `WouldBlock` when another process has it.
fn lock_beside(socket: &Path) -> io::Result<File> {
    let mut name = socket.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options().create(true).append(true).open(PathBuf::from(name))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Removes the socket's file if nobody listens behind it. The lock alone does not tell: a process that
/// listens may not know of it.
fn remove_dead(addr: &PeerAddr, path: &Path) -> Result<(), BindError> {
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(bind_error(addr, error)),
    };
    if !meta.file_type().is_socket() {
        return Err(BindError::NotASocket(addr.clone()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_alive) => Err(BindError::InUse(addr.clone())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| bind_error(addr, error))
        }
        Err(error) => Err(bind_error(addr, error)),
    }
}
