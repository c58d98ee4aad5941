//! The admin endpoint.

use super::listeners::{is_local, listen_advice};
use super::{CheckedAdmin, Context};
use crate::config::address;
use crate::config::settings::Admin;
use crate::yaml::{Fields, Findings};

pub(super) const ADMIN: &[&str] = &["listen", "probes", "token_file"];

pub(super) fn read(top: &Fields<'_>, context: &Context<'_>, findings: &mut Findings) -> Option<CheckedAdmin> {
    let node = top.get("admin")?;
    let fields = Fields::of(node, "admin", ADMIN, findings)?;
    let token_file = fields
        .text("token_file", findings)
        .map(|(text, _)| context.path(text));
    let probes = fields
        .text("probes", findings)
        .and_then(|(text, place)| match address::ip_and_port(text) {
            Ok(address) => Some((address, place)),
            Err(error) => {
                let help = listen_advice(text, &error, "0.0.0.0:15021");
                findings.error_with_help(place, format!("`admin.probes` is `{text}`: {error}"), help);
                None
            }
        });
    let (text, place) = fields.required_text("listen", "127.0.0.1:15000", findings)?;
    let listen = match address::listen(text) {
        Ok(listen) => listen,
        Err(error) => {
            let help = listen_advice(text, &error, "127.0.0.1:15000");
            findings.error_with_help(place, format!("`admin.listen` is `{text}`: {error}"), help);
            return None;
        }
    };
    if !is_local(&listen) {
        let message = format!("`admin.listen` is `{text}`: other machines must not reach the admin endpoint");
        let help =
            "listen on 127.0.0.1, [::1] or a unix socket; `admin.probes` serves health checks from elsewhere";
        findings.error_with_help(place, message, help);
    }
    let probes_place = probes.map(|(_, place)| place).unwrap_or_default();
    let settings = Admin {
        listen,
        probes: probes.map(|(address, _)| address),
        token_file,
    };
    Some(CheckedAdmin {
        settings,
        listen_place: place,
        probes_place,
    })
}
