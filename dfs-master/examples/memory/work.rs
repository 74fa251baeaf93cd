//! The requests of the measured client: which file each is about, and that it went well.

use dfs_proto::ids::{GrantId, Handle, Ino, SizeEpoch};
use dfs_proto::meta::{
    Access, Commit, Create, Created, Creds, GrantBack, Lookup, Mkdir, Name, Open, Release, SetTime, Unlink,
};

use crate::live::Live;
use crate::meter::Cost;

/// Beyond the files that are made first: those of the measurements that follow.
const SPARE: u64 = 1_000_000;

#[derive(Debug)]
pub(crate) struct Work {
    files: u64,
    per_dir: u64,
    dirs: Vec<Ino>,
    inos: Vec<Ino>,
    random: u64,
}

fn creds() -> Creds {
    Creds { uid: 0, gid: 1000, groups: None }
}

fn at(n: u64) -> usize {
    usize::try_from(n).expect("so many files fit no memory")
}

impl Work {
    /// Takes its memory now, so that it falls into no measurement.
    pub(crate) fn new(files: u64, per_dir: u64) -> Work {
        let all = files + SPARE;
        let (dirs, inos) = (at(all / per_dir) + 1, at(all));
        let random = 0x9E37_79B9_7F4A_7C15;
        Work { files, per_dir, dirs: Vec::with_capacity(dirs), inos: vec![Ino(0); inos], random }
    }

    fn name(n: u64) -> Name {
        format!("file{n:08}").into_bytes().into()
    }

    fn dir(&self, n: u64) -> Ino {
        self.dirs[at(n / self.per_dir)]
    }

    fn any(&mut self) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 20) % self.files
    }

    /// Makes file `n`, which comes with its first chunk and a grant.
    pub(crate) fn create(&mut self, live: &mut Live, cost: &mut Cost, n: u64) -> GrantId {
        if at(n / self.per_dir) == self.dirs.len() {
            let name = format!("dir{:09}", n / self.per_dir).into_bytes().into();
            let mkdir = Mkdir { parent: Ino::ROOT, name, mode: 0o755, creds: creds() };
            self.dirs.push(live.client(&mut Cost::default(), &mkdir).attr.ino);
        }
        let request = Create {
            parent: self.dir(n),
            name: Work::name(n),
            mode: 0o644,
            handle: Handle(n),
            access: Access { read: true, write: true },
            exclusive: true,
            truncate: false,
            creds: creds(),
        };
        let Created { opened, new } = live.client(cost, &request);
        assert!(new && opened.first.is_some(), "a new file comes with its chunk's place");
        self.inos[at(n)] = opened.attr.ino;
        opened.grant.id
    }

    pub(crate) fn open(&self, live: &mut Live, cost: &mut Cost, n: u64) -> GrantId {
        let access = Access { read: true, write: false };
        let request =
            Open { ino: self.inos[at(n)], handle: Handle(n), access, truncate: false, creds: creds() };
        live.client(cost, &request).grant.id
    }

    pub(crate) fn release(&self, live: &mut Live, cost: &mut Cost, n: u64) {
        live.client(cost, &Release { handles: vec![(self.inos[at(n)], Handle(n))], unsettled: Vec::new() });
    }

    pub(crate) fn give_back(&self, live: &mut Live, cost: &mut Cost, n: u64, grant: GrantId) {
        live.client(cost, &GrantBack { grants: vec![(self.inos[at(n)], grant)], unsettled: Vec::new() });
    }

    /// File `n` was written.
    pub(crate) fn commit(&self, live: &mut Live, cost: &mut Cost, n: u64) {
        let request = Commit {
            ino: self.inos[at(n)],
            size_epoch: SizeEpoch(0),
            size_at_least: Some(n % 1_000_000 + 1),
            mtime: Some(SetTime::Now),
            atime: None,
            synced: Vec::new(),
            durable: false,
            unused: Vec::new(),
            set: None,
            hole: false,
        };
        live.client(cost, &request);
    }

    /// Some file was written again.
    pub(crate) fn commit_any(&mut self, live: &mut Live, cost: &mut Cost) {
        let n = self.any();
        self.commit(live, cost, n);
    }

    pub(crate) fn lookup(&mut self, live: &mut Live, cost: &mut Cost) {
        let n = self.any();
        let attr = live.client(cost, &Lookup { parent: self.dir(n), name: Work::name(n), creds: creds() });
        assert_eq!(attr.ino, self.inos[at(n)], "file {n} is found");
    }

    pub(crate) fn unlink(&self, live: &mut Live, cost: &mut Cost, n: u64) {
        live.client(cost, &Unlink { parent: self.dir(n), name: Work::name(n), creds: creds() });
    }
}
