//! A small cluster in seconds: clients ask for chunks, servers serve what they can, copies take their time, and the policy
//! is asked once a second. No chance but a seed.
//!
//! Measured as chunk servers measure: a rate with a half-life of 10 s, and utilisation as asked for over capacity.

use std::collections::BTreeMap;

use super::*;
use crate::core::placement::Rng;

/// What is left of a rate after a second.
const LEFT: f64 = 0.933_032_991_536_807_4;
pub(super) const UNIT: f64 = 65_536.0;

/// How clients share a chunk's load among its replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sharing {
    Equal,
    /// As many requests go to a server as it answers.
    BySpeed,
    /// More go to who was less busy than the chunk's other servers, and fewer to who was busier, until they are equally busy or
    /// one has all: what clients come to that compare two replicas by expected time and by how busy they are.
    ByCost,
}

/// How much of its share a server loses in a second, for being all busy beside one that is idle: e^-1. Clients compare with
/// every request; they are there sooner.
const SHIFT: f64 = 1.0;

#[derive(Debug)]
pub(super) struct Item {
    pub(super) view: ChunkView,
    /// Units a second that clients ask for.
    pub(super) asked: f64,
    /// As measured.
    rate: f64,
    copies: Vec<(CopyStep, Option<f64>)>,
    /// Each replica's part of the requests, by [`Sharing::ByCost`].
    parts: Vec<(ServerNum, f64)>,
    /// When it was changed, and how.
    pub(super) changes: Vec<(u64, Direction)>,
}

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) servers: Vec<ServerView>,
    pub(super) items: Vec<Item>,
    pub(super) thresholds: Thresholds,
    pub(super) sharing: Sharing,
    /// Without, replicas stay as they are.
    pub(super) follows: bool,
    /// Bytes a second of one copy.
    pub(super) copy_rate: f64,
    pub(super) now: u64,
    pub(super) copied: u64,
    /// Bytes of copies that were decided on, and what the budget had for them.
    pub(super) decided: u64,
    pub(super) allowed: f64,
    /// Served of what was asked for, in the last second.
    pub(super) served: f64,
    /// Asked of a server over what it can, unclamped.
    pub(super) demand: BTreeMap<ServerNum, f64>,
    pub(super) purse: Option<Purse>,
}

impl Cluster {
    pub(super) fn new(servers: Vec<ServerView>, thresholds: Thresholds) -> Cluster {
        thresholds.check().unwrap();
        Cluster {
            servers,
            items: Vec::new(),
            thresholds,
            sharing: Sharing::Equal,
            follows: true,
            copy_rate: 50e6,
            now: 0,
            copied: 0,
            decided: 0,
            allowed: 0.0,
            served: 0.0,
            demand: BTreeMap::new(),
            purse: None,
        }
    }

    /// Chunks of 64 MiB on `goal` servers each, drawn.
    pub(super) fn fill(&mut self, count: u64, goal: usize, seed: u64) {
        let mut rng = Rng(seed);
        for id in 1..=count {
            let mut on = Vec::new();
            while on.len() < goal {
                let server = self.servers[rng.below(self.servers.len())].server.0;
                if !on.contains(&server) {
                    on.push(server);
                }
            }
            let view = ChunkView { goal, ..chunk(id, 0, &on) };
            let (copies, parts, changes) = (Vec::new(), Vec::new(), Vec::new());
            self.items.push(Item { view, asked: 0.0, rate: 0.0, copies, parts, changes });
        }
    }

    pub(super) fn run(&mut self, seconds: u64) {
        (0..seconds).for_each(|_| self.second());
    }

    pub(super) fn second(&mut self) {
        self.now += 1;
        self.serve();
        self.copy();
        if self.follows {
            self.follow();
        }
    }

    fn speed(&self, server: ServerNum) -> f64 {
        self.servers[usize::from(server.0) - 1].capacity_bytes_per_s as f64 / UNIT
    }

    fn route(&mut self) {
        if self.sharing != Sharing::ByCost {
            return;
        }
        for item in self.items.iter_mut().filter(|item| item.asked > 0.0) {
            let parts = std::mem::take(&mut item.parts);
            let new = 1.0 / item.view.replicas.len() as f64;
            let part = |server: &ServerNum| {
                let old = parts.iter().find(|(other, _)| other == server).map_or(new, |(_, part)| *part);
                let busy = self.demand.get(server).copied().unwrap_or(0.0);
                // None is left without requests: a client asks a quiet server again, to see how it does.
                (*server, (old * (-SHIFT * busy.min(4.0)).exp()).max(1e-4))
            };
            item.parts = item.view.replicas.iter().map(part).collect();
            let all: f64 = item.parts.iter().map(|(_, part)| part).sum();
            item.parts.iter_mut().for_each(|(_, part)| *part /= all);
        }
    }

    fn serve(&mut self) {
        self.route();
        let mut asked: BTreeMap<ServerNum, f64> = BTreeMap::new();
        let share = |cluster: &Cluster, item: &Item, server: ServerNum| match cluster.sharing {
            Sharing::Equal => item.asked / item.view.replicas.len() as f64,
            Sharing::BySpeed => {
                let all: f64 = item.view.replicas.iter().map(|other| cluster.speed(*other)).sum();
                item.asked * cluster.speed(server) / all
            }
            Sharing::ByCost => {
                let part = item.parts.iter().find(|(other, _)| *other == server);
                item.asked * part.map_or(0.0, |(_, part)| *part)
            }
        };
        for item in self.items.iter().filter(|item| item.asked > 0.0) {
            for server in &item.view.replicas {
                *asked.entry(*server).or_default() += share(self, item, *server);
            }
        }
        let servers = self.servers.iter().map(|view| view.server);
        self.demand = servers.map(|num| (num, asked.get(&num).unwrap_or(&0.0) / self.speed(num))).collect();
        let (mut all, mut done) = (0.0, 0.0);
        let mut rates = Vec::with_capacity(self.items.len());
        for item in &self.items {
            let mut served = 0.0;
            if item.asked > 0.0 {
                for server in &item.view.replicas {
                    served += share(self, item, *server) / self.demand[server].max(1.0);
                }
            }
            all += item.asked;
            done += served;
            rates.push(item.rate * LEFT + served * (1.0 - LEFT));
        }
        self.served = if all > 0.0 { done / all } else { 1.0 };
        for (item, rate) in self.items.iter_mut().zip(rates) {
            item.rate = rate;
            item.view.read = CostRate(whole(rate * 1000.0));
        }
        for view in &mut self.servers {
            view.utilisation_permille =
                u16::try_from(whole(self.demand[&view.server].min(1.0) * 1000.0)).unwrap();
        }
    }

    /// Copies go on, and those begin whose source has the chunk and a copy to spare.
    fn copy(&mut self) {
        for at in 0..self.items.len() {
            let mut copies = std::mem::take(&mut self.items[at].copies);
            for (step, left) in &mut copies {
                let has = self.items[at].view.replicas.contains(&step.source);
                if left.is_none() && has && self.server(step.source).copies_out < COPIES_OUT {
                    *left = Some(self.items[at].view.bytes as f64);
                    self.server(step.source).copies_out += 1;
                }
            }
            for (step, left) in &mut copies {
                let Some(bytes) = left else { continue };
                *bytes -= self.copy_rate;
                if *bytes <= 0.0 {
                    self.server(step.source).copies_out -= 1;
                    self.server(step.target).copies_in -= 1;
                    let size = self.items[at].view.bytes;
                    self.server(step.target).free_bytes -= size;
                    self.copied += size;
                    self.items[at].view.replicas.push(step.target);
                }
            }
            copies.retain(|(_, left)| left.is_none_or(|bytes| bytes > 0.0));
            let to_come = copies.len();
            self.items[at].view.under_way = (to_come > 0).then_some(UnderWay::Raise { to_come });
            self.items[at].copies = copies;
        }
        assert!(self.servers.iter().all(|view| view.copies_in <= COPIES_IN && view.copies_out <= COPIES_OUT));
    }

    fn server(&mut self, server: ServerNum) -> &mut ServerView {
        &mut self.servers[usize::from(server.0) - 1]
    }

    fn follow(&mut self) {
        let now = secs(self.now);
        let limits = self.thresholds.limits(&self.servers);
        let purse = self.purse.unwrap_or_else(|| {
            let full = Purse::new(&limits, Pace::default(), now);
            self.allowed = full.bytes() as f64;
            full
        });
        self.allowed += limits.budget_bytes_per_s as f64;
        let purse = purse.fill(&limits, Pace::default(), now);
        let mut view =
            View { chunks: Vec::new(), servers: self.servers.clone(), budget_bytes: purse.bytes() };
        for item in &mut self.items {
            let surplus = item.view.replicas.len() > item.view.goal;
            if item.view.read.0 >= 1000 || surplus {
                item.view.memory = observe(item.view.memory, &item.view, &limits, now);
                view.chunks.push(item.view.clone());
            }
        }
        let outcome = decide(&view, &self.thresholds, now);
        self.purse = Some(purse.spend(outcome.copied_bytes));
        self.decided += outcome.copied_bytes;
        for decision in outcome.decisions {
            self.carry_out(decision);
        }
    }

    fn carry_out(&mut self, decision: Decision) {
        let direction = decision.direction();
        let at = self.items.iter().position(|item| item.view.chunk == decision.chunk).expect("known");
        match decision.kind {
            Kind::Raise { copies } => {
                for step in &copies {
                    self.server(step.target).copies_in += 1;
                }
                let item = &mut self.items[at];
                item.view.under_way = Some(UnderWay::Raise { to_come: copies.len() });
                item.copies = copies.into_iter().map(|step| (step, None)).collect();
            }
            Kind::Lower { server } => {
                let size = self.items[at].view.bytes;
                self.server(server).free_bytes += size;
                self.items[at].view.replicas.retain(|other| *other != server);
            }
        }
        let (now, item) = (self.now, &mut self.items[at]);
        item.view.memory = item.view.memory.changed(direction, secs(now));
        item.changes.push((now, direction));
        assert!(item.view.replicas.len() >= item.view.goal, "below the goal");
        assert!(item.view.replicas.len() + item.copies.len() <= 16, "above the bound");
    }

    /// Between the busiest server and the median one, of what they can.
    pub(super) fn spread(&self) -> f64 {
        let mut all: Vec<f64> = self.demand.values().copied().collect();
        all.sort_by(f64::total_cmp);
        all[all.len() - 1] - all[all.len() / 2]
    }

    pub(super) fn replicas(&self) -> usize {
        self.items.iter().map(|item| item.view.replicas.len()).sum()
    }

    pub(super) fn surplus(&self) -> usize {
        self.replicas() - self.items.iter().map(|item| item.view.goal).sum::<usize>()
    }

    pub(super) fn changes(&self) -> usize {
        self.items.iter().map(|item| item.changes.len()).sum()
    }

    /// Seconds between two turns of one chunk, of all turns and chunks.
    fn between_turns(&self) -> Vec<u64> {
        let turns = |item: &Item| -> Vec<u64> {
            let pairs = item.changes.windows(2).filter(|pair| pair[0].1 != pair[1].1);
            pairs.map(|pair| pair[1].0).collect()
        };
        let between = |item: &Item| turns(item).windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>();
        self.items.iter().flat_map(between).collect()
    }

    pub(super) fn least_between_turns(&self) -> Option<u64> {
        self.between_turns().into_iter().min()
    }

    pub(super) fn turns_within(&self, seconds: u64) -> usize {
        self.between_turns().into_iter().filter(|between| *between < seconds).count()
    }
}

/// The share of each of `count`, most first, of a Zipf distribution.
pub(super) fn zipf(count: u64, exponent: f64) -> Vec<f64> {
    let weights: Vec<f64> = (1..=count).map(|rank| (rank as f64).powf(-exponent)).collect();
    let all: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / all).collect()
}
