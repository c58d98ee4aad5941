//! Hands the connections that end at ourselves to the admin endpoint.

use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};

use super::shared::Control;
use crate::admin;
use crate::config::settings::{Listener, ListenerKind, OwnPages, Upstream};
use crate::connection::own::Visitor;

/// The connections that end at the admin endpoint, where a listener has any.
pub(super) fn visitors(control: &Control) -> Option<impl Stream<Item = admin::Handed> + Send + use<>> {
    let serves = |listener: &Arc<Listener>| {
        matches!(
            &listener.kind,
            ListenerKind::Inbound {
                upstream: Upstream::Own(_),
                ..
            }
        )
    };
    if !control.settings.listeners.iter().any(serves) {
        return None;
    }
    let visitors = ReceiverStream::new(control.live.own.visitors()?);
    Some(visitors.map(|Visitor { pages, stream }| admin::Handed {
        kind: match pages {
            OwnPages::Metrics => admin::Kind::Metrics,
            OwnPages::Admin => admin::Kind::ReadOnly,
        },
        stream,
    }))
}
