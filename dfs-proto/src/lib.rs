//! What crosses the network between dfs processes: ids, units, statuses, checksums, the frame, the
//! messages, and the one connection type that carries them. It takes no decisions and does no file I/O.
//!
//! Reading order: [`ids`] and [`units`] (the words), [`status`] (what can go wrong), [`checksum`],
//! [`header`] and [`frame`] (the bytes), [`request`] (how a message is bound to its reply), [`meta`]
//! (client to master), [`chunk`] (client to chunk server, chunk server to chunk server), [`control`]
//! (chunk server to master and tools to master), [`note`] (what a replica keeps of its file), [`listing`]
//! (headers of servers that do not run), [`conn`] (the connection), [`words`] (errors for people),
//! [`mod@planted`] (mistakes for tests).

pub mod ids;
pub mod units;
pub mod status;
pub mod checksum;
pub mod header;
pub mod frame;
pub mod request;
pub mod meta;
pub mod chunk;
pub mod note;
pub mod listing;
pub mod key;
pub mod control;
pub mod conn;
pub mod words;
pub mod planted;
