//! What the simulated disk promises to the tests that rest on it.

use std::io::{ErrorKind, IoSlice};

use super::{Call, SimDisk};
use crate::{Disk, DiskFile, Open, read_file, replace_file};

const CAPACITY: u64 = 1 << 20;

fn write(disk: &SimDisk, path: &str, bytes: &[u8]) {
    disk.open(path, Open::OrNew).unwrap().write_at(&[IoSlice::new(bytes)], 0).unwrap();
}

#[test]
fn synced_bytes_under_a_synced_name_survive_and_others_may_not() {
    let (mut kept, mut nameless) = (0, 0);
    for seed in 0..100 {
        let disk = SimDisk::new(seed, CAPACITY);
        write(&disk, "a", b"safe");
        disk.open("a", Open::Existing).unwrap().sync_data().unwrap();
        disk.sync_dir("").unwrap();
        write(&disk, "b", b"maybe");
        disk.power_cut();
        assert_eq!(read_file(&disk, "a", 10).unwrap(), b"safe");
        match read_file(&disk, "b", 10) {
            Ok(bytes) if bytes == b"maybe" => kept += 1,
            Ok(_) => {}
            Err(err) => {
                assert_eq!(err.kind(), ErrorKind::NotFound);
                nameless += 1;
            }
        }
    }
    assert!(kept > 0 && nameless > 0);
}

#[test]
fn a_replaced_file_is_old_or_new_at_every_stop() {
    for stop in 0..8 {
        for seed in 0..20 {
            let disk = SimDisk::new(seed, CAPACITY);
            replace_file(&disk, "f", b"old").unwrap();
            disk.stop_after(stop);
            let done = replace_file(&disk, "f", b"new!").is_ok();
            disk.power_cut();
            let bytes = read_file(&disk, "f", 10).unwrap();
            assert!(bytes == b"new!" || (!done && bytes == b"old"), "stop {stop} seed {seed}: {bytes:?}");
        }
    }
}

#[test]
fn unsynced_renames_survive_in_order() {
    for seed in 0..100 {
        let disk = SimDisk::new(seed, CAPACITY);
        disk.create_dir_all("x/y").unwrap();
        disk.sync_dir("").unwrap();
        disk.sync_dir("x").unwrap();
        write(&disk, "x/1", b"1");
        disk.sync_dir("x").unwrap();
        disk.rename("x/1", "x/y/2").unwrap();
        disk.rename("x/y/2", "x/3").unwrap();
        disk.power_cut();
        let found = ["x/1", "x/y/2", "x/3"].iter().filter(|path| disk.exists(path).unwrap()).count();
        assert_eq!(found, 1, "seed {seed}");
    }
}

#[test]
fn a_crashed_process_loses_handles_and_lock_but_no_byte() {
    let disk = SimDisk::new(1, CAPACITY);
    let (first, second) = (disk.reopen(), disk.reopen());
    first.lock().unwrap();
    first.clone().lock().unwrap();
    assert_eq!(second.lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    let file = first.open("f", Open::New).unwrap();
    file.write_at(&[IoSlice::new(b"bytes")], 0).unwrap();
    disk.crash_process();
    assert!(file.sync_data().is_err());
    assert_eq!(read_file(&disk, "f", 10).unwrap(), b"bytes");
    second.lock().unwrap();
    drop(second);
    first.lock().unwrap();
}

#[test]
fn faults_strike_where_asked() {
    let disk = SimDisk::new(1, CAPACITY);
    write(&disk, "d", &[1; 8192]);
    let file = disk.open("d", Open::Existing).unwrap();
    disk.fail_range(Call::Read, "d", 4096..4608);
    let mut buf = [0; 4096];
    assert!(file.read_at(&mut buf, 4000).is_err());
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 4096);
    disk.fail(Call::Sync, "d");
    assert!(file.sync_data().is_err());
    disk.heal();
    assert!(file.sync_data().is_ok());
    disk.fail_nth(2);
    assert!(file.sync_data().is_ok());
    assert!(file.sync_data().is_err());
    assert!(file.sync_data().is_ok());
    assert!(disk.flip_bit("d", 3, 7) && !disk.flip_bit("d", 9000, 0) && !disk.flip_bit("e", 0, 0));
    disk.stop_after(1);
    assert!(file.write_at(&[IoSlice::new(b"x")], 0).is_ok());
    assert!(file.write_at(&[IoSlice::new(b"x")], 0).is_err());
    assert!(disk.list("").is_err() && disk.stopped());
}

#[test]
fn a_full_disk_takes_overwrites_but_nothing_new() {
    let disk = SimDisk::new(1, 8192);
    let file = disk.open("f", Open::New).unwrap();
    file.allocate(0, 8192).unwrap();
    assert_eq!(file.allocate(0, 8193).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_at(&[IoSlice::new(&[1; 8192])], 0).unwrap();
    assert_eq!(file.write_at(&[IoSlice::new(&[1; 1])], 8192).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.space().unwrap().free, 0);
    file.punch(0, 4096).unwrap();
    assert_eq!(disk.space().unwrap().free, 4096);
    disk.remove("f").unwrap();
    assert_eq!(disk.space().unwrap().free, 8192);
    file.write_at(&[IoSlice::new(&[1; 100])], 20_000).unwrap();
    assert_eq!(disk.space().unwrap().free, 8192);
}

#[test]
fn a_fork_shares_nothing_and_equal_seeds_agree() {
    let disk = SimDisk::new(5, CAPACITY);
    write(&disk, "f", &[1; 4096]);
    let (left, right) = (disk.fork(9), disk.fork(9));
    left.power_cut();
    right.power_cut();
    assert_eq!(read_file(&left, "f", 9999).ok(), read_file(&right, "f", 9999).ok());
    assert_eq!(read_file(&disk, "f", 9999).unwrap(), [1; 4096]);
}

#[test]
fn a_sync_of_everything_covers_bytes_and_names_and_tells_of_one_loss() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed, CAPACITY);
        disk.create_dir_all("x").unwrap();
        write(&disk, "x/a", b"kept");
        disk.sync_all().unwrap();
        write(&disk, "x/b", b"kept too");
        write(&disk, "x/a", b"lost");
        disk.fail(Call::Sync, "x/a");
        assert!(disk.sync_all().is_err());
        disk.heal();
        disk.sync_all().unwrap();
        disk.power_cut();
        assert_eq!(read_file(&disk, "x/b", 10).unwrap(), b"kept too");
        let a = read_file(&disk, "x/a", 10).unwrap();
        assert!(a == b"kept" || a == b"lost");
    }
}
