//! The options as an operator writes them, and back.

use dfs_proto::meta::Policy;

use super::{CopyBudget, Threshold, Thresholds};

impl Thresholds {
    /// These, with what an operator names of them.
    ///
    /// # Errors
    /// In words, when something is no option's value, or all together contradict each other.
    pub fn changed_by(self, change: &Policy) -> Result<Thresholds, String> {
        let threshold = |text: &Option<String>, old: Threshold| {
            text.as_ref().map_or(Ok(old), |text| text.parse().map_err(|bad| format!("{bad}")))
        };
        let budget = |text: &Option<String>, old: CopyBudget| {
            text.as_ref().map_or(Ok(old), |text| text.parse().map_err(|bad| format!("{bad}")))
        };
        let replicas = |wanted: u64| usize::try_from(wanted).unwrap_or(usize::MAX);
        let new = Thresholds {
            max: threshold(&change.max_threshold, self.max)?,
            min: threshold(&change.min_threshold, self.min)?,
            max_replicas: change.max_replicas.map_or(self.max_replicas, replicas),
            raise_after_ms: change.raise_after_ms.unwrap_or(self.raise_after_ms),
            lower_after_ms: change.lower_after_ms.unwrap_or(self.lower_after_ms),
            cooldown_ms: change.cooldown_ms.unwrap_or(self.cooldown_ms),
            budget: budget(&change.replication_budget, self.budget)?,
            surplus_permille: change.surplus_permille.unwrap_or(self.surplus_permille),
        };
        new.check().map_err(|bad| bad.to_string())?;
        Ok(new)
    }

    /// Every option, as an operator would write it.
    #[must_use]
    pub fn as_written(&self) -> Policy {
        let units = |threshold: Threshold| match threshold {
            Threshold::Auto => "auto".to_owned(),
            Threshold::PerSecond(rate) => (rate.0 / 1000).to_string(),
        };
        let budget = match self.budget {
            CopyBudget::Auto => "auto".to_owned(),
            CopyBudget::PerSecond(bytes) => bytes.to_string(),
        };
        Policy {
            max_threshold: Some(units(self.max)),
            min_threshold: Some(units(self.min)),
            max_replicas: Some(self.max_replicas as u64),
            replication_budget: Some(budget),
            raise_after_ms: Some(self.raise_after_ms),
            lower_after_ms: Some(self.lower_after_ms),
            cooldown_ms: Some(self.cooldown_ms),
            surplus_permille: Some(self.surplus_permille),
        }
    }
}
