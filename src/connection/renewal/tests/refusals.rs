//! What ends the connection, and what leaves it as it was.

use std::io::{self, Write};
use std::sync::Mutex;

use rustls::AlertDescription;

use super::super::*;
use super::world::*;
use crate::config::settings::OpenConnections;
use crate::record::RenewalResult as R;
use crate::telemetry::log::beside::another_subscriber;
use crate::workload_api::authority::Authority;

/// What is logged meanwhile.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        another_subscriber();
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || log.clone());
        tracing::subscriber::set_default(subscriber.finish())
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The client shows this, and the server judges it.
fn judged(duo: &mut Duo, svid: &Shown) -> Result<usize, Refused> {
    duo.client.offer(svid);
    duo.tell_server()
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_not_valid_ends_the_connection() {
    type Make = fn(&Duo) -> Shown;
    let cases: &[(&str, Make, AlertDescription, &str)] = &[
        (
            "another identity's valid SVID",
            |duo| duo.svid(&duo.authority, "spiffe://example.org/web-admin", |_| {}),
            AlertDescription::AccessDenied,
            "the renewal is of `spiffe://example.org/web-admin`",
        ),
        (
            "one that is over",
            |duo| {
                duo.svid(&duo.authority, WEB, |params| {
                    params.not_after = (duo.server.live.clock.now() - HOUR / 60).into();
                })
            },
            AlertDescription::CertificateExpired,
            "expired at",
        ),
        (
            "one that no client may use",
            |duo| {
                duo.svid(&duo.authority, WEB, |params| {
                    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
                })
            },
            AlertDescription::UnsupportedCertificate,
            "id-kp-clientAuth",
        ),
        (
            "no X.509-SVID",
            |duo| {
                duo.svid(&duo.authority, WEB, |params| {
                    params
                        .subject_alt_names
                        .push(rcgen::SanType::URI("spiffe://example.org/b".try_into().unwrap()));
                })
            },
            AlertDescription::BadCertificate,
            "",
        ),
        (
            "a chain whose key somebody else holds",
            |duo| {
                let (chain, _) = duo.svid(&duo.authority, WEB, |_| {});
                let (_, key) = duo.svid(&duo.authority, WEB, |_| {});
                (chain, key)
            },
            AlertDescription::DecryptError,
            "signature is wrong",
        ),
    ];
    for (what, make, alert, words) in cases {
        let mut duo = Duo::new().await;
        let (peer, end) = (
            duo.server.entry().basis().peer.clone(),
            duo.server.entry().basis().expires(),
        );
        let svid = make(&duo);
        let refused = judged(&mut duo, &svid).unwrap_err();
        assert_eq!(refused.alert, *alert, "{what}: {}", refused.detail);
        assert!(refused.detail.contains(words), "{what}: {}", refused.detail);
        assert_eq!(duo.server.counts(), [(R::PeerRefused, 1)], "{what}");
        let verdict = duo.server.told.0.lock().unwrap().pop().unwrap();
        let said = (verdict.kind, verdict.verdict, verdict.enforced, verdict.reason);
        assert_eq!(
            said,
            (
                crate::record::Kind::Renewal,
                crate::record::Verdict::Deny,
                true,
                Some(Reason::RenewalRefused)
            ),
            "{what}"
        );
        assert_eq!(
            refused.decision.map(|decision| decision.id),
            Some(verdict.id),
            "{what}"
        );
        assert!(Arc::ptr_eq(&peer, &duo.server.entry().basis().peer), "{what}");
        assert_eq!(duo.server.entry().basis().expires(), end, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn renewals_have_their_distance() {
    for (pause, good) in [
        (MIN_INTERVAL - std::time::Duration::from_millis(1), false),
        (MIN_INTERVAL, true),
    ] {
        let mut duo = Duo::new().await;
        let svid = duo.svid(&duo.authority, WEB, |_| {});
        judged(&mut duo, &svid).unwrap();
        duo.tell_client().unwrap();
        tokio::time::advance(pause).await;
        let again = judged(&mut duo, &svid);
        assert_eq!(again.is_ok(), good, "{again:?}");
        if let Err(refused) = again {
            assert_eq!(refused.alert, AlertDescription::UnexpectedMessage);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_heal_leaves_the_connection_as_it_was() {
    let log = Log::default();
    let _guard = log.listen();
    type Make = fn(&Duo) -> Shown;
    let cases: &[(&str, Make)] = &[
        ("an authority that has not come yet", |duo| {
            duo.svid(&duo.other, WEB, |_| {})
        }),
        ("a clock that is behind", |duo| {
            duo.svid(&duo.authority, WEB, |params| {
                params.not_before = (duo.server.live.clock.now() + HOUR / 60).into();
            })
        }),
        ("a trust domain of which no bundle has come", |duo| {
            let domain = crate::spiffe::TrustDomain::new("partner.example").unwrap();
            let partner = Authority::new(domain, HOUR, duo.server.live.clock.now()).unwrap();
            duo.svid(&partner, "spiffe://partner.example/web", |_| {})
        }),
        ("one that ends sooner", |duo| {
            duo.svid(&duo.authority, WEB, |params| {
                params.not_after = (duo.server.live.clock.now() + HOUR / 2).into();
            })
        }),
    ];
    for (what, make) in cases {
        let mut duo = Duo::new().await;
        let (peer, end) = (
            duo.server.entry().basis().peer.clone(),
            duo.server.entry().basis().expires(),
        );
        let svid = make(&duo);
        assert_eq!(judged(&mut duo, &svid).unwrap(), 1, "{what}");
        assert_eq!(duo.server.counts(), [(R::PeerKept, 1)], "{what}");
        let verdict = duo.server.told.0.lock().unwrap().pop().unwrap();
        assert_eq!(
            (verdict.verdict, verdict.enforced),
            (crate::record::Verdict::Deny, false),
            "{what}"
        );
        assert!(Arc::ptr_eq(&peer, &duo.server.entry().basis().peer), "{what}");
        assert_eq!(duo.server.entry().basis().expires(), end, "{what}");
        // The other end hears so, and may show a better one.
        assert_eq!(duo.tell_client().unwrap(), 1);
        tokio::time::advance(MIN_INTERVAL).await;
        let better = duo.svid(&duo.authority, WEB, |_| {});
        judged(&mut duo, &better).unwrap();
        assert_eq!(
            duo.server.counts(),
            [(R::PeerAccepted, 1), (R::PeerKept, 1)],
            "{what}"
        );
    }
    let log = log.text();
    assert!(log.contains("counts to its end: unknown_trust_domain"), "{log}");
    // Peers are named by records alone, out of which redaction takes them.
    assert!(!log.contains("spiffe:"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn our_end_rests_on_the_old_one_until_it_is_accepted() {
    let mut duo = Duo::new().await;
    duo.pass(HOUR / 2);
    duo.client.rotate(HOUR);
    let old = duo.client.entry().basis().own.clone();
    // The server does not know the authority any more, for a while.
    duo.server.trust_only(&duo.other);
    duo.renew_client().unwrap();
    assert!(Arc::ptr_eq(&old, &duo.client.entry().basis().own.clone()));
    assert_eq!(duo.client.counts(), [(R::OwnSent, 1), (R::OwnKept, 1)]);
    duo.server.rotate(HOUR);
    tokio::time::advance(MIN_INTERVAL).await;
    duo.renew_client().unwrap();
    assert!(duo.client.entry().basis().own.clone().not_after > old.not_after);
    assert_eq!(
        duo.client.counts(),
        [(R::OwnSent, 2), (R::OwnAccepted, 1), (R::OwnKept, 1)]
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_is_not_told_again_before_the_peer_may_hear_it() {
    let mut duo = Duo::new().await;
    duo.pass(HOUR / 2);
    duo.client.rotate(HOUR);
    duo.server.trust_only(&duo.other);
    duo.renew_client().unwrap();
    // A bundle comes at once, and with it the next round.
    tokio::time::advance(MIN_INTERVAL / 10).await;
    duo.client.rotate(2 * HOUR);
    duo.client.entry().order_renewal();
    assert_eq!(
        duo.tell_server().unwrap(),
        0,
        "the peer would end the connection for it"
    );
    tokio::time::advance(MIN_INTERVAL).await;
    duo.client.entry().order_renewal();
    assert_eq!(duo.tell_server().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn where_policy_is_only_audited_the_record_tells_what_it_says() {
    let mut duo = Duo::new().await;
    let view = duo.server.live.policy();
    duo.server.live.set_policy(PolicyView {
        mode: crate::config::settings::PolicyMode::Audit,
        ..(*view).clone()
    });
    duo.server.policy(ALLOW_NOBODY);
    let svid = duo.svid(&duo.authority, WEB, |_| {});
    judged(&mut duo, &svid).unwrap();
    assert_eq!(duo.server.counts(), [(R::PeerAccepted, 1)]);
    let said = duo.server.told.0.lock().unwrap().pop().unwrap();
    assert_eq!(
        (said.verdict, said.enforced, said.reason),
        (crate::record::Verdict::Deny, false, Some(Reason::NoAllowRule))
    );
}

#[tokio::test(start_paused = true)]
async fn without_an_identity_nothing_is_judged() {
    let mut duo = Duo::new().await;
    duo.server.lose_identity();
    let svid = duo.svid(&duo.authority, WEB, |_| {});
    judged(&mut duo, &svid).unwrap();
    assert_eq!(duo.server.counts(), [(R::PeerKept, 1)]);
}

#[tokio::test(start_paused = true)]
async fn policy_is_asked_again_and_the_settings_say_what_its_no_does() {
    let log = OpenConnections {
        on_policy_change: OnChange::Log,
        ..OpenConnections::default()
    };
    for (actions, closes) in [(OpenConnections::default(), true), (log, false)] {
        let mut duo = Duo::with(actions).await;
        duo.server.policy(ALLOW_NOBODY);
        let svid = duo.svid(&duo.authority, WEB, |_| {});
        let judged = judged(&mut duo, &svid);
        if closes {
            let refused = judged.unwrap_err();
            assert_eq!(refused.alert, AlertDescription::AccessDenied);
            assert!(refused.detail.contains("no allow rule"), "{}", refused.detail);
            assert_eq!(duo.server.counts(), [(R::PeerRefused, 1)]);
        } else {
            judged.unwrap();
            assert_eq!(duo.server.counts(), [(R::PeerKept, 1)]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_must_be_a_server_and_the_one_that_it_was() {
    for (id, usage, alert) in [
        (
            "spiffe://example.org/orders-2",
            None,
            AlertDescription::AccessDenied,
        ),
        (
            ORDERS,
            Some(rcgen::ExtendedKeyUsagePurpose::ClientAuth),
            AlertDescription::UnsupportedCertificate,
        ),
    ] {
        let mut duo = Duo::new().await;
        duo.greet();
        let svid = duo.svid(&duo.authority, id, |params| {
            if let Some(usage) = usage {
                params.extended_key_usages = vec![usage];
            }
        });
        duo.server.offer(&svid);
        assert_eq!(duo.tell_client().unwrap_err().alert, alert);
    }
}
