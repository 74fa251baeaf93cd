//! An operator who empties servers, has them away on purpose and stops them, evicts mounts, sets goals and how replicas follow the load, and
//! changes their mind, while faults strike.

use std::sync::Arc;

use dfs_client::net::{LinkId, Net, NetError};
use dfs_disk::sim::Rng;
use dfs_proto::conn::Role;
use dfs_proto::ids::{Ino, ServerNum};
use dfs_proto::meta::{
    DrainServer, EvictSession, Goal, MaintainServer, Policy, ServerList, SessionList, SessionReports, SetGoal,
};
use dfs_proto::request::Request;
use tokio::sync::mpsc;

use super::Shared;
use super::client::SimNet;
use super::faults::Fault;
use super::world::NewClient;

/// Once the faults are over, an order gets through within this time.
const AGAIN_US: u64 = 300_000;

/// A tool that dials the master whenever it has to.
struct Operator {
    net: SimNet,
    link: Option<LinkId>,
}

impl Operator {
    async fn link(&mut self) -> Result<LinkId, NetError> {
        let link = match self.link {
            Some(link) => link,
            None => {
                let (notices, _unheard) = mpsc::channel(16);
                self.net.dial_master(notices).await?
            }
        };
        self.link = Some(link);
        Ok(link)
    }

    async fn order<R: Request>(&mut self, order: &R) -> Result<(), NetError> {
        self.ask(order).await.map(drop)
    }

    async fn ask<R: Request>(&mut self, question: &R) -> Result<R::Reply, NetError> {
        let link = self.link().await?;
        let answer = self.net.ask(link, question).await;
        if answer.is_err() {
            self.link = None;
        }
        answer
    }
}

/// What the operator busies itself with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Duties {
    pub drains: bool,
    pub heat: bool,
    pub maintains: bool,
    pub goals: bool,
    pub evicts: bool,
}

/// Gives orders until the faults are over; a tool that was killed is started again.
pub(super) async fn run(shared: Arc<Shared>, duties: Duties) {
    while !shared.act(|world| world.quiet) {
        let new = shared.act(|world| world.new_client(Role::Tool, None));
        let NewClient { node, mut killed, seed, .. } = new;
        let operator = Operator { net: SimNet::new(Arc::clone(&shared), node), link: None };
        tokio::select! {
            biased;
            _ = &mut killed => {}
            () = give_orders(&shared, operator, duties, Rng::new(seed)) => {}
        }
        shared.act(|world| world.is_alive(node).then(|| world.stop(node, false)));
    }
}

async fn give_orders(shared: &Arc<Shared>, mut operator: Operator, duties: Duties, mut rng: Rng) {
    let servers = shared.act(|world| u64::from(world.shape.servers));
    // So that it begins with some heat.
    let mut sets = duties.heat;
    while !shared.act(|world| world.quiet) {
        if !sets {
            shared.sleep_us(100_000 + rng.below(2_500_000)).await;
        }
        if duties.evicts && rng.coin() {
            evict(shared, &mut operator, &mut rng).await;
            continue;
        }
        if duties.goals && rng.coin() {
            let (order, done) = change_a_goal(shared, &mut operator, &mut rng).await;
            shared.act(|world| world.note([83, order.ino.0, 0], || format!("{order:?}: {done:?}")));
            continue;
        }
        if sets {
            let policy = any_policy(&mut rng);
            let done = operator.order(&policy).await;
            shared.act(|world| world.note([81, 0, 0], || format!("{policy:?}: {done:?}")));
            sets = false;
            continue;
        }
        if duties.maintains && rng.coin() {
            maintain(shared, &mut operator, &mut rng, servers).await;
            continue;
        }
        sets = duties.heat && (!duties.drains || rng.coin());
        if sets || !duties.drains {
            continue;
        }
        let server = ServerNum(u16::try_from(1 + rng.below(servers)).unwrap_or(1));
        let order = DrainServer { server, drain: rng.coin(), force: true };
        let done = operator.order(&order).await;
        shared.act(|world| {
            world.note([80, u64::from(server.0), u64::from(order.drain)], || format!("{order:?}: {done:?}"));
        });
    }
}

/// Any session, at most one in three looks.
async fn evict(shared: &Arc<Shared>, operator: &mut Operator, rng: &mut Rng) {
    let Ok(SessionReports { sessions, .. }) = operator.ask(&SessionList {}).await else { return };
    let which = usize::try_from(rng.below(3 * sessions.len().max(1) as u64)).unwrap_or(usize::MAX);
    let Some(session) = sessions.get(which).map(|report| report.session) else { return };
    let done = operator.order(&EvictSession { session }).await;
    shared.act(|world| world.note([84, session.0, 0], || format!("evict {session}: {done:?}")));
}

/// Has a server away for a while, and stops it for less, or more, or not at all; or thinks better of it.
async fn maintain(shared: &Arc<Shared>, operator: &mut Operator, rng: &mut Rng, servers: u64) {
    let server = ServerNum(u16::try_from(1 + rng.below(servers)).unwrap_or(1));
    let for_ms = (rng.below(4) > 0).then(|| 200 + rng.below(8_000));
    let order = MaintainServer { server, for_ms, force: rng.coin() };
    let done = operator.order(&order).await;
    shared.act(|world| {
        world.note([82, u64::from(server.0), for_ms.unwrap_or(0)], || format!("{order:?}: {done:?}"));
    });
    let (wait_us, down_us) = (rng.below(1_500_000), 10_000 + rng.below(6_000_000));
    if done.is_err() || for_ms.is_none() || rng.coin() {
        return;
    }
    shared.sleep_us(wait_us).await;
    shared.act(|world| {
        if let Some(node) = world.fabric.server_of(server).filter(|_| !world.quiet) {
            Fault::Kill(node, down_us).strike(world);
        }
    });
}

/// A file, or all that is made from here on, gets more replicas than the cluster's goal, or that many again. Never fewer: the
/// oracles know what a cluster of its goal can lose.
async fn change_a_goal(
    shared: &Arc<Shared>,
    operator: &mut Operator,
    rng: &mut Rng,
) -> (SetGoal, Result<(), NetError>) {
    let shape = shared.act(|world| world.shape);
    let files = shared.act(|world| world.files.clone());
    let which = usize::try_from(rng.below(files.len() as u64 + 1)).unwrap_or(0);
    let ino = files.get(which).map_or(Ino::ROOT, |(_, ino)| *ino);
    let more = rng.below(u64::from(shape.servers) + 1 - u64::from(shape.goal));
    let goal = if rng.coin() { shape.goal + u8::try_from(more).unwrap_or(0) } else { shape.goal };
    let order = SetGoal { ino, goal: Goal { goal: Some(goal), max: None }, below: None };
    (order, operator.order(&order).await)
}

/// Takes all goals away but the cluster's.
async fn forget_goals(operator: &mut Operator) -> Result<(), NetError> {
    let goal = Goal::default();
    operator.order(&SetGoal { ino: Ino::ROOT, goal, below: None }).await?;
    let mut dirs = vec![Ino::ROOT];
    while let Some(ino) = dirs.pop() {
        let mut below = Some(0);
        while below.is_some() {
            let set = operator.ask(&SetGoal { ino, goal, below }).await?;
            dirs.extend(set.inner);
            below = set.next;
        }
    }
    Ok(())
}

/// Replicas that come at once and go soon, or none.
fn any_policy(rng: &mut Rng) -> Policy {
    let raise_after_ms = 100 + rng.below(900);
    Policy {
        max_threshold: Some((1 + rng.below(10)).to_string()),
        max_replicas: Some(if rng.below(8) == 0 { 1 } else { 16 }),
        raise_after_ms: Some(raise_after_ms),
        lower_after_ms: Some(raise_after_ms + 500 + rng.below(3_000)),
        cooldown_ms: Some(500 + rng.below(2_000)),
        ..Policy::default()
    }
}

/// Leaves one server drained or none, as `drained` says, none in maintenance, and no chunk more replicas than its goal, however often that has to
/// be said.
pub(super) async fn settle(shared: &Arc<Shared>, drained: Option<ServerNum>) {
    let new = shared.act(|world| world.new_client(Role::Tool, None));
    let mut operator = Operator { net: SimNet::new(Arc::clone(shared), new.node), link: None };
    let goals = shared.act(|world| world.shape.goals);
    loop {
        if orders(&mut operator, drained, goals).await.is_ok() {
            return;
        }
        shared.sleep_us(AGAIN_US).await;
    }
}

async fn orders(operator: &mut Operator, drained: Option<ServerNum>, goals: bool) -> Result<(), NetError> {
    let mut servers = operator.ask(&ServerList {}).await?.servers;
    // Servers are let in first: the last that takes replicas is not drained.
    servers.sort_by_key(|server| drained == Some(server.addr.num));
    for server in servers {
        if server.maintenance_ms.is_some() {
            let end = MaintainServer { server: server.addr.num, for_ms: None, force: false };
            operator.order(&end).await?;
        }
        let drain = drained == Some(server.addr.num);
        if server.draining != drain {
            operator.order(&DrainServer { server: server.addr.num, drain, force: true }).await?;
        }
    }
    let cold = Policy { max_replicas: Some(1), cooldown_ms: Some(1), ..Policy::default() };
    operator.order(&cold).await?;
    if goals { forget_goals(operator).await } else { Ok(()) }
}
