//! A table of cases, and what a sequence of plans comes to.

use super::*;

const CHUNK: u64 = 10;

fn num(server: u16) -> ServerNum {
    ServerNum(server)
}

/// Servers of 1000 units, so full in permille, a host each and two a rack.
fn shelves(used: &[u64]) -> Vec<Shelf> {
    let shelf = |(at, used): (usize, &u64)| Shelf {
        server: num(u16::try_from(at).unwrap() + 1),
        rack: Some(format!("r{}", at / 2)),
        host: format!("h{at}"),
        used: *used,
        total: 1000,
        free: 1000 - used,
        utilisation_permille: 100,
    };
    used.iter().enumerate().map(shelf).collect()
}

fn movable(id: u64, members: &[u16]) -> Movable {
    let members: Vec<ServerNum> = members.iter().map(|server| num(*server)).collect();
    Movable { chunk: ChunkId(id), bytes: CHUNK, from: members[0], members, read_milli: 0 }
}

/// `chunk:from>to` of each move.
fn said(plan: &Plan) -> String {
    let text = |one: &Move| format!("{}:{}>{}", one.chunk.0, one.from.0, one.to.0);
    plan.moves.iter().map(text).collect::<Vec<_>>().join(" ")
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn by_the_table() {
    struct Row {
        case: &'static str,
        used: &'static [u64],
        chunks: Vec<Movable>,
        change: fn(&mut [Shelf], &mut [Movable]),
        active: bool,
        then: &'static str,
    }
    let none: fn(&mut [Shelf], &mut [Movable]) = |_, _| {};
    let row = |case, used, chunks, active, then| Row { case, used, chunks, change: none, active, then };
    let one = || vec![movable(1, &[1])];
    let table = [
        row("as even as it has to be", &[550, 500], one(), false, ""),
        row("more than five points", &[551, 500], one(), false, "1:1>2"),
        row("on the way it goes on", &[540, 500], one(), true, "1:1>2"),
        row("until three points", &[530, 500], one(), true, ""),
        row("the emptiest gets it", &[700, 300, 100], one(), false, "1:1>3"),
        row("not the one that has it", &[700, 300, 100], vec![movable(1, &[1, 3])], false, "1:1>2"),
        row(
            "the same rack is no worse than the same rack",
            &[700, 600, 100, 690],
            vec![movable(1, &[1, 2])],
            false,
            "1:1>3",
        ),
        row(
            "not into the rack of another replica",
            &[700, 500, 500, 100],
            vec![movable(1, &[1, 3])],
            false,
            "1:1>2",
        ),
        row(
            "nobody in its own failure domain is emptier",
            &[700, 690, 690, 100],
            vec![movable(1, &[1, 3])],
            false,
            "",
        ),
        Row {
            case: "a busy server gets none",
            change: |shelves, _| shelves[2].utilisation_permille = 601,
            ..row("", &[700, 300, 100], one(), false, "1:1>2")
        },
        Row {
            case: "a full disk gets none, whatever fills it",
            change: |shelves, _| shelves[2].free = 25,
            ..row("", &[700, 300, 100], one(), false, "1:1>2")
        },
        Row {
            case: "unequal servers by their shares",
            change: |shelves, _| (shelves[1].total, shelves[1].free) = (10_000, 9_200),
            ..row("", &[700, 800], one(), false, "1:1>2")
        },
        Row {
            case: "a chunk too large for what they differ stays",
            change: |_, chunks| chunks[0].bytes = 40,
            ..row("", &[560, 500], one(), false, "")
        },
        Row {
            case: "the coldest first",
            change: |_, chunks| chunks[0].read_milli = 5,
            ..row("", &[700, 300], vec![movable(1, &[1]), movable(2, &[1])], false, "2:1>2 1:1>2")
        },
        Row {
            case: "of a server without disks nothing follows",
            change: |shelves, _| shelves[1].total = 0,
            ..row("", &[700, 0, 690], one(), false, "")
        },
        Row {
            case: "a member of which nothing is known may share anything",
            change: |_, chunks| chunks[0].members.push(num(99)),
            ..row("", &[700, 300], one(), false, "")
        },
    ];
    for Row { case, used, mut chunks, change, active, then } in table {
        let mut shelves = shelves(used);
        change(&mut shelves, &mut chunks);
        let plan = plan(shelves, &chunks, active, 10);
        assert_eq!(said(&plan), then, "{case}");
    }
}

#[test]
fn a_move_says_why() {
    let plan = plan(shelves(&[634, 120]), &[movable(1, &[1])], false, 1);
    assert_eq!(plan.moves[0].why.to_string(), "that one is 63.4 % full and this one 12.0 %");
}

#[test]
fn an_empty_server_is_filled_to_within_five_points_and_then_nothing_moves() {
    for total in [1000, 3000] {
        let mut servers = shelves(&[600, 610, 590, 600, 0]);
        servers[4].total = total;
        servers[4].free = total;
        let mut chunks: Vec<Movable> = Vec::new();
        for (at, shelf) in servers.iter().enumerate().take(4) {
            for n in 0..shelf.used / CHUNK {
                // Another replica in the other rack, which stays.
                let mut chunk = movable(at as u64 * 1000 + n, &[u16::try_from(at).unwrap() + 1]);
                chunk.read_milli = n % 7;
                chunks.push(chunk);
            }
        }
        let (mut active, mut rounds, mut count) = (false, 0, 0);
        loop {
            let next = plan(servers.clone(), &chunks, active, 4);
            active = next.active;
            for one in &next.moves {
                let at = |server: ServerNum| usize::from(server.0) - 1;
                servers[at(one.from)].used -= one.bytes;
                servers[at(one.to)].used += one.bytes;
                servers[at(one.to)].free -= one.bytes;
                let chunk = chunks.iter_mut().find(|chunk| chunk.chunk == one.chunk).unwrap();
                (chunk.from, chunk.members) = (one.to, vec![one.to]);
                count += 1;
            }
            if next.moves.is_empty() {
                break;
            }
            rounds += 1;
            assert!(rounds < 200, "it does not end");
        }
        assert!(!active && spread(&servers) <= END_PERMILLE, "{servers:?}");
        // None twice: what came to the new one is about what it has.
        assert!(count as u64 <= servers[4].used / CHUNK + 2, "{count}");
        // A little comes and goes: nothing moves.
        servers[0].used += 15;
        assert_eq!(plan(servers, &chunks, false, 4), Plan::default());
    }
}
