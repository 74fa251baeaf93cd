//! The end of a session whose client is dead, so that nobody waits for its lease.

use dfs_proto::frame::Outgoing;
use dfs_proto::ids::{LogIndex, SessionId, Term};
use dfs_proto::meta::{CloseSession, ResumeSession};
use dfs_proto::status::Status;
use tokio::sync::mpsc;

use crate::client::Client;
use crate::net::{LinkId, NOTICES_MAX, Net, NetError, Peer};

impl<N: Net> Client<N> {
    /// The number of this session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.shared.session.id()
    }

    /// Ends the session of a client that the caller knows to be dead: its opens and grants go at once, and servers take
    /// no more of what it may have sent. Not for one that only does not answer.
    ///
    /// # Errors
    /// When no master takes it; then the session ends with its lease.
    pub async fn end_session_of_dead(&self, session: SessionId) -> Result<(), NetError> {
        let net = &self.shared.net;
        // Nothing is said to a session that holds nothing.
        let (notices, _unheard) = mpsc::channel(NOTICES_MAX);
        let link = net.dial_master(notices).await?;
        let ended = self.end_on(link, session).await;
        net.hang_up(link);
        match ended {
            // It has ended already.
            Err(NetError::Status(Status::NoSession, _)) => Ok(()),
            ended => ended,
        }
    }

    /// As its own client would: taken up, without anything that it had, and closed.
    async fn end_on(&self, link: LinkId, session: SessionId) -> Result<(), NetError> {
        let (net, deadline) = (&self.shared.net, self.shared.config.master_deadline);
        let (seen_term, seen_index) = (Term(0), LogIndex(0));
        let resume = ResumeSession { session, seen_term, seen_index, opens: Vec::new(), recover: false };
        let out = Outgoing::request(&resume).map_err(|_| NetError::Malformed)?;
        net.call(&Peer::Master(link), out, deadline).await?;
        let out = Outgoing::request(&CloseSession { settled: false }).map_err(|_| NetError::Malformed)?;
        net.call(&Peer::Master(link), out, deadline).await?;
        Ok(())
    }
}
