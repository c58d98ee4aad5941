//! Random schedules on both sides, compared with a plain model: each side hears what the other sent, whole when both
//! ended in order, a part of it and no clean end when one did not.

use proptest::prelude::*;
use tokio::task::yield_now;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Act {
    Write(usize),
    Yield,
    Pause,
    Rekey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    End,
    Reset,
}

#[derive(Clone, Debug)]
struct Script {
    acts: Vec<Act>,
    finish: Finish,
    /// The most that is read at once, and then it pauses.
    sip: Option<usize>,
}

impl Script {
    fn total(&self) -> usize {
        let length = |act: &Act| if let Act::Write(length) = act { *length } else { 0 };
        self.acts.iter().map(length).sum()
    }
}

fn script() -> impl Strategy<Value = Script> {
    let act = prop_oneof![
        4 => prop_oneof![1..200_usize, 1..40_000_usize].prop_map(Act::Write),
        2 => Just(Act::Yield),
        1 => Just(Act::Pause),
        1 => Just(Act::Rekey),
    ];
    let finish = prop_oneof![5 => Just(Finish::End), 1 => Just(Finish::Reset)];
    let sip = prop_oneof![2 => Just(None), 1 => (500..9000_usize).prop_map(Some)];
    (proptest::collection::vec(act, 0..14), finish, sip).prop_map(|(acts, finish, sip)| Script {
        acts,
        finish,
        sip,
    })
}

/// What one side heard.
#[derive(Debug)]
struct Heard {
    bytes: Vec<u8>,
    clean: bool,
    /// It reset the connection itself, and heard nothing from then on.
    left: bool,
}

async fn listen(from: &mut (impl AsyncRead + Unpin), sip: Option<usize>, bytes: &mut Vec<u8>) -> bool {
    let mut buffer = vec![0; sip.unwrap_or(1 << 16)];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return true,
            Ok(read) => bytes.extend(&buffer[..read]),
            Err(_) => return false,
        }
        if sip.is_some() {
            tokio::time::sleep(Duration::from_micros(50)).await;
        }
    }
}

async fn speak(to: &mut (impl AsyncWrite + Unpin), script: &Script, rekey: Option<&AtomicBool>) -> Spoken {
    let all = pattern(script.total());
    let mut sent = 0;
    for act in &script.acts {
        match act {
            Act::Write(length) => {
                if to.write_all(&all[sent..sent + length]).await.is_err() || to.flush().await.is_err() {
                    return Spoken::Failed;
                }
                sent += length;
            }
            Act::Yield => yield_now().await,
            Act::Pause => tokio::time::sleep(Duration::from_millis(1)).await,
            Act::Rekey => {
                if let Some(rekey) = rekey {
                    rekey.store(true, Ordering::Relaxed);
                }
            }
        }
    }
    match script.finish {
        Finish::End if to.shutdown().await.is_err() => Spoken::Failed,
        Finish::End => Spoken::Ended,
        Finish::Reset => Spoken::Reset,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    Ended,
    Reset,
    /// The kernel tells of a reset once: whoever had it from a write may read an end afterwards.
    Failed,
}

/// Plays a script and says what was heard; hands back the socket for a reset.
async fn play<S: AsyncRead + AsyncWrite + Unpin>(
    io: S,
    script: &Script,
    rekey: Option<&AtomicBool>,
) -> (S, Heard) {
    let (mut from, mut to) = tokio::io::split(io);
    let mut bytes = Vec::new();
    let mut clean = None;
    let outcome;
    {
        let listening = listen(&mut from, script.sip, &mut bytes);
        let speaking = speak(&mut to, script, rekey);
        tokio::pin!(listening, speaking);
        let mut spoken = None;
        while clean.is_none() || spoken.is_none() {
            tokio::select! {
                how = &mut listening, if clean.is_none() => clean = Some(how),
                how = &mut speaking, if spoken.is_none() => {
                    spoken = Some(how);
                    if how == Spoken::Reset {
                        break;
                    }
                }
            }
        }
        outcome = spoken;
    }
    let left = outcome == Some(Spoken::Reset);
    let clean = clean == Some(true) && outcome == Some(Spoken::Ended);
    (from.unsplit(to), Heard { bytes, clean, left })
}

async fn both(we_serve: bool, room: Option<u32>, limit: u64, peer_does: Script, app_does: Script) {
    let Bench { mut ends, peer, app } = Bench::new(we_serve, room).await;
    ends.session.set_seal_limit(limit);
    let rekey = peer.rekey.clone();
    let peer_side = async {
        let (peer, mut heard) = play(peer, &peer_does, Some(&rekey)).await;
        if heard.left {
            reset(peer.into_socket());
        } else {
            let mut peer = peer;
            heard.bytes.extend(peer.hear().await.0);
        }
        heard
    };
    let app_side = async {
        let (app, heard) = play(app, &app_does, None).await;
        if heard.left {
            reset(app);
        }
        heard
    };
    let (report, at_peer, at_app) = tokio::join!(relayed(ends), peer_side, app_side);
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
    fn any_schedule_ends_as_the_model_says(
        we_serve: bool,
        room in prop_oneof![Just(None), Just(Some(2048)), Just(Some(16_384))],
        limit in 1..20_u64,
        peer_does in script(),
        app_does in script(),
    ) {
        block_on(both(we_serve, room, limit, peer_does, app_does));
    }
}
