//! Connections as TCP has them: dialled, in order in each direction, broken at both ends at different
//! times. A cut holds what is on its way until it heals or the connection is given up.

use std::collections::{BTreeMap, VecDeque};

use dfs_proto::conn::Role;
use dfs_proto::frame::{Frame, Outgoing};
use dfs_proto::header::{CallId, Flags, Header};
use dfs_proto::ids::{BootId, ServerNum};

use super::{Event, Fabric, Happening, Life, Node};

/// A connection; never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ConnRef(pub u64);
/// A call; its number on the wire as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct CallRef(pub u64);
/// An attempt to connect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct DialRef(pub u64);

/// What the dialling end says about itself.
#[derive(Clone, Debug)]
pub struct Who {
    pub node: Node,
    pub role: Role,
    pub name: String,
    pub server: Option<ServerNum>,
    pub boot: Option<BootId>,
}

/// How a call ended.
#[derive(Debug)]
pub enum CallEnd {
    Reply(Frame),
    Deadline,
    Closed,
    /// No connection; `dead` when that proves that the process is gone.
    Unreachable {
        dead: bool,
    },
}

/// How long a dial waits for an answer.
const DIAL_LIMIT_US: u64 = 2_000_000;
/// A peer whose kernel is gone is noticed after this long at most, by keepalives or retransmission.
const LOST_PEER_MAX_US: u64 = 10_000_000;
/// On the way within a host, and between hosts at best.
const LOCAL_US: u64 = 30;
const NEAR_US: u64 = 100;
/// The ends of a connection.
const DIALLER: usize = 0;
const LISTENER: usize = 1;

#[derive(Debug)]
struct Conn {
    nodes: [Node; 2],
    lives: [Life; 2],
    open: [bool; 2],
    /// When what was sent last towards this end arrives: nothing overtakes it.
    last_us: [u64; 2],
    /// What a cut holds back.
    held: [VecDeque<Item>; 2],
    dial: Option<DialRef>,
}

/// What travels.
#[derive(Debug)]
enum Item {
    Frame(Frame),
    Welcome,
    End,
}

/// Something on its way.
#[derive(Debug)]
pub struct Transit(Step);

#[derive(Debug)]
enum Step {
    /// The first packet of a connection is at its listener.
    Knock {
        conn: ConnRef,
        who: Who,
    },
    Arrive {
        conn: ConnRef,
        to: usize,
        item: Item,
    },
    /// A dial that nobody answered, or that was refused.
    DialOver {
        conn: ConnRef,
        dial: DialRef,
        refused: bool,
    },
    Deadline {
        call: CallRef,
    },
    /// One end gives the connection up by itself.
    Break {
        conn: ConnRef,
        side: usize,
    },
}

#[derive(Debug)]
struct Call {
    node: Node,
    life: Life,
    conn: Option<(ConnRef, usize)>,
}

#[derive(Debug, Default)]
pub(super) struct Conns {
    next: u64,
    conns: BTreeMap<ConnRef, Conn>,
    calls: BTreeMap<CallRef, Call>,
}

impl Conns {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

fn frame_of(out: Outgoing, call: CallId, flags: Flags, deadline_ms: u32) -> Frame {
    let payload = match out.payload.parts() {
        [] => bytes::Bytes::new(),
        [one] => one.clone(),
        many => many.concat().into(),
    };
    let header = Header {
        op: out.op,
        flags: out.flags.with(flags),
        status: out.status,
        call,
        words: out.words,
        deadline_ms,
        load: out.load,
        meta_len: u32::try_from(out.meta.len()).unwrap_or(u32::MAX),
        payload_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
    };
    Frame { header, meta: out.meta, payload }
}

impl Fabric {
    /// Dials; [`Happening::Dialled`] follows.
    pub fn dial(&mut self, who: Who, to: Node) -> DialRef {
        let dial = DialRef(self.conns.number());
        let conn = ConnRef(self.conns.number());
        let from = who.node;
        let entry = Conn {
            nodes: [from, to],
            lives: [self.life(from), Life::default()],
            open: [true, false],
            last_us: [0, 0],
            held: [VecDeque::new(), VecDeque::new()],
            dial: Some(dial),
        };
        self.conns.conns.insert(conn, entry);
        let over = Step::DialOver { conn, dial, refused: false };
        self.at(DIAL_LIMIT_US, Event::Net(Transit(over)));
        let way = self.way_us(from, to);
        self.at(way, Event::Net(Transit(Step::Knock { conn, who })));
        dial
    }

    /// Sends a request; [`Happening::Answered`] follows, within the deadline.
    pub fn call(&mut self, node: Node, conn: ConnRef, out: Outgoing, deadline_us: u64) -> CallRef {
        let call = self.new_call(node, deadline_us);
        self.start_call(call, conn, out, deadline_us);
        call
    }

    /// A call that has no connection yet; its time runs.
    pub(super) fn new_call(&mut self, node: Node, deadline_us: u64) -> CallRef {
        let call = CallRef(self.conns.number());
        let life = self.life(node);
        self.conns.calls.insert(call, Call { node, life, conn: None });
        self.at(deadline_us, Event::Net(Transit(Step::Deadline { call })));
        call
    }

    pub(super) fn start_call(&mut self, call: CallRef, conn: ConnRef, out: Outgoing, deadline_us: u64) {
        let Some(pending) = self.conns.calls.get_mut(&call) else { return };
        let Some(side) = self.conns.conns.get(&conn).and_then(|conn| conn.side_of(pending.node)) else {
            self.end_call(call, CallEnd::Closed);
            return;
        };
        pending.conn = Some((conn, side));
        let deadline_ms = u32::try_from(deadline_us / 1000).unwrap_or(u32::MAX);
        let frame = frame_of(out, CallId(call.0), Flags::NONE, deadline_ms);
        self.send(conn, side, Item::Frame(frame));
    }

    /// Ends a call; a late reply is dropped.
    pub(super) fn end_call(&mut self, call: CallRef, end: CallEnd) {
        if let Some(Call { node, life, .. }) = self.conns.calls.remove(&call) {
            self.at(0, Event::To { node, life, what: Happening::Answered { call, end } });
        }
    }

    /// Sends a message that wants no reply.
    pub fn notify(&mut self, node: Node, conn: ConnRef, out: Outgoing) {
        if let Some(side) = self.conns.conns.get(&conn).and_then(|conn| conn.side_of(node)) {
            let frame = frame_of(out, CallId(0), Flags::ONE_WAY, 0);
            self.send(conn, side, Item::Frame(frame));
        }
    }

    /// Answers a request.
    pub fn reply(&mut self, node: Node, conn: ConnRef, call: CallId, out: Outgoing) {
        if let Some(side) = self.conns.conns.get(&conn).and_then(|conn| conn.side_of(node)) {
            self.send(conn, side, Item::Frame(frame_of(out, call, Flags::REPLY, 0)));
        }
    }

    /// Whether the node's end of the connection stands, as far as it knows.
    #[must_use]
    pub fn is_open(&self, node: Node, conn: ConnRef) -> bool {
        self.conns.conns.get(&conn).and_then(|conn| conn.side_of(node)).is_some()
    }

    /// The node closes its end; it is not told of it, but its calls end.
    pub fn close(&mut self, node: Node, conn: ConnRef) {
        let Some(side) = self.conns.conns.get(&conn).and_then(|conn| conn.side_of(node)) else { return };
        self.send(conn, side, Item::End);
        self.shut(conn, side, false);
    }

    /// Breaks connections between two nodes, each end by itself within `within_us`.
    pub fn break_between(&mut self, a: Node, b: Node, within_us: u64) {
        let between = |nodes: [Node; 2]| nodes == [a, b] || nodes == [b, a];
        let conns: Vec<ConnRef> =
            self.conns.conns.iter().filter(|(_, conn)| between(conn.nodes)).map(|(conn, _)| *conn).collect();
        for conn in conns {
            for side in [DIALLER, LISTENER] {
                let delay = self.between(0, within_us.max(1));
                self.at(delay, Event::Net(Transit(Step::Break { conn, side })));
            }
        }
    }

    /// A way is whole again: what was held goes on.
    pub(super) fn release(&mut self, from: Node, to: Node) {
        let mut released = Vec::new();
        for (conn, entry) in &mut self.conns.conns {
            for side in [DIALLER, LISTENER] {
                if entry.nodes[side] == to && entry.nodes[1 - side] == from {
                    released.extend(entry.held[side].drain(..).map(|item| (*conn, side, item)));
                }
            }
        }
        for (conn, side, item) in released {
            self.send(conn, 1 - side, item);
        }
    }

    /// Handles something on its way.
    pub fn transit(&mut self, Transit(step): Transit) {
        match step {
            Step::Knock { conn, who } => self.knock(conn, who),
            Step::Arrive { conn, to, item } => self.arrive(conn, to, item),
            Step::DialOver { conn, dial, refused } => self.dial_over(conn, dial, refused),
            Step::Deadline { call } => self.end_call(call, CallEnd::Deadline),
            Step::Break { conn, side } => self.shut(conn, side, true),
        }
    }

    fn knock(&mut self, conn: ConnRef, who: Who) {
        let Some([from, to]) = self.conns.conns.get(&conn).map(|conn| conn.nodes) else { return };
        if self.cuts.is_cut(from, to) || self.cuts.is_cut(to, from) {
            return;
        }
        if !self.is_up(to) {
            // Without a kernel nobody answers at all.
            if self.has_kernel(to)
                && let Some(dial) = self.conns.conns.get(&conn).and_then(|conn| conn.dial)
            {
                let way = self.way_us(to, from);
                self.at(way, Event::Net(Transit(Step::DialOver { conn, dial, refused: true })));
            }
            return;
        }
        let life = self.life(to);
        if let Some(entry) = self.conns.conns.get_mut(&conn) {
            entry.lives[LISTENER] = life;
            entry.open[LISTENER] = true;
        }
        self.at(0, Event::To { node: to, life, what: Happening::Opened { conn, who } });
    }

    /// The listener's process took the connection: only now does the dialler hear of it.
    pub fn welcome(&mut self, node: Node, conn: ConnRef) {
        if let Some(side) = self.conns.conns.get(&conn).and_then(|conn| conn.side_of(node)) {
            self.send(conn, side, Item::Welcome);
        }
    }

    fn dial_over(&mut self, conn: ConnRef, dial: DialRef, refused: bool) {
        let Some(entry) = self.conns.conns.get_mut(&conn).filter(|entry| entry.dial == Some(dial)) else {
            return;
        };
        entry.dial = None;
        let (node, life) = (entry.nodes[DIALLER], entry.lives[DIALLER]);
        self.send(conn, DIALLER, Item::End);
        self.shut(conn, DIALLER, false);
        let what = Happening::Dialled { dial, conn: None, refused };
        self.at(0, Event::To { node, life, what });
    }

    fn arrive(&mut self, conn: ConnRef, to: usize, item: Item) {
        let Some(entry) = self.conns.conns.get_mut(&conn) else { return };
        let (node, from) = (entry.nodes[to], entry.nodes[1 - to]);
        if self.cuts.is_cut(from, node) || !entry.held[to].is_empty() {
            entry.held[to].push_back(item);
            return;
        }
        if !entry.open[to] {
            return;
        }
        let life = entry.lives[to];
        match item {
            Item::Welcome => {
                let Some(dial) = entry.dial.take() else { return };
                let what = Happening::Dialled { dial, conn: Some(conn), refused: false };
                self.at(0, Event::To { node, life, what });
            }
            Item::End => self.shut(conn, to, true),
            Item::Frame(frame) if frame.header.is_reply() => {
                self.end_call(CallRef(frame.header.call.0), CallEnd::Reply(frame));
            }
            Item::Frame(frame) => {
                self.at(0, Event::To { node, life, what: Happening::Frame { conn, frame } })
            }
        }
    }

    /// An end is over: its calls end, and the node is told if it did not do it itself.
    fn shut(&mut self, conn: ConnRef, side: usize, tell: bool) {
        let Some(entry) = self.conns.conns.get_mut(&conn) else { return };
        if !entry.open[side] {
            return;
        }
        entry.open[side] = false;
        let (node, life) = (entry.nodes[side], entry.lives[side]);
        let dial = if side == DIALLER { entry.dial.take() } else { None };
        if entry.open == [false, false] && entry.dial.is_none() {
            self.conns.conns.remove(&conn);
        }
        let over = |call: &Call| call.conn == Some((conn, side));
        let calls: Vec<CallRef> =
            self.conns.calls.iter().filter(|(_, call)| over(call)).map(|(call, _)| *call).collect();
        for call in calls {
            self.end_call(call, CallEnd::Closed);
        }
        if let Some(dial) = dial {
            let what = Happening::Dialled { dial, conn: None, refused: false };
            self.at(0, Event::To { node, life, what });
        } else if tell {
            self.at(0, Event::To { node, life, what: Happening::Closed { conn } });
        }
    }

    /// A process is gone, and its ends with it.
    pub(super) fn close_all(&mut self, node: Node, kernel_alive: bool) {
        let ends = |(conn, entry): (&ConnRef, &Conn)| entry.side_of(node).map(|side| (*conn, side));
        let mine: Vec<(ConnRef, usize)> = self.conns.conns.iter().filter_map(ends).collect();
        for (conn, side) in mine {
            if kernel_alive {
                self.send(conn, side, Item::End);
            } else {
                let delay = self.between(0, LOST_PEER_MAX_US);
                self.at(delay, Event::Net(Transit(Step::Break { conn, side: 1 - side })));
            }
            self.shut(conn, side, false);
        }
        self.conns.calls.retain(|_, call| call.node != node);
    }

    /// Sends from one end to the other.
    fn send(&mut self, conn: ConnRef, from: usize, item: Item) {
        let to = 1 - from;
        let Some(nodes) = self.conns.conns.get(&conn).map(|entry| entry.nodes) else { return };
        let arrives = self.now_us + self.way_us(nodes[from], nodes[to]);
        let Some(entry) = self.conns.conns.get_mut(&conn) else { return };
        let arrives = arrives.max(entry.last_us[to]);
        entry.last_us[to] = arrives;
        let delay = arrives - self.now_us;
        self.at(delay, Event::Net(Transit(Step::Arrive { conn, to, item })));
    }

    /// How long a packet is on its way.
    fn way_us(&mut self, from: Node, to: Node) -> u64 {
        if self.same_host(from, to) {
            return LOCAL_US + self.rng.below(LOCAL_US);
        }
        let slow = [from, to].map(|node| self.processes.get(&node).map_or(0, |process| process.slow_us));
        let spread = match self.rng.below(64) {
            // Now and then a retransmission.
            0 => 200_000,
            1..8 => 5_000,
            _ => 400,
        };
        NEAR_US + slow[0] + slow[1] + self.rng.below(spread)
    }
}

impl Conn {
    /// The node's end, if it stands.
    fn side_of(&self, node: Node) -> Option<usize> {
        [DIALLER, LISTENER].into_iter().find(|side| self.nodes[*side] == node && self.open[*side])
    }
}
