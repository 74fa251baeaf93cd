//! What the operator's tools ask.

use dfs_proto::meta::{FileInfo, ScrubNow};
use dfs_proto::request::Op;
use dfs_proto::status::Status;

use super::decode;
use crate::core::Core;
use crate::core::reply::Caller;

impl Core {
    pub(super) fn tool_request(&mut self, caller: Caller, body: &[u8]) -> Result<(), Status> {
        match caller.op {
            Op::ClusterStatus => {
                let report = self.cluster_report();
                self.reply(caller, &report);
            }
            Op::ServerList => {
                let report = self.server_reports();
                // Who is told that a server can go must not find, after a power cut, that it can't.
                let index = self.state.applied;
                let after = self.after_durable(index);
                self.reply_at(caller, &report, index, after);
            }
            Op::FileInfo => {
                let FileInfo { ino, from } = decode(body)?;
                let report = self.file_report(ino, from)?;
                self.reply(caller, &report);
            }
            Op::ScrubStatus => {
                let report = self.scrub_reports();
                self.reply(caller, &report);
            }
            Op::ScrubNow => {
                let ScrubNow { server } = decode(body)?;
                let started = self.scrub_now(server)?;
                self.reply(caller, &started);
            }
            Op::Recover => return self.recover(caller, decode(body)?),
            Op::Fsck => return self.fsck(caller, decode(body)?),
            Op::FsckServer => return self.fsck_server(caller, decode(body)?),
            Op::Damaged => {
                let part = self.damaged(decode(body)?)?;
                self.reply(caller, &part);
            }
            Op::ExamineChunk => return self.examine_chunk(caller, decode(body)?),
            Op::RepairChunk => return self.repair_chunk(caller, decode(body)?),
            Op::Policy => return self.policy(caller, &decode(body)?),
            Op::Heat => {
                let report = self.heat(&decode(body)?)?;
                self.reply(caller, &report);
            }
            Op::ExplainChunk => {
                let report = self.explain_chunk(&decode(body)?)?;
                self.reply(caller, &report);
            }
            Op::SessionList => {
                let report = self.session_reports();
                self.reply(caller, &report);
            }
            Op::EvictSession => return self.evict_session(caller, decode(body)?),
            Op::ChunkChanges => {
                let report = self.chunk_changes(&decode(body)?);
                self.reply(caller, &report);
            }
            Op::MaintainServer => return self.maintain_server(caller, decode(body)?),
            Op::SetGoal => return self.set_goal(caller, decode(body)?),
            Op::ShowGoal => {
                let report = self.show_goal(decode(body)?)?;
                self.reply(caller, &report);
            }
            Op::DrainServer => return self.drain_server(caller, decode(body)?),
            _ => return Err(Status::UnknownOp),
        }
        Ok(())
    }
}
