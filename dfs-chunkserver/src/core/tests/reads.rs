//! Reads: from every member, never stale, never of what not all have.

use dfs_proto::chunk::Range;
use dfs_proto::control::{Apply, ServerEvent};
use dfs_proto::ids::SessionId;
use dfs_proto::status::Status;

use super::bench::{Bench, TERM, is_forward_to, num, read_of};
use crate::core::io::{CallToken, Input, Reply};
use crate::core::{ReadEnd, ReadStart};

const BLOCK0: Range = Range { offset: 0, len: 4096 };

#[test]
fn pending_ranges_redirect_and_the_primary_waits() {
    let mut bench = Bench::new(3);
    bench.create(&[1, 2, 3]);
    bench.pass(2, &[]);
    let cap = bench.cap(1, 1);
    for n in 1..=3 {
        assert_eq!(bench.read(n, cap, 0), Ok(1));
    }
    bench.hold(|packet| is_forward_to(packet, 3));
    bench.write(1, cap, 2, BLOCK0, 2);
    assert_eq!(bench.read(2, cap, 0), Err(Status::Redirect), "applied here, not everywhere");
    assert_eq!(bench.read(2, cap, 1), Ok(1), "another block");
    assert_eq!(bench.read(1, cap, 0), Err(Status::Busy));
    let parked = CallToken(9999);
    assert!(bench.nodes.get_mut(&num(1)).unwrap().core.park_read(parked, &read_of(cap, 0)));
    bench.release();
    assert_eq!(bench.retry_reads, [parked]);
    assert_eq!(bench.read(1, cap, 0), Ok(2));
    bench.pass(2, &[]);
    for n in 2..=3 {
        assert_eq!(bench.read(n, cap, 0), Ok(2), "told within a millisecond or two");
    }
}

#[test]
fn no_lease_no_read_not_even_after_the_disk() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.pass(2, &[]);
    let cap = bench.cap(1, 1);
    let start = bench.nodes.get_mut(&num(2)).unwrap().core.begin_read(bench.now, &read_of(cap, 0));
    let ReadStart::Go(ticket) = start else { panic!("{start:?}") };
    bench.pass(5_990, &[]);
    assert_eq!(bench.read(2, cap, 0), Ok(1));
    bench.pass(20, &[]);
    assert_eq!(bench.read(2, cap, 0), Err(Status::NotServing));
    let now = bench.now;
    let core = &mut bench.nodes.get_mut(&num(2)).unwrap().core;
    let end = core.end_read(now, &ticket, Ok(()), &mut Vec::new());
    assert_eq!(end, ReadEnd::Refused(Status::NotServing), "the lease ended during the disk read");
    bench.beat(num(2));
    let cap = bench.cap(1, 1);
    assert_eq!(bench.read(2, cap, 0), Ok(1));
}

#[test]
fn a_write_that_overtakes_a_read_sends_it_back() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.pass(2, &[]);
    let cap = bench.cap(1, 1);
    for n in [1, 2] {
        let now = bench.now;
        let start = bench.nodes.get_mut(&num(n)).unwrap().core.begin_read(now, &read_of(cap, 0));
        let ReadStart::Go(ticket) = start else { panic!("{start:?}") };
        bench.write(1, cap, 10 + u64::from(n), BLOCK0, 3);
        bench.pass(2, &[]);
        let now = bench.now;
        let core = &mut bench.nodes.get_mut(&num(n)).unwrap().core;
        assert_eq!(core.end_read(now, &ticket, Ok(()), &mut Vec::new()), ReadEnd::Again);
    }
}

#[test]
fn a_registration_has_everything_confirmed_anew() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.pass(2, &[]);
    let cap = bench.cap(1, 1);
    bench.step(num(2), Input::MasterLost);
    assert_eq!(bench.read(2, cap, 0), Ok(1), "the lease runs on");
    let body = Apply { term: TERM, events: vec![(1, ServerEvent::SessionEnded { session: SessionId(9) })] };
    let early = bench.ask(2, |call| Input::Apply { call, body });
    assert_eq!(
        bench.replies[&early],
        Reply::Failed(Status::NotServing),
        "numbered since which registration?"
    );
    bench.register(num(2));
    assert_eq!(bench.read(2, cap, 0), Err(Status::NotServing), "no lease of this registration");
    bench.beat(num(2));
    assert_eq!(bench.read(2, cap, 0), Err(Status::NotServing), "not confirmed");
    let members = bench.members(&[1, 2]);
    bench.active(&[2], 1, 1, members);
    assert_eq!(bench.read(2, cap, 0), Ok(1));
}

#[test]
fn a_restart_serves_nothing_until_confirmed() {
    let mut bench = Bench::new(2);
    bench.create(&[1, 2]);
    bench.restart(num(2));
    let cap = bench.cap(1, 1);
    assert_eq!(bench.read(2, cap, 0), Err(Status::NotServing));
    let inventory = bench.nodes[&num(2)].core.inventory();
    assert_eq!(inventory.len(), 1);
    assert_eq!((inventory[0].version, inventory[0].config), (cap.version, cap.config));
    bench.step(num(2), Input::Stop);
    assert_eq!(bench.read(2, cap, 0), Err(Status::NotServing));
}
