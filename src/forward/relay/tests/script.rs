//! The two sides of a random schedule, and what lies between them.

use proptest::prelude::*;

use super::*;
use crate::forward::testing::play::*;

/// Plays the peer's script to the end.
pub(super) async fn play_peer(mut peer: Peer, script: &Script) -> Heard {
    let rekey = peer.rekey.clone();
    let mut heard;
    (peer, heard) = play(peer, script, Some(&rekey)).await;
    if heard.left {
        reset(peer.into_socket());
    } else {
        heard.bytes.extend(peer.hear().await.0);
    }
    heard
}

/// Plays the application's script to the end.
pub(super) async fn play_app(app: TcpStream, script: &Script) -> Heard {
    let (app, heard) = play(app, script, None).await;
    if heard.left {
        reset(app);
    }
    heard
}

/// What the sockets and the session of a schedule are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) we_serve: bool,
    /// The size of the socket buffers, where it is not the system's.
    pub(super) room: Option<u32>,
    /// Records after which we change our key.
    pub(super) limit: u64,
}

pub(super) fn setting() -> impl Strategy<Value = Setting> {
    let room = prop_oneof![2 => Just(None), 1 => Just(Some(2048)), 1 => Just(Some(16_384))];
    (any::<bool>(), room, 1..20_u64).prop_map(|(we_serve, room, limit)| Setting {
        we_serve,
        room,
        limit,
    })
}

/// Both scripts through the engine: how it ended, what the peer and what the application heard.
pub(super) async fn through_the_engine(
    setting: Setting,
    peer_does: &Script,
    app_does: &Script,
) -> (Report, Heard, Heard) {
    let Bench { mut ends, peer, app } = Bench::new(setting.we_serve, setting.room).await;
    ends.session.set_seal_limit(setting.limit);
    let relayed = timeout(HANG, relay(ends, HOUR, std::future::pending()));
    let (report, at_peer, at_app) =
        tokio::join!(relayed, play_peer(peer, peer_does), play_app(app, app_does));
    (report.expect("the relay hangs"), at_peer, at_app)
}
