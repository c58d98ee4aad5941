//! What the log consists of: entries, each chained to the one before, and what it says of itself.

use std::time::Instant;

use serde_json::{Value, json};

use super::Writer;
use crate::audit::chain::{Head, MAX_LINE};
use crate::record::TraceId;
use crate::record::audit::{Actor, Change, Entry, EntryKind, EntryOutcome, Event, FIELDS, Operation};

impl Writer {
    /// What a new segment begins with, and what is to be said of a torn end.
    pub(super) fn begin_anew(&mut self) {
        if self.active.size == 0 {
            self.head_segment();
        }
        if let Some(torn) = self.torn.take() {
            tracing::warn!(
                bytes = torn.bytes,
                kept = torn.kept.as_ref().map(|kept| kept.display().to_string()),
                "the end of the audit log was torn, as by a crash, and is taken out of it"
            );
            let data = json!({
                "bytes": torn.bytes,
                "sha256": torn.hash.to_string(),
                "kept": torn.kept.as_ref().and_then(|kept| kept.file_name()).map(|name| name.to_string_lossy().into_owned()),
            });
            self.note(
                Operation::Repair,
                Some("the log's end was torn, as by a crash".to_owned()),
                data,
            );
        }
    }

    /// Chains an entry, and adds its line to the batch. False where it cannot be kept, which is counted.
    pub(super) fn append(&mut self, event: &Event) -> bool {
        let prev = self.head.hash.to_string();
        let upstreams = self.surroundings.upstreams.load();
        let mut entry = Entry::new(
            event,
            (self.head.next, &prev),
            &self.surroundings.host,
            |listener| upstreams.get(listener).map(AsRef::as_ref),
        );
        if let (true, Some(connection)) = (self.surroundings.traced, entry.connection) {
            entry.trace_id = Some(TraceId::of(entry.id.process(), connection));
        }
        let start = self.batch.len();
        // Strings and numbers cannot fail, nor can writing to memory.
        let written = match &self.surroundings.redactor {
            // What the log says of itself must be what it is: signatures are over it.
            Some(redactor) if entry.kind != EntryKind::Log => {
                redactor.write_json(&entry, &FIELDS, &mut self.batch)
            }
            _ => serde_json::to_writer(&mut self.batch, &entry),
        };
        if written.is_err() || self.batch.len() - start > MAX_LINE {
            self.batch.truncate(start);
            self.lost = self.lost.saturating_add(1);
            self.shared.count_lost(1);
            return false;
        }
        let line = self.batch.get(start..).unwrap_or_default();
        let now = self.surroundings.clock.now();
        self.batch_first.get_or_insert((self.head.next, now));
        self.head = Head::after(self.head.next, line);
        self.batch.push(b'\n');
        self.batch_entries += 1;
        self.unsigned += 1;
        true
    }

    /// An entry of the log about itself.
    pub(super) fn note(&mut self, operation: Operation, detail: Option<String>, data: Value) {
        let change = Change {
            id: self.surroundings.ids.next(),
            time: self.surroundings.clock.now(),
            kind: EntryKind::Log,
            actor: Actor::Svidecar,
            operation,
            outcome: EntryOutcome::Success,
            detail,
            own_id: None,
            policy_generation: None,
            data,
        };
        self.append(&Event::Change(Box::new(change)));
    }

    pub(super) fn head_segment(&mut self) {
        let mut random = [0; 16];
        // Were the system to give no randomness there would be no TLS either; the chain holds without.
        let _ = aws_lc_rs::rand::fill(&mut random);
        let data = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            // What makes this log another than every other, from its first entry on.
            "nonce": format!("{:032x}", u128::from_be_bytes(random)),
        });
        self.note(Operation::Segment, None, data);
    }

    /// Signs what was chained since the last time.
    pub(super) fn checkpoint(&mut self) {
        if self.unsigned == 0 {
            return;
        }
        let now = self.surroundings.clock.now();
        let signer = self.signer.as_ref().filter(|signer| signer.svid.is_valid(now));
        let data = signer.and_then(|signer| signer.sign(self.head.next, &self.head.hash, now));
        // Also where there is nobody who could sign: the next time is as far away.
        self.signed_at = Instant::now();
        let Some(data) = data else { return };
        let change = Change {
            id: self.surroundings.ids.next(),
            time: now,
            kind: EntryKind::Log,
            actor: Actor::Svidecar,
            operation: Operation::Checkpoint,
            outcome: EntryOutcome::Success,
            detail: None,
            own_id: None,
            policy_generation: None,
            data,
        };
        self.append(&Event::Change(Box::new(change)));
        self.unsigned = 0;
        self.shared.status().last_checkpoint = Some(now);
    }

    pub(super) fn account_for_lost(&mut self) {
        if let Some((first, last)) = self.doubtful.take() {
            let detail =
                format!("the disk failed to confirm entries {first} to {last}; they may not be on it");
            self.note(
                Operation::Gap,
                Some(detail),
                json!({ "lost": 0, "unconfirmed": [first, last] }),
            );
        }
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            let detail = format!("{lost} entries could not be kept before this one");
            self.note(Operation::Gap, Some(detail), json!({ "lost": lost }));
        }
    }
}
