//! What is written is whole, in whatever way the writing ended.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::*;
use crate::record::Verdict;

fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < patience, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn a_log_goes_on_where_it_ended() {
    let scene = Scene::new();
    scene.write(3);
    scene.write(2);
    let summary = scene.verify().unwrap();
    // The head of the one segment is an entry, too.
    assert_eq!((summary.entries, summary.files, summary.unsigned), (6, 1, 6));
    assert_eq!(operations(&scene.text()), ["segment"]);
    let mode = fs::metadata(scene.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let entry: Value = serde_json::from_str(scene.text().lines().nth(1).unwrap()).unwrap();
    assert_eq!(
        (&entry["host"], &entry["upstream"]),
        (&"pod-1".into(), &"127.0.0.1:8080".into())
    );
    assert_eq!(scene.metrics.written.get(), 6);
}

#[test]
fn the_status_and_the_metric_name_the_last_line() {
    let scene = Scene::new();
    let (log, guard) = scene.start();
    let _ = log.record(verdict(denial()));
    wait("both entries are written", || log.status().written == 2);
    let status = log.status();
    drop(guard);
    let (seq, hash, _) = scene.verify().unwrap().last.unwrap();
    assert_eq!(status.head, Some((seq, hash)));
    assert_eq!(scene.metrics.head.get(), i64::try_from(hash.short()).unwrap());
    let kept = |head: String| {
        verify(
            &scene.files(),
            &Expectations {
                head: Some(head),
                ..Expectations::default()
            },
        )
    };
    assert!(kept(format!("{:012x}", hash.short())).is_ok());
    // One that was written before is as good an anchor.
    let first = Hash::of(scene.text().lines().next().unwrap().as_bytes());
    assert!(kept(first.to_string()).is_ok());
    assert!(matches!(kept("0".repeat(12)), Err(Mismatch::Head(_))));
}

#[test]
fn an_answer_means_that_it_is_on_the_disk() {
    let mut scene = Scene::new();
    scene.settings.sync = AuditSync::Always;
    let (log, guard) = scene.start();
    let allow = Decision {
        verdict: Verdict::Allow,
        ..bare()
    };
    for number in 1..=20 {
        let Receipt::Pending(kept) = log.record(verdict(allow.clone())) else {
            panic!("nobody may be let in before the record is on the disk");
        };
        assert!(block_on(kept));
        assert_eq!(log.status().durable, Some(number));
        assert_eq!(scene.text().lines().count() as u64, number + 1);
    }
    // Whom it keeps out it need not wait for.
    assert!(matches!(log.record(verdict(denial())), Receipt::Kept));
    drop(guard);
    assert_eq!(scene.verify().unwrap().entries, 22);
}

#[test]
fn the_disk_confirms_within_the_interval() {
    let mut scene = Scene::new();
    scene.settings.sync = AuditSync::Interval;
    let (log, guard) = scene.start();
    let _ = log.record(verdict(denial()));
    wait("the disk has confirmed", || log.status().durable == Some(1));
    drop(guard);
}

#[test]
fn segments_follow_each_other_by_size_and_by_age() {
    let mut scene = Scene::new();
    scene.write(1500);
    assert!(
        scene.files().len() > 1,
        "more than a MiB is more than one segment"
    );
    let summary = scene.verify().unwrap();
    assert_eq!(summary.entries, 1500 + summary.files as u64);
    assert!(fs::metadata(scene.path()).unwrap().len() < 1 << 20);
    scene.settings.max_age = Duration::from_secs(60);
    let before = scene.files().len();
    scene.clock.set(scene.clock.now() + Duration::from_secs(3600));
    scene.write(1);
    assert_eq!(scene.files().len(), before + 1);
    let older = &scene.files()[0];
    assert!(
        older
            .to_string_lossy()
            .ends_with("audit.jsonl.00000000000000000000.gz"),
        "{older:?}"
    );
    assert!(fs::metadata(older).unwrap().len() < 300_000, "it is compressed");
    scene.verify().unwrap();
}

#[test]
fn older_segments_beyond_the_number_are_removed() {
    let mut scene = Scene::new();
    scene.settings.keep = 1;
    scene.write(4000);
    scene.write(0);
    assert_eq!(scene.files().len(), 2);
    let summary = scene.verify().unwrap();
    assert!(summary.first.unwrap() > 0);
}

/// After a crash between the renaming of a segment and the making of the next, and with nothing but compressed ones left.
#[test]
fn a_log_without_its_active_segment_goes_on_after_the_last_older_one() {
    let scene = Scene::new();
    scene.write(2000);
    let last = |scene: &Scene| scene.verify().unwrap().last.unwrap().0;
    let text = scene.text();
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    fs::rename(
        scene.path(),
        segment::older_name(scene.path(), first["seq"].as_u64().unwrap()),
    )
    .unwrap();
    scene.write(1);
    scene.verify().unwrap();
    let before = last(&scene);
    scene.write(1);
    assert_eq!(last(&scene), before + 1);
}

#[test]
fn signatures_come_with_changes_of_the_key_and_at_the_end() {
    let scene = Scene::new();
    let authority = scene.authority();
    let (log, guard) = scene.start();
    let _ = log.record(verdict(denial()));
    // Nobody has signed yet.
    log.sign_with(Some(scene.signer(&authority)));
    let _ = log.record(verdict(denial()));
    log.sign_with(Some(scene.signer(&authority)));
    let _ = log.record(verdict(denial()));
    drop(guard);
    assert_eq!(operations(&scene.text()), ["segment", "checkpoint", "checkpoint"]);
    let summary = scene.verify().unwrap();
    assert_eq!(
        (summary.checkpoints, summary.unsigned, summary.signers.len()),
        (2, 0, 2)
    );
    let under = |authority: &Authority| {
        let pem = pem(authority);
        let bundle = verify::trust_store(TrustDomain::new("example.org").unwrap(), pem.as_bytes()).unwrap();
        verify(
            &scene.files(),
            &Expectations {
                bundle: Some(bundle),
                ..Expectations::default()
            },
        )
    };
    assert!(under(&authority).is_ok());
    let error = under(&scene.authority()).unwrap_err().to_string();
    assert!(
        error.contains("its certificate is not of the bundle's authorities"),
        "{error}"
    );
}

#[test]
fn an_svid_that_has_run_out_signs_nothing() {
    let scene = Scene::new();
    let (log, guard) = scene.start();
    log.sign_with(Some(scene.signer(&scene.authority())));
    scene.clock.set(scene.clock.now() + Duration::from_secs(7200));
    let _ = log.record(verdict(denial()));
    drop(guard);
    assert_eq!(scene.verify().unwrap().checkpoints, 0);
}

/// Whatever the last write left behind: at each place in the last line.
#[test]
fn a_torn_end_is_taken_out_and_noted() {
    let scene = Scene::new();
    scene.write(3);
    let whole = scene.text();
    let last = whole.trim_end().rfind('\n').unwrap() + 1;
    for cut in [last + 1, last + 100, whole.len() - 1] {
        fs::write(scene.path(), &whole[..cut]).unwrap();
        assert_eq!(scene.verify().unwrap().torn, (cut - last) as u64);
        scene.write(1);
        let summary = scene.verify().unwrap();
        assert_eq!((summary.repairs, summary.torn), (1, 0), "{cut}");
        let repair: Value = scene
            .text()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .find(|entry| entry["operation"] == "repair")
            .unwrap();
        let kept = scene.folder.path().join(repair["data"]["kept"].as_str().unwrap());
        let torn = fs::read(kept).unwrap();
        assert_eq!(torn, whole.as_bytes()[last..cut]);
        assert_eq!(repair["data"]["sha256"], Hash::of(&torn).to_string());
    }
    // A cut between two lines leaves no trace in the log itself: that is what an anchor is for.
    fs::write(scene.path(), &whole[..last]).unwrap();
    scene.write(1);
    assert_eq!(scene.verify().unwrap().repairs, 0);
}

#[test]
fn a_torn_beginning_is_taken_out_too() {
    for beginning in [&b"{\"version\":1,\"se"[..], &b"{"[..], &[0; 4096][..]] {
        let scene = Scene::new();
        fs::write(scene.path(), beginning).unwrap();
        scene.write(1);
        let summary = scene.verify().unwrap();
        assert_eq!((summary.entries, summary.first, summary.repairs), (3, Some(0), 1));
    }
    // Blocks that were promised and never filled.
    let scene = Scene::new();
    scene.write(2);
    OpenOptions::new()
        .append(true)
        .open(scene.path())
        .unwrap()
        .write_all(&[0; 5000])
        .unwrap();
    scene.write(1);
    assert_eq!(scene.verify().unwrap().repairs, 1);
}

#[test]
fn what_is_no_audit_log_is_left_alone() {
    for other in ["hello\n", "{\"id\":\"4f2a90c1d3e7-1\"}\n", "no line feed", "\n"] {
        let scene = Scene::new();
        fs::write(scene.path(), other).unwrap();
        let error = scene.open().unwrap_err();
        assert!(matches!(error, OpenError::NotALog { .. }), "{other:?}: {error}");
        assert_eq!(scene.text(), other);
    }
    let scene = Scene::new();
    fs::create_dir(scene.path()).unwrap();
    assert!(matches!(scene.open(), Err(OpenError::NotALog { .. })));
    let mut scene = Scene::new();
    scene.settings.path = scene.folder.path().join("absent/audit.jsonl");
    assert!(matches!(scene.open(), Err(OpenError::System { .. })));
}

#[test]
fn one_log_has_one_writer() {
    let scene = Scene::new();
    let (_log, guard) = scene.start();
    assert!(matches!(scene.open(), Err(OpenError::InUse(_))));
    drop(guard);
    assert!(scene.open().is_ok());
}

#[test]
fn a_log_that_was_moved_away_goes_on_in_a_new_file() {
    let scene = Scene::new();
    let (log, guard) = scene.start();
    let _ = log.record(verdict(denial()));
    wait("the first entry is written", || log.status().written == 2);
    let moved = scene.folder.path().join("moved");
    fs::rename(scene.path(), &moved).unwrap();
    wait("it goes on in a new file", || {
        let _ = log.record(verdict(denial()));
        std::fs::metadata(scene.path()).is_ok_and(|meta| meta.len() > 0)
    });
    drop(guard);
    let files = [moved, scene.path().to_owned()];
    verify(&files, &Expectations::default()).unwrap();
}

/// A file on a device that takes nothing stands for a full disk.
mod full {
    use super::*;

    /// A log whose active segment cannot be written to any more: another file was put in its place.
    fn break_it(scene: &Scene) {
        fs::rename(scene.path(), scene.folder.path().join("aside")).unwrap();
        fs::write(scene.path(), "not ours").unwrap();
    }

    fn mend(scene: &Scene) {
        fs::rename(scene.folder.path().join("aside"), scene.path()).unwrap();
    }

    fn fails(log: &AuditLog) -> bool {
        let _ = log.record(verdict(denial()));
        log.failing().borrow().is_some()
    }

    #[test]
    fn nobody_is_let_in_until_it_can_be_written_again() {
        let scene = Scene::new();
        let (log, guard) = scene.start();
        assert_eq!(log.refuses(), None);
        break_it(&scene);
        wait("it is seen", || fails(&log));
        assert!(log.refuses().unwrap().contains("cannot be written"));
        assert_eq!(scene.metrics.failing.get(), 1);
        mend(&scene);
        wait("it is written again", || log.failing().borrow().is_none());
        assert_eq!((log.refuses(), scene.metrics.failing.get()), (None, 0));
        drop(guard);
        assert_eq!(scene.verify().unwrap().lost, 0);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_noted() {
        for (on_failure, lost) in [(OnAuditFailure::Deny, true), (OnAuditFailure::Continue, false)] {
            let mut scene = Scene::new();
            scene.settings.on_failure = on_failure;
            let (log, guard) = scene.start();
            break_it(&scene);
            wait("it is seen", || fails(&log));
            for _ in 0..queue::QUEUE {
                let _ = log.record(verdict(bare()));
            }
            assert_eq!(matches!(log.record(verdict(bare())), Receipt::Lost), lost);
            assert_eq!(log.refuses().is_some(), lost);
            mend(&scene);
            wait("it is written again", || log.failing().borrow().is_none());
            drop(guard);
            let summary = scene.verify().unwrap();
            assert!(summary.lost >= 1, "{summary:?}");
            assert_eq!(summary.lost, scene.metrics.lost.get());
            assert!(operations(&scene.text()).contains(&"gap".to_owned()) || scene.files().len() > 1);
        }
    }

    #[test]
    fn nobody_waits_for_a_disk_that_takes_nothing() {
        for (on_failure, denies) in [(OnAuditFailure::Deny, true), (OnAuditFailure::Continue, false)] {
            let mut scene = Scene::new();
            scene.settings.on_failure = on_failure;
            scene.settings.sync = AuditSync::Always;
            let (log, guard) = scene.start();
            wait("it has begun", || log.status().written == 1);
            break_it(&scene);
            // It looks once a second whether the file is still the one. Who waits then is told.
            let answer = |log: &AuditLog| match log.record(verdict(bare())) {
                Receipt::Pending(kept) => Some(block_on(kept)),
                Receipt::Lost | Receipt::Kept => None,
            };
            let mut told = Vec::new();
            wait("it is seen", || {
                told.extend(answer(&log));
                log.failing().borrow().is_some()
            });
            assert_eq!(told.last(), Some(&!denies), "{told:?}");
            // Who comes later does not wait at all.
            for _ in 0..100 {
                let receipt = log.record(verdict(bare()));
                assert!(
                    matches!(receipt, Receipt::Lost) == denies && !matches!(receipt, Receipt::Pending(_))
                );
            }
            mend(&scene);
            wait("it is written again", || log.failing().borrow().is_none());
            assert_eq!(answer(&log), Some(true));
            drop(guard);
            scene.verify().unwrap();
        }
    }

    #[test]
    fn who_is_let_in_where_policy_is_only_audited_is_waited_for_too() {
        let mut scene = Scene::new();
        scene.settings.sync = AuditSync::Always;
        let (log, guard) = scene.start();
        let only_reported = Decision {
            enforced: false,
            ..denial()
        };
        assert!(matches!(log.record(verdict(only_reported)), Receipt::Pending(_)));
        assert!(matches!(log.record(verdict(denial())), Receipt::Kept));
        drop(guard);
    }

    #[test]
    fn a_writer_that_is_gone_keeps_nobody_waiting() {
        let mut scene = Scene::new();
        scene.settings.sync = AuditSync::Always;
        let (log, guard) = scene.start();
        drop(guard);
        assert!(matches!(log.record(verdict(bare())), Receipt::Lost));
        assert!(log.refuses().is_some());
        assert_eq!(scene.metrics.failing.get(), 1);
    }
}

#[test]
fn a_file_that_cannot_be_renamed_is_written_on() {
    let mut scene = Scene::new();
    scene.settings.compress = false;
    let (log, guard) = scene.start();
    wait("it has begun", || log.status().written == 1);
    fs::write(segment::older_name(scene.path(), 0), "in the way").unwrap();
    for _ in 0..1500 {
        let _ = log.record(verdict(denial()));
    }
    wait("all are written", || log.status().written >= 1501);
    assert!(log.failing().borrow().is_none());
    drop(guard);
    assert_eq!(
        fs::read_to_string(segment::older_name(scene.path(), 0)).unwrap(),
        "in the way"
    );
    assert!(verify(&[scene.path().to_owned()], &Expectations::default()).is_ok());
}

#[test]
fn those_who_only_knock_do_not_fill_the_log() {
    let scene = Scene::new();
    let (log, guard) = scene.start();
    for number in 0..1000 {
        let refusal = refusal(number);
        assert!(matches!(
            log.record(Event::Refusal(Box::new(refusal))),
            Receipt::Kept
        ));
    }
    drop(guard);
    let text = scene.text();
    let refusals: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|entry| entry["kind"] == "refusal")
        .collect();
    let counted: u64 = refusals
        .iter()
        .map(|entry| entry["data"]["count"].as_u64().unwrap_or(1))
        .sum();
    assert_eq!(counted, 1000);
    assert!(refusals.len() < 400, "{}", refusals.len());
    scene.verify().unwrap();
}

#[test]
fn all_is_written_and_signed_when_it_is_asked_for() {
    let scene = Scene::new();
    let (log, guard) = scene.start();
    log.sign_with(Some(scene.signer(&scene.authority())));
    let _ = log.record(verdict(denial()));
    block_on(log.flush());
    assert_eq!(operations(&scene.text()), ["segment", "checkpoint"]);
    assert_eq!(log.next(), 3);
    drop(guard);
    // A writer that is gone answers, too.
    block_on(log.flush());
}

#[test]
fn another_file_keeps_its_rights() {
    let scene = Scene::new();
    fs::write(scene.path(), "something else\n").unwrap();
    fs::set_permissions(scene.path(), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(scene.open().is_err());
    assert_eq!(
        fs::metadata(scene.path()).unwrap().permissions().mode() & 0o777,
        0o644
    );
}
