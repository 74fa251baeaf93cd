//! Every row of the table in `docs/load.md` is what the code does.

use super::*;

const DOC: &str = include_str!("../../../../../docs/load.md");
const HEADING: &str = "## The policy";
const COLUMNS: [&str; 8] = ["case", "on", "read", "for", "holders", "besides", "then", "why"];
/// Cases that the text promises.
const ROWS_MIN: usize = 50;

/// A time long after everything that rows remember.
const NOW: u64 = 10_000;

struct Row<'a> {
    case: &'a str,
    on: Vec<u16>,
    read: u64,
    secs: u64,
    holders_percent: u16,
    besides: Vec<&'a str>,
    then: &'a str,
    why: &'a str,
}

/// The number in a cell such as `70 %`, `1000/s` or `s3`.
fn number(text: &str) -> u64 {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number in '{text}'"))
}

fn small(text: &str) -> u16 {
    u16::try_from(number(text)).unwrap()
}

fn rows() -> Vec<Row<'static>> {
    let (_, section) = DOC.split_once(HEADING).expect("the section is there");
    let table =
        section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let mut cells = table.map(|line| {
        let inner = line.trim().trim_matches('|');
        inner.split('|').map(str::trim).collect::<Vec<_>>()
    });
    assert_eq!(cells.next().expect("a head"), COLUMNS);
    assert!(cells.next().expect("a rule").iter().all(|cell| cell.starts_with("---")));
    let row = |cells: Vec<&'static str>| {
        let [case, on, read, secs, holders, besides, then, why] = cells[..] else {
            panic!("a row has {} cells: {cells:?}", cells.len())
        };
        Row {
            case,
            on: on.split(' ').map(small).collect(),
            read: number(read),
            secs: number(secs),
            holders_percent: small(holders),
            besides: besides.split(';').map(str::trim).filter(|word| !word.is_empty()).collect(),
            then,
            why,
        }
    };
    cells.map(row).collect()
}

/// What a row describes.
struct Case {
    view: View,
    thresholds: Thresholds,
    memory: Memory,
    /// The load before, and whether it came to what it is as one that nobody makes any more.
    before: u64,
    decays: bool,
}

fn case(row: &Row<'_>) -> Case {
    let mut servers = servers(8);
    for (at, server) in servers.iter_mut().enumerate() {
        server.rack = ["a", "b", "c", "d"].get(at / 2).map(|rack| (*rack).to_owned());
        if row.on.contains(&server.server.0) {
            server.utilisation_permille = row.holders_percent * 10;
        }
    }
    let view = View { chunks: vec![chunk(1, row.read, &row.on)], servers, budget_bytes: 4 << 30 };
    let (thresholds, memory) = (thresholds(300, 100), Memory::default());
    let mut case = Case { view, thresholds, memory, before: 0, decays: false };
    row.besides.iter().for_each(|word| besides(&mut case, &row.on, word));
    case
}

fn besides(case: &mut Case, on: &[u16], phrase: &str) {
    let words: Vec<&str> = phrase.split(' ').collect();
    let changed = |memory: Memory, first: Direction, second: Direction, ago: u64| {
        memory.changed(first, secs(NOW - ago - 600)).changed(second, secs(NOW - ago))
    };
    let chunk = &mut case.view.chunks[0];
    match words[..] {
        ["goal", goal] => chunk.goal = usize::from(small(goal)),
        ["directory", "max", max] => chunk.max_replicas = Some(usize::from(small(max))),
        ["max", "replicas", max] => case.thresholds.max_replicas = usize::from(small(max)),
        ["open", "to", "a", "writer"] => chunk.written = true,
        ["not", "closed"] => chunk.closed = false,
        ["being", "raised"] => chunk.under_way = Some(UnderWay::Raise { to_come: 1 }),
        ["decaying"] => case.decays = true,
        ["before", read] => case.before = number(read),
        ["raised,", "then", "lowered", ago, "s", "ago"] => {
            case.memory = changed(case.memory, Direction::Up, Direction::Down, number(ago));
        }
        ["lowered,", "then", "raised", ago, "s", "ago"] => {
            case.memory = changed(case.memory, Direction::Down, Direction::Up, number(ago));
        }
        ["budget", mib, "MiB"] => case.view.budget_bytes = number(mib) << 20,
        ["surplus", percent, "%"] => case.thresholds.surplus_permille = number(percent) * 10,
        ["only", count, "servers"] => case.view.servers.truncate(usize::from(small(count))),
        ["no", "racks"] => case.view.servers.iter_mut().for_each(|server| server.rack = None),
        [who, ref what @ ..] => {
            let named = |server: &&mut ServerView| match who {
                "others" => !on.contains(&server.server.0),
                who => server.server == num(small(who)),
            };
            let mut some = false;
            for server in case.view.servers.iter_mut().filter(named) {
                some = true;
                of_server(server, what);
            }
            assert!(some, "nobody is '{phrase}'");
        }
        [] => {}
    }
}

fn of_server(server: &mut ServerView, what: &[&str]) {
    match *what {
        [percent, "%", "busy"] => server.utilisation_permille = small(percent) * 10,
        [percent, "%", "free"] => server.free_bytes = server.total_bytes / 100 * number(percent),
        ["on", "host", host] => host.clone_into(&mut server.host),
        ["in", "rack", rack] => server.rack = Some(rack.to_owned()),
        ["draining"] => server.condition = Condition::Draining,
        ["read-only"] => server.condition = Condition::ReadOnly,
        ["down"] => server.condition = Condition::Down,
        [count, "copies", "in"] => server.copies_in = usize::from(small(count)),
        [count, "copies" | "copy", "out"] => server.copies_out = usize::from(small(count)),
        _ => panic!("what is '{}'?", what.join(" ")),
    }
}

/// Watches the chunk for as long as the row says.
fn watch(row: &Row<'_>, case: &mut Case) {
    let limits = case.thresholds.limits(&case.view.servers);
    let begin = NOW - row.secs;
    if case.before > 0 {
        let before = ChunkView { read: CostRate::per_second(case.before), ..case.view.chunks[0].clone() };
        for at in begin - 4..begin {
            case.memory = observe(case.memory, &before, &limits, secs(at));
        }
    }
    for at in begin..=NOW {
        let mut chunk = case.view.chunks[0].clone();
        if case.decays {
            let ago = i32::try_from(NOW - at).unwrap();
            chunk.read = CostRate(whole(row.read as f64 * 1000.0 * (f64::from(ago) / 10.0).exp2()));
        }
        case.memory = observe(case.memory, &chunk, &limits, secs(at));
    }
    case.view.chunks[0].memory = case.memory;
}

/// What came out, as the table writes it.
fn outcome(case: &Case) -> (String, String) {
    let outcome = decide(&case.view, &case.thresholds, secs(NOW));
    match (&outcome.decisions[..], &outcome.held[..]) {
        ([], []) => ("nothing".to_owned(), String::new()),
        ([], [(_, held)]) => (format!("held: {}", held.name()), format!("{held}")),
        ([decision], []) => {
            let how = match &decision.kind {
                Kind::Lower { server } => format!("lower {server}"),
                Kind::Raise { copies } => format!("raise {}", waves(copies)),
            };
            (format!("{how}: {}", decision.reason.name()), format!("{}", decision.reason))
        }
        _ => panic!("more than one outcome for one chunk: {outcome:?}"),
    }
}

/// `s1>s3 s2>s4, then s3>s5`.
fn waves(copies: &[CopyStep]) -> String {
    let last = copies.iter().map(|step| step.wave).max().unwrap_or(0);
    let wave = |wave: usize| {
        let steps = copies.iter().filter(|step| step.wave == wave);
        steps.map(|step| format!("{}>{}", step.source, step.target)).collect::<Vec<_>>().join(" ")
    };
    (0..=last).map(wave).collect::<Vec<_>>().join(", then ")
}

#[test]
fn every_row_of_the_table_is_what_the_code_does() {
    let rows = rows();
    assert!(rows.len() >= ROWS_MIN, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let mut case = case(row);
        case.thresholds.check().unwrap();
        watch(row, &mut case);
        let (then, why) = outcome(&case);
        if (then.as_str(), why.as_str()) != (row.then, row.why) {
            wrong.push(format!("{}: the code comes to\n| {then} | {why} |", row.case));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

/// Whatever the policy can say stands in the table.
#[test]
fn the_table_has_every_reason() {
    let rows = rows();
    let named: BTreeSet<&str> =
        rows.iter().filter_map(|row| row.then.rsplit_once(": ")).map(|(_, name)| name).collect();
    let all = [
        "hot",
        "cold",
        "space",
        "bound",
        "under-way",
        "below-goal",
        "unsettled",
        "at-bound",
        "not-hot-long-enough",
        "holders-idle",
        "written",
        "cooldown",
        "no-server",
        "no-idle-server",
        "no-space",
        "copies",
        "budget",
        "surplus-space",
        "used",
        "not-cold-long-enough",
        "spread",
    ];
    for name in all {
        assert!(named.contains(name), "no row for {name}");
    }
    assert_eq!(named.len(), all.len(), "{named:?}");
    assert!(rows.iter().any(|row| row.then == "nothing"));
}
