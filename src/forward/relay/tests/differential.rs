//! The engine against the plainest relay there is: stock tokio-rustls, and tokio's copy loop of 8 KiB. Both are given
//! the same random schedules, and must give the same bytes and the same ends wherever the plain one's are right.
//!
//! Where it is not right, the engine is held to the model of [`super::schedules`] alone:
//! - A peer that was reset or truncated: the plain relay closes, and the application takes that for a clean end. The
//!   engine passes on a reset.
//! - How much still arrives of what a side said before a reset is a matter of time with both; it is a part from the
//!   front.

use std::sync::Arc;

use proptest::prelude::*;
use tokio_rustls::TlsStream;

use super::schedules::check;
use super::script::{Setting, play_app, play_peer, setting, through_the_engine};
use super::*;
use crate::forward::testing::play::*;

/// Both scripts through the plain relay: whether it was content, what the peer and what the application heard.
async fn through_the_plain_relay(
    setting: Setting,
    peer_does: &Script,
    app_does: &Script,
) -> (bool, Heard, Heard) {
    let (near, far) = tcp_pair(setting.room).await;
    let (mut plain, app) = tcp_pair(setting.room).await;
    let suite = if setting.we_serve { AES_256 } else { AES_128 };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(world().stock_client(suite)));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(world().stock_server(suite)));
    let (client, server) = if setting.we_serve {
        (far, near)
    } else {
        (near, far)
    };
    let (client, server) = tokio::join!(connector.connect(name(), client), acceptor.accept(server));
    let (client, server) = (TlsStream::from(client.unwrap()), TlsStream::from(server.unwrap()));
    let (mut tls, theirs) = if setting.we_serve {
        (server, client)
    } else {
        (client, server)
    };
    let peer = Peer {
        tls: theirs,
        rekey: Arc::default(),
    };
    let copied = async {
        let copied = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
        drop((tls, plain));
        copied.is_ok()
    };
    let copied = timeout(HANG, copied);
    let (content, at_peer, at_app) =
        tokio::join!(copied, play_peer(peer, peer_does), play_app(app, app_does));
    (content.expect("the plain relay hangs"), at_peer, at_app)
}

async fn compare(setting: Setting, peer_does: &Script, app_does: &Script) {
    let (report, at_peer, at_app) = through_the_engine(setting, peer_does, app_does).await;
    let (content, plainly_at_peer, plainly_at_app) =
        through_the_plain_relay(setting, peer_does, app_does).await;
    check(&report, (&at_peer, &at_app), (peer_does, app_does));
    match (peer_does.finish, app_does.finish) {
        (Finish::End, Finish::End) => {
            assert!(content && report.ending.reason == Reason::Finished);
            assert!(plainly_at_peer.bytes == at_peer.bytes, "other bytes at the peer");
            assert!(
                plainly_at_app.bytes == at_app.bytes,
                "other bytes at the application"
            );
            assert_eq!(
                (at_peer.clean, at_app.clean),
                (plainly_at_peer.clean, plainly_at_app.clean)
            );
        }
        // TLS has an end of its own: even the plain relay's silence is none.
        (Finish::End, Finish::Reset) => assert_eq!(at_peer.clean, plainly_at_peer.clean),
        (Finish::Reset, _) => {}
    }
    // Whatever the end: of the two, one heard as far as the other did or less far, and the same until there.
    for (ours, plainly) in [(&at_peer, &plainly_at_peer), (&at_app, &plainly_at_app)] {
        assert!(ours.bytes.starts_with(&plainly.bytes) || plainly.bytes.starts_with(&ours.bytes));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn the_engine_gives_what_the_plainest_relay_gives(setting in setting(), (peer_does, app_does) in scripts()) {
        block_on(compare(setting, &peer_does, &app_does));
    }
}
