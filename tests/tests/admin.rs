//! The admin ports of real daemons: figures that Prometheus can read, answers as documented, and a verdict of health
//! that means it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dfs_tests::admin::{Family, ask, documented, get, keys_of, parse};
use dfs_tests::cluster::{Cluster, sh};

const CHUNK: usize = 65_536;

fn up() -> Cluster {
    Cluster::up(&["--servers", "3", "--replicas", "2", "--chunk-size", "65536"])
}

fn port(cluster: &Cluster, member: &str) -> String {
    let addr = cluster.dev("admin", &[member]);
    addr.trim().to_owned()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn figures(cluster: &Cluster, member: &str) -> BTreeMap<String, Family> {
    let got = get(&port(cluster, member), "/metrics").unwrap();
    assert_eq!(got.status, 200, "{}", got.body);
    assert!(got.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"), "{got:?}");
    parse(&got.body).unwrap_or_else(|error| panic!("{member}: {error:#}\n{}", got.body))
}

/// Until `is` holds; what it took.
#[expect(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
fn within(limit: Duration, what: &str, mut is: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

fn work(cluster: &Cluster) {
    let path = cluster.path("work");
    let bytes = vec![7; 3 * CHUNK];
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&bytes).unwrap();
    file.sync_all().unwrap();
    drop(file);
    assert!(fs::read(&path).unwrap() == bytes);
    fs::create_dir(cluster.path("dir")).unwrap();
    fs::rename(&path, cluster.path("dir/work")).unwrap();
    sh(&cluster.mount(), "cat dir/work >/dev/null; ls -l dir >/dev/null");
}

/// The names of metrics that expressions of Prometheus use.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !is_part(letter));
    words.filter(|word| word.starts_with("dfs_")).map(str::to_owned).collect()
}

fn is_there(all: &BTreeMap<String, Family>, name: &str) -> bool {
    let of_histogram = ["_bucket", "_sum", "_count"].iter().any(|suffix| {
        let base = name.strip_suffix(suffix).and_then(|base| all.get(base));
        base.is_some_and(|family| family.kind == "histogram")
    });
    all.contains_key(name) || of_histogram
}

#[test]
fn every_daemon_has_sound_figures_and_those_that_the_rules_and_the_dashboard_name() {
    let cluster = up();
    work(&cluster);
    let mut all = figures(&cluster, "master");
    let created =
        all["dfs_master_request_seconds"].sum("dfs_master_request_seconds_count", &[("op", "create")]);
    assert!(created >= 1.0, "{all:?}");
    assert!(all["dfs_master_log_sync_seconds"].sum("dfs_master_log_sync_seconds_count", &[]) >= 1.0);
    assert_eq!(all["dfs_master_servers"].sum("dfs_master_servers", &[("state", "up")]), 3.0);
    assert_eq!(all["dfs_master_leader_state"].sum("dfs_master_leader_state", &[]), 1.0);
    let mut written = 0.0;
    for server in ["cs1", "cs2", "cs3"] {
        let of = figures(&cluster, server);
        let request = &of["dfs_chunkserver_request_seconds"];
        written += request.sum("dfs_chunkserver_request_seconds_count", &[("op", "write")]);
        assert_eq!(of["dfs_chunkserver_lease_state"].samples[0].value, 1.0);
        assert!(of["dfs_chunkserver_disk_size_bytes"].samples[0].value > 0.0);
        all.extend(of);
    }
    assert!(written >= 3.0, "{written} writes of three chunks");
    let mount = figures(&cluster, "mount");
    let asked = |op| mount["dfs_mount_request_seconds"].sum("dfs_mount_request_seconds_count", &[("op", op)]);
    for op in ["create", "write", "fsync", "release", "mkdir", "rename", "lookup", "readdir"] {
        assert!(asked(op) >= 1.0, "{op}: {mount:?}");
    }
    assert!(mount["dfs_mount_session_left_seconds"].samples[0].value > 0.0);
    all.extend(mount);
    for file in ["packaging/prometheus/dfs.rules.yml", "packaging/grafana/dfs.json"] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        let names = named(&text);
        assert!(names.len() > 20, "{file}: {names:?}");
        let missing: Vec<_> = names.iter().filter(|name| !is_there(&all, name)).collect();
        assert!(missing.is_empty(), "{file} names what no daemon shows: {missing:?}");
    }
}

#[test]
fn each_alert_is_explained() {
    let rules = fs::read_to_string(root().join("packaging/prometheus/dfs.rules.yml")).unwrap();
    let page = fs::read_to_string(root().join("docs/operations-alerts.md")).unwrap();
    let alerts: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let explained: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .filter(|title| title.starts_with("Dfs"))
        .collect();
    assert!(alerts.len() > 10);
    assert_eq!(alerts, explained);
    let dashboard = fs::read_to_string(root().join("packaging/grafana/dfs.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 10);
}

/// A key below one that is null in the answer is not missing, and neither is one in a list without elements.
fn is_excused(key: &str, answer: &BTreeSet<String>) -> bool {
    let mut above = key;
    while let Some(at) = above.rfind(['.', '[']) {
        above = &above[..at];
        if answer.contains(above) || answer.contains(&format!("{above}[]")) {
            return true;
        }
    }
    false
}

#[test]
fn answers_have_the_keys_that_the_document_has() {
    let cluster = up();
    work(&cluster);
    let document = fs::read_to_string(root().join("docs/api.md")).unwrap();
    let at = port(&cluster, "master");
    let routes: Vec<&str> =
        document.lines().filter_map(|line| line.strip_prefix("## `/api/v1/")?.strip_suffix('`')).collect();
    assert!(routes.len() >= 8, "{routes:?}");
    for route in routes.into_iter().filter(|route| *route != "events") {
        let route = format!("/api/v1/{route}");
        let got = get(&at, &route).unwrap();
        assert_eq!(
            (got.status, got.header("content-type")),
            (200, Some("application/json")),
            "{route}: {got:?}"
        );
        let (answer, says) = (keys_of(&got.json()), documented(&document, &route));
        let excused = |key: &&String| !is_excused(key, &answer);
        let missing: Vec<_> = says.difference(&answer).filter(excused).collect();
        assert!(missing.is_empty(), "{route} lacks {missing:?}: {}", got.body);
        let known = |key: &&String| {
            let empty = key
                .strip_suffix("[]")
                .is_some_and(|list| says.iter().any(|says| says.starts_with(&format!("{list}["))));
            let null = says.iter().any(|says| says.starts_with(&format!("{key}.")));
            !empty && !null
        };
        let unsaid: Vec<_> = answer.difference(&says).filter(known).collect();
        assert!(unsaid.is_empty(), "docs/api.md does not tell of {unsaid:?} of {route}");
    }
    // The same structs as the command prints.
    assert_eq!(keys_of(&get(&at, "/api/v1/status").unwrap().json()), keys_of(&cluster.json(&["status"])));
    let sessions = get(&at, "/api/v1/sessions").unwrap().json();
    assert_eq!(keys_of(&sessions), keys_of(&cluster.json(&["session", "list"])));
    assert_eq!(
        keys_of(&get(&at, "/api/v1/servers").unwrap().json()),
        keys_of(&cluster.json(&["server", "list"]))
    );
}

#[test]
fn a_killed_server_shows_and_a_server_without_its_master_is_not_ready() {
    let cluster = up();
    let (master, server, mount) = (port(&cluster, "master"), port(&cluster, "cs2"), port(&cluster, "mount"));
    for at in [&master, &server, &mount] {
        assert_eq!(get(at, "/healthz").unwrap().status, 200);
        assert_eq!(get(at, "/readyz").unwrap().status, 200, "{}", get(at, "/readyz").unwrap().body);
    }
    let is_up = |name: &str| {
        let servers = get(&master, "/api/v1/servers").unwrap().json();
        let all = servers["servers"].as_array().unwrap().clone();
        all.iter().find(|server| server["name"] == name).unwrap()["up"] == true
    };
    assert!(is_up("cs1"));
    cluster.dev("kill", &["cs1"]);
    let took = within(Duration::from_secs(5), "the killed server is down", || !is_up("cs1"));
    println!("a killed server showed after {took:?}");
    // Without a master the lease ends, and so does the session of the mount; both processes are well.
    cluster.dev("pause", &["master"]);
    let not_ready = |at: &str| get(at, "/readyz").unwrap();
    within(Duration::from_secs(20), "no lease", || not_ready(&server).status == 503);
    assert!(not_ready(&server).body.contains("no lease"), "{:?}", not_ready(&server));
    assert_eq!(get(&server, "/healthz").unwrap().status, 200);
    within(Duration::from_secs(60), "no session", || not_ready(&mount).status == 503);
    assert_eq!(get(&mount, "/healthz").unwrap().status, 200);
    cluster.dev("resume", &["master"]);
    within(Duration::from_secs(20), "a lease again", || not_ready(&server).status == 200);
    within(Duration::from_secs(20), "a session again", || not_ready(&mount).status == 200);
}

#[test]
fn a_master_on_hold_is_alive_and_not_ready() {
    let cluster = up();
    cluster.dev("stop", &["mount"]);
    cluster.dev("stop", &["master"]);
    let old = cluster.local("old");
    sh(cluster.local("").as_path(), &format!("cp -a cluster/master {}", old.display()));
    for member in ["master", "mount"] {
        cluster.dev("start", &[member]);
    }
    work(&cluster);
    // The servers have heard of records that the old copy has not.
    for member in ["mount", "master"] {
        cluster.dev("stop", &[member]);
    }
    sh(
        cluster.local("").as_path(),
        &format!("rm -rf cluster/master; cp -a {} cluster/master", old.display()),
    );
    cluster.dev("start", &["master"]);
    let at = port(&cluster, "master");
    within(Duration::from_secs(20), "on hold", || get(&at, "/readyz").unwrap().status == 503);
    let said = get(&at, "/readyz").unwrap().body;
    assert!(said.contains("on hold") && said.contains("dfs recover"), "{said}");
    assert_eq!(get(&at, "/healthz").unwrap().status, 200);
    let all = figures(&cluster, "master");
    assert_eq!(all["dfs_master_hold_state"].samples[0].value, 1.0);
}

#[test]
fn the_port_changes_nothing_and_is_for_this_machine() {
    let cluster = up();
    for member in ["master", "cs1", "mount"] {
        let at = port(&cluster, member);
        let got = get(&at, "/healthz").unwrap();
        let policy = got.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
        let foreign = ask(&at, "GET", "/metrics", "evil.example").unwrap();
        assert_eq!(foreign.status, 421, "{foreign:?}");
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            assert_eq!(ask(&at, method, "/readyz", &at).unwrap().status, 405, "{method}");
        }
        assert_eq!(get(&at, "/nothing").unwrap().status, 404);
    }
    let at = port(&cluster, "master");
    // What comes of it goes on changing while servers come.
    let set = || cluster.json(&["policy", "show"])["set"].clone();
    let before = set();
    // A report whose request can change something: what a caller says of it is not heard.
    let said = get(&at, "/api/v1/policy?max_replicas=9&raise_after_ms=1").unwrap().json();
    assert_eq!((&said["set"], &set()), (&before, &before));
}
