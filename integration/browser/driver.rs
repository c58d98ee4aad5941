//! A headless Chromium, driven through chromedriver by W3C WebDriver (plain HTTP and JSON), with a profile of its own.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::http::exchange;
use crate::support::process::{Mark, Process};
use crate::support::{SOON, eventually_ok, on_path, skip};

/// For one command. A browser starts within it, on a machine that is busy with other tests.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// How WebDriver marks an element in JSON (W3C WebDriver, section 12.2).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window. Both programs end with it.
pub(crate) struct Browser {
    driver: SocketAddr,
    session: String,
    // Dropped after the session has ended.
    _chromedriver: Process,
    _profile: TempDir,
}

/// What a person prefers, as the system would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Light,
    Dark,
}

impl Scheme {
    pub(crate) const BOTH: [Self; 2] = [Self::Light, Self::Dark];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// A running driver, and its port. It takes a free one for one family of addresses, and then the same for the other, where
/// somebody may have come first.
fn chromedriver() -> Option<(Process, u16)> {
    let process = Process::start("chromedriver", Command::new("chromedriver").arg("--port=0"));
    let port = process.wait_line("its port", Mark::default(), SOON, |line| {
        if line.contains("Address already in use") {
            return Some(None);
        }
        let (_, port) = line.split_once("started successfully on port ")?;
        port.trim_end_matches('.').parse::<u16>().ok().map(Some)
    });
    port.map(|port| (process, port))
}

impl Browser {
    /// Starts one; none, said loudly, where there is no Chromium or nothing to drive it with.
    pub(crate) fn start() -> Option<Self> {
        if let Some(missing) = ["chromium", "chromedriver"]
            .iter()
            .find(|program| !on_path(program))
        {
            skip(&format!("the page in a browser: no {missing} on PATH"));
            return None;
        }
        let profile = TempDir::with_prefix("svidecar-browser-").unwrap();
        let (chromedriver, port) = (0..5)
            .find_map(|_| chromedriver())
            .expect("chromedriver finds a port in five tries");
        let driver = SocketAddr::from(([127, 0, 0, 1], port));
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            "goog:chromeOptions": { "binary": chromium(), "args": arguments },
        } } });
        let session = command(driver, "POST", "/session", &wanted).unwrap_or_else(|error| panic!("{error}"));
        let browser = Self {
            driver,
            session: session["sessionId"].as_str().unwrap().to_owned(),
            _chromedriver: chromedriver,
            _profile: profile,
        };
        browser.size(1360, 900);
        Some(browser)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        command(
            self.driver,
            method,
            &format!("/session/{}{path}", self.session),
            body,
        )
    }

    fn tell(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", path, body)
            .unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    /// A command of the browser's own protocol.
    fn devtools(&self, command: &str, parameters: &Value) {
        self.tell(
            "/goog/cdp/execute",
            &json!({ "cmd": command, "params": parameters }),
        );
    }

    /// Goes to an address.
    pub(crate) fn open(&self, url: &str) {
        self.tell("/url", &json!({ "url": url }));
    }

    /// The inner size of the window, in CSS pixels.
    pub(crate) fn size(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// What the system prefers: colours, and whether things move.
    pub(crate) fn prefer(&self, scheme: Scheme, motion: bool) {
        let motion = if motion { "no-preference" } else { "reduce" };
        let features = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme.name() },
            { "name": "prefers-reduced-motion", "value": motion },
        ] });
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// What a script's body gives.
    pub(crate) fn eval(&self, body: &str) -> Value {
        self.tell("/execute/sync", &json!({ "script": body, "args": [] }))
    }

    /// Waits until an expression is neither false, null, 0 nor empty; gives its value.
    pub(crate) fn wait(&self, what: &str, expression: &str) -> Value {
        eventually_ok(what, SOON, || {
            // A page that is being loaded may have no such element yet.
            let script = json!({ "script": format!("return {expression}"), "args": [] });
            let value = self.ask("POST", "/execute/sync", &script)?;
            let empty = match &value {
                Value::Null | Value::Bool(false) => true,
                Value::Number(number) => number.as_f64() == Some(0.0),
                Value::String(text) => text.is_empty(),
                _ => false,
            };
            if empty {
                Err(format!("`{expression}` is {value}"))
            } else {
                Ok(value)
            }
        })
    }

    /// Waits until the text of the first element of a selector holds this.
    pub(crate) fn wait_text(&self, selector: &str, part: &str) -> String {
        let script = format!("document.querySelector({selector:?})?.textContent ?? ''");
        eventually_ok(&format!("`{selector}` says `{part}`"), SOON, || {
            let request = json!({ "script": format!("return {script}"), "args": [] });
            let value = self.ask("POST", "/execute/sync", &request)?;
            let text = value.as_str().unwrap_or_default();
            if text.contains(part) {
                Ok(text.to_owned())
            } else {
                Err(format!("it says `{text}`"))
            }
        })
    }

    /// The text of the first element of a selector, as it is now.
    pub(crate) fn text(&self, selector: &str) -> String {
        let value = self.eval(&format!(
            "return document.querySelector({selector:?}).textContent"
        ));
        value.as_str().unwrap().to_owned()
    }

    /// Clicks as a person does: on what is seen and not covered by anything else.
    pub(crate) fn click(&self, selector: &str) {
        eventually_ok(&format!("a click on `{selector}`"), SOON, || {
            // A row that is live may be replaced between finding and clicking.
            let element = self.element(selector)?;
            self.ask("POST", &format!("/element/{element}/click"), &json!({}))
        });
    }

    /// Types into a field, in place of what is there.
    pub(crate) fn fill(&self, selector: &str, text: &str) {
        let element = self.element(selector).unwrap_or_else(|error| panic!("{error}"));
        self.tell(&format!("/element/{element}/clear"), &json!({}));
        self.tell(&format!("/element/{element}/value"), &json!({ "text": text }));
    }

    fn element(&self, selector: &str) -> Result<String, String> {
        let how = json!({ "using": "css selector", "value": selector });
        let found = self.ask("POST", "/element", &how)?;
        Ok(found[ELEMENT].as_str().ok_or("no element")?.to_owned())
    }

    /// Presses and releases keys, one after the other, wherever the focus is.
    pub(crate) fn press(&self, keys: &[char]) {
        let strokes: Vec<Value> = keys
            .iter()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }))
            })
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": strokes });
        self.tell("/actions", &json!({ "actions": [keyboard] }));
    }

    /// What is seen, as PNG.
    pub(crate) fn screenshot(&self, path: &Path) {
        let picture = self.ask("GET", "/screenshot", &Value::Null).unwrap();
        fs::write(path, base64(picture.as_str().unwrap())).unwrap();
    }

    /// What the console said since the last time.
    pub(crate) fn console(&self) -> Vec<Value> {
        self.log("browser")
    }

    /// The addresses of all requests since the last time.
    pub(crate) fn requests(&self) -> Vec<String> {
        let entries = self.log("performance").into_iter();
        entries
            .filter_map(|entry| serde_json::from_str::<Value>(entry["message"].as_str()?).ok())
            .filter(|entry| entry["message"]["method"] == "Network.requestWillBeSent")
            .filter_map(|entry| Some(entry["message"]["params"]["request"]["url"].as_str()?.to_owned()))
            .collect()
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        match self.tell("/se/log", &json!({ "type": kind })) {
            Value::Array(entries) => entries,
            other => panic!("no log: {other}"),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser, which chromedriver would leave behind when it is killed.
        let _ = self.ask("DELETE", "", &Value::Null);
    }
}

/// Where Chromium is: chromedriver would look for another name first.
fn chromium() -> String {
    let path = std::env::var_os("PATH").unwrap();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join("chromium"));
    found.find(|file| file.is_file()).unwrap().display().to_string()
}

fn command(driver: SocketAddr, method: &str, path: &str, body: &Value) -> Result<Value, String> {
    let send = || -> io::Result<_> {
        let stream = TcpStream::connect_timeout(&driver, COMMAND_TIMEOUT)?;
        stream.set_read_timeout(Some(COMMAND_TIMEOUT))?;
        stream.set_write_timeout(Some(COMMAND_TIMEOUT))?;
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let line = format!("{method} {path}");
        exchange(
            stream,
            &driver.to_string(),
            &line,
            "Content-Type: application/json\r\n",
            &body,
        )
    };
    let answer = send().map_err(|error| error.to_string())?;
    let value = answer.json()["value"].take();
    if answer.status == 200 {
        Ok(value)
    } else {
        Err(format!("{}: {}", value["error"], value["message"]))
    }
}

/// Decodes base64 (RFC 4648, section 4).
fn base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut bits = (0_u32, 0_u32);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = (bits.0 << 6 | u32::from(value), bits.1 + 6);
        if bits.1 >= 8 {
            bits.1 -= 8;
            bytes.push(u8::try_from(bits.0 >> bits.1 & 0xff).unwrap());
            bits.0 &= (1 << bits.1) - 1;
        }
    }
    bytes
}
