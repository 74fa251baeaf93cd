//! What the page lives on: the state each second for those who watch, by server-sent events, and a sample each two
//! seconds, kept for half an hour.
//!
//! One task asks the core, for however many watch; while nobody does, it asks for the samples alone.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dfs_admin::Tally;
use dfs_proto::ids::ChunkId;
use dfs_proto::meta::{
    ChangeReport, ChunkChanges, ChunkHeatShown, ClusterReport, ClusterStatus, Heat, HeatShown, Policy,
    PolicyReport, ServerList, ServerReports, SessionList, SessionReports,
};
use serde::Serialize;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;

use super::alerts::{Alert, alerts};
use super::api::{Asker, shown};
use crate::clock;
use crate::driver::Driver;

/// How often those who watch are told.
const EVERY: Duration = Duration::from_secs(1);
/// A sample each so many of those.
const SAMPLE_EVERY: u32 = 2;
/// Samples that are kept: half an hour.
const SAMPLES: usize = 900;
/// Chunks that the page shows, and changes.
const HOT: u32 = 12;
const CHANGES: u32 = 50;
/// Who watches at once; the others are refused, so that there is room for scrapes and questions of health.
const WATCHERS_MAX: usize = 64;

/// All that the page shows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct View {
    alerts: Vec<Alert>,
    status: ClusterReport,
    servers: ServerReports,
    heat: HeatShown,
    changes: ChangeReport,
    policy: PolicyReport,
    sessions: SessionReports,
    master: MasterNow,
    /// When one was just taken.
    sample: Option<Sample>,
}

/// What the master itself does; times of what came since the last sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
struct MasterNow {
    queue: u64,
    snapshot_age_ms: u64,
    answer_p50_us: u64,
    answer_p99_us: u64,
    sync_p50_us: u64,
    sync_p99_us: u64,
}

/// The cluster's load at a moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Sample {
    /// On the master's machine's clock since it booted.
    at_ms: u64,
    bytes_in_per_s: u64,
    bytes_out_per_s: u64,
    requests_per_s: u64,
    /// Of the slowest server.
    p99_us: u32,
    /// The hottest chunks with their cost a second, in thousandths.
    hot: Vec<Hot>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
struct Hot {
    chunk: ChunkId,
    milli: u64,
}

#[derive(Serialize)]
struct History {
    samples: Vec<Sample>,
}

/// What those who watch are told: the name of the event and its data.
type Told = Arc<(&'static str, String)>;

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    told: watch::Sender<Told>,
    samples: Mutex<VecDeque<Sample>>,
}

/// Times as of the last sample.
#[derive(Default)]
struct Before {
    answers: Tally,
    syncs: Tally,
    now: MasterNow,
}

impl Default for Watch {
    fn default() -> Watch {
        let nothing = Arc::new(("refused", "\"nothing is known yet\"".to_owned()));
        Watch { told: watch::Sender::new(nothing), samples: Mutex::default() }
    }
}

pub(super) fn routes(watch: &Arc<Watch>) -> Router {
    Router::new()
        .route("/api/v1/events", get(events))
        .route("/api/v1/history", get(history))
        .with_state(Arc::clone(watch))
}

async fn events(State(watch): State<Arc<Watch>>) -> Response {
    if watch.told.receiver_count() >= WATCHERS_MAX {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many watch already\n").into_response();
    }
    let told = WatchStream::new(watch.told.subscribe());
    let events = told.map(|told| Ok::<Event, Infallible>(Event::default().event(told.0).data(&told.1)));
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

async fn history(State(watch): State<Arc<Watch>>) -> Response {
    let samples = watch.samples().iter().cloned().collect();
    shown(Ok(History { samples }))
}

impl Watch {
    fn samples(&self) -> std::sync::MutexGuard<'_, VecDeque<Sample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks and tells, for as long as the process lives.
    pub(super) async fn run(self: Arc<Self>, asker: Asker) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut count = 0u32;
        let mut before = Before::default();
        loop {
            ticks.tick().await;
            count = count.wrapping_add(1);
            let samples = count.is_multiple_of(SAMPLE_EVERY);
            if !samples && self.told.receiver_count() == 0 {
                continue;
            }
            if self.told.receiver_count() == 0 {
                // What nobody looks at is not asked for: in a large cluster the lists are long.
                if let Ok(sample) = asker.ask_all(|driver| async move { Sample::now(&driver).await }).await {
                    self.keep(sample);
                }
                continue;
            }
            let told =
                match asker.ask_all(move |driver| async move { View::now(&driver, samples).await }).await {
                    Ok((view, times)) => self.told_of(view, times, &mut before),
                    Err(why) => serde_json::to_string(&why).map(|why| ("refused", why)),
                };
            match told {
                Ok(told) => drop(self.told.send_replace(Arc::new(told))),
                Err(error) => log::error!("the status page: {error}"),
            }
        }
    }

    fn keep(&self, sample: Sample) {
        let mut kept = self.samples();
        if kept.len() >= SAMPLES {
            kept.pop_front();
        }
        kept.push_back(sample);
    }

    fn told_of(
        &self,
        mut view: View,
        times: Option<Times>,
        before: &mut Before,
    ) -> serde_json::Result<(&'static str, String)> {
        if let Some(times) = times {
            before.take(times);
            let sample = Sample::of(&view.servers, &view.heat);
            self.keep(sample.clone());
            view.sample = Some(sample);
        }
        view.master = MasterNow {
            queue: view.master.queue,
            snapshot_age_ms: view.master.snapshot_age_ms,
            ..before.now
        };
        serde_json::to_string(&view).map(|text| ("view", text))
    }
}

/// How many answers and syncs took how long, since the process began.
struct Times {
    answers: Tally,
    syncs: Tally,
}

impl Before {
    fn take(&mut self, times: Times) {
        let (answers, syncs) = (times.answers.since(&self.answers), times.syncs.since(&self.syncs));
        self.now.answer_p50_us = answers.percentile_us(50);
        self.now.answer_p99_us = answers.percentile_us(99);
        self.now.sync_p50_us = syncs.percentile_us(50);
        self.now.sync_p99_us = syncs.percentile_us(99);
        (self.answers, self.syncs) = (times.answers, times.syncs);
    }
}

impl View {
    /// With times, if a sample is due.
    async fn now(driver: &Arc<Driver>, samples: bool) -> Result<(View, Option<Times>), String> {
        let status = driver.ask(&ClusterStatus {}).await?;
        let servers = driver.ask(&ServerList {}).await?;
        let sessions = driver.ask(&SessionList {}).await?;
        let stats = driver.stats();
        let view = View {
            alerts: alerts(&status, &servers, &sessions),
            status,
            servers,
            heat: driver.ask(&Heat { ino: None, most: HOT }).await?.shown(),
            changes: driver.ask(&ChunkChanges { most: CHANGES }).await?,
            policy: driver.ask(&Policy::default()).await?,
            sessions,
            master: MasterNow {
                queue: driver.queue() as u64,
                snapshot_age_ms: stats.snapshot_age_ms(),
                ..MasterNow::default()
            },
            sample: None,
        };
        let times = || Times { answers: stats.ops.tally(), syncs: stats.log_syncs.tally() };
        Ok((view, samples.then(times)))
    }
}

impl Sample {
    async fn now(driver: &Arc<Driver>) -> Result<Sample, String> {
        let servers = driver.ask(&ServerList {}).await?;
        let heat = driver.ask(&Heat { ino: None, most: HOT }).await?.shown();
        Ok(Sample::of(&servers, &heat))
    }

    fn of(servers: &ServerReports, heat: &HeatShown) -> Sample {
        let up = || servers.servers.iter().filter(|server| server.up).map(|server| server.traffic);
        let hot =
            |chunk: &ChunkHeatShown| Hot { chunk: chunk.chunk, milli: chunk.read_milli + chunk.write_milli };
        Sample {
            at_ms: clock::mono().as_ms(),
            bytes_in_per_s: up().map(|traffic| traffic.bytes_in_per_s).sum(),
            bytes_out_per_s: up().map(|traffic| traffic.bytes_out_per_s).sum(),
            requests_per_s: up().map(|traffic| traffic.requests_per_s).sum(),
            p99_us: up().map(|traffic| traffic.service_p99_us).max().unwrap_or(0),
            hot: heat.chunks.iter().map(hot).collect(),
        }
    }
}
