//! What the log records.

/// Why bytes are no command.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadCommand {
    #[error("version {0} is not known to this build")]
    Version(u8),
    #[error("it does not decode: {0}")]
    Decode(String),
}
