//! A node's connections to those that it calls: dialled when first needed, one to each.

use std::collections::BTreeMap;

use dfs_proto::frame::Outgoing;

use super::{CallEnd, CallRef, ConnRef, DialRef, Fabric, Node, Who};

#[derive(Debug)]
enum Link {
    Dialling { dial: DialRef, waiting: Vec<Waiting> },
    Open(ConnRef),
}

#[derive(Debug)]
enum Waiting {
    Call { call: CallRef, out: Outgoing, deadline_us: u64 },
    Notify(Outgoing),
}

/// Connections by peer.
#[derive(Debug, Default)]
pub struct Links {
    links: BTreeMap<Node, Link>,
}

impl Links {
    /// Calls a peer over the connection there is, or a new one.
    pub fn call(
        &mut self,
        fabric: &mut Fabric,
        who: &Who,
        to: Node,
        out: Outgoing,
        deadline_us: u64,
    ) -> CallRef {
        let call = fabric.new_call(who.node, deadline_us);
        self.send(fabric, who, to, Waiting::Call { call, out, deadline_us });
        call
    }

    /// Sends a one-way message.
    pub fn notify(&mut self, fabric: &mut Fabric, who: &Who, to: Node, out: Outgoing) {
        self.send(fabric, who, to, Waiting::Notify(out));
    }

    fn send(&mut self, fabric: &mut Fabric, who: &Who, to: Node, what: Waiting) {
        match self.links.get_mut(&to) {
            Some(Link::Open(conn)) if fabric.is_open(who.node, *conn) => start(fabric, who.node, *conn, what),
            Some(Link::Dialling { waiting, .. }) => waiting.push(what),
            Some(Link::Open(_)) | None => {
                let dial = fabric.dial(who.clone(), to);
                self.links.insert(to, Link::Dialling { dial, waiting: vec![what] });
            }
        }
    }

    /// Takes the end of a dial. False when it is none of these.
    pub fn dialled(
        &mut self,
        fabric: &mut Fabric,
        me: Node,
        dial: DialRef,
        conn: Option<ConnRef>,
        refused: bool,
    ) -> bool {
        let mine = |link: &Link| matches!(link, Link::Dialling { dial: own, .. } if *own == dial);
        let Some(to) = self.links.iter().find(|(_, link)| mine(link)).map(|(to, _)| *to) else {
            return false;
        };
        let Some(Link::Dialling { waiting, .. }) = self.links.remove(&to) else { return false };
        if let Some(conn) = conn {
            self.links.insert(to, Link::Open(conn));
        }
        for what in waiting {
            match (conn, what) {
                (Some(conn), what) => start(fabric, me, conn, what),
                (None, Waiting::Call { call, .. }) => {
                    // Only a Unix socket's refusal proves a death.
                    let dead = refused && fabric.same_host(me, to);
                    fabric.end_call(call, CallEnd::Unreachable { dead });
                }
                (None, Waiting::Notify(_)) => {}
            }
        }
        true
    }

    /// A connection is over.
    pub fn closed(&mut self, conn: ConnRef) {
        self.links.retain(|_, link| !matches!(link, Link::Open(own) if *own == conn));
    }
}

fn start(fabric: &mut Fabric, me: Node, conn: ConnRef, what: Waiting) {
    match what {
        Waiting::Call { call, out, deadline_us } => fabric.start_call(call, conn, out, deadline_us),
        Waiting::Notify(out) => fabric.notify(me, conn, out),
    }
}
