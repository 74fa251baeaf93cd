//! A scrape in Prometheus' text format: families in the order in which the daemon names them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use crate::histogram::Histogram;

/// What writes a daemon's figures, taken at one moment.
pub type Figures = Box<dyn Fn(&mut Page<'_>) -> fmt::Result + Send + Sync>;

/// A label and its value, which may be any text.
type Label = (&'static str, String);

/// Where figures are written. A name carries its unit, as in `dfs_master_log_sync_seconds`; counters get `_total`
/// behind it. Whatever a family has no sample of, its name and help are there.
#[derive(Debug)]
pub struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// One that goes up and down.
    ///
    /// # Errors
    /// When the text can't be written.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// One for each set of labels.
    ///
    /// # Errors
    /// When the text can't be written.
    pub fn gauges(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Vec<Label>, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// One that only grows.
    ///
    /// # Errors
    /// When the text can't be written.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut one = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        one.encode_counter(&value, None::<&Exemplar<NoLabelSet, f64>>)
    }

    /// One for each set of labels.
    ///
    /// # Errors
    /// When the text can't be written.
    pub fn counters(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Vec<Label>, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_counter(&value, None::<&Exemplar<NoLabelSet, f64>>)?;
        }
        Ok(())
    }

    /// How long something takes, for each set of labels.
    ///
    /// # Errors
    /// When the text can't be written.
    pub fn times<'h>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Vec<Label>, &'h Histogram)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, times) in rows {
            let shown = times.shown();
            let mut one = family.encode_family(&labels)?;
            one.encode_histogram::<NoLabelSet>(shown.sum_s, shown.count, &shown.buckets, None)?;
        }
        Ok(())
    }
}

/// A number as Prometheus has it.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "it knows floating point only; beyond 2^53 the last digits say nothing"
)]
pub fn number(value: u64) -> f64 {
    value as f64
}

/// 1 when it is so.
#[must_use]
pub fn state(is: bool) -> f64 {
    f64::from(u8::from(is))
}

struct Scrape(Figures);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.0)(&mut Page(encoder))
    }
}

/// The text of a scrape.
pub(crate) fn text(figures: Figures) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(figures)));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_as_prometheus_reads_them() {
        let figures: Figures = Box::new(|page| {
            page.gauge("dfs_x_bytes", "Of x", 1.5)?;
            let name = "a\"b\\c\nd".to_owned();
            page.counters("dfs_y_requests", "Of y", [(vec![("server", name)], 3)])?;
            let times = Histogram::new();
            times.took_us(20);
            page.times("dfs_z_seconds", "Of z", [(vec![("op", "read".to_owned())], &times)])?;
            page.gauges("dfs_none_servers", "Nothing", [])
        });
        let text = text(figures).unwrap();
        let has = |line: &str| assert!(text.lines().any(|is| is == line), "{line}\n{text}");
        has("# HELP dfs_x_bytes Of x");
        has("# TYPE dfs_x_bytes gauge");
        has("dfs_x_bytes 1.5");
        has("# TYPE dfs_y_requests_total counter");
        has(r#"dfs_y_requests_total{server="a\"b\\c\nd"} 3"#);
        has(r#"dfs_z_seconds_bucket{op="read",le="3.2e-05"} 1"#);
        has(r#"dfs_z_seconds_bucket{op="read",le="+Inf"} 1"#);
        has(r#"dfs_z_seconds_count{op="read"} 1"#);
        has("# TYPE dfs_none_servers gauge");
    }
}
