//! `/api/v1`: what the master knows, as JSON. The structs are those that `dfs --json` prints; docs/api.md describes them.
//!
//! Invariant: nothing here changes anything. Each route asks one report, whose fields a caller can't set.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use dfs_admin::Inside;
use dfs_proto::ids::Ino;
use dfs_proto::meta::{
    ChunkChanges, ClusterStatus, Damaged, Heat, Policy, ScrubStatus, ServerList, SessionList,
};
use dfs_proto::request::Request;
use serde::{Deserialize, Serialize};

use crate::driver::Driver;

/// Chunks that `heat` names, and changes, if nobody says how many.
const SHOWN: u32 = 20;

/// The way to the core.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    inside: Inside,
    driver: Arc<Driver>,
}

impl Asker {
    pub(super) fn new(inside: Inside, driver: &Arc<Driver>) -> Asker {
        Asker { inside, driver: Arc::clone(driver) }
    }

    /// Has a question of several parts answered at once.
    pub(super) async fn ask_all<T, F>(&self, question: impl FnOnce(Arc<Driver>) -> F) -> Result<T, String>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, String>> + Send + 'static,
    {
        self.inside.ask(question(Arc::clone(&self.driver))).await
    }

    /// Asks what a tool may ask.
    pub(super) async fn ask<R: Request>(&self, request: R) -> Result<R::Reply, String> {
        let driver = Arc::clone(&self.driver);
        self.inside.ask(async move { driver.ask(&request).await }).await
    }
}

/// How many of them.
#[derive(Deserialize)]
struct Most {
    most: Option<u32>,
    /// Of one file, by its inode's number.
    inode: Option<u64>,
}

/// Where a list goes on.
#[derive(Deserialize)]
struct From {
    from: Option<u64>,
    inode: Option<u64>,
}

pub(super) fn routes(asker: Asker) -> Router {
    Router::new()
        .route("/api/v1/status", report(ClusterStatus {}))
        .route("/api/v1/servers", report(ServerList {}))
        .route("/api/v1/sessions", report(SessionList {}))
        .route("/api/v1/scrub", report(ScrubStatus {}))
        .route("/api/v1/policy", report(Policy::default()))
        .route("/api/v1/heat", get(heat))
        .route("/api/v1/changes", get(changes))
        .route("/api/v1/damaged", get(damaged))
        .with_state(asker)
}

/// A report that is asked for without more.
fn report<R: Request + Clone>(question: R) -> MethodRouter<Asker>
where
    R::Reply: Serialize,
{
    get(|State(at): State<Asker>| async move { shown(at.ask(question).await) })
}

async fn heat(State(at): State<Asker>, Query(wanted): Query<Most>) -> Response {
    let asked = Heat { ino: wanted.inode.map(Ino), most: wanted.most.unwrap_or(SHOWN) };
    shown(at.ask(asked).await.map(|report| report.shown()))
}

async fn changes(State(at): State<Asker>, Query(wanted): Query<Most>) -> Response {
    shown(at.ask(ChunkChanges { most: wanted.most.unwrap_or(SHOWN) }).await)
}

async fn damaged(State(at): State<Asker>, Query(wanted): Query<From>) -> Response {
    shown(at.ask(Damaged { ino: wanted.inode.map(Ino), from: wanted.from.unwrap_or(0) }).await)
}

/// Why there is no answer.
#[derive(Serialize)]
struct Refused {
    error: String,
}

/// A report as JSON, or why there is none.
pub(super) fn shown<T: Serialize>(report: Result<T, String>) -> Response {
    let (status, body) = match report {
        Ok(report) => (StatusCode::OK, serde_json::to_vec(&report)),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, serde_json::to_vec(&Refused { error })),
    };
    match body {
        Ok(body) => (status, [(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
