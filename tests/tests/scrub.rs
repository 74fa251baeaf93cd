//! Bits that rot on the disks of running servers: no wrong byte is ever read, `dfs scrub now` finds every flip, and
//! all of it is mended from other members, with what was there kept as evidence.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dfs_tests::cluster::Cluster;

const CHUNK: u64 = 1 << 20;
const CHUNKS: u64 = 8;
const BLOCK: u64 = 4096;
const BLOCK_LEN: usize = 4096;
const DATA_AT: u64 = 128 << 10;
const TABLE_AT: u64 = 8192;

/// A block's bytes: they tell its place.
fn block(place: u64) -> Vec<u8> {
    (0..BLOCK / 8).flat_map(|word| (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word).to_le_bytes()).collect()
}

fn write_file(path: &Path) {
    let file = fs::OpenOptions::new().write(true).create_new(true).open(path).unwrap();
    for place in 0..CHUNKS * CHUNK / BLOCK {
        file.write_all_at(&block(place), place * BLOCK).unwrap();
    }
    file.sync_all().unwrap();
}

fn assert_reads(path: &Path) {
    let file = fs::File::open(path).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut bytes = vec![0; usize::try_from(CHUNK).unwrap()];
    for chunk in 0..CHUNKS {
        file.read_exact_at(&mut bytes, chunk * CHUNK).unwrap();
        for (at, got) in bytes.chunks_exact(BLOCK_LEN).enumerate() {
            assert!(got == block(chunk * CHUNK / BLOCK + at as u64), "chunk {chunk} block {at}");
        }
    }
}

/// A chunk and the names of the servers that hold it, the primary first.
struct Held {
    chunk: u64,
    holders: Vec<String>,
}

fn chunks_of(cluster: &Cluster, path: &Path) -> Vec<Held> {
    let info = cluster.json(&["file", "info", &path.display().to_string()]);
    let held = |chunk: &serde_json::Value| Held {
        chunk: u64::from_str_radix(chunk["chunk"].as_str().unwrap(), 16).unwrap(),
        holders: chunk["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|member| member["name"].as_str().unwrap().to_owned())
            .collect(),
    };
    info["chunks"].as_array().unwrap().iter().map(held).collect()
}

fn chunk_file(cluster: &Cluster, server: &str, chunk: u64) -> PathBuf {
    let disk = cluster.local("cluster").join(server).join("disk");
    disk.join(format!("chunks/{:02x}/{chunk:016x}.chunk", chunk & 0xff))
}

/// Flips a bit of a file under a running server.
fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// One number of every server's report, added up.
fn sum(status: &serde_json::Value, of: &str) -> u64 {
    let servers = status["servers"].as_array().unwrap();
    servers.iter().map(|server| server["scrub"][of].as_u64().unwrap()).sum()
}

/// Scrubs everything, and waits until that is done and nothing is left to mend.
fn scrub(cluster: &Cluster) -> serde_json::Value {
    let passes = |status: &serde_json::Value| -> Vec<u64> {
        let servers = status["servers"].as_array().unwrap();
        servers.iter().map(|server| server["scrub"]["disks"][0]["passes"].as_u64().unwrap()).collect()
    };
    let before = passes(&cluster.json(&["scrub", "status"]));
    let _said = cluster.dfs(&["scrub", "now"]);
    cluster.wait_for("every disk scrubbed", |_| {
        let status = cluster.json(&["scrub", "status"]);
        passes(&status).iter().zip(&before).all(|(now, before)| now > before)
    });
    cluster.wait_for("everything mended", |status| status["blocks_damaged"] == 0);
    cluster.json(&["scrub", "status"])
}

/// What members hold of a chunk from its table on: checksums and data.
fn bodies(cluster: &Cluster, held: &Held) -> Vec<Vec<u8>> {
    let body = |server: &String| {
        let bytes = fs::read(chunk_file(cluster, server, held.chunk)).unwrap();
        bytes[usize::try_from(TABLE_AT).unwrap()..].to_vec()
    };
    held.holders.iter().map(body).collect()
}

/// Records in a disk's evidence log.
fn evidence(cluster: &Cluster, server: &str) -> usize {
    let path = cluster.local("cluster").join(server).join("disk/evidence.log");
    let bytes = fs::read(path).unwrap_or_default();
    bytes.chunks(4608).filter(|record| record.starts_with(b"DFSEVID1")).count()
}

/// Writes other bytes over block 7 of a file, and syncs them.
fn write_over(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&block(999), 7 * BLOCK).unwrap();
    file.sync_all().unwrap();
}

/// Block 7 of a chunk file and its sector of the table become again what they were in `old`.
fn go_back(chunk: &Path, old: &[u8]) {
    let (table, data) = (usize::try_from(TABLE_AT).unwrap(), usize::try_from(DATA_AT).unwrap());
    let file = fs::OpenOptions::new().write(true).open(chunk).unwrap();
    file.write_all_at(&old[table..table + 512], TABLE_AT).unwrap();
    file.write_all_at(&old[data + 7 * 4096..data + 8 * 4096], DATA_AT + 7 * BLOCK).unwrap();
}

#[test]
fn every_flipped_bit_is_found_and_mended_and_no_wrong_byte_is_read() {
    let cluster = Cluster::up(&["--chunk-size", "1048576", "--replicas", "3"]);
    let path = cluster.path("file");
    write_file(&path);
    let chunks = chunks_of(&cluster, &path);
    assert_eq!(chunks.len() as u64, CHUNKS);
    let sound: Vec<Vec<Vec<u8>>> = chunks.iter().map(|held| bodies(&cluster, held)).collect();
    // Data of every chunk on each of its members in other blocks, a table, and both kinds of header slot.
    let (mut blocks, mut tables, mut slots) = (0, 0, 0);
    for (at, held) in chunks.iter().enumerate() {
        for (which, server) in held.holders.iter().enumerate() {
            let file = chunk_file(&cluster, server, held.chunk);
            for n in 0..5 {
                let block = (at * 7 + which * 5 + n) as u64 % (CHUNK / BLOCK);
                flip(&file, DATA_AT + block * BLOCK + (at * 97 + n * 311) as u64);
                blocks += 1;
            }
        }
        let server = &held.holders[at % held.holders.len()];
        let place = [TABLE_AT + 17, TABLE_AT + 512 + 301, 100, 4096 + 44][at % 4];
        flip(&chunk_file(&cluster, server, held.chunk), place);
        if place < TABLE_AT {
            slots += 1;
        } else {
            tables += 1;
        }
    }
    assert_reads(&path);
    let status = scrub(&cluster);
    assert_eq!((sum(&status, "found"), sum(&status, "mended")), (blocks, blocks), "{status:#}");
    // A header that a sync happened to write first has replaced a slot without a look at it.
    let rewritten = sum(&status, "rewritten");
    assert!((tables..=tables + slots).contains(&rewritten), "{status:#}");
    assert_eq!(sum(&status, "hopeless"), 0, "{status:#}");
    let kept: usize = ["cs1", "cs2", "cs3"].iter().map(|server| evidence(&cluster, server)).sum();
    assert_eq!(kept as u64, blocks + rewritten);
    assert_reads(&path);
    for (held, sound) in chunks.iter().zip(&sound) {
        let now = bodies(&cluster, held);
        assert!(now == *sound && now.iter().all(|body| *body == now[0]), "chunk {:x}", held.chunk);
    }
    // Headers and all: servers that read everything from their disks again find nothing.
    for server in ["cs1", "cs2", "cs3"] {
        cluster.dev("stop", &[server]);
        cluster.dev("start", &[server]);
    }
    assert_reads(&path);
    cluster.wait_for("every chunk at its goal", |_| {
        chunks_of(&cluster, &path).iter().all(|held| held.holders.len() == 3)
    });
    let again = scrub(&cluster);
    assert_eq!((sum(&again, "found"), sum(&again, "rewritten")), (0, 0), "{again:#}");
    let disks = again["servers"].as_array().unwrap().iter().map(|server| &server["scrub"]["disks"][0]);
    let read: u64 = disks.map(|disk| disk["bytes"].as_u64().unwrap()).sum();
    assert!(read >= 3 * CHUNKS * CHUNK, "all of it was looked at: {read}");
}

#[test]
fn a_block_that_no_member_has_is_told_of_and_not_made_up() {
    let cluster = Cluster::up(&["--chunk-size", "1048576", "--replicas", "2"]);
    let path = cluster.path("file");
    write_file(&path);
    let held = chunks_of(&cluster, &path).remove(0);
    for server in &held.holders {
        flip(&chunk_file(&cluster, server, held.chunk), DATA_AT + 3 * BLOCK + 5);
    }
    let _said = cluster.dfs(&["scrub", "now"]);
    cluster.wait_for("the block is told of", |status| status["blocks_hopeless"] == 1);
    let text = cluster.dfs(&["scrub", "status"]);
    assert!(text.contains(&format!("chunk {:016x} block 3", held.chunk)), "{text}");
    assert!(cluster.dfs(&["status"]).contains("1 without a good copy"));
    for server in &held.holders {
        assert_eq!(evidence(&cluster, server), 0, "nothing was replaced");
    }
    // The rest of the file is as it was, and the block is an error, not something else.
    let file = fs::File::open(&path).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
    let mut bytes = vec![0; BLOCK_LEN];
    for place in [0, 2, 4, 255, 256] {
        file.read_exact_at(&mut bytes, place * BLOCK).unwrap();
        assert!(bytes == block(place), "block {place}");
    }
    let error = file.read_exact_at(&mut bytes, 3 * BLOCK).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    // A new block is a good one.
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&block(3), 3 * BLOCK).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let _said = cluster.dfs(&["scrub", "now"]);
    cluster.wait_for("nothing is damaged", |status| status["blocks_damaged"] == 0);
    assert_reads(&path);
}

#[test]
fn a_file_that_went_back_in_time_under_its_server_is_brought_up_to_date() {
    let cluster = Cluster::up(&["--chunk-size", "1048576", "--replicas", "3"]);
    let path = cluster.path("file");
    write_file(&path);
    let held = chunks_of(&cluster, &path).remove(0);
    let server = held.holders[1].clone();
    let old = fs::read(chunk_file(&cluster, &server, held.chunk)).unwrap();
    write_over(&path);
    let now = fs::read(chunk_file(&cluster, &server, held.chunk)).unwrap();
    assert!(old != now);
    // The running server's memory does not go back, so what it reads next does not match, and what it has in memory
    // is right.
    go_back(&chunk_file(&cluster, &server, held.chunk), &old);
    let status = scrub(&cluster);
    assert_eq!(
        (sum(&status, "found"), sum(&status, "mended"), sum(&status, "rewritten")),
        (1, 1, 1),
        "{status:#}"
    );
    let bodies = bodies(&cluster, &held);
    assert!(bodies.iter().all(|body| *body == bodies[0]));
}

/// A disk lost a write with its checksum, so that all that is there matches: only the digest of the chunk's close tells
/// which of two replicas is right.
#[test]
fn a_primary_whose_disk_lost_a_write_is_filled_from_the_other() {
    let cluster = Cluster::up(&[
        "--chunk-size",
        "1048576",
        "--servers",
        "2",
        "--replicas",
        "2",
        "--",
        "master",
        "--close-after",
        "1",
    ]);
    let path = cluster.path("file");
    write_file(&path);
    let held = chunks_of(&cluster, &path).remove(0);
    let server = held.holders[0].clone();
    let old = fs::read(chunk_file(&cluster, &server, held.chunk)).unwrap();
    write_over(&path);
    cluster.wait_for("the chunk is closed", |_| {
        let info = cluster.json(&["file", "info", &path.display().to_string()]);
        info["chunks"][0]["open"] == false
    });
    cluster.dev("kill", &[&server]);
    go_back(&chunk_file(&cluster, &server, held.chunk), &old);
    cluster.dev("start", &[&server]);
    cluster.wait_for("all chunks have their members", |status| status["chunks_below_goal"] == 0);
    let still = chunks_of(&cluster, &path).remove(0);
    assert_eq!(still.holders[0], server, "it leads no more, so that this tests nothing");
    let _status = scrub(&cluster);
    cluster
        .wait_for("that they differ is seen", |_| sum(&cluster.json(&["scrub", "status"]), "diverged") == 1);
    cluster.wait_for("all chunks have their members", |status| status["chunks_below_goal"] == 0);
    let bodies = bodies(&cluster, &chunks_of(&cluster, &path).remove(0));
    let at = usize::try_from(DATA_AT - TABLE_AT + 7 * BLOCK).unwrap();
    assert!(bodies.iter().all(|body| body[at..at + BLOCK_LEN] == block(999)));
}
