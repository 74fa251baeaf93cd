//! A connection for operators' commands: questions to the master, without a session.

use std::sync::Arc;
use std::time::Duration;

use dfs_proto::conn::{CallError, CallsOnly, Conn, ConnError, Hello, Role};
use dfs_proto::ids::Ino;
use dfs_proto::meta::{
    Attr, ClusterReport, ClusterStatus, Creds, FileInfo, FileReport, Lookup, Name, ServerList, ServerReports,
};
use dfs_proto::request::Request;

use crate::net::tcp::resolve;

/// A connection in the role of a tool.
#[derive(Clone, Debug)]
pub struct MasterTool {
    conn: Conn,
    deadline: Duration,
}

impl MasterTool {
    /// Dials the masters in turn (`HOST:PORT` or `unix:PATH`) until one answers.
    ///
    /// # Errors
    /// How the last one failed.
    pub async fn connect(
        masters: &[String],
        name: &str,
        deadline: Duration,
    ) -> Result<MasterTool, ToolError> {
        let mut last = ToolError::NoAddress;
        for master in masters {
            let Ok(addrs) = resolve(master).await else {
                last = ToolError::Unresolved(master.clone());
                continue;
            };
            for addr in addrs {
                let hello = Hello::new(Role::Tool, name, None);
                match Conn::connect(&addr, hello, Arc::new(CallsOnly), deadline).await {
                    Ok((conn, _welcome)) => return Ok(MasterTool { conn, deadline }),
                    Err(error) => last = ToolError::Connect(error),
                }
            }
        }
        Err(last)
    }

    /// The cluster on one page.
    ///
    /// # Errors
    /// As the master or the connection failed.
    pub async fn status(&self) -> Result<ClusterReport, ToolError> {
        self.ask(&ClusterStatus {}).await
    }

    /// All chunk servers.
    ///
    /// # Errors
    /// As the master or the connection failed.
    pub async fn servers(&self) -> Result<ServerReports, ToolError> {
        self.ask(&ServerList {}).await
    }

    /// A file's chunks and where they are.
    ///
    /// # Errors
    /// As the master or the connection failed.
    pub async fn file_info(&self, ino: Ino) -> Result<FileReport, ToolError> {
        self.ask(&FileInfo { ino, from: dfs_proto::units::ChunkIndex(0) }).await
    }

    /// Walks a path from the root of the filesystem, symlinks not followed.
    ///
    /// # Errors
    /// As the master or the connection failed.
    pub async fn walk(&self, path: &[u8]) -> Result<Option<Attr>, ToolError> {
        let mut at = Ino::ROOT;
        let mut attr = None;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
            let lookup = Lookup { parent: at, name: Name::from(name), creds: Creds::default() };
            let found = self.ask(&lookup).await?;
            at = found.ino;
            attr = Some(found);
        }
        Ok(attr)
    }

    /// Any question of a tool.
    ///
    /// # Errors
    /// As the master or the connection failed.
    pub async fn ask<R: Request>(&self, request: &R) -> Result<R::Reply, ToolError> {
        Ok(self.conn.call(request, self.deadline).await?.body)
    }
}

/// Why a tool got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error("no master was named")]
    NoAddress,
    #[error("{0}: the address cannot be resolved")]
    Unresolved(String),
    #[error(transparent)]
    Connect(#[from] ConnError),
    #[error(transparent)]
    Call(#[from] CallError),
}
