//! Hosts with a network of their own: a namespace each, joined by a bridge that lies in one more namespace. Links
//! are cut one way or both, and made slow. Nothing of it shows in the machine's own network, and all of it goes
//! with the namespaces.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;

use super::volume::run;

/// Tells the networks of one process apart.
static NETWORKS: AtomicU32 = AtomicU32::new(0);
/// Bytes that a slow link sends at once, and how long it lets packets wait: ordinary values of tbf.
const BURST: &str = "16kb";
const QUEUE_LATENCY: &str = "400ms";

/// A host of a network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Port(pub u8);

/// Hosts that reach each other. Dropping it takes all of it away.
#[derive(Debug)]
pub struct Network {
    /// Begins the name of each namespace.
    prefix: String,
    made: Vec<String>,
}

impl Network {
    /// So many hosts.
    ///
    /// # Errors
    /// When we are not root, or a tool is missing.
    pub fn new(hosts: u8) -> anyhow::Result<Network> {
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("dfs-{}-{number}", std::process::id());
        let mut network = Network { prefix, made: Vec::new() };
        let switch = format!("{}-switch", network.prefix);
        network.make(&switch)?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        for host in (0..hosts).map(Port) {
            network.join(host, &switch).with_context(|| format!("host {}", host.0))?;
        }
        Ok(network)
    }

    fn make(&mut self, name: &str) -> anyhow::Result<()> {
        ip(&["netns", "add", name])?;
        self.made.push(name.to_owned());
        ip(&["-n", name, "link", "set", "lo", "up"])
    }

    fn join(&mut self, host: Port, switch: &str) -> anyhow::Result<()> {
        let name = self.namespace(host);
        self.make(&name)?;
        let port = format!("port{}", host.0);
        let pair = ["type", "veth", "peer", "name", "eth0", "netns", &name];
        ip(&[&["-n", switch, "link", "add", &port][..], &pair[..]].concat())?;
        ip(&["-n", switch, "link", "set", &port, "master", "br0", "up"])?;
        ip(&["-n", &name, "addr", "add", &format!("{}/24", self.address(host)), "dev", "eth0"])?;
        ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        self.filter(host, "add table inet dfs")?;
        self.filter(host, "add set inet dfs cut { type ipv4_addr ; }")?;
        self.filter(host, "add chain inet dfs in { type filter hook input priority 0 ; }")?;
        self.filter(host, "add rule inet dfs in ip saddr @cut drop")
    }

    /// The name of a host's namespace.
    #[must_use]
    pub fn namespace(&self, host: Port) -> String {
        format!("{}-{}", self.prefix, host.0)
    }

    /// A host's address.
    #[must_use]
    pub fn address(&self, host: Port) -> String {
        format!("10.77.0.{}", host.0 + 1)
    }

    fn filter(&self, host: Port, command: &str) -> anyhow::Result<()> {
        let name = self.namespace(host);
        let words = ["netns", "exec", &name, "nft"];
        ip(&words.into_iter().chain(command.split(' ')).collect::<Vec<_>>())
    }

    /// What `from` sends does not reach `to` any more; the other way stays.
    ///
    /// # Errors
    /// When the filter can't be set.
    pub fn cut(&self, from: Port, to: Port) -> anyhow::Result<()> {
        self.filter(to, &format!("add element inet dfs cut {{ {} }}", self.address(from)))
    }

    /// Neither reaches the other.
    ///
    /// # Errors
    /// When the filter can't be set.
    pub fn cut_both(&self, a: Port, b: Port) -> anyhow::Result<()> {
        self.cut(a, b).and_then(|()| self.cut(b, a))
    }

    /// A host hears everybody again.
    ///
    /// # Errors
    /// When the filter can't be set.
    pub fn heal(&self, host: Port) -> anyhow::Result<()> {
        self.filter(host, "flush set inet dfs cut")
    }

    /// What a host sends goes at `rate`, as tc(8) writes it, or as fast as it can.
    ///
    /// # Errors
    /// When the link can't be set.
    pub fn limit(&self, host: Port, rate: Option<&str>) -> anyhow::Result<()> {
        let name = self.namespace(host);
        let tbf = ["tbf", "rate", rate.unwrap_or(""), "burst", BURST, "latency", QUEUE_LATENCY];
        let words: &[&str] = if rate.is_some() { &tbf } else { &[] };
        let how = if rate.is_some() { "replace" } else { "del" };
        run("tc", &[&["-n", &name, "qdisc", how, "dev", "eth0", "root"][..], words].concat()).map(drop)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.made.iter().rev() {
            if let Err(error) = ip(&["netns", "del", name]) {
                eprintln!("left behind: {error:#}");
            }
        }
    }
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    run("ip", args).map(drop)
}
