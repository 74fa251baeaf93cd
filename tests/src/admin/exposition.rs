//! Prometheus' text format, version 0.0.4, read as strictly as its makers wish: each family once, with its help, its
//! type and a unit in its name, its samples right behind; histograms that are ones.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};

/// What a name ends with: a base unit, or what is counted.
const UNITS: &[&str] = &[
    "blocks",
    "bytes",
    "bytes_per_second",
    "chunks",
    "directories",
    "disks",
    "errors",
    "files",
    "info",
    "inodes",
    "ratio",
    "reads",
    "records",
    "replicas",
    "requests",
    "seconds",
    "sectors",
    "servers",
    "sessions",
    "state",
    "syncs",
    "writes",
];

/// One line with a value.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// A metric with all its samples.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Family {
    pub kind: String,
    pub help: String,
    pub samples: Vec<Sample>,
}

impl Family {
    /// The sum of the samples of that name whose labels are these, among others.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |sample: &&Sample| {
            let has = |(key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|is| is == value);
            sample.name == name && labels.iter().all(has)
        };
        self.samples.iter().filter(fits).map(|sample| sample.value).sum()
    }
}

/// All families of an answer, by name.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(text: &str) -> anyhow::Result<BTreeMap<String, Family>> {
    ensure!(text.ends_with('\n'), "the last line does not end");
    let mut all: BTreeMap<String, Family> = BTreeMap::new();
    let mut at: Option<String> = None;
    for (number, line) in text.lines().enumerate() {
        let mut read = || -> anyhow::Result<()> {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').context("HELP without a text")?;
                ensure!(is_name(name), "no name: {name}");
                ensure!(!help.is_empty(), "an empty HELP");
                let family = Family { help: help.to_owned(), ..Family::default() };
                ensure!(all.insert(name.to_owned(), family).is_none(), "{name} comes twice");
                at = Some(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').context("TYPE without a type")?;
                let family = at.as_ref().filter(|at| *at == name).and_then(|at| all.get_mut(at));
                let family = family.context("TYPE does not follow its HELP")?;
                ensure!(family.kind.is_empty() && family.samples.is_empty(), "a second TYPE");
                ensure!(matches!(kind, "counter" | "gauge" | "histogram"), "type {kind}");
                family.kind = kind.to_owned();
            } else {
                let sample = sample(line)?;
                let family = at.as_ref().and_then(|at| Some((at, all.get_mut(at)?)));
                let (name, family) = family.context("a sample before any family")?;
                ensure!(belongs(&sample.name, name, &family.kind), "{} is not of {name}", sample.name);
                family.samples.push(sample);
            }
            Ok(())
        };
        read().with_context(|| format!("line {}: {line}", number + 1))?;
    }
    for (name, family) in &all {
        check(name, family).with_context(|| name.clone())?;
    }
    Ok(all)
}

fn belongs(sample: &str, family: &str, kind: &str) -> bool {
    match kind {
        "histogram" => {
            let suffix = sample.strip_prefix(family).unwrap_or_default();
            matches!(suffix, "_bucket" | "_sum" | "_count")
        }
        "counter" | "gauge" => sample == family,
        _ => false,
    }
}

fn check(name: &str, family: &Family) -> anyhow::Result<()> {
    ensure!(!family.kind.is_empty(), "no TYPE");
    ensure!(
        (family.kind == "counter") == name.ends_with("_total"),
        "counters, and no others, end with _total"
    );
    let base = name.strip_suffix("_total").unwrap_or(name);
    ensure!(UNITS.iter().any(|unit| base.ends_with(&format!("_{unit}"))), "no unit at its end");
    let mut seen = BTreeSet::new();
    for sample in &family.samples {
        ensure!(seen.insert((&sample.name, &sample.labels)), "twice: {sample:?}");
        ensure!(family.kind == "gauge" || sample.value >= 0.0, "negative: {sample:?}");
    }
    if family.kind == "histogram" { histogram(name, family) } else { Ok(()) }
}

/// Of each set of labels but `le`: where its buckets end, and how much is in them.
type Buckets<'a> = BTreeMap<BTreeMap<&'a String, &'a String>, Vec<(f64, f64)>>;

fn histogram(name: &str, family: &Family) -> anyhow::Result<()> {
    let mut buckets: Buckets<'_> = BTreeMap::new();
    for sample in family.samples.iter().filter(|sample| sample.name == format!("{name}_bucket")) {
        let le = sample.labels.get("le").context("a bucket without le")?;
        let others = sample.labels.iter().filter(|(key, _)| *key != "le").collect();
        buckets.entry(others).or_default().push((float(le)?, sample.value));
    }
    for (labels, rows) in buckets {
        for pair in rows.windows(2) {
            ensure!(
                pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1,
                "buckets out of order: {labels:?} {pair:?}"
            );
        }
        let (end, most) = *rows.last().context("no bucket")?;
        ensure!(end.is_infinite(), "{labels:?} has no +Inf");
        let of = |suffix: &str| {
            let name = format!("{name}{suffix}");
            let same = |sample: &&Sample| {
                sample.name == name && sample.labels.iter().collect::<BTreeMap<_, _>>() == labels
            };
            family.samples.iter().find(same).map(|sample| sample.value).with_context(|| format!("no {name}"))
        };
        ensure!((of("_count")? - most).abs() < f64::EPSILON, "{labels:?}: count and +Inf differ");
        of("_sum")?;
    }
    Ok(())
}

fn float(text: &str) -> anyhow::Result<f64> {
    match text {
        "+Inf" => Ok(f64::INFINITY),
        _ => text.parse().with_context(|| format!("no number: {text}")),
    }
}

fn is_name(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

fn sample(line: &str) -> anyhow::Result<Sample> {
    let end = line.find(['{', ' ']).context("neither a comment nor a sample")?;
    let (name, rest) = line.split_at(end);
    ensure!(is_name(name), "no name: {name}");
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.strip_prefix(' ').context("no blank before the value")?;
    Ok(Sample { name: name.to_owned(), labels, value: float(value)? })
}

/// `a="b",...}` and what follows it.
fn labels(mut rest: &str) -> anyhow::Result<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        let (name, after) = rest.split_once("=\"").context("a label without a value")?;
        ensure!(is_name(name), "no label: {name}");
        let mut value = String::new();
        let mut letters = after.char_indices();
        let end = loop {
            match letters.next().context("a value without an end")? {
                (at, '"') => break at,
                (_, '\\') => match letters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, letter @ ('\\' | '"'))) => value.push(letter),
                    other => bail!("no escape: {other:?}"),
                },
                (_, letter) => value.push(letter),
            }
        };
        ensure!(labels.insert(name.to_owned(), value).is_none(), "label {name} twice");
        rest = &after[end + 1..];
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        rest = rest.strip_prefix(',').context("no comma between labels")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "# HELP x_seconds How long\n# TYPE x_seconds histogram\n\
        x_seconds_bucket{op=\"a\",le=\"1.0\"} 2\nx_seconds_bucket{op=\"a\",le=\"+Inf\"} 3\n\
        x_seconds_sum{op=\"a\"} 4.5\nx_seconds_count{op=\"a\"} 3\n\
        # HELP y_bytes_total Bytes\n# TYPE y_bytes_total counter\ny_bytes_total{n=\"q\\\"\\\\\\n\"} 7\n";

    #[test]
    fn what_is_sound_is_read() {
        let all = parse(SOUND).unwrap();
        assert_eq!(all["x_seconds"].sum("x_seconds_count", &[("op", "a")]), 3.0);
        assert_eq!(all["y_bytes_total"].samples[0].labels["n"], "q\"\\\n");
    }

    #[test]
    fn what_is_not_is_refused() {
        let wrong = [
            ("x_seconds_count{op=\"a\"} 3", "x_seconds_count{op=\"a\"} 4"),
            ("le=\"1.0\"} 2", "le=\"1.0\"} 9"),
            ("le=\"+Inf\"} 3", "le=\"2.0\"} 3"),
            ("# HELP y_bytes_total Bytes\n", ""),
            ("# TYPE y_bytes_total counter\n", ""),
            ("# TYPE y_bytes_total counter", "# TYPE y_bytes_total gauge"),
            ("y_bytes_total", "y_total"),
            ("} 7\n", "} 7"),
            ("} 7", "} seven"),
            ("} 7", "} -7"),
            ("n=\"q", "n=q"),
            ("y_bytes_total{", "z_bytes_total{"),
        ];
        for (good, bad) in wrong {
            let text = SOUND.replace(good, bad);
            assert_ne!(text, SOUND);
            assert!(parse(&text).is_err(), "{text}");
        }
    }
}
