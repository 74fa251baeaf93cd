//! `dfs recover`: the way out of HOLD, which shows first what it costs.

use std::path::PathBuf;

use anyhow::bail;
use dfs_proto::ids::LogIndex;
use dfs_proto::meta::{Recover, RecoverReport};

use crate::connect::Target;
use crate::output::{Table, Tone, pairs};

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("sources").multiple(true)))]
pub(crate) struct Args {
    /// Go on with the log that ends at this record, as shown without this option. What later records said is
    /// lost for good
    #[arg(long, value_name = "INDEX")]
    accept_metadata_loss: Option<u64>,
    /// All masters are gone: look at the copies of the master's log that chunk servers have
    #[arg(long, requires = "sources", conflicts_with = "accept_metadata_loss")]
    pub(crate) from_servers: bool,
    /// Directory of a disk of a stopped chunk server; give all disks of all servers
    #[arg(long = "disk", value_name = "DIR", requires = "from_servers", group = "sources")]
    pub(crate) disks: Vec<PathBuf>,
    /// A chunk server that runs and has lost its master, whose copies are fetched; give all that are not given by their disks
    #[arg(long = "server", value_name = "HOST:PORT", requires = "from_servers", group = "sources")]
    pub(crate) servers: Vec<String>,
    /// Where copies are fetched to, and removed from at the end: room for the master's directory, once for each server
    #[arg(long, value_name = "DIR", requires = "servers", default_value = "/var/tmp")]
    pub(crate) scratch: PathBuf,
    /// Make a master's directory of the best copy here, where nothing is yet. Without it, only tell what is there
    #[arg(long, value_name = "DIR", requires = "from_servers")]
    pub(crate) to: Option<PathBuf>,
    /// Look at copies of this generation only; else the newest counts most
    #[arg(long, value_name = "N", requires = "from_servers")]
    pub(crate) generation: Option<u16>,
}

pub(crate) fn run(target: &Target, args: &Args) -> anyhow::Result<()> {
    let before = target.ask(&Recover { accept: None }, None)?;
    let Some(index) = args.accept_metadata_loss else { return show(target, &before) };
    if before.hold.is_none() {
        bail!("the master is not on hold: there is nothing to recover");
    }
    if before.last_index != LogIndex(index) {
        bail!(
            "the master's log ends at record {}, not {index}: look at `dfs recover` again and name that one",
            before.last_index
        );
    }
    let after = target.ask(&Recover { accept: Some(LogIndex(index)) }, None)?;
    if target.json {
        println!("{}", serde_json::to_string_pretty(&after)?);
        return Ok(());
    }
    println!("The cluster goes on in generation {}, from record {}.", after.generation, after.last_index);
    println!("Replicas that the log does not know are left alone; `dfs status` counts them.");
    Ok(())
}

fn show(target: &Target, report: &RecoverReport) -> anyhow::Result<()> {
    if target.json {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    let Some(why) = &report.hold else {
        println!("The master is not on hold: there is nothing to recover.");
        return Ok(());
    };
    pairs(&[
        ("on hold", why.clone(), Tone::Bad),
        (
            "this log",
            format!("ends at record {}, generation {}", report.last_index, report.generation),
            Tone::Plain,
        ),
    ]);
    let mut table = Table::new(&["SERVER", "RECORD", "RECORDS LOST", "CHUNK IDS LOST", "REPLICAS", "WHY"]);
    for server in &report.ahead {
        let records = server.index.0.saturating_sub(report.last_index.0);
        // Ids are given out in ranges: this is the most it can be.
        let chunks = server
            .max_chunk
            .filter(|chunk| chunk.generation() >= report.generation)
            .map_or(0, |chunk| (chunk.counter() + 1).saturating_sub(report.ids_below));
        table.row(vec![
            (server.name.clone(), Tone::Plain),
            (server.index.to_string(), Tone::Plain),
            (records.to_string(), if records == 0 { Tone::Plain } else { Tone::Bad }),
            (chunks.to_string(), if chunks == 0 { Tone::Plain } else { Tone::Bad }),
            (server.replicas.to_string(), Tone::Plain),
            (server.why.clone(), Tone::Plain),
        ]);
    }
    table.print();
    println!();
    println!("Best: stop the master, put the newest copy of its directory back, start it.");
    println!(
        "If there is none: `dfs recover --accept-metadata-loss {}` goes on with this log. Files made, renamed or \
         removed since are as this log has them, bytes written to chunks made since are not reachable, and \
         mounts of that time lose what they have not written yet. No replica is deleted by this.",
        report.last_index
    );
    Ok(())
}
