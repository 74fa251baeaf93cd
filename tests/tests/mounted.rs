//! What a user does on a mount, with real processes: trees, programs, attributes, errors in words.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::process::Command;

use dfs_tests::cluster::{Cluster, binaries, sh};

/// 64 KiB chunks, so that files of a few hundred KiB cross borders.
const SMALL_CHUNKS: [&str; 2] = ["--chunk-size", "65536"];

#[test]
fn a_tree_survives_the_way_in_and_a_restart_of_everything() {
    let cluster = Cluster::up(&SMALL_CHUNKS);
    let source = cluster.local("source");
    sh(
        cluster.mount().parent().unwrap(),
        "mkdir source && cd source && for d in a b c; do mkdir $d; for i in $(seq 40); do head -c $((i * 5000)) /dev/urandom > $d/f$i; done; ln -s f1 $d/link; ln $d/f2 $d/hard; done; touch -d 1969-12-31T23:00:00.5Z a/f3; chmod 751 a; touch empty",
    );
    let copy = cluster.path("copy");
    sh(&cluster.mount(), &format!("cp -a {} {}", source.display(), copy.display()));
    let compare = format!("diff -r --no-dereference {} {}", source.display(), copy.display());
    sh(&cluster.mount(), &compare);
    let listing = "find . -printf '%p %y %m %s %n %l\\n' | sort";
    assert_eq!(sh(&source, listing).replace("4096", "-"), sh(&copy, listing).replace("4096", "-"));
    assert_eq!(fs::metadata(copy.join("empty")).unwrap().len(), 0);

    for member in ["mount", "cs1", "cs2", "cs3", "master"] {
        cluster.dev("stop", &[member]);
    }
    for member in ["master", "cs1", "cs2", "cs3", "mount"] {
        cluster.dev("start", &[member]);
    }
    sh(&cluster.mount(), &compare);
}

#[test]
fn random_writes_across_chunks_read_back() {
    let cluster = Cluster::up(&SMALL_CHUNKS);
    let path = cluster.path("file");
    let mut file =
        fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    let mut model = vec![0u8; 1 << 20];
    let mut x = 0x9e37_79b9_u64;
    let mut random = |below: usize| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        usize::try_from(x % below as u64).unwrap()
    };
    let mut end = 0;
    for round in 0..400u32 {
        let at = random(model.len() - 70_000);
        let len = 1 + random(70_000);
        let fill = u8::try_from(round % 251).unwrap();
        file.write_all_at(&vec![fill; len], at as u64).unwrap();
        model[at..at + len].fill(fill);
        end = end.max(at + len);
        if round % 100 == 99 {
            file.sync_all().unwrap();
        }
    }
    let mut back = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut back).unwrap();
    assert!(back == model[..end], "through the writing descriptor");
    drop(file);
    assert!(fs::read(&path).unwrap() == model[..end], "after reopening");
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100_001).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(300_000).unwrap();
    let mut want = model[..100_001].to_vec();
    want.resize(300_000, 0);
    assert!(fs::read(&path).unwrap() == want, "truncated bytes come back as zeros");
}

#[test]
fn names_links_and_attributes() {
    let cluster = Cluster::up(&[]);
    let at = |name: &str| cluster.path(name);
    write_file(&at("a"), b"one");
    assert_eq!(fs::create_dir(at("a")).unwrap_err().raw_os_error(), Some(17));
    fs::hard_link(at("a"), at("b")).unwrap();
    assert_eq!(fs::metadata(at("a")).unwrap().nlink(), 2);
    symlink("nowhere/at all", at("s")).unwrap();
    assert_eq!(fs::read_link(at("s")).unwrap().to_str(), Some("nowhere/at all"));
    fs::create_dir(at("d")).unwrap();
    fs::rename(at("b"), at("d/c")).unwrap();
    assert_eq!(fs::read(at("d/c")).unwrap(), b"one");
    assert_eq!(fs::remove_dir(at("d")).unwrap_err().raw_os_error(), Some(39));
    fs::set_permissions(at("a"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(fs::metadata(at("d/c")).unwrap().mode() & 0o7777, 0o640);

    // An unlinked file lives on until it is closed.
    let mut open = fs::OpenOptions::new().read(true).write(true).open(at("a")).unwrap();
    fs::remove_file(at("a")).unwrap();
    fs::remove_file(at("d/c")).unwrap();
    open.write_all(b"two!").unwrap();
    open.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "two!");

    let long = "n".repeat(255);
    write_file(&at(&long), b"");
    assert_eq!(fs::File::create(at(&format!("{long}n"))).unwrap_err().raw_os_error(), Some(36));
    sh(
        &cluster.mount(),
        "setfattr -n user.colour -v blue d && test \"$(getfattr --only-values -n user.colour d)\" = blue && setfattr -x user.colour d && ! getfattr -n user.colour d 2>/dev/null",
    );
    sh(
        &cluster.mount(),
        "for i in $(seq 2500); do : > d/$i; done; test $(ls d | wc -l) = 2500; rm -r d; test ! -e d",
    );
}

#[test]
fn git_and_a_second_mount_agree() {
    let cluster = Cluster::up(&[]);
    let work = cluster.mount();
    sh(
        &work,
        "git init -q r && cd r && git config user.email a@b && git config user.name t && for i in $(seq 50); do echo $i > f$i; done && git add . && git commit -qm one && git gc -q && git fsck --strict 2>&1 && cd .. && git clone -q r c && diff -r -x .git r c",
    );
    // A second mount sees what the first closed, and the first sees the second's changes.
    let mounted = cluster.mount_again();
    let second = &mounted.0;
    for round in 0..20 {
        let (here, there) = if round % 2 == 0 { (&work, second) } else { (second, &work) };
        let text = format!("round {round} {}", "x".repeat(round * 1000));
        write_file(&here.join("shared"), text.as_bytes());
        assert_eq!(fs::read_to_string(there.join("shared")).unwrap(), text, "round {round}");
    }
}

#[test]
fn both_mounts_keep_a_file_open_and_read_each_others_writes() {
    let cluster = Cluster::up(&[]);
    let mounted = cluster.mount_again();
    let second = &mounted.0;
    let open = |path: &std::path::Path| {
        fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
    };
    let one = open(&cluster.path("shared"));
    one.write_all_at(&[b'a'; 10_000], 0).unwrap();
    let two = open(&second.join("shared"));
    let mut buf = vec![0; 10_000];
    two.read_exact_at(&mut buf, 0).unwrap();
    assert!(buf.iter().all(|b| *b == b'a'), "what one wrote before two opened");
    for round in 0..50u8 {
        let (writer, reader) = if round % 2 == 0 { (&two, &one) } else { (&one, &two) };
        let at = u64::from(round) * 37 % 9000;
        writer.write_all_at(&[round; 500], at).unwrap();
        let mut buf = [0; 500];
        reader.read_exact_at(&mut buf, at).unwrap();
        assert_eq!(buf, [round; 500], "round {round}");
    }
}

#[test]
fn names_made_by_another_mount_in_a_new_directory_show() {
    let cluster = Cluster::up(&[]);
    let second = cluster.mount_again();
    for round in 0..20 {
        let (here, there) = (cluster.path(&format!("d{round}")), second.0.join(format!("d{round}")));
        fs::create_dir(&here).unwrap();
        assert_eq!(fs::metadata(here.join("x")).unwrap_err().raw_os_error(), Some(2));
        write_file(&here.join("mine"), b"1");
        write_file(&there.join("x"), b"2");
        // A change of names may take a second to show, docs/semantics.md.
        cluster.wait_for("the other mount's name", |_| here.join("x").exists());
        assert_eq!(fs::read(here.join("x")).unwrap(), b"2");
        assert_eq!(fs::read(there.join("mine")).unwrap(), b"1");
    }
}

#[test]
fn attributes_set_before_the_first_close_hold_on_both_mounts() {
    let cluster = Cluster::up(&[]);
    let second = cluster.mount_again();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    let times = fs::FileTimes::new().set_accessed(time).set_modified(time);
    for closed_first in [true, false] {
        let name = format!("f{closed_first}");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(cluster.path(&name))
            .unwrap();
        file.write_all(b"bytes").unwrap();
        file.set_times(times).unwrap();
        std::os::unix::fs::fchown(&file, Some(1), Some(2)).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o644)).unwrap();
        let as_set = |meta: &fs::Metadata| {
            assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.len()), (0o644, 1, 2, 5));
            assert_eq!(meta.modified().unwrap(), time);
        };
        as_set(&file.metadata().unwrap());
        let mut file = Some(file);
        if closed_first {
            file = None;
        }
        let other = fs::File::open(second.0.join(&name)).unwrap();
        as_set(&other.metadata().unwrap());
        as_set(&fs::metadata(cluster.path(&name)).unwrap());
        drop((file, other));
        as_set(&fs::metadata(cluster.path(&name)).unwrap());
    }
}

/// The kernel leaves it to the mount: what a write, a truncation or a change of owner takes away is what it takes away on
/// a local filesystem.
#[test]
fn setuid_and_setgid_go_as_they_go_on_a_local_filesystem() {
    let cluster = Cluster::up(&SMALL_CHUNKS);
    let script = r#"
        nobody="setpriv --reuid 65534 --regid 65534 --clear-groups"
        change() {
            case $1 in
                write) $2 dd if=/dev/zero of=f bs=1 count=3 conv=notrunc status=none ;;
                append) $2 sh -c 'printf x >> f' ;;
                direct) $2 dd if=/dev/zero of=f bs=4096 count=1 oflag=direct conv=notrunc status=none ;;
                truncate) $2 truncate -s 2 f ;;
                open) $2 sh -c ': > f' ;;
                chown) chown 65534:65534 f ;;
            esac
        }
        for mode in 6777 4777 2777 2767 755; do
            for how in write append direct truncate open chown; do
                for who in "$nobody" ""; do
                    rm -f f; printf abc > f; chown 0:0 f; chmod $mode f
                    change $how "$who" 2>/dev/null || echo refused
                    echo $mode $how ${who:+nobody} $(stat -c %a f)
                    # What was taken may come back by another mount or by root, and goes again.
                    chmod $mode f; change $how "$who" 2>/dev/null || echo refused
                    echo $mode $how ${who:+nobody} again $(stat -c %a f)
                done
            done
        done"#;
    let local = cluster.local("here");
    fs::create_dir(&local).unwrap();
    fs::create_dir(cluster.path("there")).unwrap();
    for dir in [local.clone(), cluster.path("there")] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let expected = sh(&local, script);
    assert_eq!(expected.lines().filter(|line| *line == "6777 write nobody 777").count(), 1, "{expected}");
    assert_eq!(sh(&cluster.path("there"), script), expected);

    // Another mount's chmod is heard of in a second.
    let second = cluster.mount_again();
    let (here, there) = (cluster.path("there/f"), second.0.join("there/f"));
    sh(&cluster.mount(), "printf abc > there/f && stat there/f");
    sh(&second.0, "chmod 6777 there/f");
    while fs::metadata(&here).unwrap().mode() & 0o7777 != 0o6777 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    sh(&cluster.path("there"), "setpriv --reuid 65534 --regid 65534 --clear-groups sh -c 'printf x >> f'");
    for path in [here, there] {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o777);
    }
}

/// The kernel refuses to cut a running program, and it finds out when the open has reached the mount.
#[test]
fn an_open_that_is_refused_cuts_nothing() {
    let cluster = Cluster::up(&[]);
    let program = cluster.path("sleep");
    fs::copy("/usr/bin/sleep", &program).unwrap();
    let size = fs::metadata(&program).unwrap().len();
    let mut running = Command::new(&program).arg("60").spawn().unwrap();
    for (write, cut) in [(true, 0), (false, libc::O_TRUNC), (true, libc::O_TRUNC)] {
        let opened = fs::OpenOptions::new().read(!write).write(write).custom_flags(cut).open(&program);
        assert_eq!(opened.unwrap_err().raw_os_error(), Some(libc::ETXTBSY));
    }
    assert!(running.try_wait().unwrap().is_none(), "the program died");
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(fs::metadata(&program).unwrap().len(), size);
    fs::OpenOptions::new().write(true).truncate(true).open(&program).unwrap();
    assert_eq!(fs::metadata(&program).unwrap().len(), 0);
}

/// A program that only writes makes the kernel ask for nothing, so that it does not hear of a capability.
#[test]
fn a_capability_that_another_mount_gave_goes_with_the_next_writes() {
    let cluster = Cluster::up(&[]);
    let second = cluster.mount_again();
    let mut file = fs::File::create(cluster.path("program")).unwrap();
    file.write_all(b"one").unwrap();
    sh(&second.0, "setfattr -n security.capability -v 0sAQAAAgAgAAAAAAAAAAAAAAAAAAA= program");
    let has = "getfattr --only-values -n security.capability program > /dev/null 2>&1 && echo yes || echo no";
    assert_eq!(sh(&second.0, has).trim(), "yes");
    for _ in 0..100 {
        file.write_all(b"more").unwrap();
        if sh(&second.0, has).trim() == "no" {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("it has it after 5 s of writes");
}

#[test]
fn errors_say_what_to_do() {
    let bin = binaries();
    let dir = tempfile::tempdir().unwrap();
    let fails = |binary: &str, args: &[&str], wants: &str| {
        let out = Command::new(bin.join(binary)).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success(), "{binary} {args:?} succeeded");
        assert!(said.contains(wants), "{binary} {args:?} said: {said}");
    };
    let path = dir.path().display().to_string();
    let missing = format!("{path}/missing");
    fails("dfs-fuse", &["--master", "127.0.0.1:1", &missing], "missing");
    fails("dfs-fuse", &["--master", "127.0.0.1:1", &path, "-o", "nonsense"], "nonsense");
    fails("dfs-master", &["run", "--data", &missing, "--listen", "127.0.0.1:0"], "init");
    fails("dfs", &["dev", "down", "--dir", &missing], "no dev cluster");
    fails("dfs", &["--master", "127.0.0.1:1", "status"], "no answer from the master");
    for binary in ["dfs-fuse", "dfs-master", "dfs-chunkserver", "dfs"] {
        fails(
            binary,
            &["--nonsense"],
            &format!("{binary}: unexpected argument '--nonsense' found; see --help\n"),
        );
    }
    // A mount point that is not empty, a busy port, a disk of another cluster.
    let one = Cluster::up(&["--servers", "1", "--replicas", "1"]);
    let addr = one.dev("addr", &[]);
    write_file(&dir.path().join("something"), b"here");
    fails("dfs-fuse", &["--master", addr.trim(), &path], "not empty");
    let fresh = format!("{path}/master");
    sh(dir.path(), &format!("{} init --data {fresh}", bin.join("dfs-master").display()));
    fails("dfs-master", &["run", "--data", &fresh, "--listen", addr.trim()], "in use");
    let other = Cluster::up(&["--servers", "1", "--replicas", "1"]);
    other.dev("stop", &["cs1"]);
    let disk = other.local("cluster/cs1/disk").display().to_string();
    fails(
        "dfs-chunkserver",
        &["--master", addr.trim(), "--listen", "127.0.0.1:0", "--disk", &disk],
        "another cluster",
    );
}

/// What `echo > file` does. (`std::fs::write` is not allowed in this workspace, see clippy.toml.)
fn write_file(path: &std::path::Path, bytes: &[u8]) {
    fs::File::create(path).expect("create").write_all(bytes).expect("write");
}
