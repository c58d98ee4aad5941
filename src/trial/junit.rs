//! JUnit's XML, which CI systems show as a list of tests.
//!
//! Our own few lines: what libraries there are for it bring a calendar, random numbers and an XML parser, for five escapes.

use std::fmt::Write as _;

/// One file of tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Its name: the file's.
    pub name: String,
    /// Its tests.
    pub cases: Vec<Case>,
}

/// One test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// What went wrong; none for a test that passed.
    pub failure: Option<Failure>,
}

/// What went wrong in a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In one line.
    pub message: String,
    /// In full.
    pub text: String,
}

/// The document.
#[must_use]
pub fn document(suites: &[Suite]) -> String {
    let mut out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n".to_owned();
    for suite in suites {
        let failures = suite.cases.iter().filter(|case| case.failure.is_some()).count();
        let _ = writeln!(
            out,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\">",
            escaped(&suite.name),
            suite.cases.len()
        );
        for case in &suite.cases {
            write_case(&mut out, &suite.name, case);
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>");
    out
}

fn write_case(out: &mut String, suite: &str, case: &Case) {
    let _ = write!(
        out,
        "    <testcase classname=\"{}\" name=\"{}\"",
        escaped(suite),
        escaped(&case.name)
    );
    match &case.failure {
        None => out.push_str("/>\n"),
        Some(Failure { message, text }) => {
            let _ = write!(
                out,
                ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>\n",
                escaped(message),
                escaped(text)
            );
        }
    }
}

/// Text for an attribute or an element (XML 1.0 sections 2.2 and 2.4). What XML has no way to write becomes U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // A reader would make a space of these in an attribute.
            '\n' | '\t' | '\r' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_becomes_markup() {
        let text = "a<b> & \"c\"\n\u{1}]]>\u{ffff}é";
        let suites = [Suite {
            name: "x\".test.yaml".to_owned(),
            cases: vec![
                Case {
                    name: "good".to_owned(),
                    failure: None,
                },
                Case {
                    name: text.to_owned(),
                    failure: Some(Failure {
                        message: text.to_owned(),
                        text: text.to_owned(),
                    }),
                },
            ],
        }];
        let escaped = "a&lt;b&gt; &amp; &quot;c&quot;&#10;\u{fffd}]]&gt;\u{fffd}é";
        let expected = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuites>
  <testsuite name=\"x&quot;.test.yaml\" tests=\"2\" failures=\"1\">
    <testcase classname=\"x&quot;.test.yaml\" name=\"good\"/>
    <testcase classname=\"x&quot;.test.yaml\" name=\"{escaped}\">
      <failure message=\"{escaped}\">{escaped}</failure>
    </testcase>
  </testsuite>
</testsuites>"
        );
        assert_eq!(document(&suites), expected);
    }
}
