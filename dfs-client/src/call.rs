//! A request to the master, repeated until it has an answer.
//!
//! A mutation keeps its request id over every try whose outcome is unknown, so that it takes effect once;
//! after a definite refusal it takes a new one, so that a long wait does not pin the master's kept
//! answers. Across sessions nothing is kept: an outcome that was unknown then is an error.

use dfs_proto::frame::Outgoing;
use dfs_proto::header::Words;
use dfs_proto::ids::{LogIndex, RequestId};
use dfs_proto::request::Request;

use crate::core::retry::{Backoff, MasterNext, after_master};
use crate::error::{Error, Result};
use crate::net::{LinkId, Net, NetError, Peer};
use crate::shared::{Shared, Until, lock};

/// Whether a request makes sense in another session than the one it began in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    Any,
    /// Only in this incarnation.
    Session(u64),
}

/// Why the master gave no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0}")]
    Final(Error),
    #[error("the file was truncated since")]
    OldEpoch,
    #[error("supplementary groups needed")]
    Groups,
    #[error("the session ended")]
    SessionLost,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        match refused {
            Refused::Final(error) => error,
            Refused::Groups => Error::Access,
            Refused::OldEpoch | Refused::SessionLost => Error::Io,
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::Final(error)
    }
}

/// An answer with the log index that it rests on, and the link it came over.
#[derive(Clone, Debug)]
pub(crate) struct Answer<T> {
    pub(crate) body: T,
    pub(crate) index: LogIndex,
    pub(crate) link: LinkId,
    /// It brought the attributes of the directories that the request changed.
    pub(crate) dirs_told: bool,
}

impl<N: Net> Shared<N> {
    /// Asks in whatever session there is.
    pub(crate) async fn ask<R: Request>(&self, request: &R) -> Result<R::Reply, Refused> {
        Ok(self.ask_in(request, Scope::Any, self.patience()).await?.body)
    }

    /// Asks until there is an answer, patience ends, or the session that it belongs to.
    pub(crate) async fn ask_in<R: Request>(
        &self,
        request: &R,
        scope: Scope,
        until: Until,
    ) -> Result<Answer<R::Reply>, Refused> {
        let out = Outgoing::request(request).map_err(|_| Error::Invalid)?;
        let mut backoff = Backoff::default();
        let mut ticket = None;
        // The incarnation in which a try may have taken effect.
        let mut unknown_in = None;
        loop {
            let (link, incarnation) = self.link(until).await?;
            if matches!(scope, Scope::Session(bound) if bound != incarnation) {
                return Err(Refused::SessionLost);
            }
            if R::MUTATION && unknown_in.is_some_and(|before| before != incarnation) {
                return Err(Refused::Final(Error::Io));
            }
            if R::MUTATION && ticket.is_none() {
                ticket = Some(self.session.take_request_id().await);
            }
            let out = out.clone().with_words(self.words(ticket.as_ref().map(|ticket| ticket.id)));
            let sent = self.now();
            let deadline = until.cap(self.config.master_deadline);
            let error = match self.net.call(&Peer::Master(link), out, deadline).await {
                Ok(frame) => {
                    self.session.heard(&frame.header, sent);
                    let body = frame.decode().map_err(|_| Error::Io)?;
                    let index = LogIndex(frame.header.words.word0);
                    let dirs_told = self.note_dirs(&frame.payload, sent, index);
                    return Ok(Answer { body, index, link, dirs_told });
                }
                Err(error) => error,
            };
            log::debug!("{:?}: {error}", R::OP);
            match &error {
                // An earlier try may still be under way.
                NetError::Status(..) | NetError::Unreachable { .. } if unknown_in.is_some() => {}
                NetError::Status(..) | NetError::Unreachable { .. } => ticket = None,
                NetError::Deadline | NetError::Closed | NetError::Malformed => unknown_in = Some(incarnation),
            }
            self.after_failure(&error, link)?;
            self.pause(&mut backoff, until).await?;
        }
    }

    /// Asks once; `None` when there was no answer this time. For what may take effect twice.
    pub(crate) async fn ask_once<R: Request>(
        &self,
        request: &R,
        scope: Scope,
        until: Until,
    ) -> Result<Option<R::Reply>, Refused> {
        let out = Outgoing::request(request).map_err(|_| Error::Invalid)?;
        let (link, incarnation) = self.link(until).await?;
        if matches!(scope, Scope::Session(bound) if bound != incarnation) {
            return Err(Refused::SessionLost);
        }
        let ticket = if R::MUTATION { Some(self.session.take_request_id().await) } else { None };
        let out = out.with_words(self.words(ticket.as_ref().map(|ticket| ticket.id)));
        let sent = self.now();
        let deadline = until.cap(self.config.master_deadline);
        match self.net.call(&Peer::Master(link), out, deadline).await {
            Ok(frame) => {
                self.session.heard(&frame.header, sent);
                Ok(Some(frame.decode().map_err(|_| Error::Io)?))
            }
            Err(error) => {
                log::debug!("{:?}: {error}", R::OP);
                self.after_failure(&error, link)?;
                Ok(None)
            }
        }
    }

    fn words(&self, id: Option<RequestId>) -> Words {
        Words {
            word0: id.map_or(0, |id| id.0),
            word1: id.map_or(0, |_| self.session.lowest_unanswered().0),
            ..Words::default()
        }
    }

    /// Whether to go on trying.
    fn after_failure(&self, error: &NetError, link: LinkId) -> Result<(), Refused> {
        match after_master(error) {
            MasterNext::Again => {
                if *error == NetError::Deadline {
                    self.session.suspect_link();
                }
                Ok(())
            }
            MasterNext::NewLink | MasterNext::NoSession => {
                self.drop_link(link);
                Ok(())
            }
            MasterNext::Groups => Err(Refused::Groups),
            MasterNext::OldEpoch => Err(Refused::OldEpoch),
            MasterNext::Fail(error) => Err(Refused::Final(error)),
        }
    }

    /// The link, as soon as there is one.
    async fn link(&self, until: Until) -> Result<(LinkId, u64)> {
        let found = self.session.view.wait(|view| match view.link {
            _ if view.closed => Some(Err(Error::Io)),
            Some(link) => Some(Ok((link, view.incarnation))),
            None => None,
        });
        until.bound(found).await?
    }

    /// Renews the lease and the clock's bounds by a question that costs nothing.
    pub(crate) async fn renew(&self, until: Until) -> Result<()> {
        let servers_epoch = lock(&self.servers).epoch();
        let request = dfs_proto::meta::KeepAlive { servers_epoch };
        self.ask_in(&request, Scope::Any, until).await?;
        Ok(())
    }
}
