//! Hands the connections that end at ourselves to the admin endpoint.

use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};

use super::shared::Control;
use crate::admin;
use crate::config::settings::OwnPages;
use crate::connection::own::Visitor;

/// The connections that end at the admin endpoint, once a listener has any; `None` when somebody takes them already.
pub(super) fn visitors(control: &Control) -> Option<impl Stream<Item = admin::Handed> + Send + use<>> {
    let visitors = ReceiverStream::new(control.live.own.visitors()?);
    Some(visitors.map(|Visitor { pages, stream }| admin::Handed {
        kind: match pages {
            OwnPages::Metrics => admin::Kind::Metrics,
            OwnPages::Admin => admin::Kind::ReadOnly,
        },
        stream,
    }))
}
