//! What must not leave is not in the file, and the log still verifies.

use super::*;
use crate::config::settings::RedactionProfile;
use crate::record::audit::FIELDS;
use crate::redaction::profile;

#[test]
fn a_redacted_log_holds_no_personal_data_and_fits() {
    for rules in RedactionProfile::ALL.iter().map(|named| profile::rules(*named)) {
        let mut scene = Scene::new();
        scene.redactor = Some(Arc::new(
            Redactor::new(&rules, Some(b"a key of thirty-two bytes or so")).unwrap(),
        ));
        let authority = scene.authority();
        let (log, guard) = scene.start();
        log.sign_with(Some(scene.signer(&authority)));
        let _ = log.record(verdict(denial()));
        drop(guard);
        let summary = scene.verify().unwrap();
        assert_eq!((summary.entries, summary.checkpoints), (3, 1));
        let text = scene.text();
        let line = text.lines().nth(1).unwrap();
        for personal in ["example.org/web", "example.org/orders", "10.1.2.3", "0a1b"] {
            assert!(!line.contains(personal), "{personal}: {line}");
        }
        let places: Vec<_> = FIELDS
            .iter()
            .map(|field| line.find(&format!("\"{field}\":")).unwrap())
            .collect();
        assert!(places.is_sorted(), "{line}");
    }
}
