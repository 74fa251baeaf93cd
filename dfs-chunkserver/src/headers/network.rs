//! The same from a server that runs and has lost its master, for a tool that asks over the network: headers, and the copies of
//! the master's log. The headers are those in memory: what the disks say, and fences and writes that they will hear of.
//! Files that are no replicas were moved away when the server started, which its log says.

use std::sync::Arc;

use bytes::Bytes;
use dfs_disk::real::RealDisk;
use dfs_disk::{Disk, DiskFile, Open};
use dfs_proto::checksum::crc32c;
use dfs_proto::conn::{Conn, PeerSaid, Responder, Role};
use dfs_proto::control::{
    CopyBytes, CopyFiles, CopyPart, HEADERS_MAX, HeaderPart, LOG_READ_MAX, ListCopies, ListHeaders, ReadCopy,
};
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::listing::ListedDisk;
use dfs_proto::request::{Op, Request};
use dfs_proto::status::Status;

use super::{last_written, listed, listed_disk};
use crate::clock;
use crate::copy;
use crate::disks::DiskHandle;
use crate::server::Server;
use crate::store::Whose;

/// An answer and its payload, or why there is none.
type Answer<R> = Result<(<R as Request>::Reply, Bytes), (Status, String)>;

/// Answers [`ListHeaders`], [`ListCopies`] and [`ReadCopy`], on a thread of the disk.
pub(crate) fn answer(server: &Arc<Server>, conn: &Conn, frame: &Frame, reply: Responder) {
    let is_tool = matches!(&conn.peer().said, PeerSaid::Hello(hello) if hello.role == Role::Tool);
    if !is_tool {
        return reply.fail(Status::WrongRole, "headers are for an operator's tool");
    }
    if server.with_core(|core| core.has_lease(clock::now())) {
        return reply.fail(Status::Busy, "this server has a master: no namespace is lost");
    }
    match frame.header.op {
        Op::ListCopies => on_disk(server, frame, reply, |ask: &ListCopies| ask.disk, list_copies),
        Op::ReadCopy => on_disk(server, frame, reply, |ask: &ReadCopy| ask.disk, read_copy),
        _ => on_disk(server, frame, reply, |ask: &ListHeaders| ask.disk, list),
    }
}

/// `work` gets the disk of the number that the request has, if there is one.
fn on_disk<R: Request>(
    server: &Arc<Server>,
    frame: &Frame,
    reply: Responder,
    number: fn(&R) -> u16,
    work: fn(&Server, Option<&DiskHandle>, &R) -> Answer<R>,
) {
    let ask = match frame.decode::<R>() {
        Ok(ask) => ask,
        Err(error) => return reply.fail(Status::Malformed, &error.to_string()),
    };
    let (header, number) = (frame.header, number(&ask));
    let send = move |server: &Server, disk: Option<&DiskHandle>| match work(server, disk, &ask) {
        Ok((body, payload)) => reply.send(Outgoing::reply(&header, &body).with_payload(payload)),
        Err((status, why)) => reply.fail(status, &why),
    };
    let Some(disk) = server.disks.get(usize::from(number)) else { return send(server, None) };
    let (server, on) = (Arc::clone(server), Arc::clone(disk));
    if !disk.try_submit(move || send(&server, Some(&on))) {
        log::warn!("disk {}: too much waits for it to tell a tool what is there", disk.path.display());
    }
}

fn failed(disk: &DiskHandle, error: &dyn std::error::Error) -> (Status, String) {
    (Status::Io, format!("disk {}: {error}", disk.path.display()))
}

fn list(server: &Server, disk: Option<&DiskHandle>, ask: &ListHeaders) -> Answer<ListHeaders> {
    let Some(disk) = disk else {
        return Ok((HeaderPart { disk: None, replicas: Vec::new(), next: None }, Bytes::new()));
    };
    let headers = disk.store.headers_from(ask.from, HEADERS_MAX);
    let (headers, next) = headers.map_err(|error| failed(disk, &error))?;
    let replicas = headers.into_iter().map(|header| listed(&disk.path, header)).collect();
    Ok((HeaderPart { disk: Some(this_disk(server, disk)), replicas, next }, Bytes::new()))
}

fn this_disk(server: &Server, disk: &DiskHandle) -> ListedDisk {
    let (generation, max_term, max_meta_index) = server.with_core(|core| core.high_water());
    let Whose { label, mhwm, starts } = disk.store.whose();
    let heard = crate::store::Mhwm { generation, max_term, max_meta_index };
    listed_disk(&disk.path, &Whose { label, mhwm: mhwm.raised_to(heard), starts })
}

fn list_copies(server: &Server, disk: Option<&DiskHandle>, _: &ListCopies) -> Answer<ListCopies> {
    let Some(disk) = disk else { return Ok((CopyPart { disk: None, copies: Vec::new() }, Bytes::new())) };
    let copies = copies_on(disk).map_err(|error| failed(disk, &error))?;
    Ok((CopyPart { disk: Some(this_disk(server, disk)), copies }, Bytes::new()))
}

fn copies_on(disk: &DiskHandle) -> std::io::Result<Vec<CopyFiles>> {
    let real = RealDisk::new(&disk.path)?;
    let files = |(dir, about): (String, _)| {
        let written = last_written(&disk.path.join(&dir));
        let files = copy::files(&real, &dir)?;
        Ok(CopyFiles { about, written, dir: copy::name(dir)?, files })
    };
    copy::survey(&real)?.into_iter().map(files).collect()
}

fn read_copy(_: &Server, disk: Option<&DiskHandle>, ask: &ReadCopy) -> Answer<ReadCopy> {
    let disk = disk.ok_or_else(|| (Status::NotFound, format!("there is no disk {}", ask.disk)))?;
    if ask.len > LOG_READ_MAX {
        return Err((Status::TooLarge, "at most a megabyte at once".to_owned()));
    }
    if !copy::is_file(&ask.name) {
        return Err((Status::NotFound, format!("{} is no file of a copy", ask.name.as_str())));
    }
    let bytes = read(disk, ask).map_err(|error| failed(disk, &error))?;
    Ok((CopyBytes { crc: crc32c(&bytes) }, bytes))
}

fn read(disk: &DiskHandle, ask: &ReadCopy) -> std::io::Result<Bytes> {
    let file = RealDisk::new(&disk.path)?.open(ask.name.as_str(), Open::Existing)?;
    let mut bytes = vec![0; usize::try_from(ask.len).unwrap_or(0)];
    let n = file.read_at(&mut bytes, ask.offset)?;
    bytes.truncate(n);
    Ok(bytes.into())
}
