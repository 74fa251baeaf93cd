//! Whatever the view, decisions keep the limits.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn any_server() -> impl Strategy<Value = ServerView> {
    let condition = prop_oneof![
        60 => Just(Condition::Serving),
        1 => Just(Condition::Draining),
        1 => Just(Condition::ReadOnly),
        1 => Just(Condition::Down),
    ];
    let space = (prop_oneof![1 => 0..12_u64, 3 => 12..=100_u64], 0..3_u64);
    let copies = prop_oneof![3 => Just(0_usize), 2 => 1..=3_usize];
    (condition, 0..=3_u8, 0..6_u8, 0..=1000_u16, space, (copies.clone(), copies), 1..200_u64).prop_map(
        |(condition, rack, host, busy, (free, freeing), (copies_in, copies_out), speed)| ServerView {
            rack: (rack > 0).then(|| format!("r{rack}")),
            host: format!("h{host}"),
            condition,
            utilisation_permille: busy,
            capacity_bytes_per_s: speed * 1_000_000,
            capacity_assumed: false,
            total_bytes: 10 << 30,
            free_bytes: (10 << 30) / 100 * free,
            freeing_bytes: freeing << 26,
            copies_in,
            copies_out,
            ..servers(1).remove(0)
        },
    )
}

type Drawn = (ChunkView, Option<(Direction, u64)>, u64);

/// A chunk on some of so many servers, what it was changed last, and how long it is watched.
fn any_chunk(servers: u16) -> impl Strategy<Value = Drawn> {
    let under_way = prop_oneof![
        60 => Just(None),
        1 => Just(Some(UnderWay::Raise { to_come: 2 })),
        1 => Just(Some(UnderWay::Lower)),
        1 => Just(Some(UnderWay::Other)),
    ];
    let all: Vec<u16> = (1..=servers).collect();
    let replicas = proptest::sample::subsequence(all, 1..=usize::from(servers).min(7)).prop_shuffle();
    let goal = prop_oneof![2 => Just(1_usize), 2 => Just(2), 1 => Just(3)];
    let change = proptest::option::weighted(
        0.3,
        (prop_oneof![Just(Direction::Up), Just(Direction::Down)], 0..120_u64),
    );
    let flags = (any::<bool>(), prop::bool::weighted(0.2), proptest::option::weighted(0.2, 1..8_usize));
    let watched = prop_oneof![1 => Just(0), 4 => Just(3), 3 => Just(700_u64)];
    (replicas, 0..6000_u64, goal, flags, under_way, 1..=(64_u64 << 20), change, watched).prop_map(
        |(replicas, read, goal, (closed, written, max_replicas), under_way, bytes, change, watched)| {
            let read = if watched == 700 { read / 30 } else { read };
            let view = ChunkView {
                bytes,
                goal,
                closed,
                written,
                max_replicas,
                under_way,
                ..chunk(0, read, &replicas)
            };
            (view, change, watched)
        },
    )
}

fn any_cluster() -> impl Strategy<Value = (Vec<ServerView>, Vec<Drawn>)> {
    (2..=10_u16).prop_flat_map(|count| {
        let servers = proptest::collection::vec(any_server(), usize::from(count));
        (servers, proptest::collection::vec(any_chunk(count), 1..12))
    })
}

const NOW: u64 = 1_000;

prop_compose! {
    fn any_view()(
        (servers, chunks) in any_cluster(),
        budget_bytes in 0..(1_u64 << 29),
        surplus_permille in 0..=1000_u64,
        max_replicas in 1..=16_usize,
    ) -> (View, Thresholds) {
        let thresholds = Thresholds { surplus_permille, max_replicas, ..thresholds(300, 100) };
        let mut view = View { servers, chunks: Vec::new(), budget_bytes };
        for (at, server) in (1..).zip(&mut view.servers) {
            server.server = num(at);
        }
        let limits = thresholds.limits(&view.servers);
        for (id, (mut chunk, change, watched)) in (1..).zip(chunks) {
            chunk.chunk = ChunkId(id);
            if let Some((direction, ago)) = change {
                let other = if direction == Direction::Up { Direction::Down } else { Direction::Up };
                chunk.memory = chunk.memory.changed(other, secs(0)).changed(direction, secs(NOW - ago));
            }
            // Nobody needs a look every second of ten minutes here, but every five.
            let looks = if watched < 10 { 1 } else { 5 };
            for at in (NOW - watched..=NOW).rev().step_by(looks).collect::<Vec<_>>().into_iter().rev() {
                chunk.memory = observe(chunk.memory, &chunk, &limits, secs(at));
            }
            view.chunks.push(chunk);
        }
        (view, thresholds)
    }
}

struct Checked<'a> {
    view: &'a View,
    thresholds: &'a Thresholds,
    copies_in: BTreeMap<ServerNum, usize>,
    copies_out: BTreeMap<(ServerNum, usize), usize>,
    came: BTreeMap<ServerNum, u64>,
}

impl<'a> Checked<'a> {
    fn server(&self, server: ServerNum) -> &'a ServerView {
        self.view.servers.iter().find(|view| view.server == server).expect("a server of the cluster")
    }

    fn decision(&mut self, decision: &Decision) {
        let chunk = self.view.chunks.iter().find(|chunk| chunk.chunk == decision.chunk).unwrap();
        assert!(chunk.under_way.is_none());
        let cools = chunk.memory.cools_ms(decision.direction(), self.thresholds.cooldown_ms, secs(NOW));
        assert_eq!(cools, 0);
        assert!(chunk.replicas.iter().all(|server| self.server(*server).is_serving()), "{decision:?}");
        match &decision.kind {
            Kind::Raise { copies } => self.raise(chunk, copies),
            Kind::Lower { server } => self.lower(chunk, *server),
        }
        assert!(!decision.reason.to_string().is_empty());
    }

    fn raise(&mut self, chunk: &ChunkView, copies: &[CopyStep]) {
        assert!(!copies.is_empty() && !chunk.written && chunk.replicas.len() >= chunk.goal);
        let bound = chunk.max_replicas.unwrap_or(16).min(self.thresholds.max_replicas).max(chunk.goal);
        assert!(chunk.replicas.len() + copies.len() <= bound, "{copies:?} of {bound}");
        assert!(copies.iter().any(|step| step.wave == 0));
        assert!(chunk.replicas.iter().any(|server| self.server(*server).utilisation_permille > 600));
        let mut has: BTreeMap<ServerNum, usize> = chunk.replicas.iter().map(|server| (*server, 0)).collect();
        for step in copies {
            assert!(has.get(&step.source).is_some_and(|ready| *ready <= step.wave), "{copies:?}");
            assert!(chunk.closed || Some(&step.source) == chunk.replicas.first());
            assert_eq!(has.insert(step.target, step.wave + 1), None, "has a copy: {copies:?}");
            let target = self.server(step.target);
            assert!(target.is_serving());
            *self.came.entry(step.target).or_default() += chunk.bytes;
            let left = target.free_bytes.checked_sub(self.came[&step.target]);
            assert!(left.is_some_and(|left| left >= target.total_bytes / 10));
            let (mut coming, mut going) = (target.copies_in, 0);
            if step.wave == 0 {
                going = self.server(step.source).copies_out;
            }
            let copies_in = self.copies_in.entry(step.target).or_default();
            *copies_in += 1;
            coming += *copies_in;
            let copies_out = self.copies_out.entry((step.source, step.wave)).or_default();
            *copies_out += 1;
            going += *copies_out;
            assert!(coming <= COPIES_IN && going <= COPIES_OUT, "{copies:?}");
        }
    }

    fn lower(&self, chunk: &ChunkView, server: ServerNum) {
        assert!(chunk.replicas.len() > chunk.goal, "below the goal");
        assert!(chunk.replicas[1..].contains(&server), "the primary, or no member");
        let hosts = |without: Option<ServerNum>| {
            let others = chunk.replicas.iter().filter(|other| Some(**other) != without);
            others.map(|other| self.server(*other).host.as_str()).collect::<BTreeSet<_>>().len()
        };
        let racks = |without: Option<ServerNum>| {
            let others = chunk.replicas.iter().filter(|other| Some(**other) != without);
            others.filter_map(|other| self.server(*other).rack.as_deref()).collect::<BTreeSet<_>>().len()
        };
        assert!(hosts(Some(server)) >= hosts(None).min(chunk.goal));
        assert!(racks(Some(server)) >= racks(None).min(chunk.goal));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn decisions_keep_every_limit((view, thresholds) in any_view()) {
        let outcome = decide(&view, &thresholds, secs(NOW));
        let chunks: BTreeSet<ChunkId> = outcome.decisions.iter().map(|decision| decision.chunk)
            .chain(outcome.held.iter().map(|(chunk, _)| *chunk)).collect();
        prop_assert_eq!(chunks.len(), outcome.decisions.len() + outcome.held.len(), "one word a chunk");
        prop_assert!(outcome.copied_bytes <= view.budget_bytes);
        let (copies_in, copies_out, came) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut checked = Checked { view: &view, thresholds: &thresholds, copies_in, copies_out, came };
        outcome.decisions.iter().for_each(|decision| checked.decision(decision));
        let surplus = view.chunks.iter().map(|chunk| {
            let to_come = if let Some(UnderWay::Raise { to_come }) = chunk.under_way { to_come } else { 0 };
            chunk.bytes * (chunk.replicas.len() + to_come).saturating_sub(chunk.goal) as u64
        }).sum::<u64>();
        let free = view.servers.iter().filter(|server| server.is_serving()).map(|server| server.free_bytes);
        let allowed = (free.sum::<u64>() + surplus) * thresholds.surplus_permille / 1000;
        prop_assert!(outcome.copied_bytes == 0 || surplus + outcome.copied_bytes <= allowed);
        for (_, held) in &outcome.held {
            prop_assert!(!held.to_string().is_empty());
        }
    }

    #[test]
    fn the_order_of_the_view_is_of_no_consequence((view, thresholds) in any_view()) {
        let mut turned = view.clone();
        turned.chunks.reverse();
        turned.servers.reverse();
        prop_assert_eq!(decide(&view, &thresholds, secs(NOW)), decide(&turned, &thresholds, secs(NOW)));
    }
}
