//! What was found, for people or as JSON.

use dfs_proto::ids::Generation;

use super::{Found, Report, State};
use crate::config::Restore;

pub(super) fn show(args: &Restore, report: &Report) -> anyhow::Result<()> {
    if args.json {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    println!("cluster {}", report.cluster);
    report.copies.iter().for_each(|found| println!("{}", line(found)));
    let Some(best) = &report.best else { return Ok(()) };
    println!("best: {best}");
    println!("{}", lacks(report));
    Ok(())
}

fn line(found: &Found) -> String {
    let about = &found.copy.about;
    let what = match &found.state {
        State::Usable { index, snapshot, .. } => {
            let snapshot =
                if snapshot.0 == 0 { "no snapshot".into() } else { format!("snapshot at {snapshot}") };
            let early = if about.whole { "" } else { ", never complete" };
            format!("to record {index}, {snapshot}, last written {}{early}", utc(found.copy.written))
        }
        State::Unusable { why } => format!("can't be used: {why}"),
    };
    let of = found.server.map_or_else(String::new, |server| format!(" of server {server}"));
    format!("{}{of}, generation {}: {what}", found.copy.path, about.generation)
}

fn lacks(report: &Report) -> String {
    let on_hold = "a master that starts with it will be on hold: see `dfs recover` then";
    let Some(remembered) = report.remembered else {
        return format!("if a server has heard of later records, {on_hold}");
    };
    let (Generation(generation), index) = (remembered.generation, remembered.index);
    let heard = format!("these disks remember record {index} of generation {generation}");
    match report.missing {
        Some(0) => "no disk here remembers a later record".to_owned(),
        Some(missing) => format!("{heard}: {missing} records are missing; {on_hold}"),
        None => format!("{heard}, of which no copy is here; {on_hold}"),
    }
}

/// `YYYY-MM-DD HH:MM:SS UTC` of seconds since 1970.
fn utc(seconds: i64) -> String {
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days are counted from 1 March of the year 0, so that the leap day is a year's last.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_days() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_827_696), "2000-02-29 12:34:56 UTC");
        assert_eq!(utc(1_767_225_599), "2025-12-31 23:59:59 UTC");
    }
}
