//! The rows: what is done, and what may stall for how long. The bounds are those of the replication protocol: a
//! lease of 6 s and the change of config after it for a server of whose death there is no proof, a second with it.

use std::thread::sleep;
use std::time::Duration;

use super::rig::{Rig, SERVERS, port};
use super::{Bounds, Needs, Row};
use crate::real::faulty::Fault;
use crate::real::nodes::Who;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A read of what nobody writes goes to another member.
const ELSEWHERE: Duration = seconds(1);
/// A silent server's lease is over and it is excluded.
const EXCLUDED: Duration = seconds(8);
/// A new process proves its predecessor dead.
const PROVEN: Duration = seconds(1);
/// The master serves within this time of its start.
const MASTER_SERVES: Duration = seconds(3);
/// The lease of a mount that went silent.
const SESSION: Duration = seconds(30);
/// What it held is given to who waits for it, who asks again every few seconds.
const GIVEN: Duration = seconds(5);
/// Nothing is promised but that it ends.
const ENDS: Duration = seconds(45);
/// Longer than a lease and an exclusion.
const LASTS: Duration = seconds(12);

const USUAL: Bounds = Bounds { still: ELSEWHERE, others: EXCLUDED };

/// All rows that are built.
pub const ROWS: &[Row] = &[
    Row {
        name: "kill-secondary",
        fault: "kill -9, back after 12 s",
        needs: Needs::Nothing,
        strike: |rig| kill(rig, 1),
    },
    Row {
        name: "kill-primary",
        fault: "kill -9, back after 12 s",
        needs: Needs::Nothing,
        strike: |rig| kill(rig, 0),
    },
    Row {
        name: "restart-secondary",
        fault: "kill -9, started again at once",
        needs: Needs::Nothing,
        strike: |rig| restart(rig, 1),
    },
    Row {
        name: "restart-primary",
        fault: "kill -9, started again at once",
        needs: Needs::Nothing,
        strike: |rig| restart(rig, 0),
    },
    Row {
        name: "kill-servers",
        fault: "kill -9 of all servers, started again at once",
        needs: Needs::Nothing,
        strike: kill_servers,
    },
    Row {
        name: "kill-master",
        fault: "kill -9, started again at once",
        needs: Needs::Nothing,
        strike: kill_master,
    },
    Row {
        name: "kill-client",
        fault: "kill -9 of a mount, mounted again at once",
        needs: Needs::Mounts,
        strike: kill_client,
    },
    Row {
        name: "pause-client",
        fault: "SIGSTOP of a mount for 35 s",
        needs: Needs::Mounts,
        strike: pause_client,
    },
    Row {
        name: "pause-1",
        fault: "SIGSTOP of a primary for 1 s",
        needs: Needs::Nothing,
        strike: |rig| pause(rig, 0, 1),
    },
    Row {
        name: "pause-primary",
        fault: "SIGSTOP for 20 s",
        needs: Needs::Nothing,
        strike: |rig| pause(rig, 0, 20),
    },
    Row {
        name: "pause-secondary",
        fault: "SIGSTOP for 20 s",
        needs: Needs::Nothing,
        strike: |rig| pause(rig, 1, 20),
    },
    Row {
        name: "cut-from-master",
        fault: "a primary and the master don't reach each other, 15 s",
        needs: Needs::Nothing,
        strike: cut_from_master,
    },
    Row {
        name: "cut-servers",
        fault: "a primary and a secondary don't reach each other, 15 s",
        needs: Needs::Nothing,
        strike: |rig| cut_servers(rig, true, true),
    },
    Row {
        name: "one-way-down",
        fault: "what a primary sends a secondary is lost, 15 s",
        needs: Needs::Nothing,
        strike: |rig| cut_servers(rig, true, false),
    },
    Row {
        name: "one-way-up",
        fault: "what a secondary sends its primary is lost, 15 s",
        needs: Needs::Nothing,
        strike: |rig| cut_servers(rig, false, true),
    },
    Row {
        name: "isolated",
        fault: "a primary reaches nobody, 15 s",
        needs: Needs::Nothing,
        strike: isolated,
    },
    Row {
        name: "slow-link",
        fault: "a server sends 1 Mbit/s, 12 s",
        needs: Needs::Nothing,
        strike: slow_link,
    },
    Row {
        name: "eio-write",
        fault: "writes of a disk fail, 5 s",
        needs: Needs::FaultyDisk,
        strike: |rig| break_disks(rig, Fault::Write, USUAL),
    },
    Row {
        name: "eio-read",
        fault: "reads of a disk fail, 5 s",
        needs: Needs::FaultyDisk,
        strike: |rig| break_disks(rig, Fault::Read, USUAL),
    },
    Row {
        name: "eio-sync",
        fault: "syncs of a disk fail, 5 s",
        needs: Needs::FaultyDisk,
        strike: |rig| break_disks(rig, Fault::Sync, USUAL),
    },
    Row {
        name: "full-one",
        fault: "a disk is full, 5 s",
        needs: Needs::FaultyDisk,
        strike: |rig| break_disks(rig, Fault::Full, USUAL),
    },
    Row {
        name: "full-all",
        fault: "all disks are full, 5 s",
        needs: Needs::FaultyDisks,
        strike: |rig| break_disks(rig, Fault::Full, Bounds { still: ELSEWHERE, others: ENDS }),
    },
    Row {
        name: "full-pause",
        fault: "all disks are full, 10 s, and a primary is stopped for 8 s of them",
        needs: Needs::FaultyDisks,
        strike: full_and_paused,
    },
];

fn holder(rig: &Rig, place: usize) -> anyhow::Result<Who> {
    let holders = rig.holders()?;
    holders.get(place).copied().ok_or_else(|| anyhow::anyhow!("only {holders:?} hold the chunk"))
}

fn kill(rig: &mut Rig, place: usize) -> anyhow::Result<Bounds> {
    let who = holder(rig, place)?;
    rig.nodes.kill(who)?;
    sleep(LASTS);
    rig.start_all()?;
    Ok(USUAL)
}

fn restart(rig: &mut Rig, place: usize) -> anyhow::Result<Bounds> {
    let who = holder(rig, place)?;
    rig.nodes.kill(who)?;
    let took = rig.start_all()?;
    Ok(Bounds { still: ELSEWHERE, others: took + PROVEN })
}

fn kill_servers(rig: &mut Rig) -> anyhow::Result<Bounds> {
    for server in (0..SERVERS).map(Who::Server) {
        rig.nodes.kill(server)?;
    }
    let took = rig.start_all()?;
    Ok(Bounds { still: took + EXCLUDED, others: took + EXCLUDED })
}

fn kill_master(rig: &mut Rig) -> anyhow::Result<Bounds> {
    rig.nodes.kill(Who::Master)?;
    let took = rig.start_all()?;
    Ok(Bounds { still: took + MASTER_SERVES, others: took + MASTER_SERVES })
}

fn kill_client(rig: &mut Rig) -> anyhow::Result<Bounds> {
    rig.nodes.kill(Who::Mount(0))?;
    rig.start_all()?;
    // What it held is given to others when its session has ended.
    sleep(SESSION);
    Ok(Bounds { still: ELSEWHERE, others: SESSION + GIVEN })
}

fn pause_client(rig: &mut Rig) -> anyhow::Result<Bounds> {
    rig.pause(Who::Mount(0), SESSION + seconds(5))?;
    Ok(Bounds { still: ELSEWHERE, others: SESSION + GIVEN })
}

fn pause(rig: &mut Rig, place: usize, how_long: u64) -> anyhow::Result<Bounds> {
    let who = holder(rig, place)?;
    rig.pause(who, seconds(how_long))?;
    Ok(USUAL)
}

/// As long as a cut lasts: an exclusion, and as long again for what the cut-off one might do wrong then.
fn last(rig: &Rig, hosts: &[Who]) -> anyhow::Result<()> {
    sleep(seconds(15));
    hosts.iter().try_for_each(|who| rig.network.heal(port(*who)))
}

fn cut_from_master(rig: &mut Rig) -> anyhow::Result<Bounds> {
    let who = holder(rig, 0)?;
    rig.network.cut_both(port(who), port(Who::Master))?;
    last(rig, &[who, Who::Master])?;
    Ok(USUAL)
}

fn cut_servers(rig: &mut Rig, down: bool, up: bool) -> anyhow::Result<Bounds> {
    let (primary, secondary) = (holder(rig, 0)?, holder(rig, 1)?);
    if down {
        rig.network.cut(port(primary), port(secondary))?;
    }
    if up {
        rig.network.cut(port(secondary), port(primary))?;
    }
    last(rig, &[primary, secondary])?;
    Ok(USUAL)
}

fn isolated(rig: &mut Rig) -> anyhow::Result<Bounds> {
    let who = holder(rig, 0)?;
    let others: Vec<Who> = rig.nodes.all().into_iter().filter(|other| *other != who).collect();
    for other in &others {
        rig.network.cut_both(port(who), port(*other))?;
    }
    last(rig, &rig.nodes.all())?;
    Ok(USUAL)
}

fn slow_link(rig: &mut Rig) -> anyhow::Result<Bounds> {
    let who = holder(rig, 1)?;
    rig.network.limit(port(who), Some("1mbit"))?;
    sleep(LASTS);
    rig.network.limit(port(who), None)?;
    Ok(Bounds { still: ENDS, others: ENDS })
}

fn break_disks(rig: &mut Rig, fault: Fault, bounds: Bounds) -> anyhow::Result<Bounds> {
    rig.set_fault(fault);
    sleep(seconds(5));
    rig.set_fault(Fault::None);
    anyhow::ensure!(
        rig.faulty.iter().all(|disk| disk.failed() > 0),
        "a disk was not used while it was broken"
    );
    // A disk that failed stays failed for its process.
    for server in (0..SERVERS).take(rig.faulty.len()).map(Who::Server) {
        if fault != Fault::Full {
            rig.nodes.kill(server)?;
        }
    }
    rig.start_all()?;
    Ok(bounds)
}

/// Chunks change their members while no disk has room.
fn full_and_paused(rig: &mut Rig) -> anyhow::Result<Bounds> {
    let who = holder(rig, 0)?;
    rig.set_fault(Fault::Full);
    sleep(seconds(1));
    rig.pause(who, EXCLUDED)?;
    sleep(seconds(1));
    rig.set_fault(Fault::None);
    Ok(Bounds { still: ELSEWHERE, others: ENDS })
}
