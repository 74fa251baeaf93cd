//! A group whose network loses, repeats and reorders, and whose nodes crash and forget what they had not
//! persisted. What one node applied, every node applies: the same entry at the same index (I25).

use std::collections::BTreeMap;

use dfs_disk::sim::Rng;
use dfs_proto::ids::LogIndex;

use crate::core::raft::{MemberChange, RaftConfig, RaftMessage, RaftNode, RaftStart, ReadyOut, Refused};
use crate::log::entry::{ConfState, EntryId, EntryKind, HardState, LogEntry, NodeId};

/// What a node has on disk.
#[derive(Clone, Debug, Default)]
struct Disk {
    base: EntryId,
    conf: ConfState,
    entries: Vec<LogEntry>,
    hard_state: HardState,
}

impl Disk {
    fn persist(&mut self, out: ReadyOut) {
        self.hard_state = out.hard_state.unwrap_or(self.hard_state);
        if let Some(install) = out.install {
            (self.base, self.conf) = (install.id, install.conf);
            self.entries.clear();
        }
        for entry in out.entries {
            assert!(entry.index > self.base.index);
            let place = usize::try_from(entry.index.0 - self.base.index.0 - 1).unwrap();
            assert!(place <= self.entries.len());
            self.entries.truncate(place);
            self.entries.push(entry);
        }
    }

    fn start(&self) -> RaftStart {
        let Disk { base, conf, entries, hard_state } = self.clone();
        let last = entries.last().map_or(base.index, |entry| entry.index);
        let hard_state = HardState { commit: hard_state.commit.clamp(base.index, last), ..hard_state };
        RaftStart { base, conf, entries, hard_state }
    }
}

struct Member {
    id: NodeId,
    node: RaftNode,
    disk: Disk,
    /// Handed out and not yet persisted, in order.
    pending: Vec<ReadyOut>,
}

impl Member {
    fn new(id: NodeId, disk: Disk, seed: u64) -> Member {
        let mut node = RaftNode::new(&RaftConfig::new(id, seed), disk.start()).unwrap();
        if disk.base.index > LogIndex(0) {
            node.snapshot_done(disk.base, disk.conf.clone());
        }
        Member { id, node, disk, pending: Vec::new() }
    }
}

struct Group {
    seed: u64,
    rng: Rng,
    members: Vec<Member>,
    network: Vec<RaftMessage>,
    /// What was applied at each index, by whoever was first.
    applied: BTreeMap<u64, LogEntry>,
    proposed: u64,
    lossy: bool,
}

impl Group {
    fn new(seed: u64, ids: &[u64]) -> Group {
        let voters: Vec<NodeId> = ids.iter().map(|id| NodeId(*id)).collect();
        let disk = Disk { conf: ConfState::of(&voters), ..Disk::default() };
        let members = voters.iter().map(|id| Member::new(*id, disk.clone(), seed)).collect();
        let (rng, applied) = (Rng::new(seed), BTreeMap::new());
        Group { seed, rng, members, network: Vec::new(), applied, proposed: 0, lossy: true }
    }

    /// One thing happens somewhere.
    fn step(&mut self) {
        let at = usize::try_from(self.rng.below(self.members.len() as u64)).unwrap();
        match self.rng.below(40) {
            0..=7 => self.members[at].node.tick(),
            8..=19 => self.deliver(),
            20..=25 => self.propose(at),
            26..=33 => self.persist(at),
            34..=38 => self.apply(at),
            _ if self.lossy && self.rng.below(4) == 0 => self.crash(at),
            _ => self.snapshot(at),
        }
        self.collect(at);
    }

    /// Takes what the node has to say.
    fn collect(&mut self, at: usize) {
        let member = &mut self.members[at];
        while let Some(out) = member.node.ready() {
            member.pending.push(out);
        }
        self.network.extend(member.node.take_messages());
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let pick = usize::try_from(self.rng.below(self.network.len() as u64)).unwrap();
        let message = self.network[pick].clone();
        if !self.lossy || self.rng.below(8) > 0 {
            self.network.remove(pick);
        }
        if self.lossy && self.rng.below(10) == 0 {
            return;
        }
        let bytes = rmp_serde::to_vec_named(&message).unwrap();
        let copy: RaftMessage = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(copy, message);
        if let Some(at) = self.members.iter().position(|member| member.id == message.to) {
            self.members[at].node.step(copy).unwrap();
            self.collect(at);
        }
    }

    fn propose(&mut self, at: usize) {
        let node = &mut self.members[at].node;
        match node.propose(self.proposed.to_le_bytes().to_vec()) {
            Ok(_) => self.proposed += 1,
            Err(Refused::NotLeader(leader)) => assert_ne!(leader, Some(self.members[at].id)),
            Err(Refused::Busy) => {}
        }
    }

    fn persist(&mut self, at: usize) {
        let member = &mut self.members[at];
        if member.pending.is_empty() {
            return;
        }
        // One report may cover several.
        let upto = usize::try_from(self.rng.below(member.pending.len() as u64)).unwrap();
        let mut number = 0;
        for out in member.pending.drain(..=upto) {
            number = out.number;
            member.disk.persist(out);
        }
        member.node.on_persisted(number);
    }

    fn apply(&mut self, at: usize) {
        let before = self.members[at].node.applied();
        for entry in self.members[at].node.committed() {
            assert!(entry.index > before);
            let first = self.applied.entry(entry.index.0).or_insert_with(|| entry.clone());
            assert_eq!(*first, entry, "seed {}", self.seed);
        }
    }

    fn crash(&mut self, at: usize) {
        let Member { id, disk, .. } = &self.members[at];
        self.members[at] = Member::new(*id, disk.clone(), self.seed);
    }

    /// The node takes a snapshot of what it has applied, and forgets what came before.
    fn snapshot(&mut self, at: usize) {
        let member = &mut self.members[at];
        let index = member.node.applied();
        let Some(entry) = member.disk.entries.iter().find(|entry| entry.index == index).cloned() else {
            return;
        };
        member.node.snapshot_done(entry.id(), member.node.conf());
        member.node.compact(index);
        member.disk.entries.retain(|entry| entry.index > index);
        (member.disk.base, member.disk.conf) = (entry.id(), member.node.conf());
    }

    /// No more faults: everybody must come to the same end.
    fn heal(&mut self, expected: usize) {
        self.lossy = false;
        for _ in 0..400 {
            for at in 0..self.members.len() {
                self.members[at].node.tick();
                for peer in 0..self.members.len() {
                    let peer = self.members[peer].id;
                    self.members[at].node.snapshot_sent(peer, true);
                }
                self.collect(at);
            }
            while !self.network.is_empty() {
                self.deliver();
            }
            for at in 0..self.members.len() {
                while !self.members[at].pending.is_empty() {
                    self.persist(at);
                    self.collect(at);
                }
                self.apply(at);
            }
        }
        let leaders: Vec<NodeId> =
            self.members.iter().filter(|m| m.node.leads_safely()).map(|m| m.id).collect();
        assert_eq!(leaders.len(), 1, "seed {}: {leaders:?}", self.seed);
        let last = self.members[0].node.applied();
        for Member { node, .. } in &self.members {
            assert_eq!((node.applied(), node.commit()), (last, last), "seed {}: {node:?}", self.seed);
        }
        assert!(self.applied.len() >= expected, "{} applied", self.applied.len());
    }

    fn leader(&mut self) -> &mut Member {
        self.members.iter_mut().find(|member| member.node.leads()).unwrap()
    }
}

#[test]
fn everyone_applies_the_same() {
    for seed in 0..60 {
        let mut group = Group::new(seed, &[1, 2, 3]);
        for _ in 0..3000 {
            group.step();
        }
        group.heal(20);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut group = Group::new(5, &[1, 2, 3, 4, 5]);
        for _ in 0..3000 {
            group.step();
        }
        (group.applied, group.network, group.proposed)
    };
    assert_eq!(run(), run());
}

#[test]
fn one_grows_into_three() {
    let mut group = Group::new(1, &[1]);
    group.lossy = false;
    group.heal(1);
    for _ in 0..5 {
        group.propose(0);
    }
    group.heal(6);
    for id in [2, 3] {
        let node = NodeId(id);
        group.leader().node.propose_members(&[MemberChange::AddLearner(node)]).unwrap();
        group.heal(7);
        group.snapshot(0);
        // A new master starts from nothing and is sent the snapshot; until then it has no members.
        let conf = ConfState { learners: vec![node], ..ConfState::of(&[NodeId(1)]) };
        let disk = Disk { conf, ..Disk::default() };
        let seed = group.seed;
        group.members.push(Member::new(node, disk, seed));
        group.heal(7);
        group.leader().node.propose_members(&[MemberChange::AddVoter(node)]).unwrap();
        group.heal(8);
    }
    let conf = ConfState::of(&[NodeId(1), NodeId(2), NodeId(3)]);
    assert!(group.members.iter().all(|member| member.node.conf() == conf));
    assert!(group.members.iter().skip(1).all(|member| member.disk.base.index > LogIndex(0)));
    let changes = group.applied.values().filter(|entry| entry.kind == EntryKind::ConfChange).count();
    assert_eq!(changes, 4);

    // Two at once, through a joint state that ends by itself.
    let swap = [MemberChange::Remove(NodeId(3)), MemberChange::AddLearner(NodeId(4))];
    group.leader().node.propose_members(&swap).unwrap();
    assert_eq!(group.leader().node.propose_members(&swap), Err(Refused::Busy));
    group.members.retain(|member| member.id != NodeId(3));
    group.heal(10);
    let conf = ConfState { learners: vec![NodeId(4)], ..ConfState::of(&[NodeId(1), NodeId(2)]) };
    assert!(group.members.iter().all(|member| member.node.conf() == conf));
}

#[test]
fn leadership_is_handed_over() {
    let mut group = Group::new(1, &[1, 2, 3]);
    group.heal(1);
    let old = group.leader().id;
    let next = NodeId(old.0 % 3 + 1);
    group.leader().node.hand_over(next);
    group.heal(2);
    assert_eq!(group.leader().id, next);
    assert!(group.members.iter().all(|member| member.node.leader() == Some(next)));
}
