//! Answers what the policy and the deny list in force say of a peer.

use serde_json::Value;

use super::state::View;
use crate::admin::{NoAnswer, Question};
use crate::config::listener_names;
use crate::connection::live::IdentityView;
use crate::policy::{CertificateFacts, Facts, question};
use crate::spiffe::TrustDomain;

impl View {
    /// As `policy explain` answers it, with what is in force.
    pub(super) fn explanation(&self, asked: &Question) -> Result<Value, NoAnswer> {
        let no = |error: String, hint: &str| NoAnswer {
            error,
            hint: hint.to_owned(),
        };
        let Question { to, from, source } = asked;
        let peer = question::peer(from).map_err(|why| {
            let hint = "`from` is the peer's SPIFFE ID: `spiffe://example.org/ns/shop/sa/storefront`";
            no(format!("`from` is `{from}`, which is no SPIFFE ID: {why}"), hint)
        })?;
        let running = self.running.load_full();
        question::inbound(to, &listener_names(&running.settings.listeners)).map_err(|why| {
            let hint = "`to` is the name of an inbound listener: policies decide about those";
            no(format!("`to` is `{to}`: {why}"), hint)
        })?;
        let (view, now) = (self.live.policy(), self.live.clock.now());
        let said = self.trust_domain();
        let own =
            question::own_trust_domain(said.as_ref(), &view.admission.policy, to, &peer).map_err(|rule| {
                let error = format!(
                    "rule `{rule}` has no `from` and so allows our own trust domain, which is not known yet"
                );
                no(
                    error,
                    "ask again when an SVID is held, or set `identity.trust_domain`",
                )
            })?;
        let facts = Facts {
            listener: to,
            peer: &peer,
            source: *source,
            own_trust_domain: &own,
            certificate: Some(CertificateFacts::unlisted(now)),
        };
        let explanation = view.admission.explain(&facts, now);
        serde_json::to_value(explanation)
            .map_err(|error| no(format!("it can't be written: {error}"), "please report this"))
    }

    /// Our own: of the SVID we hold, or else as the config says it.
    fn trust_domain(&self) -> Option<TrustDomain> {
        match &*self.live.identity() {
            IdentityView::Held(context) => Some(context.material.svid.id.trust_domain().clone()),
            IdentityView::Missing { .. } => self.own_trust_domain.clone(),
        }
    }
}
