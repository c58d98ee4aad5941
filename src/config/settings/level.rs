//! The log's filter as a person writes it: one reader for the config file and for the admin endpoint.

/// The levels, from the fewest lines to the most.
pub const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The longest name of a module.
const MAX_MODULE: usize = 128;

/// A part of a filter that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{directive}` is no log level: expected one of {}, or `module=level`, separated by commas",
    LEVELS.join(", ")
)]
pub struct NoLevel {
    /// The part as it was written.
    pub directive: String,
    /// What stands where the level should.
    pub level: String,
}

/// Reads a level (`info`) or directives (`info,svidecar::identity=debug`), in any case and with blanks around them, and
/// gives them in the one form that `tracing` takes. It is the part of `tracing`'s syntax that cannot be mistaken: there, a
/// misspelt level alone is taken for the name of a module, and turns everything else off.
///
/// # Errors
/// Every part that is no directive, in order.
pub fn log_directives(text: &str) -> Result<String, Vec<NoLevel>> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for directive in text.split(',').map(str::trim) {
        let (module, word) = match directive.rsplit_once('=') {
            Some((module, level)) => (Some(module.trim()), level.trim()),
            None => (None, directive),
        };
        let level = LEVELS.iter().find(|level| level.eq_ignore_ascii_case(word));
        match (level, module) {
            (Some(level), None) => good.push((*level).to_owned()),
            (Some(level), Some(module)) if is_module(module) => good.push(format!("{module}={level}")),
            _ => bad.push(NoLevel {
                directive: directive.to_owned(),
                level: word.to_owned(),
            }),
        }
    }
    if bad.is_empty() {
        Ok(good.join(","))
    } else {
        Err(bad)
    }
}

fn is_module(name: &str) -> bool {
    (1..=MAX_MODULE).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_blanks_play_no_part() {
        for (text, read) in [
            ("info", "info"),
            (" INFO ", "info"),
            ("Warn", "warn"),
            ("info,svidecar::identity=debug", "info,svidecar::identity=debug"),
            ("svidecar = TRACE , warn", "svidecar=trace,warn"),
        ] {
            assert_eq!(log_directives(text).as_deref(), Ok(read), "{text}");
        }
    }

    #[test]
    fn every_part_that_is_none_is_named() {
        for (text, wrong) in [
            ("", vec![""]),
            ("inof", vec!["inof"]),
            ("svidecar::identity", vec!["svidecar::identity"]),
            ("info,", vec![""]),
            ("loud, info, svidecar=5", vec!["loud", "svidecar=5"]),
            ("debug;trace", vec!["debug;trace"]),
            ("=info", vec!["=info"]),
            ("[span]=info", vec!["[span]=info"]),
            ("a b=info", vec!["a b=info"]),
        ] {
            let found = log_directives(text).unwrap_err();
            let found: Vec<_> = found.iter().map(|bad| bad.directive.as_str()).collect();
            assert_eq!(found, wrong, "{text}");
        }
        let long = format!("{}=info", "m".repeat(MAX_MODULE + 1));
        log_directives(&long).unwrap_err();
    }
}
