//! A headless Chromium, told what to do over its DevTools protocol: pages are opened, clicked and
//! photographed as a person would see them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::error::{LabError, io_error};
use crate::{apt, tool};

/// How long the browser may take for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page. Ends with its value.
pub struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    session: String,
    next: u64,
    /// Everything that the page asked the network or the disk for.
    pub requests: Vec<String>,
    /// Errors and warnings of the page's console.
    pub console: Vec<String>,
    _folder: TempDir,
}

impl Browser {
    /// Starts Chromium; installs Debian's package where it is missing.
    ///
    /// # Errors
    /// It cannot be installed or does not start.
    pub fn start() -> Result<Self, LabError> {
        apt::ensure("chromium", "chromium")?;
        let folder = tempfile::tempdir().map_err(io_error("create", Path::new("/tmp")))?;
        let pipe = |name: &str| -> Result<_, LabError> {
            let path = folder.path().join(name);
            tool::run(Command::new("mkfifo").arg(&path), "make a pipe")?;
            Ok(path)
        };
        let (to, from) = (pipe("to")?, pipe("from")?);
        // Its protocol runs over the descriptors 3 and 4, which a shell can open and Rust's cannot.
        let child = Command::new("sh")
            .args(["-c", "exec chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --remote-debugging-pipe --user-data-dir=\"$3\" about:blank 3<\"$1\" 4>\"$2\"", "sh"])
            .args([&to, &from])
            .arg(folder.path().join("profile"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(io_error("start", Path::new("chromium")))?;
        let to_file = File::options()
            .write(true)
            .open(&to)
            .map_err(io_error("open", &to))?;
        let from_file = File::open(&from).map_err(io_error("open", &from))?;
        let (sender, receiver) = channel();
        // Ends with the browser, which closes its side.
        std::thread::spawn(move || {
            let mut reader = BufReader::new(from_file);
            let mut message = Vec::new();
            while reader
                .read_until(0, &mut message)
                .is_ok_and(|read| read > 0)
            {
                message.pop();
                if let Ok(value) = serde_json::from_slice(&message)
                    && sender.send(value).is_err()
                {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            child,
            to: to_file,
            from: receiver,
            session: String::new(),
            next: 0,
            requests: Vec::new(),
            console: Vec::new(),
            _folder: folder,
        };
        let page = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach)?;
        browser.session = attached["sessionId"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// Asks for something and waits for the answer; notes what the page does meanwhile.
    ///
    /// # Errors
    /// The browser refuses, or does not answer.
    pub fn call(&mut self, method: &str, parameters: Value) -> Result<Value, LabError> {
        self.next += 1;
        let id = self.next;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to
            .write_all(&bytes)
            .map_err(io_error("write to", Path::new("chromium")))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.hear(deadline, method)?;
            if answer["id"] == id {
                if let Some(error) = answer.get("error") {
                    return Err(LabError::Unexpected(format!("chromium, {method}: {error}")));
                }
                return Ok(answer["result"].clone());
            }
        }
    }

    fn hear(&mut self, deadline: Instant, what: &str) -> Result<Value, LabError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let message = self
            .from
            .recv_timeout(left)
            .map_err(|_| LabError::Unexpected(format!("chromium did not answer: {what}")))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match message["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                self.requests
                    .push(text(&message["params"]["request"]["url"]));
            }
            Some("Log.entryAdded") => {
                self.console.push(text(&message["params"]["entry"]["text"]));
            }
            Some("Runtime.consoleAPICalled" | "Runtime.exceptionThrown") => {
                self.console.push(message["params"].to_string());
            }
            _ => {}
        }
        Ok(message)
    }

    /// Opens a file at this width, light or dark, and waits until it is there.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn open(&mut self, file: &Path, width: u32, scheme: &str) -> Result<(), LabError> {
        let metrics = json!({
            "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics)?;
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}))?;
        self.requests.clear();
        self.console.clear();
        let url = format!("file://{}", file.display());
        self.call("Page.navigate", json!({"url": url}))?;
        let deadline = Instant::now() + PATIENCE;
        while self.hear(deadline, "loading a page")?["method"] != "Page.loadEventFired" {}
        Ok(())
    }

    /// Evaluates JavaScript in the page, which need not allow scripts itself.
    ///
    /// # Errors
    /// As [`Self::call`], or the expression throws.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value, LabError> {
        let wanted = json!({"expression": expression, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", wanted)?;
        if let Some(exception) = answer.get("exceptionDetails") {
            return Err(LabError::Unexpected(format!("{expression}: {exception}")));
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Clicks into the middle of the first element that a selector finds, with the mouse.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn click(&mut self, selector: &str) -> Result<(), LabError> {
        let place = self.evaluate(&format!(
            "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{block: 'center', behavior: 'instant'}}); \
             const r = e.getBoundingClientRect(); return [r.x + Math.min(r.width / 2, 60), r.y + r.height / 2]; }})()",
            json!(selector)
        ))?;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", event)?;
        }
        Ok(())
    }

    /// Presses a key.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn press(&mut self, key: &str, code: u32) -> Result<(), LabError> {
        let text = (key == "Enter").then_some("\r");
        for kind in ["keyDown", "keyUp"] {
            let event = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text,
            });
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// Photographs the whole page.
    ///
    /// # Errors
    /// As [`Self::call`], or the file cannot be written.
    pub fn photograph(&mut self, to: &Path) -> Result<(), LabError> {
        let wanted = json!({"format": "png", "captureBeyondViewport": true});
        let answer = self.call("Page.captureScreenshot", wanted)?;
        let bytes = STANDARD
            .decode(answer["data"].as_str().unwrap_or_default())
            .map_err(|error| LabError::Unexpected(format!("a picture: {error}")))?;
        fs::write(to, bytes).map_err(io_error("write", to))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
