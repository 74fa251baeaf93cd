//! WITHDRAW (section 10): a secondary leaves a chunk while the others go on. From its answer on nothing of the chunk is
//! served or applied here; the file stays until a logged decision says otherwise.
//!
//! Nothing of it is on the disk: a process that starts anew serves nothing before it is confirmed, and the master
//! confirms nobody who is leaving.

use dfs_proto::control::{COMMAND_BATCH, Withdraw, WithdrawChunk, Withdrawn};
use dfs_proto::status::Status;
use dfs_proto::units::Micros;

use crate::core::io::{CallToken, Effect, Reply};
use crate::core::replica::Standing;
use crate::core::{Core, answer, refuse};

impl Core {
    pub(crate) fn withdraw(&mut self, now: Micros, call: CallToken, body: &Withdraw, out: &mut Vec<Effect>) {
        if let Err(status) = self.obey_while_serving(now, body.term) {
            return refuse(call, status, out);
        }
        if body.chunks.len() > COMMAND_BATCH {
            return refuse(call, Status::TooLarge, out);
        }
        let results = body.chunks.iter().map(|asked| match self.leave(asked) {
            Ok(()) => Status::Ok,
            Err(status) => status,
        });
        let results = results.collect();
        answer(call, Reply::Withdrawn(Withdrawn { results }), out);
    }

    fn leave(&mut self, asked: &WithdrawChunk) -> Result<(), Status> {
        let me = self.me().ok_or(Status::NotServing)?;
        let replica = self.replicas.get_mut(&asked.chunk).ok_or(Status::NoChunk)?;
        if !replica.made {
            // A first write that is on its way would make a file that no configuration counts on.
            return Err(Status::NoChunk);
        }
        if replica.version != asked.version || replica.config > asked.config {
            return Err(Status::WrongChunkVersion);
        }
        match replica.standing {
            // A primary knows of writes that nobody else has numbered: only a recovery takes its place.
            _ if replica.is_primary(me.server) => Err(Status::Recovering),
            Standing::Active | Standing::Unsure | Standing::Unconfirmed | Standing::Removed => {
                replica.standing = Standing::Removed;
                // A confirmation of the configuration before may be on its way.
                replica.withdrawn = asked.config;
                Ok(())
            }
            Standing::Failed => Err(Status::DiskFailed),
            // The news that it is filled, or why it is fenced, is on its way.
            Standing::Fenced | Standing::Learner => Err(Status::NotServing),
        }
    }
}
