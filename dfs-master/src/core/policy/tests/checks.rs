//! What operators can set, and what it comes to.

use super::*;

#[test]
fn the_defaults_are_what_the_design_says() {
    let thresholds = Thresholds::default();
    thresholds.check().unwrap();
    let limits = thresholds.limits(&servers(5));
    // 125 MB/s are 1907 times 64 KiB a second.
    assert_eq!((limits.max.to_string(), limits.min.to_string()), ("476/s".to_owned(), "158/s".to_owned()));
    assert_eq!((limits.max_replicas, limits.raise_after_ms, limits.lower_after_ms), (16, 3_000, 600_000));
    assert_eq!(limits.budget_bytes_per_s, 125_000_000);
    assert_eq!(thresholds.limits(&[]).max, CostRate(u64::MAX), "nobody is there: nothing is hot");
}

#[test]
fn the_median_server_counts_and_not_those_that_are_away() {
    let mut view = servers(5);
    view[0].capacity_bytes_per_s = 1 << 40;
    view[1].capacity_bytes_per_s = 1 << 10;
    assert_eq!(Thresholds::default().limits(&view).max.to_string(), "476/s");
    view[2].condition = Condition::Down;
    view[3].condition = Condition::Down;
    view[4].condition = Condition::Down;
    assert_eq!(Thresholds::default().limits(&view).max.0, CostRate::of_capacity(1 << 10).0 / 4);
}

/// Or a hot chunk of a young cluster, on two servers that are full, would wait until all others have been full.
#[test]
fn what_is_assumed_of_servers_does_not_count_where_one_knows() {
    let mut view = servers(6);
    view.iter_mut().for_each(|server| {
        (server.capacity_bytes_per_s, server.capacity_assumed) = (1_250_000_000, true);
    });
    assert_eq!(Thresholds::default().limits(&view).max.to_string(), "4768/s", "of nobody anything is known");
    (view[1].capacity_bytes_per_s, view[1].capacity_assumed) = (125_000_000, false);
    let limits = Thresholds::default().limits(&view);
    assert_eq!(limits.max.to_string(), "476/s");
    assert_eq!(limits.budget_bytes_per_s, 6 * 125_000_000 / 5);
}

#[test]
fn what_contradicts_itself_is_refused_in_words() {
    let said = |thresholds: Thresholds| thresholds.check().unwrap_err().to_string();
    assert_eq!(
        said(thresholds(300, 101)),
        "the min threshold 101/s is above a third of the max threshold 300/s: replicas would come and go in turn; \
         at most 100/s"
    );
    thresholds(300, 100).check().unwrap();
    assert!(said(thresholds(0, 0)).contains("max threshold is 0"));
    let with = Thresholds::default();
    assert_eq!(said(Thresholds { max_replicas: 17, ..with }), "max replicas 17 is not from 1 to 16");
    assert!(said(Thresholds { lower_after_ms: 3_000, ..with }).contains("not faster than lowering"));
    assert!(said(Thresholds { budget: CopyBudget::PerSecond(0), ..with }).contains("budget of 0"));
    assert!(said(Thresholds { surplus_permille: 1001, ..with }).contains("at most 1000"));
}

#[test]
fn a_min_that_auto_makes_too_high_is_cut() {
    let min = Threshold::PerSecond(CostRate::per_second(400));
    let limits = Thresholds { min, ..Thresholds::default() }.limits(&servers(5));
    assert_eq!(limits.min.0, limits.max.0 / 3);
}

#[test]
fn options_are_read_as_typed() {
    assert_eq!("auto".parse(), Ok(Threshold::Auto));
    assert_eq!("250".parse(), Ok(Threshold::PerSecond(CostRate::per_second(250))));
    assert_eq!(
        "1e3".parse::<Threshold>().unwrap_err().to_string(),
        "'1e3' is neither auto nor a whole number"
    );
    assert_eq!("1000000".parse(), Ok(CopyBudget::PerSecond(1_000_000)));
    assert_eq!(CostRate(1_500).to_string(), "1.5/s");
}

/// Two hot chunks do not both go to the server that is idle.
#[test]
fn decisions_count_for_the_next_one() {
    let mut view = View { servers: servers(4), budget_bytes: 1 << 40, ..View::default() };
    view.servers[0].utilisation_permille = 900;
    view.servers[3].utilisation_permille = 0;
    let limits = thresholds(300, 100).limits(&view.servers);
    for id in 1..=2 {
        let mut hot = ChunkView { goal: 1, ..chunk(id, 400, &[1]) };
        for at in 0..=3 {
            hot.memory = observe(hot.memory, &hot, &limits, secs(at));
        }
        view.chunks.push(hot);
    }
    let outcome = decide(&view, &thresholds(300, 100), secs(3));
    let targets = |decision: &Decision| match &decision.kind {
        Kind::Raise { copies } => copies.iter().map(|step| step.target.0).collect::<Vec<_>>(),
        Kind::Lower { .. } => Vec::new(),
    };
    assert_eq!(outcome.decisions.iter().map(targets).collect::<Vec<_>>(), [vec![4], vec![2]]);
}

/// A disk that is full gives back as much as it needs, of the coldest chunks.
#[test]
fn a_full_disk_gives_back_what_it_needs_and_no_more() {
    let mut view = View { servers: servers(4), ..View::default() };
    view.servers[2].free_bytes = view.servers[2].total_bytes / 20 - (100 << 20);
    view.chunks = (1..=5).map(|id| chunk(id, id * 10, &[1, 2, 3])).collect();
    let outcome = decide(&view, &thresholds(300, 100), secs(9));
    let lowered: Vec<(u64, &Kind)> =
        outcome.decisions.iter().map(|decision| (decision.chunk.0, &decision.kind)).collect();
    let from = Kind::Lower { server: num(3) };
    assert_eq!(lowered, [(1, &from), (2, &from)]);
    view.servers[2].freeing_bytes = 100 << 20;
    assert!(decide(&view, &thresholds(300, 100), secs(9)).decisions.is_empty(), "it is on its way");
}
