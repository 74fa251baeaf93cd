//! The byte streams a connection runs over, split into a reading and a writing half.
//!
//! The writing half writes from any thread through a shared reference and never blocks; the reading half
//! belongs to one task.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{Shutdown, sockopt};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

use crate::conn::PeerAddr;

/// A silent TCP peer is probed after this long, and then as often.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// Unanswered probes after which the connection is broken; with [`UNACKED_MAX_MS`] the first of them is enough.
const KEEPALIVE_PROBES: u32 = 3;
/// A TCP peer whose kernel has not acknowledged what was sent for so long is cut off: whoever waits for it learns
/// so, and dials, instead of waiting out its calls. Six retransmissions on a local network; a process that is
/// merely slow or stopped has a kernel that acknowledges.
const UNACKED_MAX_MS: u32 = 2_000;

/// A connected stream without any framing yet.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Dials. The system's own time limit applies; callers set a shorter one.
    pub async fn connect(addr: &PeerAddr) -> io::Result<Stream> {
        match addr {
            PeerAddr::Tcp(addr) => {
                let stream = TcpStream::connect(addr).await?;
                // Dialling a free port of our own may pick that port as the source: then we reached ourselves.
                if stream.local_addr()? == stream.peer_addr()? {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                Ok(Stream::Tcp(stream))
            }
            PeerAddr::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
        }
    }

    /// Small replies leave at once, and a peer that vanished without a word is noticed.
    pub(crate) fn set_options(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => {
                stream.set_nodelay(true)?;
                let fd = stream.as_fd();
                sockopt::set_socket_keepalive(fd, true)?;
                sockopt::set_tcp_keepidle(fd, KEEPALIVE_IDLE)?;
                sockopt::set_tcp_keepintvl(fd, KEEPALIVE_IDLE)?;
                sockopt::set_tcp_keepcnt(fd, KEEPALIVE_PROBES)?;
                sockopt::set_tcp_user_timeout(fd, UNACKED_MAX_MS)?;
                Ok(())
            }
            Stream::Unix(_) => Ok(()),
        }
    }

    /// Where the other end is.
    #[must_use]
    pub fn peer_addr(&self) -> PeerAddr {
        match self {
            // Only a stream that is already broken has no peer address; its first read will say so.
            Stream::Tcp(stream) => {
                stream.peer_addr().map_or_else(|_| PeerAddr::Unix("".into()), PeerAddr::Tcp)
            }
            Stream::Unix(stream) => {
                let addr = stream.peer_addr().ok();
                let path = addr.as_ref().and_then(|addr| addr.as_pathname());
                PeerAddr::Unix(path.map(Into::into).unwrap_or_default())
            }
        }
    }

    pub(crate) fn split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Stream::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Stream::Unix(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Stream {
        Stream::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Stream {
        Stream::Unix(stream)
    }
}

/// The half that one task reads from.
#[derive(Debug)]
pub(crate) enum ReadHalf {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ReadHalf::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            ReadHalf::Unix(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

/// The half that anyone writes to.
#[derive(Debug)]
pub(crate) enum WriteHalf {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
}

impl WriteHalf {
    /// Writes what the socket takes now.
    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            WriteHalf::Tcp(half) => half.try_write_vectored(slices),
            WriteHalf::Unix(half) => half.try_write_vectored(slices),
        }
    }

    /// Waits until the socket takes something.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            WriteHalf::Tcp(half) => half.writable().await,
            WriteHalf::Unix(half) => half.writable().await,
        }
    }

    /// Says to the peer that nothing more comes.
    pub(crate) fn shutdown_write(&self) {
        self.shutdown(Shutdown::Write);
    }

    /// Ends both directions: a waiting read at our end returns.
    pub(crate) fn shutdown_both(&self) {
        self.shutdown(Shutdown::Both);
    }

    fn shutdown(&self, how: Shutdown) {
        let fd = match self {
            WriteHalf::Tcp(half) => half.as_ref().as_fd(),
            WriteHalf::Unix(half) => half.as_ref().as_fd(),
        };
        // It fails only when the peer was first, and then there is nothing left to end.
        if let Err(error) = rustix::net::shutdown(fd, how) {
            log::trace!("shutdown: {error}");
        }
    }
}
