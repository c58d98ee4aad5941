//! The two text forms of metrics.
//!
//! prometheus-client writes OpenMetrics 1.0. Scrapers that do not ask for it expect the older Prometheus text
//! format 0.0.4, where a counter is described under its full name with `_total`, and exemplars, the types `info` and
//! `unknown`, `# UNIT` and `# EOF` do not exist.

use std::fmt::Write as _;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// A text form of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus text format 0.0.4.
    Prometheus,
}

impl Exposition {
    /// What to send to a client with this `Accept` header: OpenMetrics where the client asks for it by name at
    /// least as strongly as for anything else we have.
    #[must_use]
    pub fn negotiate(accept: &str) -> Self {
        let (mut open, mut plain) = (0.0_f32, 0.0_f32);
        for range in accept.split(',') {
            let mut parameters = range.split(';').map(str::trim);
            let media_type = parameters.next().unwrap_or("");
            let quality = parameters
                .find_map(|p| p.strip_prefix("q="))
                .map_or(1.0, quality_value);
            if media_type.eq_ignore_ascii_case("application/openmetrics-text") {
                open = open.max(quality);
            } else if ["text/plain", "text/*", "*/*"]
                .iter()
                .any(|t| media_type.eq_ignore_ascii_case(t))
            {
                plain = plain.max(quality);
            }
        }
        if open > 0.0 && open >= plain {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The value of `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// A quality value (RFC 9110 section 12.4.2); what is none counts as unacceptable.
fn quality_value(text: &str) -> f32 {
    text.parse::<f32>()
        .ok()
        .filter(|q| (0.0..=1.0).contains(q))
        .unwrap_or(0.0)
}

pub(super) fn encode(registry: &Registry, exposition: Exposition) -> String {
    let mut open = String::new();
    // Writing to a string does not fail; a metric that cannot be written is left out rather than hidden with all.
    let _ = text::encode(&mut open, registry);
    match exposition {
        Exposition::OpenMetrics => open,
        Exposition::Prometheus => to_prometheus(&open),
    }
}

fn to_prometheus(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut help = None;
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Held back: the name to describe depends on the type, which comes next.
            help = rest.split_once(' ').map(|(_, text)| text);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            let help = help.take().unwrap_or("");
            let _ = writeln!(out, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with("# ") {
            out.push_str(without_exemplar(line));
            out.push('\n');
        }
    }
    out
}

/// A sample up to its value. What begins an exemplar may also stand in a label's value, between quotes.
fn without_exemplar(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (place, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '#' if !quoted => return line.get(..place).unwrap_or(line).trim_end(),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_decides() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            ("", Exposition::Prometheus),
            ("*/*", Exposition::Prometheus),
            ("text/html, */*;q=0.8", Exposition::Prometheus),
            (
                "application/openmetrics-text; version=1.0.0",
                Exposition::OpenMetrics,
            ),
            ("Application/OpenMetrics-Text", Exposition::OpenMetrics),
            ("application/openmetrics-text;q=0", Exposition::Prometheus),
            ("application/openmetrics-text;q=nonsense", Exposition::Prometheus),
            (
                "application/openmetrics-text;q=0.3, text/plain;q=0.9",
                Exposition::Prometheus,
            ),
            (prometheus_3, Exposition::OpenMetrics),
        ] {
            assert_eq!(Exposition::negotiate(accept), expected, "{accept}");
        }
    }

    #[test]
    fn exemplars_are_left_out_where_they_are_unknown() {
        for (line, expected) in [
            ("a_total 1", "a_total 1"),
            ("a_total{x=\"y\"} 1 # {id=\"4f-1\"} 1.0 1.5", "a_total{x=\"y\"} 1"),
            ("a_total 1 # {id=\"4f-1\"} 1.0", "a_total 1"),
            (
                "a_total{x=\"y \\\" # {\"} 1 # {id=\"a\"} 1",
                "a_total{x=\"y \\\" # {\"} 1",
            ),
            ("a_total{x=\"# y\\\\\"} 1 # {} 1", "a_total{x=\"# y\\\\\"} 1"),
        ] {
            assert_eq!(without_exemplar(line), expected);
        }
    }

    #[test]
    fn describes_what_prometheus_text_describes() {
        let open = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total{x=\"# y\"} 1\n\
            # HELP b About.\n# TYPE b info\nb_info{v=\"1\"} 1\n\
            # HELP h_seconds Took.\n# TYPE h_seconds histogram\n# UNIT h_seconds seconds\nh_seconds_count 0\n# EOF\n";
        assert_eq!(
            to_prometheus(open),
            "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total{x=\"# y\"} 1\n\
             # HELP b_info About.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n\
             # HELP h_seconds Took.\n# TYPE h_seconds histogram\nh_seconds_count 0\n"
        );
    }
}
