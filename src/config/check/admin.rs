//! The admin endpoint.

use super::CheckedAdmin;
use super::listeners::{is_local, listen_advice};
use crate::config::address;
use crate::config::settings::Admin;
use crate::yaml::{Fields, Findings};

pub(super) fn read(top: &Fields<'_>, findings: &mut Findings) -> Option<CheckedAdmin> {
    let node = top.get("admin")?;
    let fields = Fields::of(node, "admin", &["listen", "probes", "token_file"], findings)?;
    if let Some(place) = fields.key_place("token_file") {
        let help = "take the line out: nothing on the admin endpoint changes state in this version";
        findings.error_with_help(place, "`admin.token_file` is not in this version", help);
    }
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
    };
    Some(CheckedAdmin {
        settings,
        listen_place: place,
        probes_place,
    })
}
