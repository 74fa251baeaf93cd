//! What happened, in words, for whoever reads a trace.

use dfs_proto::chunk::{Capability, ForwardMeta, ForwardSync, Sync, WriteMeta};
use dfs_proto::control::{
    AddLearner, Applied, Apply, Delete, Fence, Fenced, HeartbeatReply, LearnerReady, Reconcile, Register,
    Registered, ReportTrouble, Zero,
};
use dfs_proto::frame::Frame;
use dfs_proto::meta::{
    Attr, ChunkPlace, Commit, Created, DirChanged, DropHoles, GrantBack, MapRead, MapWrite, Open, OpenChunks,
    Opened, ReadMap, Recall, Release, ResumeSession, SessionResumed, Setattr, Suspect,
};
use dfs_proto::request::{Op, Request};
use dfs_proto::status::Status;
use serde::de::DeserializeOwned;

use super::fabric::{CallEnd, Happening, Node};

/// One line.
#[must_use]
pub fn happening(node: Node, what: &Happening) -> String {
    match what {
        Happening::Opened { conn, who } => format!("{node:?} <- {:?} connects ({})", who.node, conn.0),
        Happening::Dialled { conn, refused, .. } => format!("{node:?} dialled: {conn:?} refused {refused}"),
        Happening::Frame { conn, frame } => {
            let header = &frame.header;
            format!("{node:?} <- {:?} call {} on {}: {}", header.op, header.call.0, conn.0, request(frame))
        }
        Happening::Answered { call, end: CallEnd::Reply(frame) } => {
            let header = &frame.header;
            let body = if header.status == Status::Ok { reply(frame) } else { String::new() };
            format!("{node:?} <- answer to {} {:?}: {:?} {body}", call.0, header.op, header.status)
        }
        Happening::Answered { call, end } => format!("{node:?} <- answer to {}: {end:?}", call.0),
        Happening::Closed { conn } => format!("{node:?}: connection {} is over", conn.0),
        Happening::Timer(number) => format!("{node:?} timer {number}"),
    }
}

fn as_is<T: DeserializeOwned + std::fmt::Debug>(frame: &Frame) -> String {
    frame.decode::<T>().map_or_else(|error| error.to_string(), |body| format!("{body:?}"))
}

fn of<R: Request>(frame: &Frame) -> String {
    as_is::<R>(frame)
}

fn told<T: DeserializeOwned>(frame: &Frame, tell: impl Fn(&T) -> String) -> String {
    frame.decode::<T>().map_or_else(|error| error.to_string(), |body| tell(&body))
}

fn attr(attr: &Attr) -> String {
    format!("ino {} size {} {}", attr.ino, attr.size, attr.size_epoch)
}

fn opened(opened: &Opened) -> String {
    let Opened { attr: now, grant, first } = opened;
    format!("{} grant {:?} {} first {:?}", attr(now), grant.kind, grant.id, first.as_ref().map(place))
}

fn place(place: &ChunkPlace) -> String {
    let members: Vec<String> = place.members.iter().map(|member| member.server.to_string()).collect();
    let new = if place.new { " new" } else { "" };
    format!("[{}] {} at {members:?}{new}", place.index.0, capability(&place.capability))
}

fn request(frame: &Frame) -> String {
    match frame.header.op {
        Op::Setattr => of::<Setattr>(frame),
        Op::Open => of::<Open>(frame),
        Op::Release => of::<Release>(frame),
        Op::MapRead => of::<MapRead>(frame),
        Op::MapWrite => of::<MapWrite>(frame),
        Op::Commit => of::<Commit>(frame),
        Op::Suspect => of::<Suspect>(frame),
        Op::GrantBack => of::<GrantBack>(frame),
        Op::OpenChunks => of::<OpenChunks>(frame),
        Op::DropHoles => of::<DropHoles>(frame),
        Op::Recall => of::<Recall>(frame),
        Op::DirChanged => of::<DirChanged>(frame),
        Op::ResumeSession => of::<ResumeSession>(frame),
        Op::Register => of::<Register>(frame),
        Op::ReportTrouble => of::<ReportTrouble>(frame),
        Op::LearnerReady => of::<LearnerReady>(frame),
        Op::Apply => of::<Apply>(frame),
        Op::Fence => of::<Fence>(frame),
        Op::Reconcile => of::<Reconcile>(frame),
        Op::AddLearner => of::<AddLearner>(frame),
        Op::Delete => of::<Delete>(frame),
        Op::Zero => of::<Zero>(frame),
        Op::Sync => of::<Sync>(frame),
        Op::ForwardSync => of::<ForwardSync>(frame),
        Op::Read => {
            let cap = Capability::from_bytes(&frame.meta).map(|(cap, _)| cap);
            let words = frame.header.words;
            format!(
                "{}+{} {}",
                words.word2,
                words.word3,
                cap.map_or_else(String::new, |cap| capability(&cap))
            )
        }
        Op::Write => match WriteMeta::from_bytes(&frame.meta, frame.payload.len()) {
            Ok(meta) => format!(
                "{}{:?} op {} done {} {} create {}",
                if meta.zeros { "zeros " } else { "" },
                meta.ranges,
                meta.op,
                meta.done,
                capability(&meta.capability),
                meta.create.len()
            ),
            Err(error) => error.to_string(),
        },
        Op::Forward => match ForwardMeta::from_bytes(&frame.meta, frame.payload.len()) {
            Ok(meta) => format!(
                "{:?} {} {:?} seq {} committed {} {} {} {} op {} of {} create {}",
                meta.kind,
                meta.chunk,
                meta.ranges,
                meta.seq,
                meta.committed,
                meta.version,
                meta.config,
                meta.size_epoch,
                meta.op,
                meta.session,
                meta.create.len()
            ),
            Err(error) => error.to_string(),
        },
        _ => format!("{:x?}", frame.header.words),
    }
}

fn capability(cap: &Capability) -> String {
    format!("{} {} {} {} of session {}", cap.chunk, cap.version, cap.config, cap.size_epoch, cap.session)
}

fn reply(frame: &Frame) -> String {
    match frame.header.op {
        Op::Open => told(frame, opened),
        Op::Create => told(frame, |created: &Created| opened(&created.opened)),
        Op::MapRead => told(frame, |map: &ReadMap| {
            let places: Vec<String> = map.places.iter().map(place).collect();
            format!("size {} {} places {places:?}", map.size, map.size_epoch)
        }),
        Op::MapWrite => told(frame, place),
        Op::ResumeSession => as_is::<SessionResumed>(frame),
        Op::Register => as_is::<Registered>(frame),
        Op::Heartbeat => as_is::<HeartbeatReply>(frame),
        Op::Apply => as_is::<Applied>(frame),
        Op::Fence => as_is::<Fenced>(frame),
        Op::Setattr | Op::Commit => told(frame, attr),
        _ => format!("{:x?}", frame.header.words),
    }
}
