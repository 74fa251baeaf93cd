//! What is small, and what needs all the rest: the cluster's own record, sessions, servers, and the counters.

use dfs_proto::ids::{Ino, ServerNum};
use dfs_proto::meta::FindingKind;

use super::book::Book;
use crate::core::chunks::MEMBERS_MAX;
use crate::core::namespace::INO_END;
use crate::core::sessions::KEPT_MAX;
use crate::core::state::State;

pub(super) fn check(state: &State, book: &mut Book) {
    cluster(state, book);
    sessions(state, book);
    servers(state, book);
    given_up(state, book);
    counters(state, book);
}

fn cluster(state: &State, book: &mut Book) {
    let mut find = |kind, what: String| book.find(kind, "the cluster".to_owned(), what);
    if !state.ns.inodes.contains(Ino::ROOT) {
        find(FindingKind::Names, "has no root directory".to_owned());
    }
    if state.ns.next_ino > INO_END {
        find(FindingKind::Id, format!("inode numbers have passed their end, {INO_END}"));
    }
    let Some(cluster) = state.cluster else {
        if state.applied.0 > 0 || !state.chunks.is_empty() || !state.tombstones.is_empty() {
            find(FindingKind::Id, "has records, and was never made".to_owned());
        }
        return;
    };
    if cluster.chunk_size != state.ns.chunk_size {
        let (one, other) = (cluster.chunk_size.bytes(), state.ns.chunk_size.bytes());
        find(FindingKind::Id, format!("has two sizes of chunks, {one} and {other} bytes"));
    }
    if cluster.goal == 0 || usize::from(cluster.goal) > MEMBERS_MAX {
        find(FindingKind::Id, format!("has a goal of {} replicas", cluster.goal));
    }
}

fn sessions(state: &State, book: &mut Book) {
    for (id, session) in state.sessions.iter() {
        book.looked.sessions += 1;
        let mut find = |kind, what: String| book.find(kind, format!("session {id}"), what);
        if id > state.sessions.last() {
            find(
                FindingKind::Id,
                format!("its number is above the last one given, {}", state.sessions.last()),
            );
        }
        if session.kept_len() as u64 > KEPT_MAX {
            find(FindingKind::Session, format!("keeps {} answers, over {KEPT_MAX}", session.kept_len()));
        }
        if session.keeps_arrived() {
            find(FindingKind::Session, "keeps an answer that has arrived".to_owned());
        }
    }
}

fn servers(state: &State, book: &mut Book) {
    for server in state.servers.iter() {
        book.looked.servers += 1;
        let mut find = |kind, what: String| book.find(kind, format!("server {}", server.num), what);
        if server.num == ServerNum(0) || server.num > state.servers.last() {
            find(
                FindingKind::Id,
                format!("its number is above the last one given, {}", state.servers.last()),
            );
        }
        let same = state.servers.by_id(server.info.id).is_some_and(|found| found.num == server.num);
        if !same {
            find(FindingKind::Id, format!("is not found by its identity {}", server.info.id));
        }
    }
}

/// Chunks whose replicas are kept for a person: they must stay known, or one that comes back looks like a lost log's.
fn given_up(state: &State, book: &mut Book) {
    for (chunk, servers) in state.given_up.iter() {
        let mut find = |what: String| book.find_chunk(FindingKind::Chunk, *chunk, what);
        if !state.chunks.contains(*chunk) && state.tombstones.get(*chunk).is_none() {
            find("was given up, and neither a file nor a tombstone names it".to_owned());
        }
        for server in servers.iter().filter(|server| state.servers.get(**server).is_none()) {
            find(format!("was given up on {server}, which never registered"));
        }
    }
}

/// Each counter beside what was counted.
fn counters(state: &State, book: &mut Book) {
    let looked = book.looked;
    let counts = [
        ("inodes", state.ns.inodes.len(), looked.inodes),
        ("directories", state.ns.directory_count, book.directories),
        ("chunks", state.chunks.len(), looked.chunks),
        ("tombstones", state.tombstones.len(), looked.tombstones),
    ];
    for (what, says, counted) in counts {
        if says != counted {
            book.find(FindingKind::Counter, what.to_owned(), format!("counter {says}, counted {counted}"));
        }
    }
    if state.ns.goals.asked() != book.goals {
        let what = format!("counter {:?}, counted {:?}", state.ns.goals.asked(), book.goals);
        book.find(FindingKind::Counter, "goals".to_owned(), what);
    }
    if let Some(index) = state.trail.differs() {
        let what = format!("came to another state up to record {index} before than now");
        book.find(FindingKind::Counter, "the log".to_owned(), what);
    }
    let mut servers: Vec<ServerNum> = book.replicas.keys().copied().collect();
    servers.extend(state.chunks.replica_counts().map(|(server, _)| server));
    servers.sort_unstable();
    servers.dedup();
    for server in servers {
        let (says, counted) =
            (state.chunks.replicas_on(server), book.replicas.get(&server).copied().unwrap_or(0));
        if says != counted {
            let what = format!("counter {says}, counted {counted}");
            book.find(FindingKind::Counter, format!("replicas on {server}"), what);
        }
    }
}
