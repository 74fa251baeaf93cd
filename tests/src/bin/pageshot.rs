//! A picture of the status page, for the documents: `pageshot URL WIDTH HEIGHT [WHEN]` prints a PNG in base64, once the
//! expression WHEN is true on the page.

use std::time::Duration;

use anyhow::{Context, bail};
use dfs_tests::browser::{Browser, Size};

/// How long the page may take until it shows what is wanted.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, width, height, when @ ..] = args.as_slice() else {
        bail!("usage: pageshot URL WIDTH HEIGHT [WHEN]");
    };
    let size = Size {
        width: width.parse().context("WIDTH is no number")?,
        height: height.parse().context("HEIGHT is no number")?,
    };
    let mut browser = Browser::start(size)?;
    browser.open(url)?;
    browser.wait(LIMIT, "document.body.dataset.ready === 'yes'")?;
    for when in when {
        browser.wait(LIMIT, when)?;
    }
    println!("{}", browser.picture()?);
    Ok(())
}
