//! The handshake: the first frame each way, in which both ends say who they are.
//!
//! Nothing but HELLO is understood before it is done, with short limits and within [`HANDSHAKE_MAX`]. A
//! refusal is a reply with a status and a sentence, and then the connection is closed.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::conn::reader::linger;
use crate::conn::stream::{ReadHalf, WriteHalf};
use crate::conn::{ConnError, Handler, Hello, PeerAddr, RoleSet, Stream, Welcome};
use crate::frame::wire::WireFrame;
use crate::frame::{Decoder, Frame, Outgoing};
use crate::header::{CallId, Flags, FrameError, Limits, PROTOCOL_VERSION};
use crate::request::Op;
use crate::status::Status;

/// How long a peer has for its part of the handshake: a stranger holds a socket no longer than this.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// Whom a listener admits, what it says, and who serves.
#[derive(Clone)]
pub struct Acceptor {
    /// What is answered to an accepted HELLO. Its cluster is the one that peers have to belong to.
    pub welcome: Welcome,
    /// Roles that are let in.
    pub roles: RoleSet,
    /// Serves the accepted connections; [`Conn::peer`](crate::conn::Conn::peer) tells them apart.
    pub handler: Arc<dyn Handler>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor")
            .field("welcome", &self.welcome)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

/// A stream after its handshake, with what the peer sent behind it.
pub(crate) struct Shaken {
    pub(crate) read: ReadHalf,
    pub(crate) write: WriteHalf,
    pub(crate) decoder: Decoder,
}

/// Why no frame of the handshake came.
enum NoFrame {
    Closed,
    Io(io::Error),
    Frame(FrameError),
}

impl Shaken {
    fn new(stream: Stream) -> Shaken {
        let (read, write) = stream.split();
        Shaken { read, write, decoder: Decoder::new(Limits::HANDSHAKE) }
    }

    async fn frame(&mut self) -> Result<Frame, NoFrame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(NoFrame::Frame)? {
                return Ok(frame);
            }
            match self.read.read_buf(&mut self.decoder.space()).await {
                Ok(0) => return Err(NoFrame::Closed),
                Ok(_) => {}
                Err(error) => return Err(NoFrame::Io(error)),
            }
        }
    }

    async fn send(&self, out: Outgoing, call: CallId) -> io::Result<()> {
        let frame = WireFrame::new(out, call, 0).map_err(io::Error::other)?.to_vec();
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            self.write.writable().await?;
            match self.write.try_write_vectored(&[IoSlice::new(rest)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells the peer why it is not let in, and gives it time to read that.
    async fn refuse(&mut self, call: CallId, refusal: &Refusal) {
        let mut out = Outgoing::failure(Op::Hello, refusal.status, &refusal.detail);
        out.flags = out.flags.with(Flags::CLOSING);
        if self.send(out, call).await.is_ok() {
            self.write.shutdown_write();
            linger(&mut self.read).await;
        }
    }

    fn done(mut self) -> Shaken {
        self.decoder.set_limits(Limits::NORMAL);
        self
    }
}

/// The dialling side. The caller sets the time limit.
pub(crate) async fn dial(addr: &PeerAddr, hello: &Hello) -> Result<(Shaken, Welcome), ConnError> {
    let unreachable = |error: io::Error| dial_error(addr, error);
    let stream = Stream::connect(addr).await.map_err(unreachable)?;
    stream.set_options().map_err(unreachable)?;
    let mut shaken = Shaken::new(stream);
    let out = Outgoing::request(hello).map_err(|error| unreachable(io::Error::other(error)))?;
    shaken.send(out, CallId::default()).await.map_err(unreachable)?;
    let frame = shaken.frame().await.map_err(|why| no_frame(addr, why))?;
    let welcome = check_welcome(addr, hello, &frame)?;
    Ok((shaken.done(), welcome))
}

fn check_welcome(addr: &PeerAddr, hello: &Hello, frame: &Frame) -> Result<Welcome, ConnError> {
    let refused = |status, detail| ConnError::Handshake { addr: addr.clone(), status, detail };
    if frame.header.status != Status::Ok {
        return Err(refused(frame.header.status, frame.detail()));
    }
    if frame.header.op != Op::Hello || !frame.header.is_reply() {
        return Err(refused(Status::Malformed, "the answer to HELLO is something else".into()));
    }
    let welcome: Welcome =
        frame.decode().map_err(|error| refused(Status::Malformed, error.source.to_string()))?;
    if welcome.protocol != u16::from(PROTOCOL_VERSION) {
        return Err(refused(Status::WrongVersion, wrong_version(welcome.protocol)));
    }
    match hello.cluster {
        Some(ours) if ours != welcome.cluster => {
            Err(ConnError::WrongCluster { addr: addr.clone(), ours, theirs: welcome.cluster })
        }
        Some(_) | None => Ok(welcome),
    }
}

fn dial_error(addr: &PeerAddr, error: io::Error) -> ConnError {
    let addr = addr.clone();
    if error.kind() == io::ErrorKind::ConnectionRefused {
        let unix = matches!(addr, PeerAddr::Unix(_));
        return ConnError::Refused { addr, unix };
    }
    ConnError::Unreachable { addr, source: Arc::new(error) }
}

fn no_frame(addr: &PeerAddr, why: NoFrame) -> ConnError {
    let addr = addr.clone();
    match why {
        NoFrame::Closed => ConnError::Closed { addr },
        // A reset tells that the peer went away; it is no refusal to connect.
        NoFrame::Io(error) => ConnError::Unreachable { addr, source: Arc::new(error) },
        NoFrame::Frame(source) => ConnError::Frame { addr, source },
    }
}

fn wrong_version(theirs: u16) -> String {
    FrameError::WrongVersion(u8::try_from(theirs).unwrap_or(u8::MAX)).to_string()
}

/// Why a peer is not let in.
struct Refusal {
    status: Status,
    detail: String,
}

impl Refusal {
    fn new(status: Status, detail: impl Into<String>) -> Refusal {
        Refusal { status, detail: detail.into() }
    }
}

/// The listening side.
pub(crate) async fn receive(
    stream: Stream,
    addr: &PeerAddr,
    acceptor: &Acceptor,
) -> Result<(Shaken, Hello), ConnError> {
    stream.set_options().map_err(|error| no_frame(addr, NoFrame::Io(error)))?;
    let mut shaken = Shaken::new(stream);
    let first = timeout(HANDSHAKE_MAX, shaken.frame()).await;
    let (call, admitted) = match first {
        Ok(Ok(frame)) => (frame.header.call, admit(&frame, acceptor)),
        Ok(Err(NoFrame::Frame(error))) => {
            (CallId::default(), Err(Refusal::new(error.status(), error.to_string())))
        }
        Ok(Err(why @ (NoFrame::Closed | NoFrame::Io(_)))) => return Err(no_frame(addr, why)),
        Err(_elapsed) => {
            let detail = format!("no HELLO within {} s", HANDSHAKE_MAX.as_secs());
            (CallId::default(), Err(Refusal::new(Status::NoHello, detail)))
        }
    };
    match admitted {
        Ok((hello, reply)) => {
            let sent = timeout(HANDSHAKE_MAX, shaken.send(reply, call)).await;
            match sent {
                Ok(Ok(())) => Ok((shaken.done(), hello)),
                Ok(Err(error)) => Err(no_frame(addr, NoFrame::Io(error))),
                Err(_elapsed) => Err(ConnError::TimedOut { addr: addr.clone() }),
            }
        }
        Err(refusal) => {
            shaken.refuse(call, &refusal).await;
            let Refusal { status, detail } = refusal;
            Err(ConnError::Stranger { addr: addr.clone(), status, detail })
        }
    }
}

fn admit(frame: &Frame, acceptor: &Acceptor) -> Result<(Hello, Outgoing), Refusal> {
    if frame.header.op != Op::Hello || frame.header.is_reply() {
        let detail = format!("the first frame must be HELLO, not {:?}", frame.header.op);
        return Err(Refusal::new(Status::NoHello, detail));
    }
    let hello: Hello =
        frame.decode().map_err(|error| Refusal::new(Status::Malformed, error.source.to_string()))?;
    if hello.protocol != u16::from(PROTOCOL_VERSION) {
        return Err(Refusal::new(Status::WrongVersion, wrong_version(hello.protocol)));
    }
    let ours = acceptor.welcome.cluster;
    if let Some(theirs) = hello.cluster
        && theirs != ours
    {
        let detail = format!("this is cluster {ours}, you belong to {theirs}");
        return Err(Refusal::new(Status::WrongCluster, detail));
    }
    if !acceptor.roles.contains(hello.role) {
        let detail = format!("a {:?} is not let in at this address", hello.role);
        return Err(Refusal::new(Status::WrongRole, detail));
    }
    let mut welcome = acceptor.welcome.clone();
    welcome.features &= hello.features;
    Ok((hello, Outgoing::reply(&frame.header, &welcome)))
}
