//! The master: one directory, files with chunks, grants, kept answers. One client at a time holds grants;
//! conflicts are played by the tests.

use std::collections::BTreeMap;

use dfs_client::net::LinkId;
use dfs_proto::chunk::{Capability, Member, Rights};
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::header::Words;
use dfs_proto::ids::*;
use dfs_proto::meta::*;
use dfs_proto::request::Op;
use dfs_proto::status::Status;
use dfs_proto::units::{ChunkIndex, ChunkSize, MasterMs, Micros, Timespec};

use super::CHUNK;

pub(crate) struct File {
    pub(crate) attr: Attr,
    pub(crate) chunks: BTreeMap<ChunkIndex, ChunkId>,
    pub(crate) grant: Option<(SessionId, Grant)>,
    pub(crate) opens: usize,
}

pub(crate) struct Master {
    pub(crate) files: BTreeMap<Ino, File>,
    pub(crate) names: BTreeMap<Vec<u8>, Ino>,
    pub(crate) versions: BTreeMap<ChunkId, ChunkVersion>,
    pub(crate) written: std::collections::BTreeSet<ChunkId>,
    pub(crate) sessions: BTreeMap<SessionId, Option<LinkId>>,
    pub(crate) answers: BTreeMap<(SessionId, RequestId), Outgoing>,
    /// Another mount has everything open: no grants.
    pub(crate) shared: bool,
    /// What other mounts wrote and have not synced.
    pub(crate) owed: Vec<(ChunkIndex, ChunkId)>,
    pub(crate) tail_lost: bool,
    pub(crate) commits: Vec<Commit>,
    pub(crate) setattrs: usize,
    pub(crate) given_back: Vec<GrantId>,
    pub(crate) releases: usize,
    /// Files that closes, and then grants that came back, said writes of may still take effect.
    pub(crate) unsettled: Vec<Ino>,
    pub(crate) want_groups: bool,
    pub(crate) index: u64,
    /// What truncations leave for the chunk servers to zero.
    pub(crate) zeros: Vec<(ChunkId, u32, SizeEpoch)>,
    /// Chunks that left their file's map: the chunk servers take no write to them any more.
    pub(crate) dropped: Vec<ChunkId>,
    /// How many servers there are, and members of each chunk.
    pub(crate) members: u16,
    next: u64,
}

fn addr(num: u16) -> ServerAddr {
    let tcp = format!("10.0.0.{num}:1");
    ServerAddr { num: ServerNum(num), id: ServerId(num.into()), tcp, unix: None, os_boot: OsBootId(9) }
}

impl Master {
    pub(crate) fn new() -> Master {
        Master {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            versions: BTreeMap::new(),
            written: Default::default(),
            sessions: BTreeMap::new(),
            answers: BTreeMap::new(),
            shared: false,
            owed: Vec::new(),
            tail_lost: false,
            commits: Vec::new(),
            setattrs: 0,
            given_back: Vec::new(),
            releases: 0,
            unsettled: Vec::new(),
            want_groups: false,
            index: 0,
            zeros: Vec::new(),
            dropped: Vec::new(),
            members: 2,
            next: 100,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn session_of(&self, link: LinkId) -> Option<SessionId> {
        self.sessions.iter().find(|(_, at)| **at == Some(link)).map(|(id, _)| *id)
    }

    pub(crate) fn end_sessions(&mut self) {
        self.sessions.clear();
        for file in self.files.values_mut() {
            file.grant = None;
            file.opens = 0;
        }
    }

    pub(crate) fn serve(&mut self, link: LinkId, frame: &Frame, now: Micros) -> Result<Outgoing, Status> {
        let op = frame.header.op;
        let request = RequestId(frame.header.words.word0);
        let lowest = RequestId(frame.header.words.word1);
        let session = match op {
            Op::OpenSession | Op::ResumeSession => SessionId(0),
            _ => self.session_of(link).ok_or(Status::NoSession)?,
        };
        let mutation = request.0 > 0;
        if mutation {
            assert!(request >= lowest);
            self.answers.retain(|(owner, id), _| *owner != session || *id >= lowest);
            if let Some(kept) = self.answers.get(&(session, request)) {
                return Ok(self.stamped(kept.clone(), now));
            }
        }
        let reply = self.answer(link, session, frame)?;
        if mutation {
            self.index += 1;
            self.answers.insert((session, request), reply.clone());
        }
        Ok(self.stamped(reply, now))
    }

    fn stamped(&self, reply: Outgoing, now: Micros) -> Outgoing {
        reply.with_words(Words { word0: self.index, word1: now.as_ms(), word2: 1, word3: 0 })
    }

    fn answer(&mut self, link: LinkId, session: SessionId, frame: &Frame) -> Result<Outgoing, Status> {
        let head = &frame.header;
        macro_rules! body {
            () => {
                frame.decode().map_err(|_| Status::Malformed)?
            };
        }
        Ok(match head.op {
            Op::OpenSession => Outgoing::reply(head, &self.open_session(link)),
            Op::ResumeSession => Outgoing::reply(head, &self.resume(link, body!())?),
            Op::CloseSession => {
                self.sessions.remove(&session);
                Outgoing::reply(head, &Done {})
            }
            Op::KeepAlive => Outgoing::reply(head, &Alive { servers_changed: false }),
            Op::Servers => Outgoing::reply(head, &self.servers()),
            Op::Create => Outgoing::reply(head, &self.create(session, body!())?),
            Op::Open => Outgoing::reply(head, &self.open(session, body!())?),
            Op::Lookup => {
                let lookup: Lookup = body!();
                if self.want_groups && lookup.creds.groups.is_none() {
                    return Err(Status::NeedGroups);
                }
                let ino = self.names.get(lookup.name.as_slice()).ok_or(Status::NotFound)?;
                Outgoing::reply(head, &self.files[ino].attr)
            }
            Op::Getattr => {
                let Getattr { ino } = body!();
                Outgoing::reply(head, &self.files.get(&ino).ok_or(Status::Stale)?.attr)
            }
            Op::Setattr => Outgoing::reply(head, &self.setattr(body!())?),
            Op::MapRead => Outgoing::reply(head, &self.map_read(session, body!())?),
            Op::MapWrite => {
                let MapWrite { ino, index, only, .. } = body!();
                let there = self.files.get(&ino).and_then(|file| file.chunks.get(&index));
                if only.is_some() && there.copied() != only {
                    return Err(Status::Stale);
                }
                Outgoing::reply(head, &self.place(session, ino, index))
            }
            Op::Commit => Outgoing::reply(head, &self.commit(body!())?),
            Op::OpenChunks => {
                let OpenChunks { first, .. } = body!();
                let mut left = self.owed.iter().filter(|(index, _)| *index >= first).copied();
                let chunks: Vec<_> = left.by_ref().take(1).collect();
                Outgoing::reply(head, &OpenChunkList { chunks, next: left.next().map(|(index, _)| index) })
            }
            Op::DropHoles => Outgoing::reply(head, &self.drop_holes(&body!())?),
            Op::GrantBack => {
                let back: GrantBack = body!();
                self.unsettled.extend(&back.unsettled);
                for (ino, given) in back.grants {
                    self.given_back.push(given);
                    if let Some(file) = self.files.get_mut(&ino) {
                        file.grant = file.grant.take().filter(|(_, grant)| grant.id != given);
                    }
                }
                Outgoing::reply(head, &Done {})
            }
            Op::Release => {
                let release: Release = body!();
                self.unsettled.extend(&release.unsettled);
                self.releases += release.handles.len();
                Outgoing::reply(head, &Done {})
            }
            Op::Suspect => Outgoing::reply(head, &Done {}),
            Op::Readdir => Outgoing::reply(head, &self.readdir(body!())),
            _ => return Err(Status::UnknownOp),
        })
    }

    fn servers(&self) -> Servers {
        Servers { epoch: 1, list: (1..=self.members).map(addr).collect() }
    }

    fn open_session(&mut self, link: LinkId) -> SessionOpened {
        let session = SessionId(self.number());
        self.sessions.insert(session, Some(link));
        SessionOpened {
            session,
            cluster: ClusterId(1),
            generation: Generation(1),
            term: Term(1),
            chunk_size: ChunkSize::try_from(CHUNK).unwrap(),
            goal: 2,
            lease_ms: 30_000,
            server_lease_ms: 6_000,
            servers: self.servers(),
        }
    }

    fn resume(&mut self, link: LinkId, resume: ResumeSession) -> Result<SessionResumed, Status> {
        *self.sessions.get_mut(&resume.session).ok_or(Status::NoSession)? = Some(link);
        let claimed = |ino: &Ino| resume.opens.iter().any(|open| open.ino == *ino);
        let grants = self.files.iter().filter(|(ino, _)| claimed(ino));
        let grants = grants.filter_map(|(ino, file)| file.grant.map(|(_, grant)| (*ino, grant)));
        Ok(SessionResumed {
            term: Term(1),
            lease_ms: 30_000,
            tail_lost: std::mem::take(&mut self.tail_lost),
            grants: grants.collect(),
            servers: self.servers(),
        })
    }

    fn create(&mut self, session: SessionId, create: Create) -> Result<Created, Status> {
        let found = self.names.get(create.name.as_slice()).copied();
        if found.is_some() && create.exclusive {
            return Err(Status::Exists);
        }
        let new = found.is_none();
        let ino = found.unwrap_or_else(|| {
            let ino = Ino(self.number());
            let zero = Timespec::default();
            let attr = Attr {
                ino,
                kind: FileKind::File,
                mode: create.mode,
                nlink: 1,
                uid: 0,
                gid: 0,
                rdev: 0,
                size: 0,
                blocks: 0,
                atime: zero,
                mtime: zero,
                ctime: zero,
                btime: zero,
                size_epoch: SizeEpoch(0),
                xattrs: false,
            };
            let file = File { attr, chunks: BTreeMap::new(), grant: None, opens: 0 };
            self.files.insert(ino, file);
            self.names.insert(create.name.to_vec(), ino);
            ino
        });
        let opened = self.opened(session, ino, create.access, create.truncate && !new);
        Ok(Created { opened, new })
    }

    fn open(&mut self, session: SessionId, open: Open) -> Result<Opened, Status> {
        if !self.files.contains_key(&open.ino) {
            return Err(Status::Stale);
        }
        Ok(self.opened(session, open.ino, open.access, open.truncate))
    }

    fn opened(&mut self, session: SessionId, ino: Ino, access: Access, truncate: bool) -> Opened {
        if truncate {
            self.cut(ino, 0);
        }
        let wanted = if access.write { GrantKind::Write } else { GrantKind::Read };
        let id = GrantId(self.number());
        let shared = self.shared;
        let file = self.files.get_mut(&ino).unwrap();
        file.opens += 1;
        let grant = match file.grant {
            _ if shared => Grant { id: GrantId(0), kind: GrantKind::None },
            Some((_, grant)) if grant.kind >= wanted => grant,
            _ => Grant { id, kind: wanted },
        };
        file.grant = (grant.kind != GrantKind::None).then_some((session, grant));
        let attr = file.attr;
        let has = file.chunks.contains_key(&ChunkIndex(0));
        let first = (has || access.write).then(|| self.place(session, ino, ChunkIndex(0)));
        Opened { attr, grant, first }
    }

    pub(crate) fn place(&mut self, session: SessionId, ino: Ino, index: ChunkIndex) -> ChunkPlace {
        let next = ChunkId(self.number());
        let file = self.files.get_mut(&ino).unwrap();
        let chunk = *file.chunks.entry(index).or_insert(next);
        let version = *self.versions.entry(chunk).or_insert(ChunkVersion(1));
        let capability = Capability {
            chunk,
            session,
            ino,
            index,
            expires: MasterMs(u64::MAX / 2),
            version,
            config: ConfigNum(1),
            open_num: OpenNum(1),
            size_epoch: file.attr.size_epoch,
            rights: Rights { read: true, write: true },
            key: KeyId(0),
            mac: [0; 16],
        };
        let members = (1..=self.members).map(|n| Member { server: ServerNum(n), boot: BootId(1) }).collect();
        let new = !self.written.contains(&chunk);
        ChunkPlace { index, members, capability, seals: Vec::new(), new, note: None }
    }

    fn map_read(&mut self, session: SessionId, map: MapRead) -> Result<ReadMap, Status> {
        let file = self.files.get(&map.ino).ok_or(Status::Stale)?;
        let (size, size_epoch) = (file.attr.size, file.attr.size_epoch);
        let wanted = map.first..ChunkIndex(map.first.0 + u64::from(map.count));
        let indices: Vec<ChunkIndex> = file.chunks.range(wanted).map(|(index, _)| *index).collect();
        let places = indices.into_iter().map(|index| self.place(session, map.ino, index)).collect();
        Ok(ReadMap { size, size_epoch, places })
    }

    /// What they hold is not known here: the test's client has to name none that it may not.
    fn drop_holes(&mut self, request: &DropHoles) -> Result<Attr, Status> {
        let file = self.files.get_mut(&request.ino).ok_or(Status::Stale)?;
        for hole in &request.chunks {
            if file.chunks.get(&hole.index) == Some(&hole.chunk) {
                file.chunks.remove(&hole.index);
                self.dropped.push(hole.chunk);
            }
        }
        file.attr.blocks = file.chunks.len() as u64 * u64::from(CHUNK) / 512;
        Ok(file.attr)
    }

    fn touch(&mut self, ino: Ino) -> Timespec {
        self.index += 1;
        let now = Timespec { sec: 1000, nsec: u32::try_from(self.index).unwrap() };
        self.files.get_mut(&ino).unwrap().attr.mtime = now;
        now
    }

    fn commit(&mut self, commit: Commit) -> Result<Attr, Status> {
        self.commits.push(commit.clone());
        let file = self.files.get_mut(&commit.ino).ok_or(Status::Stale)?;
        let of_bytes = commit.size_at_least.is_some() || commit.mtime.is_some();
        if of_bytes && commit.size_epoch < file.attr.size_epoch {
            return Err(Status::OldEpoch);
        }
        file.attr.size = file.attr.size.max(commit.size_at_least.unwrap_or(0));
        match commit.mtime {
            Some(SetTime::Now) => drop(self.touch(commit.ino)),
            Some(SetTime::At(time)) => self.files.get_mut(&commit.ino).unwrap().attr.mtime = time,
            None => {}
        }
        let attr = &mut self.files.get_mut(&commit.ino).unwrap().attr;
        if let Some(set) = commit.set {
            set_attrs(attr, set.mode, set.mtime);
        }
        Ok(*attr)
    }

    /// Truncates, or grows.
    pub(crate) fn cut(&mut self, ino: Ino, size: u64) {
        let file = self.files.get_mut(&ino).unwrap();
        if size < file.attr.size {
            file.attr.size_epoch.0 += 1;
            let last = size.div_ceil(CHUNK.into());
            file.chunks.retain(|index, _| index.0 < last);
            let index = ChunkIndex(size / u64::from(CHUNK));
            if let Some(chunk) = file.chunks.get(&index) {
                let offset = u32::try_from(size % u64::from(CHUNK)).unwrap();
                self.zeros.push((*chunk, offset, file.attr.size_epoch));
            }
        }
        file.attr.size = size;
    }

    fn setattr(&mut self, set: Setattr) -> Result<Attr, Status> {
        if let Some(size) = set.size {
            self.cut(set.ino, size);
            self.touch(set.ino);
        }
        let attr = &mut self.files.get_mut(&set.ino).ok_or(Status::Stale)?.attr;
        set_attrs(attr, set.mode, set.mtime);
        self.setattrs += 1;
        Ok(self.files[&set.ino].attr)
    }

    fn readdir(&self, readdir: Readdir) -> Listing {
        let all = self.names.iter().enumerate();
        let cookie = usize::try_from(readdir.cookie).unwrap();
        let entries: Vec<DirEntry> = all
            .skip(cookie)
            .take(usize::try_from(readdir.max).unwrap())
            .map(|(at, (name, ino))| DirEntry {
                name: Name::from(name.clone()),
                ino: *ino,
                kind: FileKind::File,
                cookie: u64::try_from(at + 1).unwrap(),
                attr: readdir.plus.then(|| self.files[ino].attr),
            })
            .collect();
        let end = cookie + entries.len() == self.names.len();
        Listing { parent: Ino::ROOT, entries, end }
    }
}

fn set_attrs(attr: &mut Attr, mode: Option<u16>, mtime: Option<SetTime>) {
    attr.mode = mode.unwrap_or(attr.mode);
    if let Some(SetTime::At(time)) = mtime {
        attr.mtime = time;
    }
}
