//! What happens in each step, and what must come of it.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use super::super::application::Client;
use super::super::files;
use super::super::journal::{Entry, Mark, Record};
use super::{Expected, Story, Trouble, milliseconds, unexpected};
use crate::cli::policy::explain::{ExplainArgs, explain};
use crate::config::Environment;
use crate::record::{Reason, Verdict};

const ORDERS: &str = "spiffe://example.org/orders";
const STOREFRONT: &str = "spiffe://example.org/storefront";
const REPORTS: &str = "spiffe://example.org/reports";
const AGENCY: &str = "spiffe://partner.example/agency";

/// What svidecar promises between a change and its effect on an open connection.
const PROMISED: Duration = Duration::from_secs(1);
/// What a machine that is busy with other work is given before the demo calls the promise broken.
const TOLERATED: Duration = Duration::from_secs(2);
/// A bundle is in use a moment after its arrival is logged.
const FEDERATION_ATTEMPTS: usize = 40;
const FEDERATION_PAUSE: Duration = Duration::from_millis(50);
/// Lines over the busy connection before the change, and after both ends have it behind them.
const LINES_BEFORE: usize = 10;
const LINES_AFTER: usize = 30;

impl Story<'_, '_> {
    pub(super) async fn allowed(&mut self) -> Result<(), Trouble> {
        let mark = self.mark();
        let mut client = connect(self.at.storefront).await?;
        let answer = ask(&mut client, "one blue shirt").await?;
        drop(client);
        self.expect(
            mark,
            &allowed("orders", "orders", STOREFRONT, "storefront-may-order"),
        )
        .await?;
        self.expect(mark, &allowed("storefront", "to-orders", ORDERS, ORDERS))
            .await?;
        Ok(self.teller.more(&format!("its application read: {answer}"))?)
    }

    pub(super) async fn not_named(&mut self) -> Result<(), Trouble> {
        let mark = self.mark();
        let seen = call_in_vain(self.at.reports).await?;
        let record = self.expect(mark, &denied(REPORTS)).await?;
        self.explained(REPORTS, &record)?;
        self.turned_away(mark, "reports", "access_denied").await?;
        Ok(self.teller.more(&format!("its application saw: {seen}"))?)
    }

    pub(super) async fn unknown_domain(&mut self) -> Result<(), Trouble> {
        let mark = self.mark();
        call_in_vain(self.at.agency).await?;
        let expected = Expected {
            verdict: Verdict::Deny,
            detail: Some("partner.example"),
            ..refused("orders", "orders", Reason::UnknownTrustDomain)
        };
        self.expect(mark, &expected).await?;
        self.turned_away(mark, "agency", "unknown_ca").await
    }

    pub(super) async fn known_domain(&mut self) -> Result<(), Trouble> {
        let mark = self.mark();
        self.stage.trust_the_partner()?;
        self.wait(mark, "bundle of partner.example", |entry| {
            (entry.sidecar == "orders" && entry.said.number("trust_domains") == Some(2)).then_some(())
        })
        .await?;
        for _ in 1..FEDERATION_ATTEMPTS {
            let attempt = self.mark();
            call_in_vain(self.at.agency).await?;
            let of_orders = |entry: &Entry| super::record_of(entry, "orders", "orders");
            let record = self.wait(attempt, "record", of_orders).await?;
            if record.reason != Reason::UnknownTrustDomain.as_str() {
                let record = self.expect(attempt, &denied(AGENCY)).await?;
                return self.explained(AGENCY, &record);
            }
            tokio::time::sleep(FEDERATION_PAUSE).await;
        }
        Err(Trouble::Unexpected(
            "expected the trust domain to be known by now".to_owned(),
        ))
    }

    pub(super) async fn plain_text(&mut self) -> Result<(), Trouble> {
        let mark = self.mark();
        let mut client = connect(self.at.orders).await?;
        // Whatever it reads is no answer of the application: that is what the record must show.
        let _ = client.ask_in_vain("GET / HTTP/1.1\r\n\r").await;
        let record = self
            .expect(mark, &refused("orders", "orders", Reason::NotTls))
            .await?;
        if record.bytes_up + record.bytes_down > 0 {
            return Err(Trouble::Unexpected("expected no byte to be forwarded".to_owned()));
        }
        Ok(())
    }

    pub(super) async fn wrong_server(&mut self) -> Result<(), Trouble> {
        let mark = self.mark();
        call_in_vain(self.at.misled).await?;
        let expected = Expected {
            peer: Some(ORDERS),
            verdict: Verdict::Deny,
            ..refused("storefront", "to-payments", Reason::PeerNotExpected)
        };
        self.expect(mark, &expected).await?;
        // Who it was that turned away, orders never learns.
        let expected = Expected {
            detail: Some("access_denied"),
            ..refused("orders", "orders", Reason::RefusedByPeer)
        };
        self.expect(mark, &expected).await?;
        Ok(())
    }

    pub(super) async fn rotation(&mut self) -> Result<(), Trouble> {
        let before = [self.serial("storefront"), self.serial("orders")];
        let mut client = connect(self.at.storefront).await?;
        for _ in 0..LINES_BEFORE {
            ask(&mut client, "a shirt of any colour").await?;
        }
        let mark = self.mark();
        self.stage.rotate()?;
        let rotated =
            |story: &Self, sidecar| story.stage.journal.find(mark, |entry| serial_of(entry, sidecar));
        let deadline = Instant::now() + super::PATIENCE;
        // Busy until both have their new SVID, and then some.
        let (mut lines, mut after) = (LINES_BEFORE, 0);
        while after < LINES_AFTER {
            ask(&mut client, "a shirt of any colour").await?;
            lines += 1;
            let both = rotated(self, "storefront").is_some() && rotated(self, "orders").is_some();
            after += usize::from(both);
            if let Some(ended) = self.stage.journal.ended(self.began) {
                return Err(Trouble::Ended(ended));
            }
            if Instant::now() > deadline {
                return Err(Trouble::Unexpected(
                    "expected both sidecars to rotate their SVID".to_owned(),
                ));
            }
            // As fast as it can is not the point; a busy loop would slow down what it waits for.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for (sidecar, old) in ["storefront", "orders"].into_iter().zip(before) {
            let (old, new) = (
                old.unwrap_or_default(),
                rotated(self, sidecar).unwrap_or_default(),
            );
            let good = !old.is_empty() && !new.is_empty() && old != new;
            self.teller.fact(
                sidecar,
                &format!("serial {} is now {}", short(&old), short(&new)),
                good,
            )?;
            if !good {
                return Err(Trouble::Unexpected("expected a new serial number".to_owned()));
            }
        }
        self.teller.more(&format!(
            "its open connection carried {lines} lines there and back without a break, {after} of them after both changed"
        ))?;
        self.storefront = Some(client);
        Ok(())
    }

    pub(super) async fn policy_grants(&mut self) -> Result<(), Trouble> {
        let (mark, started) = (self.mark(), Instant::now());
        self.write_policy(&format!("{}{}", files::POLICY, files::MORE_POLICY))?;
        self.new_policy(mark).await?;
        let took = started.elapsed();
        let mut client = connect(self.at.reports).await?;
        let answer = ask(&mut client, "how many shirts?").await?;
        self.teller.fact(
            "orders",
            &format!("new policy in force after {}", milliseconds(took)),
            true,
        )?;
        self.teller
            .more(&format!("the application of reports read: {answer}"))?;
        self.reports = Some(client);
        Ok(())
    }

    pub(super) async fn policy_takes(&mut self) -> Result<(), Trouble> {
        let (Some(mut reports), Some(mut storefront)) = (self.reports.take(), self.storefront.take()) else {
            return Err(Trouble::Unexpected(
                "needs the open connections of the two steps before".to_owned(),
            ));
        };
        let (mark, started) = (self.mark(), Instant::now());
        self.write_policy(files::POLICY)?;
        let end = reports.rest().await;
        let took = started.elapsed();
        let expected = Expected {
            reason: Reason::PolicyChange,
            ..denied(REPORTS)
        };
        self.expect(mark, &expected).await?;
        let text = format!(
            "its application saw: {}, {} after the edit",
            reset(end)?,
            milliseconds(took)
        );
        self.teller.more(&text)?;
        if took > TOLERATED {
            let text = format!("expected it within {} s", PROMISED.as_secs());
            return Err(Trouble::Unexpected(text));
        }
        let answer = ask(&mut storefront, "still there?").await?;
        self.teller
            .fact("storefront", &format!("goes on: {answer}"), true)?;
        // And when its application hangs up, its record is one of a connection without trouble.
        drop(storefront);
        self.expect(mark, &allowed("storefront", "to-orders", ORDERS, ORDERS))
            .await?;
        self.wait(mark, "record", |entry| {
            super::record_of(entry, "reports", "to-orders")
        })
        .await?;
        let finished = |entry: &Entry| {
            super::record_of(entry, "orders", "orders").filter(|r| r.peer_id.as_deref() == Some(STOREFRONT))
        };
        self.wait(mark, "record", finished).await.map(drop)
    }

    /// What the sidecar of a denied caller makes of it: it says which alert it was told.
    async fn turned_away(&mut self, mark: Mark, caller: &'static str, alert: &str) -> Result<(), Trouble> {
        let expected = Expected {
            peer: Some(ORDERS),
            verdict: Verdict::Allow,
            rule: Some(ORDERS),
            detail: Some(alert),
            ..refused(caller, "to-orders", Reason::RefusedByPeer)
        };
        self.expect(mark, &expected).await.map(drop)
    }

    /// Asks as `svidecar policy explain` does, which must say what the record said: the rule that came nearest to allowing
    /// the peer, and what was in its way.
    fn explained(&self, peer: &str, record: &Record) -> Result<(), Trouble> {
        let args = ExplainArgs {
            config: self.stage.path("orders.yaml"),
            to: "orders".to_owned(),
            from: peer.to_owned(),
            source: None,
            serial: None,
            key: None,
            issued: None,
            deny_list: None,
            trust_domain: None,
            json: false,
        };
        let (explanation, _) = explain(&args, &Environment::of_process(), SystemTime::now())
            .map_err(|error| unexpected("policy explain", &error))?;
        let Some(nearest) = explanation.nearest else {
            let message = "expected a rule that could have allowed the peer".to_owned();
            return Err(Trouble::Unexpected(message));
        };
        let told = record.detail.as_deref().unwrap_or_default();
        let names_all = nearest.unmet.iter().all(|unmet| told.contains(&*unmet.detail));
        if names_all && told.contains(&*nearest.rule) {
            return Ok(());
        }
        let message = format!("expected the record to tell of {nearest}");
        Err(Trouble::Unexpected(message))
    }

    fn write_policy(&self, text: &str) -> Result<(), Trouble> {
        let written = self.stage.folder.write(files::POLICY_FILE, text);
        written
            .map(drop)
            .map_err(|error| unexpected("the policy file cannot be written", &error))
    }

    async fn new_policy(&self, mark: Mark) -> Result<(), Trouble> {
        self.wait(mark, "new policy", |entry| {
            (entry.sidecar == "orders" && entry.said.message() == Some("a new policy is in force"))
                .then_some(())
        })
        .await
    }

    /// The serial number of the SVID that a sidecar took into use last.
    fn serial(&self, sidecar: &str) -> Option<String> {
        let (entries, _) = self.stage.journal.since(Mark::default());
        entries.iter().rev().find_map(|entry| serial_of(entry, sidecar))
    }
}

fn serial_of(entry: &Entry, sidecar: &str) -> Option<String> {
    (entry.sidecar == sidecar)
        .then(|| entry.said.text("serial").map(str::to_owned))
        .flatten()
}

/// Enough of a serial number to tell it from another one.
fn short(serial: &str) -> String {
    match serial.char_indices().nth(12) {
        Some((end, _)) => format!("{}…", serial.get(..end).unwrap_or_default()),
        None => serial.to_owned(),
    }
}

const fn allowed<'a>(sidecar: &'static str, listener: &'a str, peer: &'a str, rule: &'a str) -> Expected<'a> {
    Expected {
        sidecar,
        listener,
        peer: Some(peer),
        verdict: Verdict::Allow,
        rule: Some(rule),
        reason: Reason::Finished,
        detail: None,
    }
}

const fn denied(peer: &str) -> Expected<'_> {
    Expected {
        peer: Some(peer),
        verdict: Verdict::Deny,
        ..refused("orders", "orders", Reason::NoAllowRule)
    }
}

const fn refused<'a>(sidecar: &'static str, listener: &'a str, reason: Reason) -> Expected<'a> {
    Expected {
        sidecar,
        listener,
        peer: None,
        verdict: Verdict::None,
        rule: None,
        reason,
        detail: None,
    }
}

async fn connect(address: std::net::SocketAddr) -> Result<Client, Trouble> {
    Client::connect(address)
        .await
        .map_err(|error| unexpected("the application cannot connect to its sidecar", &error))
}

async fn ask(client: &mut Client, line: &str) -> Result<String, Trouble> {
    client
        .ask(line)
        .await
        .map_err(|error| unexpected("the application got no answer", &error))
}

/// Calls through a sidecar that must not let the call through, and tells what the application saw of it.
async fn call_in_vain(address: std::net::SocketAddr) -> Result<&'static str, Trouble> {
    let end = match Client::connect(address).await {
        Ok(mut client) => client.ask_in_vain("a shirt, please").await,
        // The sidecar may have refused before we even looked at the new connection.
        Err(error) => Err(error),
    };
    match end {
        Ok(bytes) if !bytes.is_empty() => Err(Trouble::Unexpected(
            "expected no byte to come back to the application".to_owned(),
        )),
        end => reset(end),
    }
}

/// What an application saw at the end of its connection. It must be able to tell it from an end in order.
fn reset(end: io::Result<Vec<u8>>) -> Result<&'static str, Trouble> {
    match end {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok("connection reset"),
        Err(error) => Err(unexpected("expected the application to see a reset", &error)),
        Ok(_) => Err(Trouble::Unexpected(
            "expected the application to see a reset, not an end in order".to_owned(),
        )),
    }
}
