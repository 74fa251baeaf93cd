//! Directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {}
#[derive(Clone, Copy, Debug)]
pub(crate) struct NameEntry {}
