//! The same from a server that runs and has lost its master, for a tool that asks over the network. The headers are those in
//! memory: what the disks say, and fences and writes that they will hear of. Files that are no replicas were moved away
//! when the server started, which its log says.

use std::sync::Arc;

use dfs_proto::conn::{Conn, PeerSaid, Responder, Role};
use dfs_proto::control::{HEADERS_MAX, HeaderPart, ListHeaders};
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::header::Header as FrameHeader;
use dfs_proto::status::Status;

use super::{listed, listed_disk};
use crate::clock;
use crate::disks::DiskHandle;
use crate::server::Server;
use crate::store::Whose;

/// Answers [`ListHeaders`], on a thread of the disk.
pub(crate) fn answer(server: &Arc<Server>, conn: &Conn, frame: &Frame, reply: Responder) {
    let is_tool = matches!(&conn.peer().said, PeerSaid::Hello(hello) if hello.role == Role::Tool);
    if !is_tool {
        return reply.fail(Status::WrongRole, "headers are for an operator's tool");
    }
    let ask = match frame.decode::<ListHeaders>() {
        Ok(ask) => ask,
        Err(error) => return reply.fail(Status::Malformed, &error.to_string()),
    };
    if server.with_core(|core| core.has_lease(clock::now())) {
        return reply.fail(Status::Busy, "this server has a master: no namespace is lost");
    }
    let header = frame.header;
    let Some(disk) = server.disks.get(usize::from(ask.disk)) else {
        return reply
            .send(Outgoing::reply(&header, &HeaderPart { disk: None, replicas: Vec::new(), next: None }));
    };
    let (server, on) = (Arc::clone(server), Arc::clone(disk));
    let queued = disk.try_submit(move || list(&server, &on, &ask, &header, reply));
    if !queued {
        log::warn!("disk {}: too much waits to list its headers", disk.path.display());
    }
}

fn list(server: &Server, disk: &DiskHandle, ask: &ListHeaders, header: &FrameHeader, reply: Responder) {
    let (generation, max_term, max_meta_index) = server.with_core(|core| core.high_water());
    let Whose { label, mhwm, starts } = disk.store.whose();
    let heard = crate::store::Mhwm { generation, max_term, max_meta_index };
    let whose = Whose { label, mhwm: mhwm.raised_to(heard), starts };
    match disk.store.headers_from(ask.from, HEADERS_MAX) {
        Ok((headers, next)) => {
            let replicas = headers.into_iter().map(|header| listed(&disk.path, header)).collect();
            let disk = Some(listed_disk(&disk.path, &whose));
            reply.send(Outgoing::reply(header, &HeaderPart { disk, replicas, next }));
        }
        Err(error) => reply.fail(Status::Io, &format!("disk {}: {error}", disk.path.display())),
    }
}
