//! The status page in a real browser: it loads, follows the cluster, and logs no error.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write;
use std::time::Duration;

use dfs_tests::browser::{Browser, Size};
use dfs_tests::cluster::Cluster;

const SCREEN: Size = Size { width: 1280, height: 900 };
const PHONE: Size = Size { width: 390, height: 844 };
const LOADED: &str = "document.body.dataset.ready === 'yes'";
/// What the page is to show of a change.
const SOON: Duration = Duration::from_secs(5);
const TAB: u32 = 9;

fn page(cluster: &Cluster) -> String {
    format!("http://{}/", cluster.dev("admin", &["master"]).trim())
}

fn open(cluster: &Cluster) -> Browser {
    let mut browser = Browser::start(SCREEN).unwrap();
    browser.open(&page(cluster)).unwrap();
    browser.wait(Duration::from_secs(10), LOADED).unwrap();
    browser
}

fn text(browser: &mut Browser, of: &str) -> String {
    let text = browser.value(&format!("document.querySelector('{of}').innerText")).unwrap();
    text.as_str().unwrap_or_default().to_owned()
}

fn state_of(server: &str, is: &str) -> String {
    let rows = "[...document.querySelectorAll('#server-table tbody tr')]";
    format!("{rows}.some((row) => row.innerText.startsWith('{server} ') && row.innerText.includes('{is}'))")
}

#[test]
fn it_shows_a_killed_server_within_five_seconds_and_logs_no_error() {
    let cluster = Cluster::up(&["--servers", "3", "--replicas", "2"]);
    cluster.wait_for("three servers", |status| status["servers_up"] == 3);
    let mut browser = open(&cluster);
    browser.wait(SOON, "document.querySelectorAll('#server-table .good').length === 3").unwrap();
    assert!(text(&mut browser, "#tiles").contains("3 of 3"));
    assert!(text(&mut browser, "#mount-table").contains("/mnt"), "{}", text(&mut browser, "#mount-table"));
    // The disk of the machine may be rather full, and the page say so.
    browser.wait(SOON, "!document.querySelector('#alerts').innerText.includes('is down')").unwrap();
    cluster.dev("kill", &["cs2"]);
    browser.wait(SOON, &state_of("cs2", "down")).unwrap();
    let alert = "document.querySelector('#alerts').innerText.includes('cs2 is down')";
    browser.wait(Duration::from_secs(2), alert).unwrap();
    cluster.dev("start", &["cs2"]);
    browser.wait(Duration::from_secs(20), &format!("!({})", state_of("cs2", "down"))).unwrap();
    assert_eq!(browser.errors().unwrap(), Vec::<String>::new());
    // Without the master it says so itself, and does not show what is old as if it were not.
    cluster.dev("kill", &["master"]);
    browser.wait(SOON, "document.querySelector('#live.lost') !== null").unwrap();
}

#[test]
fn it_works_by_keyboard_on_a_phone_and_in_the_dark() {
    let cluster = Cluster::up(&["--servers", "2", "--replicas", "2"]);
    let mut browser = open(&cluster);
    browser.press("Tab", TAB).unwrap();
    assert_eq!(browser.value("document.activeElement.className").unwrap(), "skip");
    let mut reached = Vec::new();
    for _ in 0..20 {
        browser.press("Tab", TAB).unwrap();
        let at = "document.activeElement.getAttribute('href') ?? document.activeElement.getAttribute('aria-labelledby')";
        reached.push(browser.value(at).unwrap().as_str().unwrap_or_default().to_owned());
    }
    for stop in ["#servers", "#master", "servers-title", "heat-title", "mounts-title"] {
        assert!(reached.iter().any(|at| at == stop), "{stop}: {reached:?}");
    }
    let ground = "getComputedStyle(document.body).backgroundColor";
    browser.prefer("light").unwrap();
    let light = browser.value(ground).unwrap();
    browser.prefer("dark").unwrap();
    assert_ne!(browser.value(ground).unwrap(), light);
    browser.resize(PHONE, true).unwrap();
    // Wide tables scroll by themselves; the page does not.
    browser.wait(SOON, "document.documentElement.scrollWidth <= 390").unwrap();
    assert_eq!(browser.errors().unwrap(), Vec::<String>::new());
}

#[test]
fn names_stay_text() {
    let cluster = Cluster::up(&["--servers", "2", "--replicas", "2"]);
    let name = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'<";
    let path = cluster.path(name);
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&vec![7; 3 << 20]).unwrap();
    file.sync_all().unwrap();
    let mut browser = open(&cluster);
    let shown =
        format!("document.querySelector('#heat-table').innerText.includes({})", serde_json::json!(name));
    browser.wait(Duration::from_secs(10), &shown).unwrap();
    assert_eq!(browser.value("document.querySelectorAll('main img, main script').length").unwrap(), 0);
    assert_ne!(browser.value("document.title").unwrap(), "owned");
    assert_eq!(browser.errors().unwrap(), Vec::<String>::new());
}
