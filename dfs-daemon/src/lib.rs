//! What dfs's programs share with the machine that they run on, and nothing of the cluster: options from a file as
//! from the command line ([`settings`]), the service manager ([`notify`], [`reload`]), log lines ([`logging`]), a
//! shortage of memory ([`memory`]), the manual pages and completions that packages carry ([`pages`]).

mod clock;
pub mod logging;
pub mod memory;
pub mod notify;
pub mod pages;
pub mod reload;
pub mod settings;
