//! Random schedules on both sides, compared with a plain model: each side hears what the other sent, whole when both
//! ended in order, a part of it and no clean end when one did not.

use proptest::prelude::*;

use super::script::{setting, through_the_engine};
use super::*;
use crate::forward::testing::play::*;

/// Fails when this is not what the model allows.
pub(super) fn check(
    report: &Report,
    (at_peer, at_app): (&Heard, &Heard),
    (peer_does, app_does): (&Script, &Script),
) {
    let (up, down) = (pattern(peer_does.total()), pattern(app_does.total()));
    assert!(
        up.starts_with(&at_app.bytes),
        "what the application heard was never said"
    );
    assert!(
        down.starts_with(&at_peer.bytes),
        "what the peer heard was never said"
    );
    let reason = report.ending.reason;
    assert!(report.opened >= at_app.bytes.len() as u64, "{reason:?}");
    assert!(report.sealed >= at_peer.bytes.len() as u64, "{reason:?}");
    // A clean end is heard behind everything, and only where one was said.
    if at_app.clean {
        assert!(
            at_app.bytes.len() == up.len() && peer_does.finish == Finish::End,
            "{reason:?}"
        );
    }
    if at_peer.clean {
        assert!(
            at_peer.bytes.len() == down.len() && app_does.finish == Finish::End,
            "{reason:?}"
        );
    }
    match (peer_does.finish, app_does.finish) {
        (Finish::End, Finish::End) => {
            assert_eq!(reason, Reason::Finished, "{:?}", report.ending);
            assert!(at_app.clean && at_peer.clean);
            assert_eq!(
                (report.opened, report.sealed),
                (up.len() as u64, down.len() as u64)
            );
        }
        (Finish::Reset, Finish::End) => {
            assert!(
                matches!(reason, Reason::PeerReset | Reason::PeerTruncated),
                "{:?}",
                report.ending
            );
            assert!(!at_app.clean);
        }
        (Finish::End, Finish::Reset) => {
            assert_eq!(reason, Reason::ApplicationReset, "{:?}", report.ending);
            assert!(!at_peer.clean);
        }
        (Finish::Reset, Finish::Reset) => assert!(
            matches!(
                reason,
                Reason::PeerReset | Reason::PeerTruncated | Reason::ApplicationReset
            ),
            "{:?}",
            report.ending
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn any_schedule_ends_as_the_model_says(setting in setting(), (peer_does, app_does) in scripts()) {
        block_on(async {
            let (report, at_peer, at_app) = through_the_engine(setting, &peer_does, &app_does).await;
            check(&report, (&at_peer, &at_app), (&peer_does, &app_does));
        });
    }
}
