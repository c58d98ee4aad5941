//! Scripts of what one side does, and the playing of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::pattern;
use crate::forward::relay::SETTLED;

/// Reads of a slow reader that a pause follows; it only gives way at the rest, so that no test takes long.
const SLOW_READS: usize = 48;
/// When a schedule hangs. The seconds that its rests skip count, too.
pub(in crate::forward) const HANG: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
enum Act {
    Write(usize),
    Yield,
    Pause,
    /// The connection has been quiet for so long that it settles: the session rests, buffers are trimmed.
    Rest,
    Rekey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::forward) enum Finish {
    End,
    Reset,
}

#[derive(Clone, Debug)]
pub(in crate::forward) struct Script {
    acts: Vec<Act>,
    pub(in crate::forward) finish: Finish,
    /// The most that is read at once, and then it pauses.
    sip: Option<usize>,
    /// It speaks only when it has heard the other side's end.
    listens_first: bool,
}

impl Script {
    pub(in crate::forward) fn total(&self) -> usize {
        let length = |act: &Act| if let Act::Write(length) = act { *length } else { 0 };
        self.acts.iter().map(length).sum()
    }
}

pub(in crate::forward) fn script() -> impl Strategy<Value = Script> {
    // The longest fill the largest buffer several times over.
    let length = prop_oneof![
        2 => Just(1),
        6 => 1..200_usize,
        6 => 1..40_000_usize,
        1 => 40_000..600_000_usize,
    ];
    let act = prop_oneof![
        8 => length.prop_map(Act::Write),
        4 => Just(Act::Yield),
        2 => Just(Act::Pause),
        1 => Just(Act::Rest),
        2 => Just(Act::Rekey),
    ];
    let finish = prop_oneof![5 => Just(Finish::End), 1 => Just(Finish::Reset)];
    let sip = prop_oneof![4 => Just(None), 1 => (500..9000_usize).prop_map(Some), 1 => (9000..300_000_usize).prop_map(Some)];
    (proptest::collection::vec(act, 0..14), finish, sip).prop_map(|(acts, finish, sip)| Script {
        acts,
        finish,
        sip,
        listens_first: false,
    })
}

/// The scripts of the peer and of the application: both speak at once, or one when the other has ended.
pub(in crate::forward) fn scripts() -> impl Strategy<Value = (Script, Script)> {
    (script(), script(), 0..4_u8).prop_map(|(mut peer, mut app, first)| {
        peer.listens_first = first == 1;
        app.listens_first = first == 2;
        (peer, app)
    })
}

/// What one side heard.
#[derive(Debug)]
pub(in crate::forward) struct Heard {
    pub(in crate::forward) bytes: Vec<u8>,
    pub(in crate::forward) clean: bool,
    /// It reset the connection itself, and heard nothing from then on.
    pub(in crate::forward) left: bool,
}

async fn listen(from: &mut (impl AsyncRead + Unpin), sip: Option<usize>, bytes: &mut Vec<u8>) -> bool {
    let mut buffer = vec![0; sip.unwrap_or(1 << 16)];
    let mut pauses = 0;
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return true,
            Ok(read) => bytes.extend(&buffer[..read]),
            Err(_) => return false,
        }
        if sip.is_some() && pauses < SLOW_READS {
            pauses += 1;
            tokio::time::sleep(Duration::from_micros(50)).await;
        } else if sip.is_some() {
            yield_now().await;
        }
    }
}

/// Moves the runtime's clock on, and lets it run again at once: real sockets need real time.
fn skip(time: Duration) {
    tokio::time::pause();
    // The clock is set at the first poll; what it waits for then is only that others get their turn.
    let _ = std::pin::pin!(tokio::time::advance(time)).poll(&mut Context::from_waker(Waker::noop()));
    tokio::time::resume();
}

/// A second of silence.
async fn rest() {
    tokio::time::sleep(Duration::from_millis(1)).await;
    skip(SETTLED);
    tokio::time::sleep(Duration::from_millis(1)).await;
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
            Act::Rest => rest().await,
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
pub(in crate::forward) async fn play<S: AsyncRead + AsyncWrite + Unpin>(
    io: S,
    script: &Script,
    rekey: Option<&AtomicBool>,
) -> (S, Heard) {
    let (mut from, mut to) = tokio::io::split(io);
    let mut bytes = Vec::new();
    let mut clean = None;
    let outcome;
    {
        let cue = Notify::new();
        let listening = async {
            let how = listen(&mut from, script.sip, &mut bytes).await;
            cue.notify_one();
            how
        };
        let speaking = async {
            if script.listens_first {
                cue.notified().await;
            }
            speak(&mut to, script, rekey).await
        };
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
