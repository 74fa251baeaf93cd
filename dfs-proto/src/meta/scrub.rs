//! What `dfs scrub` asks.

use serde::{Deserialize, Serialize};

use crate::control::ScrubReport;
use crate::ids::ServerNum;
use crate::meta::request;
use crate::request::{Op, Request};

/// How far the scrubs are, and what they found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScrubStatus {}
request!(ScrubStatus => ScrubReports);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScrubReports {
    pub servers: Vec<ServerScrub>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerScrub {
    pub server: ServerNum,
    pub name: String,
    pub up: bool,
    /// As it said last.
    pub scrub: ScrubReport,
}

/// Has servers look at all their replicas now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScrubNow {
    /// `None`: all.
    pub server: Option<ServerNum>,
}
request!(ScrubNow => ScrubStarted);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScrubStarted {
    /// The servers that were told.
    pub servers: Vec<ServerNum>,
}
