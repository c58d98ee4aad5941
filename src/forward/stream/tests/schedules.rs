//! Random schedules on both sides, compared with the model that the relay is held to.

use proptest::prelude::*;

use super::*;
use crate::forward::testing::play::*;
use crate::tls::testing::block_on;

async fn both(we_serve: bool, room: Option<u32>, limit: u64, peer_does: Script, we_do: Script) {
    let Bench {
        mut stream,
        traffic,
        peer,
    } = Bench::new(we_serve, room).await;
    stream.session.set_seal_limit(limit);
    let rekey = peer.rekey.clone();
    let peer_side = async {
        let (mut peer, mut heard) = play(peer, &peer_does, Some(&rekey)).await;
        if heard.left {
            reset(peer.into_socket());
        } else {
            heard.bytes.extend(peer.hear().await.0);
        }
        heard
    };
    let our_side = async {
        let (stream, heard) = play(stream, &we_do, None).await;
        if heard.left
            && let Some(socket) = stream.abort(AlertDescription::InternalError).await
        {
            socket.close_lingering().await;
        }
        heard
    };
    let (at_peer, here) = soon(async { tokio::join!(peer_side, our_side) }).await;
    let (up, down) = (pattern(peer_does.total()), pattern(we_do.total()));
    assert!(up.starts_with(&here.bytes), "what we heard was never said");
    assert!(
        down.starts_with(&at_peer.bytes),
        "what the peer heard was never said"
    );
    // What we read when we left is not told by the script.
    assert!(counted(&traffic).0 >= here.bytes.len() as u64);
    if here.clean {
        assert!(here.bytes.len() == up.len() && peer_does.finish == Finish::End);
    }
    if at_peer.clean {
        assert!(at_peer.bytes.len() == down.len() && we_do.finish == Finish::End);
    }
    match (peer_does.finish, we_do.finish) {
        (Finish::End, Finish::End) => {
            assert!(here.clean && at_peer.clean);
            assert_eq!(counted(&traffic), (up.len() as u64, down.len() as u64));
        }
        (Finish::Reset, _) => assert!(!here.clean),
        (Finish::End, Finish::Reset) => assert!(!at_peer.clean),
    }
    assert_eq!(buffer::taken(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn any_schedule_ends_as_the_model_says(
        we_serve: bool,
        room in prop_oneof![Just(None), Just(Some(2048)), Just(Some(16_384))],
        limit in 1..20_u64,
        peer_does in script(),
        we_do in script(),
    ) {
        block_on(both(we_serve, room, limit, peer_does, we_do));
    }
}
