//! The oracle itself: what it must find, and what it must let pass.

use super::super::Actor;
use super::*;

const F: FileNum = FileNum(1);
const A: Actor = Actor { client: 1, stream: 0 };
const B: Actor = Actor { client: 2, stream: 0 };

struct Run(History);

impl Run {
    fn wrote(&mut self, actor: Actor, through: bool) -> Stamp {
        let stamp = self.0.stamp();
        let write = self.0.write(actor, F, stamp, 0, 1);
        self.0.write_returned(write, Outcome::Done, through);
        stamp
    }

    fn flushed(&mut self, actor: Actor, kind: FlushKind, outcome: Outcome) {
        let flush = self.0.flush(actor, F, kind);
        self.0.flush_returned(flush, outcome);
    }

    fn read(&mut self, actor: Actor, stamp: Stamp) {
        let invoke = self.0.tick();
        self.0.read(actor, F, 0, vec![Found::Stamp(stamp)], invoke, false);
    }

    fn wrong(&self) -> usize {
        check(&self.0, 2).len()
    }
}

fn run() -> Run {
    Run(History::default())
}

#[test]
fn stale_reads_are_found() {
    let mut run = run();
    let first = run.wrote(A, true);
    let second = run.wrote(A, true);
    run.read(B, second);
    assert_eq!(run.wrong(), 0);
    run.read(B, first);
    assert_eq!(run.wrong(), 1);
    run.read(B, Stamp::ZERO);
    assert_eq!(run.wrong(), 2);
    run.read(B, Stamp(99));
    assert_eq!(run.wrong(), 3);
}

#[test]
fn what_was_found_gone_does_not_come_back() {
    let mut run = run();
    let first = run.0.stamp();
    let write = run.0.write(A, F, first, 0, 1);
    let cut = run.0.write(B, F, Stamp::ZERO, 0, u64::MAX);
    run.0.write_returned(write, Outcome::Done, true);
    run.0.write_returned(cut, Outcome::Done, true);
    let mut standing = Run(run.0.clone());
    standing.read(A, first);
    assert_eq!(standing.wrong(), 0, "they were under way together");
    run.read(B, Stamp::ZERO);
    assert_eq!(run.wrong(), 0);
    run.read(A, first);
    assert_eq!(run.wrong(), 1, "it was cut off, as one has seen");
}

#[test]
fn a_write_of_zeros_is_ordered_like_any_other() {
    let mut run = run();
    let first = run.wrote(A, true);
    let hole = run.0.hole(B, F, 0, 1, false);
    run.read(A, first);
    run.read(A, Stamp::ZERO);
    run.0.write_returned(hole, Outcome::Done, true);
    run.read(A, Stamp::ZERO);
    assert_eq!(run.wrong(), 0);
    let mut stale = Run(run.0.clone());
    stale.read(A, first);
    assert_eq!(stale.wrong(), 1, "the zeros had returned");
    let second = run.wrote(A, true);
    run.read(B, second);
    assert_eq!(run.wrong(), 0);
    run.read(B, Stamp::ZERO);
    assert_eq!(run.wrong(), 1, "zeros are older than what was written since");
    // What is seen while a truncation is under way may be gone, and be seen again; not so with zeros.
    for (punched, wrong) in [(false, 0), (true, 1)] {
        let mut run = Run(History::default());
        let stamp = run.0.stamp();
        run.0.write(A, F, stamp, 0, 1);
        if punched {
            run.0.hole(B, F, 0, 1, false);
        } else {
            run.0.write(B, F, Stamp::ZERO, 0, 1);
        }
        for found in [stamp, Stamp::ZERO, stamp] {
            run.read(B, found);
        }
        assert_eq!(run.wrong(), wrong, "punched {punched}");
    }
}

#[test]
fn a_buffered_write_counts_once_flushed() {
    let mut lost = run();
    lost.wrote(A, false);
    lost.read(B, Stamp::ZERO);
    assert_eq!(lost.wrong(), 0, "its actor may have died");
    let mut failed = lost.0.clone();
    lost.flushed(A, FlushKind::Close, Outcome::Done);
    assert_eq!(lost.wrong(), 1);
    let flush = failed.flush(A, F, FlushKind::Close);
    failed.flush_returned(flush, Outcome::Failed);
    assert_eq!(check(&failed, 2).len(), 0, "it was reported as lost");
}

#[test]
fn what_was_seen_stays_seen() {
    let mut run = run();
    let stamp = run.0.stamp();
    run.0.write(A, F, stamp, 0, 1);
    run.read(B, Stamp::ZERO);
    run.read(B, stamp);
    assert_eq!(run.wrong(), 0, "not returned: before or after");
    run.read(B, Stamp::ZERO);
    assert_eq!(run.wrong(), 1);
}

#[test]
fn what_was_seen_below_bytes_that_were_lost_may_be_beyond_the_end_again() {
    let mut run = run();
    let stamp = run.0.stamp();
    run.0.write(A, F, stamp, 0, 1);
    let behind = run.0.stamp();
    let write = run.0.write(B, F, behind, 5, 6);
    run.0.write_returned(write, Outcome::Done, false);
    run.read(B, stamp);
    let mut kept = Run(run.0.clone());
    run.read(A, Stamp::ZERO);
    assert_eq!(run.wrong(), 0, "the mount may have been killed");
    kept.flushed(B, FlushKind::Close, Outcome::Done);
    kept.read(A, Stamp::ZERO);
    assert_eq!(kept.wrong(), 1);
}

#[test]
fn power_cuts_of_enough_servers_lose_what_was_not_synced() {
    let mut run = run();
    let old = run.wrote(A, true);
    run.flushed(A, FlushKind::Fsync, Outcome::Done);
    let new = run.wrote(A, true);
    run.0.server_lost_power(1);
    run.0.server_lost_power(1);
    run.read(B, new);
    let mut one = Run(run.0.clone());
    one.read(B, old);
    assert_eq!(one.wrong(), 1, "another server has it");
    run.0.server_lost_power(2);
    run.read(B, old);
    assert_eq!(run.wrong(), 0);
    run.read(B, Stamp::ZERO);
    assert_eq!(run.wrong(), 1, "that was synced");
}

#[test]
fn an_fsync_covers_what_other_mounts_wrote_before() {
    let mut run = run();
    let old = run.wrote(A, true);
    run.flushed(A, FlushKind::Fsync, Outcome::Done);
    run.wrote(A, true);
    let mut late = Run(run.0.clone());
    run.flushed(B, FlushKind::Fsync, Outcome::Done);
    for server in [1, 2] {
        run.0.server_lost_power(server);
        late.0.server_lost_power(server);
    }
    run.read(A, old);
    assert_eq!(run.wrong(), 1);
    late.flushed(B, FlushKind::Fsync, Outcome::Done);
    late.read(A, old);
    assert_eq!(late.wrong(), 0, "it was gone before");
}

#[test]
fn power_cuts_under_a_write_may_take_it() {
    let mut run = run();
    let old = run.wrote(A, true);
    run.flushed(A, FlushKind::Fsync, Outcome::Done);
    let new = run.0.stamp();
    let write = run.0.write(A, F, new, 0, 1);
    run.0.server_lost_power(1);
    run.0.server_lost_power(2);
    run.0.write_returned(write, Outcome::Done, true);
    run.read(B, old);
    assert_eq!(run.wrong(), 0, "the answer was on its way when the power failed");
    run.read(B, new);
    run.read(B, old);
    assert_eq!(run.wrong(), 1, "it was seen since");
}

#[test]
fn a_read_under_way_at_a_power_cut_shows_nothing_of_what_is_left() {
    let mut run = run();
    let stamp = run.wrote(A, true);
    let begun = run.0.tick();
    run.0.server_lost_power(1);
    run.0.server_lost_power(2);
    run.0.read(B, F, 0, vec![Found::Stamp(stamp)], begun, false);
    run.read(B, Stamp::ZERO);
    assert_eq!(run.wrong(), 0);
    run.read(B, stamp);
    run.read(B, Stamp::ZERO);
    assert_eq!(run.wrong(), 1, "this one had begun after it");
}

#[test]
fn a_cached_read_after_a_power_cut_shows_nothing_of_what_is_left() {
    let mut run = run();
    let stamp = run.wrote(A, true);
    run.0.opened(B, F);
    run.0.server_lost_power(1);
    run.0.server_lost_power(2);
    let begun = run.0.tick();
    let mut fetched = Run(run.0.clone());
    run.0.read(B, F, 0, vec![Found::Stamp(stamp)], begun, true);
    run.read(A, Stamp::ZERO);
    assert_eq!(run.wrong(), 0);
    fetched.0.read(B, F, 0, vec![Found::Stamp(stamp)], begun, false);
    fetched.read(A, Stamp::ZERO);
    assert_eq!(fetched.wrong(), 1);
}

#[test]
fn what_all_servers_forgot_may_be_done_again() {
    let mut run = run();
    let slow = run.0.stamp();
    let write = run.0.write(A, F, slow, 0, 1);
    run.read(B, slow);
    let other = run.wrote(B, true);
    run.read(B, slow);
    assert_eq!(run.wrong(), 1);
    run.0.server_ended(1);
    run.0.server_ended(2);
    assert_eq!(run.wrong(), 0);
    run.0.write_returned(write, Outcome::Done, true);
    run.wrote(B, true);
    run.read(A, other);
    assert_eq!(run.wrong(), 1, "that was written over since");
    run.read(A, slow);
    assert_eq!(run.wrong(), 2, "and it has returned");
}

#[test]
fn a_loss_is_reported_to_descriptors_that_are_open() {
    let mut run = run();
    let other = Actor { client: A.client, stream: 1 };
    run.0.opened(A, F);
    run.wrote(A, true);
    run.0.server_lost_power(1);
    run.0.server_lost_power(2);
    let mut unreported = Run(run.0.clone());
    unreported.0.opened(A, F);
    unreported.flushed(A, FlushKind::Fsync, Outcome::Done);
    unreported.read(B, Stamp::ZERO);
    assert_eq!(unreported.wrong(), 1, "nobody was told");
    run.flushed(other, FlushKind::Fsync, Outcome::Failed);
    let mut open = Run(run.0.clone());
    open.flushed(A, FlushKind::Fsync, Outcome::Done);
    open.read(B, Stamp::ZERO);
    assert_eq!(open.wrong(), 1, "its descriptor was open, and reported nothing");
    run.0.opened(A, F);
    run.flushed(A, FlushKind::Fsync, Outcome::Done);
    run.read(B, Stamp::ZERO);
    assert_eq!(run.wrong(), 0);
}

#[test]
fn a_lost_tail_takes_what_settled_in_it() {
    let mut run = run();
    let old = run.wrote(A, true);
    let since = run.0.tick();
    run.wrote(A, true);
    run.0.tail_lost(since);
    run.read(B, old);
    assert_eq!(run.wrong(), 0);
    run.read(B, Stamp::ZERO);
    assert_eq!(run.wrong(), 1);
}

#[test]
fn a_continued_history_keeps_what_was_found_durable() {
    let mut run = run();
    let old = run.wrote(A, true);
    let kept = run.wrote(A, true);
    run.read(B, kept);
    let mut run = Run(run.0.continued(B, &[(F, vec![Found::Stamp(kept)])]));
    assert!(run.0.stamp() > kept, "stamps go on");
    run.0.server_lost_power(1);
    run.0.server_lost_power(2);
    run.read(A, kept);
    assert_eq!(run.wrong(), 0);
    run.read(A, old);
    run.read(A, Stamp::ZERO);
    assert_eq!(run.wrong(), 2);
}

#[test]
fn truncation_writes_zeros() {
    let mut run = run();
    let stamp = run.wrote(A, true);
    let cut = run.0.write(A, F, Stamp::ZERO, 0, u64::MAX);
    run.read(B, stamp);
    run.read(B, Stamp::ZERO);
    run.0.write_returned(cut, Outcome::Done, true);
    run.read(B, Stamp::ZERO);
    assert_eq!(run.wrong(), 0);
    run.read(B, stamp);
    assert_eq!(run.wrong(), 1);
}
