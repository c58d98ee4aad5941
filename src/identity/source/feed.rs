//! What the source says, as words in a channel: the Workload API and files look alike from here.

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::config::settings::{Address, IdentitySource};
use crate::identity::files;
use crate::identity::update::Answer;
use crate::identity::workload_api::{End, subscribe};

/// A word of the source.
pub(super) enum Word {
    /// The connection stands.
    Connected,
    /// An answer, unchecked.
    Answer(Answer),
    /// Nothing usable for now; the feed goes on.
    Trouble(String),
    /// Nothing more will come from this feed.
    End(End),
}

/// A connection to the source, or the attempt at one. Dropping it ends it.
pub(super) struct Feed {
    words: mpsc::Receiver<Word>,
    task: AbortHandle,
}

impl Feed {
    /// Connects.
    pub(super) fn start(source: &IdentitySource) -> Self {
        // Of one: a source that talks fast waits for us.
        let (sender, words) = mpsc::channel(1);
        let task = match source.clone() {
            IdentitySource::WorkloadApi(address) => tokio::spawn(follow(address, sender)),
            IdentitySource::Files(paths) => tokio::spawn(files::follow(paths, move |seen| {
                let sender = sender.clone();
                async move {
                    let word = match seen {
                        Ok(answer) => Word::Answer(answer),
                        Err(error) => Word::Trouble(error.to_string()),
                    };
                    sender.send(word).await.is_ok()
                }
            })),
        };
        Self {
            words,
            task: task.abort_handle(),
        }
    }

    /// The next word.
    pub(super) async fn next(&mut self) -> Word {
        match self.words.recv().await {
            Some(word) => word,
            None => Word::End(End::Lost(
                "the connection to the identity source ended".to_owned(),
            )),
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(address: Address, words: mpsc::Sender<Word>) {
    let end = async {
        let mut subscription = subscribe(&address).await?;
        if words.send(Word::Connected).await.is_err() {
            return Ok(());
        }
        loop {
            if words
                .send(Word::Answer(subscription.next().await?))
                .await
                .is_err()
            {
                return Ok(());
            }
        }
    };
    if let Err(end) = end.await {
        // A receiver that is gone wants no last word.
        let _ = words.send(Word::End(end)).await;
    }
}
