//! A real browser without a screen, for tests of the status page: Chromium, driven over its debugging pipe. What it logs
//! as an error is kept: a page that works logs none.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A browser that does not answer a command within that hangs.
const LIMIT: Duration = Duration::from_secs(30);
/// How often a page is looked at while something is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A window's size in pixels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    process: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: String,
    last: u64,
    errors: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts it with an empty page.
    ///
    /// # Errors
    /// When there is no Chromium, or it does not answer.
    pub fn start(size: Size) -> anyhow::Result<Browser> {
        let profile = TempDir::with_prefix("dfs-browser.")?;
        // The pipe is at descriptors 3 and 4; the standard ones come from here.
        let script = r#"exec chromium "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;
        let mut process = Command::new("bash")
            .args(["-c", script, "chromium", "--headless=new", "--no-sandbox", "--disable-gpu"])
            .args([
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--remote-debugging-pipe",
                "--hide-scrollbars",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--window-size={},{}", size.width, size.height))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("no bash")?;
        let to = process.stdin.take().context("no pipe to the browser")?;
        let out = process.stdout.take().context("no pipe from the browser")?;
        let (tell, from) = channel();
        thread::spawn(move || {
            for message in BufReader::new(out).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { continue };
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        let session = String::new();
        let mut browser =
            Browser { process, to, from, session, last: 0, errors: Vec::new(), _profile: profile };
        browser
            .attach(size)
            .context("chromium does not answer: is it installed? scripts/test.sh installs it")?;
        Ok(browser)
    }

    fn attach(&mut self, size: Size) -> anyhow::Result<()> {
        let made = self.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let attached =
            self.call("Target.attachToTarget", &json!({"targetId": made["targetId"], "flatten": true}))?;
        self.session = attached["sessionId"].as_str().context("no session")?.to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            self.call(&format!("{domain}.enable"), &json!({}))?;
        }
        self.resize(size, false)
    }

    /// Makes the window as large as a screen, or as a phone's.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn resize(&mut self, size: Size, phone: bool) -> anyhow::Result<()> {
        let Size { width, height } = size;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone});
        self.call("Emulation.setDeviceMetricsOverride", &metrics).map(drop)
    }

    /// What the user prefers: `dark` or `light`.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn prefer(&mut self, scheme: &str) -> anyhow::Result<()> {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", &features).map(drop)
    }

    /// Goes to a page.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(&mut self, url: &str) -> anyhow::Result<()> {
        let went = self.call("Page.navigate", &json!({"url": url}))?;
        match went.get("errorText") {
            Some(why) => bail!("{url}: {why}"),
            None => Ok(()),
        }
    }

    /// The value of an expression on the page.
    ///
    /// # Errors
    /// When it throws.
    pub fn value(&mut self, expression: &str) -> anyhow::Result<Value> {
        let said =
            self.call("Runtime.evaluate", &json!({"expression": expression, "returnByValue": true}))?;
        if let Some(thrown) = said.get("exceptionDetails") {
            bail!("{expression}: {thrown}");
        }
        Ok(said["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn wait(&mut self, limit: Duration, expression: &str) -> anyhow::Result<()> {
        let mut looks = limit.as_millis() / LOOK_EVERY.as_millis() + 1;
        // While the page is being loaded there may be nothing to ask.
        while !matches!(self.value(expression), Ok(Value::Bool(true))) {
            looks -= 1;
            if looks == 0 {
                let text = self.value("document.body.innerText").unwrap_or_default();
                bail!("not within {limit:?}: {expression}\n{}", text.as_str().unwrap_or_default());
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Presses a key.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn press(&mut self, key: &str, code: u32) -> anyhow::Result<()> {
        for kind in ["keyDown", "keyUp"] {
            let event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// The page as a PNG, in base64.
    ///
    /// # Errors
    /// When the browser can't.
    pub fn picture(&mut self) -> anyhow::Result<String> {
        let shot = self.call("Page.captureScreenshot", &json!({"format": "png"}))?;
        Ok(shot["data"].as_str().context("no picture")?.to_owned())
    }

    /// What the page logged as errors since it was last asked: exceptions, refused files, policies that were broken.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn errors(&mut self) -> anyhow::Result<Vec<String>> {
        // What was logged before an answer has arrived with it.
        self.value("0")?;
        Ok(std::mem::take(&mut self.errors))
    }

    fn call(&mut self, method: &str, params: &Value) -> anyhow::Result<Value> {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.to.write_all(message.to_string().as_bytes())?;
        self.to.write_all(&[0])?;
        self.to.flush()?;
        loop {
            let said = self.from.recv_timeout(LIMIT).with_context(|| format!("{method}: no answer"))?;
            if said["id"] != self.last {
                self.hear(&said);
                continue;
            }
            return match said.get("error") {
                Some(why) => bail!("{method}: {why}"),
                None => Ok(said["result"].clone()),
            };
        }
    }

    fn hear(&mut self, event: &Value) {
        let params = &event["params"];
        let is_error = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => params["type"] == "error" || params["type"] == "warning",
            Some("Log.entryAdded") => params["entry"]["level"] == "error",
            _ => false,
        };
        if is_error {
            self.errors.push(params.to_string());
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
